//! No framing at all: what comes until the end of the stream is one message.
//!
//! For media that keep boundaries themselves: the body of an HTTP message, a file, the record of a queue, one-shot
//! pipes. Bytes are passed through as they are.

use std::{io::IoSlice, ops::Range};

use super::{Codec, Decode, Encode, Step, Wrap};
use crate::{
    error::{Fault, Rejection, Violation},
    limits::MAX_MESSAGE_SIZE,
};

/// One message per stream, both directions, with limits of 16 MiB.
#[derive(Debug, Clone, Default)]
pub struct Whole {
    decoder: WholeDecoder,
    encoder: WholeEncoder,
}

impl Whole {
    /// One message per stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Codec for Whole {
    type Decoder = WholeDecoder;
    type Encoder = WholeEncoder;

    fn split(self) -> (WholeDecoder, WholeEncoder) {
        (self.decoder, self.encoder)
    }
}

super::limited!(Whole);
super::delegate!(Whole);

/// A stream into its one frame.
#[derive(Debug, Clone)]
pub struct WholeDecoder {
    max_size: usize,
    /// Bytes dropped because the message is over the limit; 0 while it is not.
    skipped: u64,
}

impl Default for WholeDecoder {
    fn default() -> Self {
        Self { max_size: MAX_MESSAGE_SIZE, skipped: 0 }
    }
}

impl Decode for WholeDecoder {
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        if self.skipped == 0 && src.len() <= self.max_size {
            return Ok(Step::Incomplete { consumed: 0, needed: 0 });
        }
        self.skipped += src.len() as u64;
        Ok(Step::Incomplete { consumed: src.len(), needed: 0 })
    }

    fn is_mid_message(&self) -> bool {
        self.skipped > 0
    }

    fn unfinished(&self, src: &[u8]) -> Range<usize> {
        if self.skipped > 0 { 0..0 } else { 0..src.len() }
    }

    /// The end of the stream is the end of the message. A stream without bytes holds no message.
    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        if let Step::Incomplete { consumed, .. } = self.decode(src)?
            && self.skipped > 0
        {
            let fault = Fault::TooLarge { size: std::mem::take(&mut self.skipped), limit: self.max_size };
            return Ok(Step::Fault { fault, consumed });
        }
        let size = src.len();
        Ok(if size == 0 {
            Step::Incomplete { consumed: 0, needed: 0 }
        } else {
            Step::Frame { payload: 0..size, consumed: size }
        })
    }
}

/// The one frame into a stream.
#[derive(Debug, Clone)]
pub struct WholeEncoder {
    max_size: usize,
}

impl Default for WholeEncoder {
    fn default() -> Self {
        Self { max_size: MAX_MESSAGE_SIZE }
    }
}

impl WholeEncoder {
    fn check(&self, size: usize) -> Result<(), Rejection> {
        if size > self.max_size {
            return Err(Rejection::TooLarge { size, limit: self.max_size });
        }
        if size == 0 { Err(Rejection::Empty) } else { Ok(()) }
    }
}

impl Encode for WholeEncoder {
    fn overhead(&self) -> usize {
        0
    }

    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        self.check(payload.len())?;
        Ok(super::join(&[], payload, dst))
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        self.check(parts.iter().map(|part| part.len()).sum())?;
        Ok(Some(Wrap::new(&[], &[])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::run;

    #[test]
    fn the_whole_stream_is_one_message() {
        for piece in 1..6 {
            assert_eq!(run(&mut Whole::new().decoder, b"a\nb\0c", piece), [Ok(b"a\nb\0c".to_vec())]);
        }
        assert!(run(&mut Whole::new().decoder, b"", 1).is_empty());
    }

    #[test]
    fn a_stream_over_the_limit_is_one_fault() {
        let fault = Fault::TooLarge { size: 5, limit: 4 };
        for piece in 1..6 {
            assert_eq!(run(&mut Whole::new().max_size(4).decoder, b"12345", piece), [Err(fault.clone())]);
            assert_eq!(run(&mut Whole::new().max_size(5).decoder, b"12345", piece), [Ok(b"12345".to_vec())]);
        }
    }
}
