//! The body of a request, read within its limits.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tokio::time::sleep;

/// Memory that is asked for at once, in bytes: more only once as much has come.
const STEP: usize = 64 * 1024;

/// Why there is no body.
#[derive(Debug)]
pub(super) enum NoBody {
    TooLarge,
    TooSlow,
    Broken,
}

/// Reads `body`, of at most `limit` bytes, which is said to have `declared`. Each piece has to come within `patience`.
///
/// A body of one piece is not copied. Memory is asked for as bytes come, not as they are declared.
pub(super) async fn read<B>(
    body: &mut B,
    limit: usize,
    declared: Option<u64>,
    patience: Duration,
) -> Result<Bytes, NoBody>
where
    B: Body<Data = Bytes> + Unpin,
{
    if declared.is_some_and(|declared| declared > limit as u64) {
        return Err(NoBody::TooLarge);
    }
    let declared = declared.and_then(|declared| usize::try_from(declared).ok()).unwrap_or(0);
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(piece) = next(body, patience).await? {
        let have = first.len() + whole.len();
        if piece.len() > limit - have {
            return Err(NoBody::TooLarge);
        }
        if have == 0 {
            first = piece;
            continue;
        }
        let needed = have + piece.len();
        if !first.is_empty() {
            whole.reserve(needed.max(declared.min(STEP)));
            whole.extend_from_slice(&first);
            first = Bytes::new();
        }
        if whole.capacity() < needed {
            // Twice what is here, but not beyond what is to come.
            let most = if declared >= needed { declared } else { limit };
            whole.reserve((2 * have).min(most).max(needed) - have);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

async fn next<B>(body: &mut B, patience: Duration) -> Result<Option<Bytes>, NoBody>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut late = None;
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                return Poll::Ready(Ok(frame));
            }
            // Most bodies are there already.
            let late = late.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(late.as_mut().poll(cx));
            Poll::Ready(Err(NoBody::TooSlow))
        })
        .await?;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(NoBody::Broken),
            // Trailers say nothing here.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}
