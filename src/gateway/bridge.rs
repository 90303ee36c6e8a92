//! [`Bridge`]: forwards whole messages both ways between two links until both directions have ended.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    Error, Link, Result,
    codec::{Codec, Decode, Encode},
    link::{Receiver, Sender},
};

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first link, the client's, to the second, the backend's.
    ToBackend,
    /// From the backend's to the client's.
    ToClient,
}

/// Is told what passes. Every method has an empty default.
pub trait Observer {
    /// A message that is about to be passed on. Its bytes come from a peer: escape them before they are shown.
    fn message(&self, direction: Direction, payload: &[u8]) {
        let _ = (direction, payload);
    }

    /// A message that was left out: the receiving codec found a fault ([`Error::Fault`]), or the framing of the other
    /// side cannot carry it ([`Error::Rejected`]). The stream goes on.
    fn dropped(&self, direction: Direction, error: &Error) {
        let _ = (direction, error);
    }
}

/// The observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// How two links are joined.
///
/// Messages pass as they are: payload bytes are never changed, only the framing around them is that of each side. All
/// messages that one read brought leave in one write. A side that does not read holds back only the one that sends to
/// it.
///
/// When one side ends, what it sent before is delivered and then the other side's input is closed; the way back stays
/// open until it ends by itself or is silent for too long.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Bridge {
    /// How long the backend may be silent once the client has ended. Default: 30 s.
    ///
    /// A client that half-closes still gets its answers; one that was killed looks the same over TCP, so there has to
    /// be an end.
    pub linger: Duration,
    /// How long the client may be silent once the backend has ended. Default: 1 s, only for it to see the end and
    /// close: cutting a TCP connection with unread bytes would cost it the last answers.
    pub parting: Duration,
}

impl Default for Bridge {
    fn default() -> Self {
        Self { linger: Duration::from_secs(30), parting: Duration::from_secs(1) }
    }
}

/// What went one way.
#[derive(Debug)]
#[non_exhaustive]
pub struct Passed {
    /// Messages passed on.
    pub messages: u64,
    /// Their bytes of payload.
    pub bytes: u64,
    /// Messages left out, see [`Observer::dropped`].
    pub dropped: u64,
    /// Messages that came when the other side could take no more.
    pub lost: u64,
    /// How receiving ended; `None` when it was stopped.
    pub received: Option<Error>,
    /// Why nothing more could be sent; `None` while it could.
    pub sent: Option<Error>,
}

/// What a bridge did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// From the client to the backend.
    pub to_backend: Passed,
    /// From the backend to the client.
    pub to_client: Passed,
    /// Which direction ended first.
    pub first: Option<Direction>,
    /// Whether the other side was silent for so long that it was given up.
    pub gave_up: bool,
}

impl Bridge {
    /// Joins `client` and `backend` until both directions have ended. When `stop` completes, no more is read from the
    /// client; what it sent before is delivered, the backend's input is closed, and its answers still pass.
    ///
    /// # Cancel safety
    /// Safe: each message is passed on whole or not at all. One that was received and waits to be sent is lost.
    ///
    /// # Panics
    /// On a tokio runtime whose timer is not enabled.
    pub async fn run<C1, R1, W1, C2, R2, W2, O>(
        &self,
        client: &mut Link<C1, R1, W1>,
        backend: &mut Link<C2, R2, W2>,
        observer: &O,
        stop: impl Future,
    ) -> Report
    where
        C1: Codec,
        C1::Decoder: Decode,
        C1::Encoder: Encode,
        R1: AsyncRead + Unpin,
        W1: AsyncWrite + Unpin + Send + 'static,
        C2: Codec,
        C2::Decoder: Decode,
        C2::Encoder: Encode,
        R2: AsyncRead + Unpin,
        W2: AsyncWrite + Unpin + Send + 'static,
        O: Observer + ?Sized,
    {
        let (client_sender, client_receiver) = client.halves();
        let (backend_sender, backend_receiver) = backend.halves();
        let (out, back) = (Progress::default(), Progress::default());
        let mut report =
            Report { to_backend: Passed::new(), to_client: Passed::new(), first: None, gave_up: false };

        {
            let stop = pin!(stop);
            let never = pin!(std::future::pending::<()>());
            let to_backend = Flow {
                direction: Direction::ToBackend,
                from: client_receiver,
                to: backend_sender,
                observer,
                progress: &out,
            };
            let to_client = Flow {
                direction: Direction::ToClient,
                from: backend_receiver,
                to: client_sender,
                observer,
                progress: &back,
            };
            let mut to_backend = pin!(to_backend.run(stop, &mut report.to_backend));
            let mut to_client = pin!(to_client.run(never, &mut report.to_client));
            let mut sleep: Option<(Pin<Box<tokio::time::Sleep>>, u64)> = None;
            let (mut out_done, mut back_done) = (false, false);
            poll_fn(|cx| {
                out_done = out_done || to_backend.as_mut().poll(cx).is_ready();
                back_done = back_done || to_client.as_mut().poll(cx).is_ready();
                let (first, left, patience) = match (out_done, back_done) {
                    (true, true) => return Poll::Ready(()),
                    (false, false) => return Poll::Pending,
                    (true, false) => (Direction::ToBackend, &back, self.linger),
                    (false, true) => (Direction::ToClient, &out, self.parting),
                };
                report.first.get_or_insert(first);
                loop {
                    let seen = left.0.load(Relaxed);
                    let (sleep, at) =
                        sleep.get_or_insert_with(|| (Box::pin(tokio::time::sleep(patience)), seen));
                    if *at != seen {
                        *at = seen;
                        if let Some(deadline) = Instant::now().checked_add(patience) {
                            sleep.as_mut().reset(deadline);
                        }
                    }
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if *at == left.0.load(Relaxed) {
                        report.gave_up = true;
                        return Poll::Ready(());
                    }
                }
            })
            .await;
        }
        report
    }
}

impl Passed {
    fn new() -> Self {
        Self { messages: 0, bytes: 0, dropped: 0, lost: 0, received: None, sent: None }
    }
}

/// How many messages have passed, seen from outside the flow.
#[derive(Default)]
struct Progress(AtomicU64);

/// One direction.
struct Flow<'a, D, R, W, E, X, O: ?Sized>
where
    W: AsyncWrite + Unpin + Send + 'static,
    X: AsyncWrite + Unpin + Send + 'static,
{
    direction: Direction,
    from: &'a mut Receiver<D, R, W>,
    to: &'a mut Sender<E, X>,
    observer: &'a O,
    progress: &'a Progress,
}

impl<D, R, W, E, X, O> Flow<'_, D, R, W, E, X, O>
where
    D: Decode,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
    E: Encode,
    X: AsyncWrite + Unpin + Send + 'static,
    O: Observer + ?Sized,
{
    async fn run(mut self, mut stop: Pin<&mut impl Future>, passed: &mut Passed) {
        loop {
            let received = {
                let mut receive = pin!(self.from.receive_with_kind());
                poll_fn(|cx| match receive.as_mut().poll(cx) {
                    Poll::Ready(received) => Poll::Ready(Some(received)),
                    Poll::Pending => stop.as_mut().poll(cx).map(|_| None),
                })
                .await
            };
            match received {
                Some(Ok((kind, payload))) => {
                    let passing = Passing { direction: self.direction, observer: self.observer };
                    self.to.encoder_mut().set_kind(kind);
                    passing.pass(payload, self.to, passed).await;
                    // What the same read brought goes into the same write.
                    loop {
                        match self.from.receive_ready_with_kind() {
                            Ok(Some((kind, payload))) => {
                                self.to.encoder_mut().set_kind(kind);
                                passing.pass(payload, self.to, passed).await;
                            }
                            Ok(None) => break,
                            Err(error) if error.is_fatal() => break,
                            Err(error) => passing.drop(&error, passed),
                        }
                    }
                    self.flush(passed).await;
                }
                Some(Err(error)) if error.is_fatal() => {
                    passed.received = Some(error);
                    break;
                }
                Some(Err(error)) => {
                    Passing { direction: self.direction, observer: self.observer }.drop(&error, passed);
                    // The faulty one is gone; what stands behind it is looked at by the next call.
                    self.flush(passed).await;
                }
                None => break,
            }
        }
        if let Err(error) = self.to.close().await {
            passed.sent.get_or_insert(error);
        }
    }

    async fn flush(&mut self, passed: &mut Passed) {
        if passed.sent.is_none()
            && let Err(error) = self.to.flush().await
        {
            passed.sent = Some(error);
        }
        self.progress.0.store(passed.messages, Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Passing<'a, O: ?Sized> {
    direction: Direction,
    observer: &'a O,
}

impl<O: Observer + ?Sized> Passing<'_, O> {
    async fn pass<E, X>(&self, payload: &[u8], to: &mut Sender<E, X>, passed: &mut Passed)
    where
        E: Encode,
        X: AsyncWrite + Unpin + Send + 'static,
    {
        if passed.sent.is_some() {
            passed.lost += 1;
            return;
        }
        self.observer.message(self.direction, payload);
        match send(to, payload).await {
            Ok(()) => {
                passed.messages += 1;
                passed.bytes += payload.len() as u64;
            }
            Err(error) if error.is_fatal() => {
                passed.lost += 1;
                passed.sent = Some(error);
            }
            Err(error) => self.drop(&error, passed),
        }
    }

    fn drop(&self, error: &Error, passed: &mut Passed) {
        passed.dropped += 1;
        self.observer.dropped(self.direction, error);
    }
}

/// Small messages are gathered until the flush; large ones go where they are to go without being gathered first.
async fn send<E, X>(to: &mut Sender<E, X>, payload: &[u8]) -> Result<()>
where
    E: Encode,
    X: AsyncWrite + Unpin + Send + 'static,
{
    if payload.len() < crate::limits::VECTORED_THRESHOLD {
        to.feed(payload).await
    } else {
        to.send(payload).await
    }
}
