//! Newline framing: one message per line, as the Model Context Protocol's stdio transport has it.

use std::io::IoSlice;

use super::{Codec, Decode, Encode, Step, Wrap};
use crate::{
    error::{Fault, Rejection, Violation},
    limits::MAX_MESSAGE_SIZE,
    scan,
};

/// Newline framing, both directions.
#[derive(Debug, Clone, Default)]
pub struct Newline {
    decoder: NewlineDecoder,
    encoder: NewlineEncoder,
}

impl Codec for Newline {
    type Decoder = NewlineDecoder;
    type Encoder = NewlineEncoder;

    fn split(self) -> (NewlineDecoder, NewlineEncoder) {
        (self.decoder, self.encoder)
    }
}

/// Lines into frames.
#[derive(Debug, Clone)]
pub struct NewlineDecoder {
    max_size: usize,
    /// Bytes of `src` that are known to hold no newline.
    scanned: usize,
}

impl Default for NewlineDecoder {
    fn default() -> Self {
        Self { max_size: MAX_MESSAGE_SIZE, scanned: 0 }
    }
}

impl Decode for NewlineDecoder {
    #[inline]
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        let Some(found) = scan::find_newline(src.get(self.scanned..).unwrap_or_default()) else {
            self.scanned = src.len();
            return Ok(Step::Incomplete { consumed: 0, needed: 0 });
        };
        let at = self.scanned + found;
        self.scanned = 0;
        if at > self.max_size {
            return Ok(Step::Fault {
                fault: Fault::TooLarge { size: at as u64, limit: self.max_size },
                consumed: at + 1,
            });
        }
        Ok(Step::Frame { payload: 0..at, consumed: at + 1 })
    }
}

/// Frames into lines.
#[derive(Debug, Clone)]
pub struct NewlineEncoder {
    max_size: usize,
}

impl Default for NewlineEncoder {
    fn default() -> Self {
        Self { max_size: MAX_MESSAGE_SIZE }
    }
}

impl Encode for NewlineEncoder {
    fn overhead(&self) -> usize {
        1
    }

    #[inline]
    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        let size = payload.len();
        if size > self.max_size {
            return Err(Rejection::TooLarge { size, limit: self.max_size });
        }
        if !scan::copy_line(payload, dst) {
            return Err(Rejection::EmbeddedDelimiter { at: scan::find_newline(payload).unwrap_or_default() });
        }
        if let Some(end) = dst.get_mut(size) {
            *end = b'\n';
        }
        Ok(size + 1)
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        let size = parts.iter().map(|part| part.len()).sum();
        if size > self.max_size {
            return Err(Rejection::TooLarge { size, limit: self.max_size });
        }
        let mut before = 0;
        for part in parts {
            if let Some(at) = scan::find_newline(part) {
                return Err(Rejection::EmbeddedDelimiter { at: before + at });
            }
            before += part.len();
        }
        Ok(Some(Wrap::new(&[], b"\n")))
    }
}
