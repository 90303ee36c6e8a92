//! A codec of your own in sixty lines: messages that end with a NUL byte, as XMLSocket has them. It runs on `Link` like
//! the codecs of this crate, with everything a link brings.

use std::io::IoSlice;

use framewire::{
    Link,
    codec::{Codec, Decode, Encode, Step, Wrap},
    error::{Fault, Rejection, Violation},
    limits::MAX_MESSAGE_SIZE,
};

/// Messages that end with a NUL byte.
struct Nul;

#[derive(Default)]
struct NulDecoder {
    /// Bytes of the unread input that are known to hold no NUL: nothing is looked at twice.
    scanned: usize,
    /// Bytes of a message above the limit that have been dropped so far: nothing is held that is too large.
    skipped: usize,
}

struct NulEncoder;

impl Codec for Nul {
    type Decoder = NulDecoder;
    type Encoder = NulEncoder;

    fn split(self) -> (NulDecoder, NulEncoder) {
        (NulDecoder::default(), NulEncoder)
    }
}

impl Decode for NulDecoder {
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        let found = src.iter().skip(self.scanned).position(|&byte| byte == 0).map(|at| self.scanned + at);
        let Some(end) = found else {
            if self.skipped > 0 || src.len() > MAX_MESSAGE_SIZE {
                self.skipped += src.len();
                self.scanned = 0;
                return Ok(Step::Incomplete { consumed: src.len(), needed: 0 });
            }
            self.scanned = src.len();
            return Ok(Step::Incomplete { consumed: 0, needed: 0 });
        };
        let size = std::mem::take(&mut self.skipped) + end;
        self.scanned = 0;
        if size > MAX_MESSAGE_SIZE {
            let fault = Fault::TooLarge { size: size as u64, limit: MAX_MESSAGE_SIZE };
            return Ok(Step::Fault { fault, consumed: end + 1 });
        }
        Ok(Step::Frame { payload: 0..end, consumed: end + 1 })
    }
}

impl Encode for NulEncoder {
    fn overhead(&self) -> usize {
        1
    }

    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        self.wrap(&[IoSlice::new(payload)])?;
        for (to, from) in dst.iter_mut().zip(payload.iter().chain(&[0])) {
            *to = *from;
        }
        Ok(payload.len() + 1)
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        match parts.iter().flat_map(|part| part.iter()).position(|&byte| byte == 0) {
            Some(at) => Err(Rejection::EmbeddedDelimiter { at }),
            None => Ok(Some(Wrap::new(b"", b"\0"))),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> framewire::Result<()> {
    let (near, far) = tokio::io::duplex(1024);
    let (reader, writer) = tokio::io::split(near);
    let mut near = Link::pair(Nul, reader, writer);
    let (reader, writer) = tokio::io::split(far);
    let mut far = Link::pair(Nul, reader, writer);

    near.send(b"two lines\nin one message").await?;
    assert!(near.send(b"a\0b").await.is_err_and(|error| !error.is_fatal()));
    println!("{}", String::from_utf8_lossy(&far.receive().await?));
    near.close().await?;
    assert!(far.receive().await.is_err_and(|end| end.is_clean_end()));
    Ok(())
}
