//! [`echo`]: a link joined with itself.
//!
//! Uses `link` and `codec`; the command uses it for `echo:`.

use std::{future::Future, pin::pin};

use tokio::io::{AsyncRead, AsyncWrite};

use super::bridge::{Direction, Observer, Report};
use crate::{
    Error, Link,
    codec::{Codec, Encode},
};

/// Sends each message back as the kind that it came as, before the next is looked at, until the peer ends or `stop`
/// completes. Answers to what one read brought share a write. The link is not closed.
///
/// # Cancel safety
/// Safe: each message is sent back whole or not at all. One that was received and waits to be sent is lost.
pub async fn echo<C, R, W, O>(link: &mut Link<C, R, W>, observer: &O, stop: impl Future) -> Report
where
    C: Codec,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
    O: Observer + ?Sized,
{
    let mut report = Report::new();
    let (sender, receiver) = link.halves();
    let mut stop = pin!(stop);
    loop {
        let received = {
            let mut receive = pin!(receiver.receive_with_kind());
            std::future::poll_fn(|cx| {
                if let std::task::Poll::Ready(received) = receive.as_mut().poll(cx) {
                    return std::task::Poll::Ready(Some(received));
                }
                stop.as_mut().poll(cx).map(|_| None)
            })
            .await
        };
        let (kind, payload) = match received {
            None => return report,
            Some(Ok(received)) => received,
            Some(Err(error)) if error.is_fatal() => {
                report.to_backend.received = Some(error);
                return report;
            }
            Some(Err(error)) => {
                report.to_backend.dropped += 1;
                observer.dropped(Direction::ToBackend, &error);
                continue;
            }
        };
        observer.message(Direction::ToBackend, payload);
        report.to_backend.messages += 1;
        report.to_backend.bytes += payload.len() as u64;
        sender.encoder_mut().set_kind(kind);
        match sender.send(payload).await {
            Ok(()) => {
                observer.message(Direction::ToClient, payload);
                report.to_client.messages += 1;
                report.to_client.bytes += payload.len() as u64;
            }
            Err(error @ Error::Rejected(_)) => {
                report.to_client.dropped += 1;
                observer.dropped(Direction::ToClient, &error);
            }
            Err(error) => {
                report.to_client.lost += 1;
                report.to_client.sent = Some(error);
                return report;
            }
        }
    }
}
