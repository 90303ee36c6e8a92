//! [`Half`]: one half's share of an outbox; [`SendingHalf`]: with the block that fed frames are gathered in.

use std::{
    io::IoSlice,
    ops::Deref,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use super::{Enqueued, Leave, Outbox, queue::block, writing::Writing};
use crate::{
    Frame, Result,
    buffer::{Latch, Window},
    codec::{Encode, Reply},
    limits::VECTORED_THRESHOLD,
};

/// One half's share of an outbox.
#[derive(Debug)]
pub(in crate::link) struct Half<W: AsyncWrite + Unpin + Send + 'static>(Arc<Outbox<W>>);

impl<W: AsyncWrite + Unpin + Send + 'static> Half<W> {
    pub(super) fn new(outbox: Arc<Outbox<W>>) -> Self {
        Self(outbox)
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Deref for Half<W> {
    type Target = Arc<Outbox<W>>;

    #[inline]
    fn deref(&self) -> &Arc<Outbox<W>> {
        &self.0
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Drop for Half<W> {
    fn drop(&mut self) {
        self.0.release_half();
    }
}

/// The share of the half that sends.
#[derive(Debug)]
pub(in crate::link) struct SendingHalf<W: AsyncWrite + Unpin + Send + 'static> {
    pub(super) outbox: Half<W>,
    /// Frames that were fed and not yet handed over: no other task needs to see them, so no lock is taken for them.
    pub(super) fed: Option<Window>,
    /// Bytes in `fed` from which on the outbox is full, by its backlog when `fed` was begun.
    until: usize,
    /// Frames were fed that can no longer leave: the link had closed or failed meanwhile.
    pub(super) lost: bool,
    /// The token of those who may write, kept for the next frame that goes to the writer at once. The latch is never
    /// contended; it lets a writer be in here that is not `Sync`.
    pub(super) token: Latch<Option<Box<Writing<W>>>>,
    /// With that token, bytes were written since the writer was last flushed.
    pub(super) unflushed: bool,
    /// This half is used through the whole link, whose other half gives way to it: the token may be kept.
    pub(super) undivided: bool,
}

impl<W: AsyncWrite + Unpin + Send + 'static> SendingHalf<W> {
    pub(super) fn new(outbox: Arc<Outbox<W>>) -> Self {
        Self {
            outbox: Half::new(outbox),
            fed: None,
            until: 0,
            lost: false,
            token: Latch::new(None),
            unflushed: false,
            undivided: false,
        }
    }

    pub(in crate::link) fn is_of_the_same_link(&self, other: &Half<W>) -> bool {
        Arc::ptr_eq(&self.outbox, other)
    }

    /// Queues one frame of `payload` that leaves when it is flushed.
    pub(in crate::link) fn feed<E: Encode>(&mut self, encoder: &mut E, payload: &[u8]) -> Result<Enqueued> {
        if self.feed_here(encoder, payload) {
            return Ok(Enqueued::Done);
        }
        self.hand_over();
        let room = encoder.room(payload.len());
        if payload.len() >= VECTORED_THRESHOLD {
            return self.outbox.enqueue_parts(encoder, &[IoSlice::new(payload)], Leave::WhenFlushed);
        }
        let queue = self.outbox.queue.lock();
        if !queue.admits(self.outbox.high_water())? {
            return Ok(Enqueued::Full);
        }
        let ahead = queue.backlog();
        drop(queue);
        let mut fed = block(room, &self.outbox.buffers)?;
        let written = encoder.encode(payload, fed.spare())?;
        fed.advance(written);
        self.until = self.outbox.high_water().saturating_sub(ahead);
        self.fed = Some(fed);
        Ok(Enqueued::Done)
    }

    /// Puts one frame of `payload` to those that were fed; false when there is none yet, or no room, or something is to
    /// be said about it.
    #[inline(always)]
    pub(in crate::link) fn feed_here<E: Encode>(&mut self, encoder: &mut E, payload: &[u8]) -> bool {
        let Some(fed) = &mut self.fed else { return false };
        let room = encoder.room(payload.len());
        if payload.len() >= VECTORED_THRESHOLD || fed.spare_len() < room || fed.len() >= self.until {
            return false;
        }
        match encoder.encode(payload, fed.spare()) {
            Ok(written) => {
                fed.advance(written);
                true
            }
            Err(_) => false,
        }
    }

    /// This half is about to be used through the whole link.
    #[inline]
    pub(in crate::link) fn be_undivided(&mut self) {
        self.undivided = true;
    }

    /// The other half is about to be used by itself.
    pub(in crate::link) fn be_divided(&mut self) {
        self.undivided = false;
        self.hand_over();
    }

    /// Queues what was fed where the others who may write see it, and lets them write.
    #[inline]
    pub(in crate::link) fn hand_over(&mut self) {
        self.give_token_back();
        if self.fed.is_some() {
            self.hand_over_block();
        }
    }

    #[inline(never)]
    fn hand_over_block(&mut self) {
        if let Some(fed) = self.fed.take() {
            let mut queue = self.outbox.queue.lock();
            self.lost |= !queue.append(fed);
            self.outbox.busy.store(true, Relaxed);
        }
    }

    /// Bytes fed and not yet handed over.
    fn fed_len(&self) -> usize {
        self.fed.as_ref().map_or(0, Window::len)
    }

    /// See [`Outbox::enqueue`].
    #[inline]
    pub(in crate::link) fn enqueue<E: Encode>(
        &mut self,
        encoder: &mut E,
        payload: &[u8],
        leave: Leave,
    ) -> Result<Enqueued> {
        self.hand_over();
        self.outbox.enqueue(encoder, payload, leave)
    }

    /// See [`Outbox::join_batch`].
    #[inline]
    pub(in crate::link) fn join_batch<E: Encode>(&self, encoder: &mut E, payload: &[u8]) -> bool {
        self.fed.is_none() && self.outbox.join_batch(encoder, payload)
    }

    /// See [`Outbox::enqueue_parts`].
    pub(in crate::link) fn enqueue_parts<E: Encode>(
        &mut self,
        encoder: &mut E,
        parts: &[IoSlice<'_>],
    ) -> Result<Enqueued> {
        self.hand_over();
        self.outbox.enqueue_parts(encoder, parts, Leave::ByItself)
    }

    /// See [`Outbox::enqueue_frame`].
    #[inline]
    pub(in crate::link) fn enqueue_frame<E: Encode>(
        &mut self,
        encoder: &mut E,
        frame: &Frame,
    ) -> Result<Enqueued> {
        if self.join_batch(encoder, frame) {
            return Ok(Enqueued::Done);
        }
        self.hand_over();
        self.outbox.enqueue_frame(encoder, frame, Leave::ByItself)
    }

    /// See [`Outbox::poll_ready`].
    pub(in crate::link) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.hand_over();
        self.outbox.poll_ready(cx)
    }

    /// System calls that wrote something.
    pub(in crate::link) fn writes(&self) -> u64 {
        self.outbox.writes() + self.token.lock().as_ref().map_or(0, |writing| writing.writes.into())
    }

    /// See [`Outbox::poll_flush`].
    pub(in crate::link) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.hand_over();
        ready!(self.outbox.poll_flush(cx))?;
        Poll::Ready(self.told_of_loss())
    }

    /// See [`Outbox::poll_close`].
    pub(in crate::link) fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        goodbye: impl FnOnce() -> Option<Reply>,
    ) -> Poll<Result<()>> {
        self.hand_over();
        ready!(self.outbox.poll_close(cx, goodbye))?;
        Poll::Ready(self.told_of_loss())
    }

    /// Tells, once, of frames that were fed and could not leave.
    #[inline]
    pub(in crate::link) fn told_of_loss(&mut self) -> Result<()> {
        if self.lost { self.tell_of_loss() } else { Ok(()) }
    }

    #[cold]
    fn tell_of_loss(&mut self) -> Result<()> {
        self.lost = false;
        Err(self.outbox.queue.lock().refusal())
    }

    /// See [`Outbox::take_writer`].
    pub(in crate::link) fn take_writer(&mut self) -> (Option<W>, Vec<Frame>) {
        self.hand_over();
        self.outbox.take_writer()
    }

    /// Bytes that were accepted and not yet written.
    pub(in crate::link) fn unwritten(&self) -> usize {
        self.outbox.backlog() + self.fed_len()
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Deref for SendingHalf<W> {
    type Target = Arc<Outbox<W>>;

    #[inline]
    fn deref(&self) -> &Arc<Outbox<W>> {
        &self.outbox
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> Drop for SendingHalf<W> {
    fn drop(&mut self) {
        self.hand_over();
    }
}
