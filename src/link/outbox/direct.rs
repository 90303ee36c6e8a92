//! Frames of which nothing, or not all, is copied: written from the caller's memory, or queued by reference.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use tokio::io::AsyncWrite;

use super::{
    Enqueued, Leave, Outbox,
    drain::Driving,
    queue::{By, Failure, Queue, Wakers, block},
    writing::Writing,
};
use crate::{
    Frame, Result,
    buffer::LatchGuard,
    codec::{Encode, Wrap},
    limits::VECTORED_THRESHOLD,
    scan,
};

/// Bytes of a line of the cache, or some of them.
const LINE: usize = 64;

/// Bytes of a frame that are masked and written in one step.
const MASK_STEP: usize = 64 * 1024;

impl<W: AsyncWrite + Unpin + Send + 'static> Outbox<W> {
    /// Queues one frame whose payload is `parts`, one after the other. From the threshold on, the parts are written
    /// where they lie, or, where a mask has to be laid over them, in steps, as far as the kernel takes them at once.
    #[inline(never)]
    pub(in crate::link) fn enqueue_parts<E: Encode>(
        self: &Arc<Self>,
        encoder: &mut E,
        parts: &[IoSlice<'_>],
        leave: Leave,
    ) -> Result<Enqueued> {
        let size: usize =
            if let [part] = parts { part.len() } else { parts.iter().map(|part| part.len()).sum() };
        let mut queue = self.queue.lock();
        if !queue.admits(self.high_water())? {
            return Ok(Enqueued::Full);
        }
        let Some(wrap) = encoder.wrap(parts)? else {
            self.gather(&mut queue, encoder, parts, size)?;
            return Ok(self.attend(queue, leave));
        };
        if size < VECTORED_THRESHOLD {
            self.copy_rest(&mut queue, &wrap, parts, 0)?;
            return Ok(self.attend(queue, leave));
        }
        let Some(mut writing) = queue.start(By::Half) else {
            self.copy_rest(&mut queue, &wrap, parts, 0)?;
            return Ok(self.attend(queue, leave));
        };
        // Straight from the caller's memory, behind what is queued already.
        let total = wrap.head().len() + size + wrap.tail().len();
        if queue.reply.is_some() {
            queue.place_reply(self.high_water(), &self.buffers);
        }
        if queue.queued > 0 {
            writing.take_from(&mut queue);
        }
        queue.direct = true;
        drop(queue);
        let guard = Driving(self);
        let mut outcome = match wrap.mask() {
            None => writing.write_with(wrap.head(), parts, wrap.tail()),
            Some(key) => self.write_masked(&mut writing, &wrap, parts, key),
        };
        let mut flushed = false;
        if leave == Leave::Flushed && matches!(outcome, Ok((_, own)) if own == total) {
            match writing.poll_flushed() {
                Ok(now) => flushed = now,
                Err(error) => outcome = Err(error),
            }
        }
        std::mem::forget(guard);
        let mut queue = self.queue.lock();
        if let Ok((0, own)) = outcome
            && own == total
            && !queue.is_waited_for()
        {
            queue.stop(writing);
            queue.direct = false;
            if flushed && queue.backlog() == 0 && queue.reply.is_none() {
                queue.dirty = false;
                return Ok(Enqueued::Flushed);
            }
            queue.dirty = true;
            return Ok(self.attend(queue, leave));
        }
        self.after_direct(queue, writing, outcome, &wrap, parts, leave)
    }

    /// Queues what the kernel did not take of a frame that was written from the caller's memory.
    #[cold]
    pub(super) fn after_direct(
        self: &Arc<Self>,
        mut queue: LatchGuard<'_, Queue<W>>,
        mut writing: Box<Writing<W>>,
        outcome: io::Result<(usize, usize)>,
        wrap: &Wrap,
        parts: &[IoSlice<'_>],
        leave: Leave,
    ) -> Result<Enqueued> {
        if outcome.is_err() {
            writing.clear();
        }
        queue.stop(writing);
        let (settled, skip) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let wakers = queue.fail(Failure::of(&error));
                drop(queue);
                wakers.wake();
                return Err(error.into());
            }
        };
        queue.settle(settled);
        queue.dirty |= settled + skip > 0;
        let total =
            wrap.head().len() + parts.iter().map(|part| part.len()).sum::<usize>() + wrap.tail().len();
        let again = if skip < total {
            queue.block(By::Half, self.settings.write_deadline.is_some())
        } else {
            Wakers::default()
        };
        let mut waiting = queue.notify(self.high_water());
        // Whatever the kernel did not take is copied, so that the frame is whole whatever becomes of the caller.
        let copied = self.copy_rest(&mut queue, wrap, parts, skip);
        queue.direct = false;
        let outcome = match copied {
            // The peer has the first part of a frame whose rest is lost.
            Err(error) if skip > 0 => {
                waiting = queue.fail(Failure::Kind(io::ErrorKind::OutOfMemory));
                drop(queue);
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(self.attend(queue, leave)),
        };
        again.wake();
        waiting.wake();
        outcome
    }

    /// Queues a frame whose payload the codec changes: gathers it, and lets the codec copy it once more.
    #[cold]
    pub(super) fn gather<E: Encode>(
        &self,
        queue: &mut Queue<W>,
        encoder: &mut E,
        parts: &[IoSlice<'_>],
        size: usize,
    ) -> Result<()> {
        let mut gathered = Vec::with_capacity(if let [_] = parts { 0 } else { size });
        let payload: &[u8] = if let [part] = parts {
            part
        } else {
            for part in parts {
                gathered.extend_from_slice(part);
            }
            &gathered
        };
        let window = queue.room(encoder.room(size), &self.buffers)?;
        let written = encoder.encode(payload, window.spare())?;
        window.advance(written);
        queue.queued += written;
        Ok(())
    }

    /// As [`Writing::write_with`], for a frame whose payload goes out under the mask `key`: in steps of one block, which
    /// stays in the cache.
    pub(super) fn write_masked(
        &self,
        writing: &mut Writing<W>,
        wrap: &Wrap,
        parts: &[IoSlice<'_>],
        key: [u8; 4],
    ) -> io::Result<(usize, usize)> {
        let (mut settled, mut own) = (0, 0);
        if writing.current.is_some() {
            (settled, _) = writing.write_with(&[], &[], &[])?;
        }
        let total =
            wrap.head().len() + parts.iter().map(|part| part.len()).sum::<usize>() + wrap.tail().len();
        let wanted = (total + LINE).min(MASK_STEP);
        let mut step = block(wanted, &self.buffers).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // The payload of the first step begins a line of the cache.
        let mut start = LINE.saturating_sub(wrap.head().len());
        while own < total && writing.current.is_none() && step.restart_at(std::mem::take(&mut start)) {
            let count = masked(wrap, parts, key, own, step.spare());
            step.advance(count);
            let taken = writing.write_some(step.unread())?;
            own += taken;
            if taken < count {
                break;
            }
        }
        Ok((settled, own))
    }

    /// Queues what is left of a frame of which `skip` bytes are written.
    #[cold]
    pub(super) fn copy_rest(
        &self,
        queue: &mut Queue<W>,
        wrap: &Wrap,
        parts: &[IoSlice<'_>],
        mut skip: usize,
    ) -> Result<()> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let tail: &[u8] = wrap.tail();
        let mut rest = wrap.head().len() + size + tail.len() - skip;
        if rest > 0 {
            queue.room(rest, &self.buffers)?;
        }
        if let Some(key) = wrap.mask() {
            while rest > 0 {
                let window = queue.room(rest, &self.buffers)?;
                let count = masked(wrap, parts, key, skip, window.spare());
                window.advance(count);
                queue.queued += count;
                skip += count;
                rest -= count;
            }
            return Ok(());
        }
        let pieces = std::iter::once(wrap.head()).chain(parts.iter().map(|part| &**part)).chain([tail]);
        for piece in pieces {
            let from = skip.min(piece.len());
            skip -= from;
            let piece = piece.get(from..).unwrap_or_default();
            if piece.is_empty() {
                continue;
            }
            if !queue.room(rest, &self.buffers)?.extend(piece) {
                return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
            }
            rest -= piece.len();
            queue.queued += piece.len();
        }
        Ok(())
    }

    /// Queues one frame whose payload is `frame`, without copying it from the threshold on.
    pub(in crate::link) fn enqueue_frame<E: Encode>(
        self: &Arc<Self>,
        encoder: &mut E,
        frame: &Frame,
        leave: Leave,
    ) -> Result<Enqueued> {
        if frame.len() < VECTORED_THRESHOLD {
            return self.enqueue(encoder, frame, leave);
        }
        let mut queue = self.queue.lock();
        // Before the encoder is asked, which may be in the middle of a message: what is refused is asked for again.
        if !queue.admits(self.high_water())? {
            return Ok(Enqueued::Full);
        }
        let parts = [IoSlice::new(frame)];
        let Some(wrap) = encoder.wrap(&parts)? else {
            self.gather(&mut queue, encoder, &parts, frame.len())?;
            return Ok(self.attend(queue, leave));
        };
        if wrap.mask().is_some() {
            self.copy_rest(&mut queue, &wrap, &parts, 0)?;
            return Ok(self.attend(queue, leave));
        }
        if !wrap.head().is_empty() {
            let window = queue.room(wrap.head().len(), &self.buffers)?;
            let _fits = window.extend(wrap.head());
        }
        queue.seal_tail();
        queue.segments.push_back(frame.clone());
        queue.queued += wrap.head().len() + frame.len();
        if !wrap.tail().is_empty() {
            let window = queue.room(wrap.tail().len(), &self.buffers)?;
            let _fits = window.extend(wrap.tail());
            queue.queued += wrap.tail().len();
        }
        Ok(self.attend(queue, leave))
    }
}

/// Writes what comes after the first `skip` bytes of a frame whose `parts` go under the mask `key` to `to`, as much as
/// fits; returns how much.
fn masked(wrap: &Wrap, parts: &[IoSlice<'_>], key: [u8; 4], mut skip: usize, to: &mut [u8]) -> usize {
    let (head, tail) = (wrap.head(), wrap.tail());
    let mut at = 0;
    let from = skip.min(head.len());
    for (to, from) in to.iter_mut().zip(head.get(from..).unwrap_or_default()) {
        *to = *from;
        at += 1;
    }
    skip -= from;
    let mut before = 0;
    for part in parts {
        let from = skip.min(part.len());
        skip -= from;
        let rest = part.get(from..).unwrap_or_default();
        let to = to.get_mut(at..).unwrap_or_default();
        let rest = rest.get(..to.len()).unwrap_or(rest);
        scan::mask_copy(rest, to, scan::rotate(key, before + from));
        at += rest.len();
        before += part.len();
    }
    let to = to.get_mut(at..).unwrap_or_default();
    for (to, from) in to.iter_mut().zip(tail.get(skip..).unwrap_or_default()) {
        *to = *from;
        at += 1;
    }
    at
}
