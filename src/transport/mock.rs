//! [`MockTransport`]: scripted answers, captured sends, for the tests of those who build on a transport.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use super::{PollTransport, TransportError};
use crate::{
    Error, Frame, Result,
    error::{End, Fault},
};

/// A transport that answers by a script and remembers what was sent. Clones share the script, so that a test keeps one
/// and hands the other to the code under test.
///
/// `receive` with nothing scripted fails with `Format` "No response available", as AIRS's does; after
/// [`wait_when_empty`](Self::wait_when_empty) it waits for the next [`add_response`](Self::add_response) instead.
#[derive(Debug, Clone, Default)]
pub struct MockTransport {
    script: Arc<Mutex<Script>>,
    lent: Vec<u8>,
}

#[derive(Debug, Default)]
struct Script {
    responses: VecDeque<Response>,
    sent: Vec<Vec<u8>>,
    closed: bool,
    wait_when_empty: bool,
    /// Bytes that may still be sent before sending fails.
    send_budget: Option<usize>,
    /// Bytes that may still be received before receiving fails.
    receive_budget: Option<usize>,
    waiting: Option<Waker>,
}

#[derive(Debug)]
enum Response {
    Message(Vec<u8>),
    Failure(Error),
}

impl MockTransport {
    /// A transport with an empty script.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, response: Response) {
        let mut script = self.lock();
        script.responses.push_back(response);
        if let Some(waker) = script.waiting.take() {
            drop(script);
            waker.wake();
        }
    }

    /// Scripts the next message to be received.
    #[allow(clippy::unused_async)] // the name and the form are AIRS's
    pub async fn add_response(&self, message: Vec<u8>) {
        self.push_response(message);
    }

    /// Scripts the next message to be received.
    pub fn push_response(&self, message: impl Into<Vec<u8>>) {
        self.push(Response::Message(message.into()));
    }

    /// Scripts a fault of one message: the receive after it goes on.
    pub fn push_fault(&self, fault: Fault) {
        self.push(Response::Failure(fault.into()));
    }

    /// Scripts an I/O error.
    pub fn push_error(&self, error: io::Error) {
        self.push(Response::Failure(error.into()));
    }

    /// Scripts the end of the stream.
    pub fn push_end(&self) {
        self.push(Response::Failure(Error::Ended(End::Eof)));
    }

    /// Makes `receive` wait for the next scripted message instead of failing.
    #[must_use]
    pub fn wait_when_empty(self) -> Self {
        self.lock().wait_when_empty = true;
        self
    }

    /// Lets `bytes` bytes be sent, then sending fails with `BrokenPipe`.
    #[must_use]
    pub fn fail_sending_after(self, bytes: usize) -> Self {
        self.lock().send_budget = Some(bytes);
        self
    }

    /// Lets `bytes` bytes be received, then receiving fails with `ConnectionReset`.
    #[must_use]
    pub fn fail_receiving_after(self, bytes: usize) -> Self {
        self.lock().receive_budget = Some(bytes);
        self
    }

    /// Copies of all messages sent so far, in order.
    #[allow(clippy::unused_async)] // the name and the form are AIRS's
    pub async fn get_sent_messages(&self) -> Vec<Vec<u8>> {
        self.lock().sent.clone()
    }

    /// All messages sent since the last call, in order.
    #[must_use]
    pub fn take_sent_messages(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.lock().sent)
    }

    /// How many messages were sent and not taken.
    #[must_use]
    pub fn sent_count(&self) -> usize {
        self.lock().sent.len()
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>>> {
        let mut script = self.lock();
        if script.closed {
            return Poll::Ready(Err(Error::Ended(End::Closed)));
        }
        match script.responses.pop_front() {
            Some(Response::Message(message)) => {
                if let Some(budget) = &mut script.receive_budget {
                    match budget.checked_sub(message.len()) {
                        Some(left) => *budget = left,
                        None => {
                            *budget = 0;
                            return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionReset).into()));
                        }
                    }
                }
                Poll::Ready(Ok(message))
            }
            Some(Response::Failure(error)) => Poll::Ready(Err(error)),
            None if script.wait_when_empty => {
                script.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            None => {
                let error = TransportError::format("No response available");
                Poll::Ready(Err(Error::Io(io::Error::other(error))))
            }
        }
    }
}

impl PollTransport for MockTransport {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        self.poll_next(cx).map_ok(Frame::from)
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        self.lent = ready!(self.poll_next(cx))?;
        Poll::Ready(Ok(&mut self.lent))
    }

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        if self.lock().closed {
            return Poll::Ready(Err(Error::Ended(End::Closed)));
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        let mut script = self.lock();
        if script.closed {
            return Err(Error::Ended(End::Closed));
        }
        if let Some(budget) = &mut script.send_budget {
            match budget.checked_sub(payload.len()) {
                Some(left) => *budget = left,
                None => {
                    *budget = 0;
                    return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
                }
            }
        }
        script.sent.push(payload.to_vec());
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        let mut script = self.lock();
        script.closed = true;
        if let Some(waker) = script.waiting.take() {
            drop(script);
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn is_connected(&self) -> bool {
        !self.lock().closed
    }

    fn transport_type(&self) -> &'static str {
        "mock"
    }
}
