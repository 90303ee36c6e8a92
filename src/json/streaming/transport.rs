//! [`StreamingTransport`]: a transport whose messages are looked at as they come.

use std::{
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use super::{
    BufferStats, Check, ParsedMessage, StreamingConfig, StreamingError, StreamingParser, StreamingStats,
};
use crate::{Error, Frame, Result, buffer::BufferManager, codec::Kind, transport::PollTransport};

/// A transport that receives messages of JSON-RPC only, and is a transport itself. A message that is none is a
/// [fault](Error::Fault), after which the stream goes on; nothing that passes is changed.
///
/// [`receive_parsed`](Self::receive_parsed) and [`send_parsed`](Self::send_parsed) take `&self`, and one may run while the
/// other waits: what they share is held only while something is done, never while it is waited for.
#[derive(Debug)]
pub struct StreamingTransport<T> {
    inner: Mutex<Inner<T>>,
    /// The transport's own, to be lent without a lock.
    buffers: BufferManager,
}

#[derive(Debug)]
struct Inner<T> {
    transport: T,
    check: Check,
    stats: StreamingStats,
    /// Of messages that come from elsewhere.
    parser: StreamingParser,
}

impl<T> Inner<T> {
    /// Looks at a message that came, and counts it.
    fn look(check: &mut Check, stats: &mut StreamingStats, message: &[u8]) -> Result<()> {
        let checked = check.envelope(message).map(|envelope| match envelope.kind() {
            crate::json::Kind::Batch => Some(envelope.elements().count()),
            _ => None,
        });
        Self::count(stats, message.len(), checked)
    }

    fn count(
        stats: &mut StreamingStats,
        size: usize,
        checked: Result<Option<usize>, StreamingError>,
    ) -> Result<()> {
        match checked {
            Ok(batch) => {
                stats.record_success(size);
                // Its bytes are those of one message; of its messages the others are counted here.
                if let Some(messages) = batch {
                    stats.record_batch(messages.saturating_sub(1));
                }
                Ok(())
            }
            Err(error) => {
                stats.record_error();
                Err(Error::Fault(error.fault(size)))
            }
        }
    }
}

impl<T: PollTransport> StreamingTransport<T> {
    /// Puts it on `transport`.
    #[must_use]
    pub fn new(transport: T, config: StreamingConfig) -> Self {
        let buffers = transport.buffers().clone();
        let (check, stats) = (Check::new(&config), StreamingStats::new());
        let inner = Inner { transport, check, stats, parser: StreamingParser::new(config) };
        Self { inner: Mutex::new(inner), buffers }
    }

    /// With the default configuration.
    #[must_use]
    pub fn new_default(transport: T) -> Self {
        Self::new(transport, StreamingConfig::default())
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Counts and transports are whole between calls, whatever panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner(&mut self) -> &mut Inner<T> {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next message. One task at a time.
    ///
    /// # Errors
    /// A fault of one message, after which the next call goes on; else those of the transport.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn receive_parsed(&self) -> Result<ParsedMessage> {
        poll_fn(|cx| {
            let mut inner = self.lock();
            let Inner { transport, check, stats, .. } = &mut *inner;
            let frame = match ready!(transport.poll_receive(cx)) {
                Ok(frame) => frame,
                Err(error) => {
                    if matches!(error, Error::Fault(_)) {
                        stats.record_error();
                    }
                    return Poll::Ready(Err(error));
                }
            };
            Inner::<T>::look(check, stats, &frame)?;
            Poll::Ready(ParsedMessage::of_checked(frame).map_err(|error| Error::Fault(error.fault(0))))
        })
        .await
    }

    /// Sends one message and waits until it is written, also while another task waits in
    /// [`receive_parsed`](Self::receive_parsed). One task at a time.
    ///
    /// # Errors
    /// Those of the transport. A message is never sent a second time.
    ///
    /// # Cancel safety
    /// Safe: the message leaves whole or not at all.
    pub async fn send_parsed(&self, message: &ParsedMessage) -> Result<()> {
        poll_fn(|cx| {
            let mut inner = self.lock();
            ready!(inner.transport.poll_ready(cx))?;
            Poll::Ready(inner.transport.start_send_frame(message.frame()))
        })
        .await?;
        poll_fn(|cx| self.lock().transport.poll_flush(cx)).await
    }

    /// Reads `bytes`, which came some other way, as exactly one message, by the same rules; it is counted as those that
    /// come from the transport are.
    ///
    /// # Errors
    /// See [`StreamingError`]; what stands behind the message is an error too.
    ///
    /// # Cancel safety
    /// Never waits.
    pub async fn parse_message(&self, bytes: &[u8]) -> Result<ParsedMessage, StreamingError> {
        let Inner { stats, parser, .. } = &mut *self.lock();
        let message = parser.one(bytes).inspect_err(|_| stats.record_error())?;
        stats.record_success(bytes.len());
        Ok(message)
    }

    /// Reads `bytes`, which came some other way, as messages one after the other; none when there are none.
    ///
    /// # Errors
    /// The first error; see [`StreamingError`].
    ///
    /// # Cancel safety
    /// Never waits.
    pub async fn parse_multiple_messages(&self, bytes: &[u8]) -> Result<Vec<ParsedMessage>, StreamingError> {
        let Inner { stats, parser, .. } = &mut *self.lock();
        let messages = parser.several(bytes).inspect_err(|_| stats.record_error());
        parser.reset();
        let messages = messages?;
        messages.iter().for_each(|message| stats.record_success(message.frame().len()));
        Ok(messages)
    }

    /// What is held for messages that [`parse_multiple_messages`](Self::parse_multiple_messages) reads. For those that come
    /// from the transport nothing is: they are looked at where they lie.
    ///
    /// # Cancel safety
    /// Never waits.
    pub async fn buffer_stats(&self) -> BufferStats {
        self.lock().parser.buffer_stats()
    }

    /// The buffer manager of the transport below.
    #[must_use]
    pub fn buffer_manager(&self) -> &BufferManager {
        &self.buffers
    }

    /// What was counted of messages that came.
    #[must_use]
    pub fn stats(&self) -> StreamingStats {
        self.lock().stats
    }

    /// The transport below.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner().transport
    }

    /// Gives the transport below back.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.inner.into_inner().unwrap_or_else(PoisonError::into_inner).transport
    }
}

impl<T: PollTransport> PollTransport for StreamingTransport<T> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        let Inner { transport, check, stats, .. } = self.inner();
        let received = ready!(transport.poll_receive(cx));
        if matches!(received, Err(Error::Fault(_))) {
            stats.record_error();
        }
        let frame = received?;
        Inner::<T>::look(check, stats, &frame)?;
        Poll::Ready(Ok(frame))
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        self.poll_receive_with_kind(cx).map_ok(|(_, message)| message)
    }

    fn poll_receive_with_kind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Kind, &mut [u8])>> {
        let Inner { transport, check, stats, .. } = self.inner();
        let received = ready!(transport.poll_receive_with_kind(cx));
        if matches!(received, Err(Error::Fault(_))) {
            stats.record_error();
        }
        let (kind, message) = received?;
        Inner::<T>::look(check, stats, message)?;
        Poll::Ready(Ok((kind, message)))
    }

    fn set_kind(&mut self, kind: Kind) {
        self.get_mut().set_kind(kind);
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.get_mut().poll_ready(cx)
    }

    fn has_room(&self) -> bool {
        self.lock().transport.has_room()
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        self.get_mut().start_send(payload)
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.get_mut().start_send_frame(frame)
    }

    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        self.get_mut().start_feed(payload)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.get_mut().poll_flush(cx)
    }

    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.get_mut().poll_close_sending(cx)
    }

    fn ends_both_ways(&self) -> bool {
        self.lock().transport.ends_both_ways()
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.get_mut().poll_close(cx)
    }

    fn is_connected(&self) -> bool {
        self.lock().transport.is_connected()
    }

    fn transport_type(&self) -> &'static str {
        self.lock().transport.transport_type()
    }

    fn buffers(&self) -> &BufferManager {
        &self.buffers
    }
}
