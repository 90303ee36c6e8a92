//! Messages deflated and inflated (RFC 7692 §7.2): raw deflate data, each message ended by an empty stored block whose
//! last four bytes, `00 00 ff ff`, are left out.
//!
//! Uses flate2 with zlib-rs. The parameters come from the [handshake](super::handshake).

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::{
    Frame,
    limits::{DEFLATE_THRESHOLD, FREE_INFLATE_SIZE, MAX_INFLATE_RATIO},
};

/// What a sender leaves out (§7.2.1) ...
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// ... and what it is replaced by: itself and an empty stored block, so that data which did not end where a block ends
/// make something of it, and are found out.
const PROBE: [u8; 9] = [0, 0, 0xff, 0xff, 0, 0, 0, 0xff, 0xff];

/// Bytes of output that are kept from one message to the next.
const KEPT: usize = 32 * 1024;

/// The largest distance that deflate can look back.
const WINDOW: usize = 32 * 1024;

/// Streams that may end inside a message, besides one for each 4 KiB of it: each costs the window's size of work.
const MAX_STREAMS: usize = 16;

/// The smallest window that zlib has.
const MIN_BITS: u8 = 9;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is no deflate data, or it is cut off.
    Data,
    /// It is larger than the limit, or than its compressed form accounts for.
    TooLarge,
}

/// Inflates the peer's messages.
#[derive(Debug)]
pub(super) struct Inflater {
    bits: u8,
    takeover: bool,
    max_ratio: usize,
    /// Made when it is first needed.
    stream: Option<Decompress>,
    out: Vec<u8>,
    /// Bytes of `out` that were given to be checked.
    checked: usize,
    /// Compressed bytes of the message.
    taken: u64,
    /// Ends of streams within the message (§7.2.3.4).
    streams: usize,
    /// The last byte taken ended a stream.
    at_end: bool,
    /// What is in `out` was delivered.
    delivered: bool,
    /// Size of the last message.
    last: usize,
}

impl Inflater {
    pub(super) fn new(bits: u8, takeover: bool) -> Self {
        Self {
            bits: bits.clamp(MIN_BITS, 15),
            takeover,
            max_ratio: MAX_INFLATE_RATIO,
            stream: None,
            out: Vec::new(),
            checked: 0,
            taken: 0,
            streams: 0,
            at_end: false,
            delivered: false,
            last: 0,
        }
    }

    pub(super) fn set_max_ratio(&mut self, ratio: usize) {
        self.max_ratio = ratio;
    }

    /// Compressed bytes taken of the message.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Inflated bytes that are here and not delivered.
    pub(super) fn len(&self) -> usize {
        if self.delivered { 0 } else { self.out.len() }
    }

    /// What was inflated since this was last asked.
    pub(super) fn unchecked(&mut self) -> &[u8] {
        let from = self.checked;
        self.checked = self.out.len();
        self.out.get(from..).unwrap_or_default()
    }

    /// Inflates the next bytes of the message, of which no more than `limit` bytes may come (`usize::MAX`: in parts).
    pub(super) fn push(&mut self, input: &[u8], limit: usize) -> Result<(), Bad> {
        self.taken += input.len() as u64;
        let by_ratio = usize::try_from(self.taken).unwrap_or(usize::MAX).saturating_mul(self.max_ratio);
        let limit = if limit == usize::MAX { limit } else { limit.min(by_ratio.max(FREE_INFLATE_SIZE)) };
        if input.is_empty() { Ok(()) } else { self.run(input, limit) }
    }

    fn run(&mut self, mut input: &[u8], limit: usize) -> Result<(), Bad> {
        let bits = self.bits;
        let stream = self.stream.get_or_insert_with(|| Decompress::new_with_window_bits(false, bits));
        loop {
            if self.out.len() == self.out.capacity() {
                let guess = if self.out.is_empty() { self.last.max(4 * input.len()) } else { self.out.len() };
                // One byte beyond the limit shows that it is passed.
                let room = limit.saturating_sub(self.out.len()).saturating_add(1);
                self.out.reserve_exact(guess.max(256).saturating_add(64).min(room));
            }
            let (taken, made) = (stream.total_in(), self.out.len());
            let status =
                stream.decompress_vec(input, &mut self.out, FlushDecompress::None).map_err(|_| Bad::Data)?;
            let used = (stream.total_in() - taken) as usize;
            input = input.get(used..).unwrap_or_default();
            if self.out.len() > limit {
                return Err(Bad::TooLarge);
            }
            let spare = self.out.len() < self.out.capacity();
            self.at_end = status == Status::StreamEnd;
            if self.at_end {
                self.streams += 1;
                if self.streams > MAX_STREAMS + self.out.len() / 4096 {
                    return Err(Bad::Data);
                }
                // What the next stream looks back on, as far as it is here: this message.
                reset(stream, bits);
                let window = self.out.get(self.out.len().saturating_sub(WINDOW)..).unwrap_or_default();
                if self.takeover && !window.is_empty() {
                    stream.set_dictionary(window).map_err(|_| Bad::Data)?;
                }
                if input.is_empty() {
                    return Ok(());
                }
            } else if spare && input.is_empty() {
                return Ok(());
            } else if spare && used == 0 && self.out.len() == made {
                return Err(Bad::Data);
            }
        }
    }

    /// The message has come whole.
    pub(super) fn finish(&mut self) -> Result<(), Bad> {
        if self.taken == 0 {
            return Err(Bad::Data);
        }
        if !self.at_end {
            let made = self.out.len();
            self.run(&PROBE, usize::MAX)?;
            if self.out.len() != made || self.at_end {
                return Err(Bad::Data);
            }
        }
        if !self.takeover
            && let Some(stream) = &mut self.stream
        {
            reset(stream, self.bits);
        }
        self.taken = 0;
        self.streams = 0;
        self.at_end = false;
        self.last = self.out.len();
        self.deliver();
        Ok(())
    }

    /// What is here is delivered now, and gone with the next step.
    pub(super) fn deliver(&mut self) {
        self.delivered = true;
    }

    /// Drops what was delivered.
    pub(super) fn let_go(&mut self) {
        if self.delivered {
            self.delivered = false;
            self.checked = 0;
            self.out.clear();
            if self.out.capacity() > KEPT {
                self.out = Vec::new();
            }
        }
    }

    pub(super) fn produced(&mut self) -> &mut [u8] {
        if self.delivered { &mut self.out } else { &mut [] }
    }

    pub(super) fn take_produced(&mut self) -> Frame {
        if !self.delivered {
            return Frame::new();
        }
        if self.out.capacity() <= KEPT {
            return Frame::copy_from_slice(&self.out);
        }
        Frame::from(std::mem::take(&mut self.out))
    }
}

/// Has `stream` begin anew.
fn reset(stream: &mut Decompress, bits: u8) {
    if bits == 15 {
        stream.reset(false);
    } else {
        // `reset` would make the window larger.
        *stream = Decompress::new_with_window_bits(false, bits);
    }
}

impl Clone for Inflater {
    /// With an empty window.
    fn clone(&self) -> Self {
        let mut clone = Self::new(self.bits, self.takeover);
        clone.max_ratio = self.max_ratio;
        clone
    }
}

/// Deflates this end's messages.
#[derive(Debug)]
pub(super) struct Deflater {
    bits: u8,
    takeover: bool,
    level: Compression,
    threshold: usize,
    /// Made when it is first needed.
    stream: Option<Compress>,
}

impl Deflater {
    pub(super) fn new(bits: u8, takeover: bool) -> Self {
        Self { bits, takeover, level: Compression::fast(), threshold: DEFLATE_THRESHOLD, stream: None }
    }

    pub(super) fn set_level(&mut self, level: u32) {
        self.level = Compression::new(level.clamp(1, 9));
        self.stream = None;
    }

    pub(super) fn set_threshold(&mut self, bytes: usize) {
        self.threshold = bytes;
    }

    /// Whether a message of `size` bytes is worth it.
    #[inline]
    pub(super) fn wants(&self, size: usize) -> bool {
        size >= self.threshold && self.bits >= MIN_BITS
    }

    /// The most bytes that `size` bytes deflate to: nine bits for each where the fast level finds nothing to shorten, and
    /// the marks around.
    pub(super) fn bound(size: usize) -> usize {
        size.saturating_add(size / 7).saturating_add(64)
    }

    /// Writes `payload` deflated to the start of `dst`, which has at least [`bound`](Self::bound) bytes. `None` when it
    /// does not fit all the same.
    pub(super) fn deflate(&mut self, payload: &[u8], dst: &mut [u8]) -> Option<usize> {
        let (level, bits) = (self.level, self.bits);
        let stream = self.stream.get_or_insert_with(|| Compress::new_with_window_bits(level, false, bits));
        let len = flush(stream, payload, dst);
        if len.is_none() {
            // The peer does not see it, and what comes must not refer to it. A stream that was left in the middle of its
            // work is not used again: the library panics at what is left in it (zlib-rs 0.6.8).
            self.stream = None;
        } else if !self.takeover {
            stream.reset();
        }
        len
    }
}

impl Clone for Deflater {
    /// With an empty window.
    fn clone(&self) -> Self {
        let Self { bits, takeover, level, threshold, stream: _ } = *self;
        Self { bits, takeover, level, threshold, stream: None }
    }
}

/// Deflates all of `payload`; `None` when `dst` is too small.
fn flush(stream: &mut Compress, payload: &[u8], dst: &mut [u8]) -> Option<usize> {
    let (mut taken, mut made) = (0, 0);
    loop {
        let (before_in, before_out) = (stream.total_in(), stream.total_out());
        let (input, output) = (payload.get(taken..)?, dst.get_mut(made..)?);
        let room = output.len();
        stream.compress(input, output, FlushCompress::Sync).ok()?;
        let step = (stream.total_out() - before_out) as usize;
        taken += (stream.total_in() - before_in) as usize;
        made += step;
        if step == room {
            return None;
        }
        if taken == payload.len() {
            let len = made.checked_sub(TAIL.len())?;
            debug_assert_eq!(dst.get(len..made), Some(&TAIL[..]));
            return Some(len);
        }
    }
}
