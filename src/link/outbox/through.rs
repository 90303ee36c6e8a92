//! Frames that go from the sender to the writer at once, past the queue.
//!
//! While nothing is queued, the sending half takes the `driving` token out of the queue and writes; in a link that is not
//! split it keeps the token, so that the next such frame takes no lock at all. Whatever else is asked of the link begins
//! with [`hand_over`](SendingHalf::hand_over), which gives the token back. Nobody misses it meanwhile: nothing is queued
//! that another could write, and the reader of such a link is the same task.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    sync::atomic::Ordering::Relaxed,
};

use tokio::io::AsyncWrite;

use super::{
    Leave, Outbox, SendingHalf, Through,
    drain::Driving,
    queue::{By, Failure},
    writing::Writing,
};
use crate::{
    codec::{Encode, Wrap},
    limits::VECTORED_THRESHOLD,
};

/// Bytes of framing that a payload may gain here.
const FRAMING: usize = 64;

thread_local! {
    /// Where a frame stands while it is written: the writer either takes it or what is left of it is copied.
    static SCRATCH: RefCell<[u8; VECTORED_THRESHOLD + FRAMING]> =
        const { RefCell::new([0; VECTORED_THRESHOLD + FRAMING]) };
}

/// As [`Driving`], for a token that is used where it is kept: it goes with the writer that panics.
struct InPlace<'a, W> {
    token: &'a mut Option<Box<Writing<W>>>,
    outbox: &'a Outbox<W>,
}

impl<W> Drop for InPlace<'_, W> {
    fn drop(&mut self) {
        if self.token.take().is_some() {
            drop(Driving(self.outbox));
        }
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> SendingHalf<W> {
    /// The plain case of [`Leave::Flushed`], and of [`Leave::WhenFlushed`] for a large frame: nothing else is queued and
    /// nobody else is at it, so the frame goes to the writer at once.
    #[inline(always)]
    pub(in crate::link) fn write_through<E: Encode>(
        &mut self,
        encoder: &mut E,
        payload: &[u8],
        leave: Leave,
    ) -> Through {
        // What was fed and lost is told of where more is done.
        if self.fed.is_some() || self.lost {
            Through::No
        } else if payload.len() >= VECTORED_THRESHOLD {
            self.write_in_place(encoder, payload, leave)
        } else if leave == Leave::Flushed {
            self.write_copied(encoder, payload)
        } else {
            Through::No
        }
    }

    #[inline(never)]
    fn write_copied<E: Encode>(&mut self, encoder: &mut E, payload: &[u8]) -> Through {
        SCRATCH.with(|scratch| {
            let Ok(mut scratch) = scratch.try_borrow_mut() else { return Through::No };
            if encoder.room(payload.len()) > scratch.len() || !self.has_token() {
                return Through::No;
            }
            let Some(bytes) = (match encoder.encode(payload, &mut *scratch) {
                Ok(written) => scratch.get(..written),
                Err(_) => None,
            }) else {
                return self.leave_it();
            };
            let driving = InPlace { token: self.token.get_mut(), outbox: &self.outbox };
            let Some(writing) = driving.token else { return Through::No };
            let outcome = writing.write_flushed(bytes);
            std::mem::forget(driving);
            match outcome {
                Ok((written, true)) if written == bytes.len() && self.undivided => {
                    self.unflushed = false;
                    Through::Done
                }
                outcome => self.written_otherwise(outcome, bytes),
            }
        })
    }

    /// The codec has something to say about the frame; it is asked again, and says the same.
    #[cold]
    fn leave_it(&mut self) -> Through {
        if !self.undivided {
            self.give_token_back();
        }
        Through::No
    }

    /// Writes a large frame from where it lies.
    #[inline(never)]
    fn write_in_place<E: Encode>(&mut self, encoder: &mut E, payload: &[u8], leave: Leave) -> Through {
        if !self.has_token() {
            return Through::No;
        }
        let parts = [IoSlice::new(payload)];
        let wrapped = encoder.wrap(&parts);
        let Ok(Some(wrap)) = wrapped else { return self.leave_it() };
        let Some(mut writing) = self.token.get_mut().take() else { return Through::No };
        let total = wrap.head().len() + payload.len() + wrap.tail().len();
        let flushes = leave == Leave::Flushed;
        let guard = Driving(&self.outbox);
        let outcome = match wrap.mask() {
            None => writing.write_whole(wrap.head(), payload, wrap.tail(), flushes),
            Some(key) => match self.outbox.write_masked(&mut writing, &wrap, &parts, key) {
                Ok((_, own)) if own == total && flushes => writing.poll_flushed().map(|done| (own, done)),
                outcome => outcome.map(|(_, own)| (own, false)),
            },
        };
        std::mem::forget(guard);
        match outcome {
            Ok((own, flushed)) if own == total => {
                self.unflushed = !flushed;
                if (self.put_token(writing) && flushed) || !flushes { Through::Done } else { Through::Queued }
            }
            outcome => self.placed_in_part(writing, outcome, &wrap, &parts, leave),
        }
    }

    /// Whether the token is here now, as it is where nothing stands between it and this half. It stays while the codec is
    /// asked, which may panic and would take it along.
    #[inline]
    fn has_token(&mut self) -> bool {
        self.token.get_mut().is_some() || self.fetch_token()
    }

    #[inline(never)]
    fn fetch_token(&mut self) -> bool {
        let mut queue = self.outbox.queue.lock();
        if queue.queued > 0 || !queue.is_one_block() || queue.is_waited_for() {
            return false;
        }
        let Some(writing) = queue.start(By::Half) else { return false };
        // A block that was kept is not used here.
        queue.tail = None;
        queue.warm = false;
        queue.direct = true;
        self.unflushed = std::mem::take(&mut queue.dirty);
        self.outbox.busy.store(false, Relaxed);
        drop(queue);
        *self.token.get_mut() = Some(writing);
        true
    }

    /// Keeps the token, or gives it back; false when there is something to be written or flushed then.
    #[inline]
    fn put_token(&mut self, writing: Box<Writing<W>>) -> bool {
        if self.undivided {
            *self.token.get_mut() = Some(writing);
            true
        } else {
            self.return_token(writing)
        }
    }

    /// Gives the token back, if it is here.
    #[inline]
    pub(in crate::link) fn give_token_back(&mut self) {
        if let Some(writing) = self.token.get_mut().take() {
            self.return_token(writing);
        }
    }

    #[inline(never)]
    fn return_token(&mut self, writing: Box<Writing<W>>) -> bool {
        let mut queue = self.outbox.queue.lock();
        queue.direct = false;
        queue.dirty = std::mem::take(&mut self.unflushed);
        queue.stop(writing);
        let idle = queue.is_idle();
        self.outbox.busy.store(!idle, Relaxed);
        // The flusher may have come for it in vain.
        let reply = queue.reply.is_some() && !queue.armed;
        if reply || queue.is_waited_for() {
            self.outbox.after_write(queue, reply);
        }
        idle
    }

    /// As where the writer took all of `bytes` and keeps none, but for a half that may not keep the token; or else queues
    /// what it did not take, and gives the token back.
    #[cold]
    #[inline(never)]
    fn written_otherwise(&mut self, outcome: io::Result<(usize, bool)>, bytes: &[u8]) -> Through {
        let Some(mut writing) = self.token.get_mut().take() else { return Through::Queued };
        if matches!(outcome, Ok((written, true)) if written == bytes.len()) {
            self.unflushed = false;
            return if self.put_token(writing) { Through::Done } else { Through::Queued };
        }
        if outcome.is_err() {
            writing.clear();
        }
        let mut queue = self.outbox.queue.lock();
        queue.direct = false;
        queue.dirty = true;
        queue.stop(writing);
        let failure = match outcome {
            Err(error) => Some(Failure::of(&error)),
            Ok((written, _)) => {
                let rest = bytes.get(written..).unwrap_or_default();
                queue.queued += rest.len();
                // Where only the flush is left, no block is taken that an idle link would then hold.
                let queued = rest.is_empty()
                    || queue.room(rest.len(), &self.outbox.buffers).is_ok_and(|window| window.extend(rest));
                // The peer may have the first part of a frame whose rest is lost.
                (!queued).then_some(Failure::Kind(io::ErrorKind::OutOfMemory))
            }
        };
        self.unflushed = false;
        self.outbox.busy.store(true, Relaxed);
        let wakers = match failure {
            Some(failure) => queue.fail(failure),
            None => queue.notify(self.outbox.high_water()),
        };
        drop(queue);
        wakers.wake();
        // Whoever waits for the flush is told of a failure.
        Through::Queued
    }

    /// As [`written_in_part`](Self::written_in_part), for a frame that is written from the caller's memory.
    #[cold]
    fn placed_in_part(
        &mut self,
        writing: Box<Writing<W>>,
        outcome: io::Result<(usize, bool)>,
        wrap: &Wrap,
        parts: &[IoSlice<'_>],
        leave: Leave,
    ) -> Through {
        let mut queue = self.outbox.queue.lock();
        queue.dirty = std::mem::take(&mut self.unflushed);
        let outcome = outcome.map(|(own, _)| (0, own));
        match self.outbox.after_direct(queue, writing, outcome, wrap, parts, leave) {
            Ok(_) if leave == Leave::Flushed => Through::Queued,
            Ok(_) => Through::Done,
            Err(error) => Through::Failed(Box::new(error)),
        }
    }
}
