//! [`StreamingParser`]: messages out of bytes that come in pieces.

use super::{BufferStats, Check, ParsedMessage, StreamingConfig, StreamingError};
use crate::{
    Frame,
    codec::{Codec, Decode, JsonValues, JsonValuesDecoder, Step},
    error::{JsonReason, Violation},
    scan::json::Invalid,
};

/// Least room of a read, in bytes.
#[cfg(feature = "link")]
const MIN_READ: usize = 64;

/// Memory that is kept from one message to the next, in bytes.
const KEPT: usize = 256 * 1024;

/// Takes messages out of a stream of JSON values, with or without blanks between: objects and batches, found by structure
/// as the bytes come, each byte looked at once for its boundary.
///
/// ```
/// use framewire::json::StreamingParser;
///
/// let mut parser = StreamingParser::new_default();
/// parser.feed(br#"{"jsonrpc":"2.0","method":"initialized"}{"jsonrpc":"2.0","id":1,"#);
/// let message = parser.next_message()?.expect("the first is whole");
/// assert_eq!((message.message_type(), message.method()), ("notification", Some("initialized")));
/// assert!(parser.next_message()?.is_none());
/// parser.feed(br#""method":"ping"}"#);
/// assert_eq!(parser.next_message()?.expect("now it is").method(), Some("ping"));
/// # Ok::<(), framewire::json::StreamingError>(())
/// ```
#[derive(Debug)]
pub struct StreamingParser {
    config: StreamingConfig,
    decoder: JsonValuesDecoder,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are done with.
    start: usize,
    check: Check,
}

impl StreamingParser {
    /// A parser that has seen nothing.
    #[must_use]
    pub fn new(config: StreamingConfig) -> Self {
        let decoder = decoder(&config);
        Self { decoder, buffer: Vec::new(), start: 0, check: Check::new(&config), config }
    }

    /// With the default configuration.
    #[must_use]
    pub fn new_default() -> Self {
        Self::new(StreamingConfig::default())
    }

    /// Reads `bytes` as exactly one message. What came of a stream stays as it is.
    ///
    /// # Errors
    /// See [`StreamingError`]; what stands behind the message is an error too.
    ///
    /// # Cancel safety
    /// Never waits.
    pub async fn parse_from_bytes(&mut self, bytes: &[u8]) -> Result<ParsedMessage, StreamingError> {
        self.one(bytes)
    }

    pub(super) fn one(&mut self, bytes: &[u8]) -> Result<ParsedMessage, StreamingError> {
        // Before anything is copied.
        let (max_size, size) = (self.config.max_message_size, bytes.len());
        if size > max_size {
            return Err(StreamingError::BufferOverflow { max_size, size: size as u64 });
        }
        self.check.message(Frame::copy_from_slice(bytes))
    }

    /// Reads `bytes` as messages one after the other; none when there are none. What came of a stream stays as it is.
    ///
    /// # Errors
    /// The first error; see [`StreamingError`].
    ///
    /// # Cancel safety
    /// Never waits.
    pub async fn parse_multiple_from_bytes(
        &mut self,
        bytes: &[u8],
    ) -> Result<Vec<ParsedMessage>, StreamingError> {
        Self::new(self.config.clone()).several(bytes)
    }

    /// Messages one after the other, by a parser that has nothing of a stream; nor has it afterwards.
    pub(super) fn several(&mut self, bytes: &[u8]) -> Result<Vec<ParsedMessage>, StreamingError> {
        self.reset();
        self.feed(bytes);
        let mut messages = Vec::new();
        while let Some(message) = self.next_message()? {
            messages.push(message);
        }
        while let Some(message) = self.last_message()? {
            messages.push(message);
        }
        Ok(messages)
    }

    /// Takes the next bytes of the stream in. They are held until [`next_message`](Self::next_message) has taken them, so
    /// call it until it has no more.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message of what was fed; `None` when it is not whole yet.
    ///
    /// # Errors
    /// See [`StreamingError`]. The next call goes on behind it.
    pub fn next_message(&mut self) -> Result<Option<ParsedMessage>, StreamingError> {
        self.advance(false)
    }

    /// As [`next_message`](Self::next_message), when there will be no more bytes: a message that is not whole is an error.
    ///
    /// # Errors
    /// See [`StreamingError`].
    pub fn last_message(&mut self) -> Result<Option<ParsedMessage>, StreamingError> {
        self.advance(true)
    }

    fn advance(&mut self, is_end: bool) -> Result<Option<ParsedMessage>, StreamingError> {
        // Each round takes something off the buffer or returns.
        loop {
            let src = self.buffer.get_mut(self.start..).unwrap_or_default();
            let left = src.len();
            let step = if is_end { self.decoder.decode_eof(src) } else { self.decoder.decode(src) };
            match step.map_err(of_violation)? {
                Step::Frame { payload, consumed } => {
                    let frame = Frame::copy_from_slice(src.get(payload).unwrap_or_default());
                    self.start += consumed;
                    return self.check.message(frame).map(Some);
                }
                Step::Fault { fault, consumed } => {
                    self.start += consumed;
                    return Err(fault.into());
                }
                Step::Incomplete { consumed, .. }
                | Step::Event { consumed }
                | Step::Produced { consumed } => {
                    self.start += consumed;
                    if is_end && consumed > 0 && consumed < left {
                        continue;
                    }
                    self.tidy();
                    return Ok(None);
                }
                Step::End { .. } => return Ok(None),
            }
        }
    }

    /// Gives back what is done with. A rest is moved once for each read at most.
    fn tidy(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.capacity() > KEPT && self.buffer.len() < KEPT / 2 {
            self.buffer.shrink_to(KEPT / 2);
        }
    }

    /// Forgets what came of the stream.
    pub fn reset(&mut self) {
        self.buffer.clear();
        self.start = 0;
        self.decoder = decoder(&self.config);
        self.tidy();
    }

    /// What is held.
    #[must_use]
    pub fn buffer_stats(&self) -> BufferStats {
        let used = self.buffer.len() - self.start;
        BufferStats::new(self.buffer.capacity(), used, self.config.max_message_size)
    }
}

#[cfg(feature = "link")]
impl StreamingParser {
    /// Waits for the next message of the stream that `reader` reads. Give it the same reader each time.
    ///
    /// # Errors
    /// See [`StreamingError`]. After any but [`IoError`](StreamingError::IoError) the next call goes on behind the bad
    /// message.
    ///
    /// # Cancel safety
    /// Safe: what has been read stays with the parser.
    pub async fn parse_from_reader<R>(&mut self, reader: &mut R) -> Result<ParsedMessage, StreamingError>
    where
        R: tokio::io::AsyncRead + Unpin + ?Sized,
    {
        use tokio::io::AsyncReadExt;

        loop {
            if let Some(message) = self.next_message()? {
                return Ok(message);
            }
            self.buffer.reserve(self.config.read_buffer_size.max(MIN_READ));
            if reader.read_buf(&mut self.buffer).await? == 0 {
                return match self.last_message()? {
                    Some(message) => Ok(message),
                    None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                };
            }
        }
    }
}

fn decoder(config: &StreamingConfig) -> JsonValuesDecoder {
    JsonValues::new().max_decode_size(config.max_message_size).split().0
}

/// A stream of JSON values has no violations; were there one, the message would be at fault.
fn of_violation(_: Violation) -> StreamingError {
    StreamingError::JsonError(Invalid { at: 0, reason: JsonReason::Unexpected })
}
