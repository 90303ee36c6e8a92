//! What the decoder finds in the window: messages are cut or lent, faults and ends are told.

use std::ops::Range;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Found, Receiver, State, narrow};
use crate::{
    Error, Frame, Result,
    buffer::Window,
    codec::{Decode, Step},
    error::{End, Fault, Violation},
    limits::{HOLD_BLOCK_SIZE, PIN_FACTOR},
};

impl<D: Decode, R: AsyncRead + Unpin, W: AsyncWrite + Unpin + Send + 'static> Receiver<D, R, W> {
    #[inline(always)]
    pub(super) fn lend(&mut self, found: Found) -> &mut [u8] {
        if found.consumed == Found::PRODUCED {
            return self.lend_produced();
        }
        let size = found.payload.end - found.payload.start;
        self.last_size = narrow(found.consumed);
        self.counters.bytes_received += size as u64;
        match &mut self.window {
            Some(window) => {
                self.outbox.tell_of_more(size, window.len().saturating_sub(found.consumed));
                window.lend(found.payload, found.consumed)
            }
            None => &mut [],
        }
    }

    #[cold]
    pub(super) fn lend_produced(&mut self) -> &mut [u8] {
        let payload = self.decoder.produced();
        self.counters.bytes_received += payload.len() as u64;
        payload
    }

    #[cold]
    pub(super) fn cut_produced(&mut self) -> Frame {
        let frame = self.decoder.take_produced();
        self.counters.bytes_received += frame.len() as u64;
        frame
    }

    /// [`cut`](Self::cut) where it is not to be a second copy of it.
    #[cold]
    #[inline(never)]
    pub(super) fn cut_late(&mut self, found: Found) -> Frame {
        self.cut(found)
    }

    #[inline(always)]
    pub(super) fn cut(&mut self, found: Found) -> Frame {
        if found.consumed == Found::PRODUCED {
            return self.cut_produced();
        }
        let Range { start, end } = found.payload;
        let size = end - start;
        self.last_size = narrow(found.consumed);
        self.counters.bytes_received += size as u64;
        let Some(window) = &mut self.window else { return Frame::new() };
        if size >= window.capacity() / PIN_FACTOR {
            self.outbox.tell_of_more(size, window.len().saturating_sub(found.consumed));
            return Frame::cut(window, start..end, found.consumed);
        }
        if self.hold.as_ref().is_none_or(|hold| hold.spare_len() < size) {
            self.hold = self.outbox.buffers.try_window(size.max(HOLD_BLOCK_SIZE));
        }
        // When the pool has nothing left, the frame shares the window.
        let Some(hold) = &mut self.hold else { return Frame::cut(window, start..end, found.consumed) };
        let copied = hold.extend(window.lend(start..end, found.consumed));
        debug_assert!(copied, "the block was chosen for the frame");
        Frame::cut(hold, 0..size, size)
    }

    /// The next frame in the window, without reading. Whatever else the decoder says is kept in the state.
    #[inline(always)]
    pub(super) fn found(&mut self) -> Option<Found> {
        if !matches!(self.state, State::Open) {
            return None;
        }
        let step = self.decoder.decode(self.window.as_mut()?.unread());
        self.found_in(step)
    }

    /// As [`found`](Self::found), after the decoder has said `step`.
    #[inline(always)]
    pub(super) fn found_in(&mut self, step: Result<Step, Violation>) -> Option<Found> {
        match step {
            Ok(Step::Frame { payload, consumed }) => Some(self.count(Found { payload, consumed })),
            Ok(Step::Incomplete { consumed: 0, needed }) => {
                self.needed = narrow(needed);
                None
            }
            other => self.not_found(other),
        }
    }

    /// Whatever is not plainly a frame in the window.
    #[cold]
    #[inline(never)]
    pub(super) fn not_found(&mut self, mut step: Result<Step, Violation>) -> Option<Found> {
        loop {
            match step {
                Ok(Step::Frame { payload, consumed }) => {
                    return Some(self.count(Found { payload, consumed }));
                }
                Ok(Step::Produced { consumed }) => {
                    self.consume(consumed);
                    return Some(self.count(Found::produced()));
                }
                Ok(Step::Event { consumed }) => {
                    self.consume(consumed);
                    self.reply();
                }
                Ok(Step::Incomplete { consumed, needed }) => {
                    self.consume(consumed);
                    self.needed = narrow(needed);
                    return None;
                }
                Ok(Step::Fault { fault, consumed }) => {
                    self.consume(consumed);
                    self.state = State::Faulty(Box::new(fault));
                    return None;
                }
                Ok(Step::End { .. }) => {
                    self.end(End::Eof);
                    return None;
                }
                Err(violation) => {
                    self.violation(violation);
                    return None;
                }
            }
            let mut nothing = [];
            step = self.decoder.decode(self.window.as_mut().map_or(&mut nothing[..], Window::unread));
        }
    }

    #[inline(always)]
    pub(super) fn count(&mut self, found: Found) -> Found {
        self.counters.frames_received += 1;
        self.faults_in_a_row = 0;
        found
    }

    /// Hands what the codec has to say to the write side.
    #[cold]
    pub(super) fn reply(&mut self) {
        if let Some(reply) = self.decoder.poll_reply() {
            self.outbox.reply(reply);
        }
    }

    /// The stream is over: nothing is kept, and the write side need not wait for the peer's last word.
    #[cold]
    pub(super) fn end(&mut self, end: End) {
        self.reply();
        self.outbox.peer_ended();
        self.state = State::Ended(end);
        self.window = None;
        self.hold = None;
    }

    /// Tells of a fault that was kept.
    #[cold]
    pub(super) fn told(&mut self) -> Result<()> {
        if let State::Faulty(fault) = &self.state {
            let fault = Fault::clone(fault);
            self.state = State::Open;
            return Err(self.fault(fault));
        }
        match &self.state {
            State::Broken(violation) => Err(Violation::clone(violation).into()),
            State::Failed(failure) => Err(failure.error()),
            _ => Ok(()),
        }
    }

    #[cold]
    pub(super) fn fault(&mut self, fault: Fault) -> Error {
        self.counters.faults = self.counters.faults.saturating_add(1);
        self.faults_in_a_row += 1;
        if let Some(timers) = &mut self.timers {
            timers.frame_since = None;
        }
        if self.faults_in_a_row > self.outbox.settings.max_faults_in_a_row {
            return self.violation(Violation::TooManyFaults { count: self.faults_in_a_row });
        }
        fault.into()
    }

    #[cold]
    pub(super) fn violation(&mut self, violation: Violation) -> Error {
        self.reply();
        self.outbox.peer_ended();
        self.window = None;
        self.hold = None;
        self.state = State::Broken(Box::new(violation.clone()));
        violation.into()
    }
}
