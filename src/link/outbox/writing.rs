//! [`Writing`]: the writer, and what is on its way into it.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::AsyncWrite;

use super::queue::Queue;
use crate::{Frame, buffer::Window};

/// Slices handed to one vectored write at the most.
const MAX_SLICES: usize = 16;

/// Room for so many segments stays with an idle link.
const KEPT_SLOTS: usize = 32;

/// The writer and what is on its way into it. Whoever has it out of the [`Queue`] may write.
#[derive(Debug)]
pub(super) struct Writing<W> {
    pub(super) writer: Option<W>,
    pub(super) current: Option<Frame>,
    /// Bytes of `current` that are written.
    offset: u32,
    /// Writes that took bytes, not yet counted in the queue.
    pub(super) writes: u32,
    pub(super) more: VecDeque<Frame>,
    pub(super) waker: Option<Waker>,
}

pub(super) enum Stepped {
    Wrote(usize),
    Flushed,
    ShutDown,
}

impl<W> Writing<W> {
    /// Takes out what is left of the frame that is being written.
    pub(super) fn take_current(&mut self) -> Option<Frame> {
        let mut frame = self.current.take()?;
        frame.advance(std::mem::take(&mut self.offset) as usize);
        Some(frame)
    }

    /// Forgets what is on its way.
    pub(super) fn clear(&mut self) {
        self.current = None;
        self.offset = 0;
        self.more = VecDeque::new();
    }

    pub(super) fn new(writer: Option<W>) -> Self {
        Self { writer, current: None, offset: 0, writes: 0, more: VecDeque::new(), waker: None }
    }
}

impl<W: AsyncWrite + Unpin> Writing<W> {
    /// Moves everything from the queue here.
    pub(super) fn take_from(&mut self, queue: &mut Queue<W>) {
        if queue.queued == 0 {
            if self.current.is_none() {
                // Nothing is on its way: an idle link holds no write buffer, nor the room of a burst.
                queue.tail = None;
                if self.more.capacity() > KEPT_SLOTS {
                    self.more = VecDeque::new();
                    queue.segments = VecDeque::new();
                }
            }
            return;
        }
        queue.in_flight += queue.queued;
        queue.queued = 0;
        let tail = queue.cut_tail();
        for frame in queue.segments.drain(..).chain(tail) {
            if self.current.is_none() {
                self.current = Some(frame);
                self.offset = 0;
            } else {
                self.more.push_back(frame);
            }
        }
    }

    /// One step of the writer: a write, or a flush or shutdown when nothing is left to write.
    pub(super) fn step(&mut self, closing: bool) -> Poll<io::Result<Stepped>> {
        let Self { writer: Some(writer), waker: Some(waker), .. } = self else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let cx = &mut Context::from_waker(waker);
        let writer = Pin::new(writer);
        let Some(current) = &self.current else {
            return if closing {
                // A peer that is gone already needs no goodbye.
                let _gone = ready!(writer.poll_shutdown(cx));
                self.writer = None;
                Poll::Ready(Ok(Stepped::ShutDown))
            } else {
                ready!(writer.poll_flush(cx))?;
                Poll::Ready(Ok(Stepped::Flushed))
            };
        };
        let first = current.get(self.offset as usize..).unwrap_or_default();
        let count = if self.more.is_empty() {
            ready!(writer.poll_write(cx, first))?
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut used = 0;
            for (slot, bytes) in
                slices.iter_mut().zip(std::iter::once(first).chain(self.more.iter().map(|f| &**f)))
            {
                *slot = IoSlice::new(bytes);
                used += 1;
            }
            ready!(writer.poll_write_vectored(cx, slices.get(..used).unwrap_or_default()))?
        };
        self.writes += 1;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(count);
        Poll::Ready(Ok(Stepped::Wrote(count)))
    }

    /// Writes what `block` holds and flushes, while nothing else is on its way. Returns how many bytes were written, and
    /// whether all is flushed; what the writer did not take is on its way then.
    #[inline]
    pub(super) fn write_block(&mut self, block: Option<&mut Window>) -> io::Result<(usize, bool)> {
        let Self { writer: Some(writer), waker: Some(waker), .. } = self else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let cx = &mut Context::from_waker(waker);
        let mut writer = Pin::new(writer);
        let mut written = 0;
        if let Some(block) = block {
            let len = block.len();
            let taken = match writer.as_mut().poll_write(cx, block.unread()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(taken) => taken.map(Some)?,
                Poll::Pending => None,
            };
            self.writes += u32::from(taken.is_some());
            written = taken.unwrap_or(0);
            block.consume(written);
            if written < len {
                self.current = Some(Frame::cut(block, 0..len - written, len - written));
                self.offset = 0;
                return Ok((written, false));
            }
        }
        Ok((written, matches!(writer.poll_flush(cx)?, Poll::Ready(()))))
    }

    /// Writes `bytes`, before which nothing is on its way, and flushes. Returns how many were taken, and whether all is
    /// flushed.
    #[inline]
    pub(super) fn write_flushed(&mut self, bytes: &[u8]) -> io::Result<(usize, bool)> {
        let Self { writer: Some(writer), waker: Some(waker), .. } = self else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let cx = &mut Context::from_waker(waker);
        let mut writer = Pin::new(writer);
        let mut written = 0;
        // A codec may have nothing to say for a message of no bytes.
        if !bytes.is_empty() {
            written = match writer.as_mut().poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => written?,
                Poll::Pending => return Ok((0, false)),
            };
            self.writes += 1;
        }
        let flushed = written == bytes.len() && matches!(writer.poll_flush(cx)?, Poll::Ready(()));
        Ok((written, flushed))
    }

    /// As [`write_flushed`](Self::write_flushed) for `head`, `part` and `tail`, as far as the kernel takes them, and without
    /// the flush unless asked for.
    #[inline]
    pub(super) fn write_whole(
        &mut self,
        head: &[u8],
        part: &[u8],
        tail: &[u8],
        flushes: bool,
    ) -> io::Result<(usize, bool)> {
        let Self { writer: Some(writer), waker: Some(waker), .. } = self else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let cx = &mut Context::from_waker(waker);
        let mut writer = Pin::new(writer);
        if tail.is_empty() && !head.is_empty() {
            let slices = [IoSlice::new(head), IoSlice::new(part)];
            let own = match writer.as_mut().poll_write_vectored(cx, &slices) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(own) => own?,
                Poll::Pending => return Ok((0, false)),
            };
            self.writes += 1;
            if own == head.len() + part.len() {
                return Ok((own, flushes && matches!(writer.poll_flush(cx)?, Poll::Ready(()))));
            }
            return self.write_the_rest(head, part, tail, own, flushes);
        }
        self.write_the_rest(head, part, tail, 0, flushes)
    }

    #[cold]
    fn write_the_rest(
        &mut self,
        head: &[u8],
        part: &[u8],
        tail: &[u8],
        own: usize,
        flushes: bool,
    ) -> io::Result<(usize, bool)> {
        let (_, own) = self.write_more(head, &[IoSlice::new(part)], tail, own)?;
        let whole = own == head.len() + part.len() + tail.len();
        Ok((own, whole && flushes && self.poll_flushed()?))
    }

    /// Drops written bytes from the front.
    fn advance(&mut self, mut count: usize) {
        while let Some(current) = &mut self.current {
            let done = self.offset as usize;
            let left = current.len() - done;
            if count < left {
                match u32::try_from(done + count) {
                    Ok(offset) => self.offset = offset,
                    Err(_) => {
                        current.advance(done + count);
                        self.offset = 0;
                    }
                }
                return;
            }
            count -= left;
            self.offset = 0;
            self.current = self.more.pop_front();
        }
    }

    /// One write of a frame that nothing is before; 0 when the kernel is full.
    #[inline]
    fn write_alone(&mut self, head: &[u8], part: &[u8]) -> io::Result<usize> {
        let (Some(writer), Some(waker)) = (&mut self.writer, &self.waker) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let cx = &mut Context::from_waker(waker);
        let written = if head.is_empty() {
            Pin::new(writer).poll_write(cx, part)
        } else {
            Pin::new(writer).poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(part)])
        };
        match written {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(written) => {
                self.writes += 1;
                written
            }
            Poll::Pending => Ok(0),
        }
    }

    /// Writes `bytes`, before which nothing is on its way, as far as the kernel takes them at once.
    pub(super) fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.write_alone(&[], bytes.get(taken..).unwrap_or_default())? {
                0 => break,
                count => taken += count,
            }
        }
        Ok(taken)
    }

    /// Flushes the writer; whether it is done.
    #[inline]
    pub(super) fn poll_flushed(&mut self) -> io::Result<bool> {
        let (Some(writer), Some(waker)) = (&mut self.writer, &self.waker) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        Ok(matches!(Pin::new(writer).poll_flush(&mut Context::from_waker(waker))?, Poll::Ready(())))
    }

    /// Writes what is on its way and then `head`, `parts`, `tail`, as far as the kernel takes them. Returns how many
    /// bytes of what was on its way, and how many of the frame were written; what is left of the former stays.
    #[inline]
    pub(super) fn write_with(
        &mut self,
        head: &[u8],
        parts: &[IoSlice<'_>],
        tail: &[u8],
    ) -> io::Result<(usize, usize)> {
        let mut own = 0;
        if let (None, [part], []) = (&self.current, parts, tail) {
            own = self.write_alone(head, part)?;
            if own == head.len() + part.len() || own == 0 {
                return Ok((0, own));
            }
        }
        self.write_more(head, parts, tail, own)
    }

    /// As [`write_with`](Self::write_with), for a frame of which `own` bytes are written already, and counted in the
    /// answer.
    #[inline(never)]
    fn write_more(
        &mut self,
        head: &[u8],
        parts: &[IoSlice<'_>],
        tail: &[u8],
        mut own: usize,
    ) -> io::Result<(usize, usize)> {
        let total = head.len() + parts.iter().map(|part| part.len()).sum::<usize>() + tail.len();
        let mut settled = 0;
        while own < total || (total == 0 && self.current.is_some()) {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut used = 0;
            let mut skip = own;
            let ahead = self.current.iter().map(|f| f.get(self.offset as usize..).unwrap_or_default());
            let ahead = ahead.chain(self.more.iter().map(|f| &**f));
            let frame = std::iter::once(head).chain(parts.iter().map(|part| &**part)).chain([tail]);
            let frame = frame.map(|piece| {
                let from = skip.min(piece.len());
                skip -= from;
                piece.get(from..).unwrap_or_default()
            });
            for (slot, bytes) in slices.iter_mut().zip(ahead.chain(frame).filter(|bytes| !bytes.is_empty())) {
                *slot = IoSlice::new(bytes);
                used += 1;
            }
            let (Some(writer), Some(waker)) = (&mut self.writer, &self.waker) else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let cx = &mut Context::from_waker(waker);
            let slices = slices.get(..used).unwrap_or_default();
            let Poll::Ready(written) = Pin::new(writer).poll_write_vectored(cx, slices) else { break };
            let written = written?;
            self.writes += 1;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let ahead = match &self.current {
                Some(current) => {
                    current.len() - self.offset as usize + self.more.iter().map(|f| f.len()).sum::<usize>()
                }
                None => 0,
            };
            let before = written.min(ahead);
            self.advance(before);
            settled += before;
            own += written - before;
        }
        Ok((settled, own))
    }
}
