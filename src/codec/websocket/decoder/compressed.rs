//! Compressed messages in the decoder: unmasked where they lie, inflated as they come, gone from `src` at once.

use super::{Kind, Message, Payload, Role, STRIDE, WebSocketDecoder, not_utf8, too_large};
use crate::{
    codec::{
        Step,
        websocket::{
            deflate::{Bad, Inflater},
            handshake::DeflateParams,
        },
    },
    error::Violation,
    scan,
};

/// Bytes that are inflated in one go of a message in parts: they make 64 KiB at the most.
const PART_STRIDE: usize = 64;

/// Inflated bytes from which on a part is delivered.
const PART: usize = 16 * 1024;

/// The largest hint of what to read: what is read is used up at once.
const MAX_HINT: usize = 16 * 1024;

impl WebSocketDecoder {
    pub(in crate::codec::websocket) fn set_deflate(&mut self, params: DeflateParams) {
        let (bits, fresh) = match self.role {
            Role::Client => (params.server_max_window_bits, params.server_no_context_takeover),
            Role::Server => (params.client_max_window_bits, params.client_no_context_takeover),
        };
        self.inflater = Some(Box::new(Inflater::new(bits, !fresh)));
    }

    pub(in crate::codec::websocket) fn set_max_inflate_ratio(&mut self, ratio: usize) {
        if let Some(inflater) = &mut self.inflater {
            inflater.set_max_ratio(ratio);
        }
    }

    /// Gives up the message that was delivered.
    pub(super) fn let_go(&mut self) {
        if let Some(inflater) = &mut self.inflater {
            inflater.let_go();
        }
    }

    /// Whether another `size` compressed bytes are more than any message within the limit can take.
    pub(super) fn compressed_too_large(&self, size: u64) -> bool {
        let taken = self.inflater.as_ref().map_or(0, |inflater| inflater.taken());
        // A hasty compressor makes a random message an eighth larger.
        let most = self.max_size.saturating_add(self.max_size / 8).saturating_add(1024);
        !self.parts && taken.saturating_add(size) > most as u64
    }

    /// Takes in what is here of a compressed frame's payload; `None` when the frame is over and the message is not.
    pub(super) fn inflate(&mut self, src: &mut [u8], mut frame: Payload) -> Result<Option<Step>, Violation> {
        let Some(mut inflater) = self.inflater.take() else { return Ok(None) };
        let outcome = self.inflate_with(&mut inflater, src, &mut frame);
        self.inflater = Some(inflater);
        outcome
    }

    fn inflate_with(
        &mut self,
        inflater: &mut Inflater,
        src: &mut [u8],
        frame: &mut Payload,
    ) -> Result<Option<Step>, Violation> {
        let limit = if self.parts { usize::MAX } else { self.max_size };
        let stride = if self.parts { PART_STRIDE } else { STRIDE };
        let mut next = self.message.next;
        let mut full = false;
        while frame.left > 0 && next < src.len() && !full {
            let count = (src.len() - next).min(stride).min(usize::try_from(frame.left).unwrap_or(stride));
            let bytes = src.get_mut(next..next + count).unwrap_or_default();
            if let Some(key) = frame.key {
                let _ascii = scan::unmask(bytes, key);
                frame.key = Some(scan::rotate(key, count));
            }
            inflater.push(bytes, limit).map_err(violation)?;
            self.check_inflated(inflater)?;
            next += count;
            frame.left -= count as u64;
            self.unanswered = 0;
            full = self.parts && inflater.len() >= PART;
        }
        self.message.begin = next;
        self.message.next = next;
        let over = frame.left == 0;
        self.frame = if over { None } else { Some(*frame) };
        if over && frame.is_final {
            inflater.finish().map_err(violation)?;
            if !self.utf8.is_whole() {
                return Err(not_utf8());
            }
            self.fresh = true;
            self.is_final = true;
            self.message = Message::default();
            return Ok(Some(Step::Produced { consumed: next }));
        }
        if self.parts && inflater.len() > 0 {
            self.is_final = false;
            inflater.deliver();
            self.message.begin = 0;
            self.message.next = 0;
            return Ok(Some(Step::Produced { consumed: next }));
        }
        if over {
            return Ok(None);
        }
        let left = usize::try_from(frame.left).unwrap_or(MAX_HINT).min(MAX_HINT);
        Ok(Some(self.incomplete(next, left, src)))
    }

    fn check_inflated(&mut self, inflater: &mut Inflater) -> Result<(), Violation> {
        let bytes = inflater.unchecked();
        if self.kind == Kind::Text && !self.utf8.push(bytes, bytes.is_ascii()) {
            return Err(not_utf8());
        }
        Ok(())
    }
}

#[cold]
fn violation(bad: Bad) -> Violation {
    match bad {
        Bad::Data => Violation::Protocol {
            rule: "compressed payload that is no whole deflate data",
            section: "RFC 7692 §7.2.2",
            code: 1007,
        },
        Bad::TooLarge => too_large("message over the limit when inflated"),
    }
}
