//! Server-sent events (WHATWG HTML §9.2), the framing of `text/event-stream`, in which MCP's servers stream over HTTP.
//!
//! Uses `error` and `limits`.
//!
//! ```text
//!  : a comment LF                      not looked at
//!  event: message LF                   what kind of event, "message" when absent
//!  id: 7 LF                            where to go on after a break
//!  retry: 3000 LF                      milliseconds to wait before
//!  data: {"jsonrpc":"2.0", LF          a frame's payload: the values of all data lines,
//!  data: "method":"ping"} LF           with an LF between each two
//!  LF                                  end of the event
//! ```
//!
//! A line ends with LF, CR or CRLF; a byte order mark at the start of the stream is dropped. An event without a data
//! line is none, though its id counts. A single data line is delivered where it lies; the values of several are moved
//! together in place, each byte once.

use std::{io::IoSlice, time::Duration};

use bytes::BytesMut;
use memchr::{memchr, memchr2};

use super::{Codec, Decode, Encode, Step, Wrap};
use crate::{
    error::{Fault, Rejection, Violation},
    limits::{MAX_BLANK_LINES, MAX_EVENT_OVERHEAD, MAX_HEAD_SIZE, MAX_MESSAGE_SIZE},
};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What stands before a value of a data line.
const DATA: &[u8] = b"data: ";

/// And behind the last.
const END: &[u8] = b"\n\n";

/// Server-sent events, both directions, with a limit of 16 MiB per payload.
#[derive(Debug, Clone, Default)]
pub struct Sse {
    decoder: SseDecoder,
    encoder: SseEncoder,
}

impl Sse {
    /// Server-sent events with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many bytes a received event may take on the wire beyond the largest payload, in all its lines, each
    /// counted with one byte for its end. Default: [`MAX_EVENT_OVERHEAD`].
    #[must_use]
    pub fn max_overhead(mut self, bytes: usize) -> Self {
        self.decoder.max_overhead = bytes;
        self
    }
}

impl Codec for Sse {
    type Decoder = SseDecoder;
    type Encoder = SseEncoder;

    fn split(self) -> (SseDecoder, SseEncoder) {
        (self.decoder, self.encoder)
    }
}

super::limited!(Sse);
super::delegate!(Sse);

/// Events into frames.
///
/// A payload over the limit, an event over it with its overhead, a `event` or `id` of more than [`MAX_HEAD_SIZE`] bytes:
/// one [`Fault::TooLarge`] at the event's end. [`MAX_BLANK_LINES`] blank lines in a row: one [`Fault::Noise`] that counts
/// them. An event that the stream's end cuts off: one [`Fault::Truncated`].
#[derive(Debug, Clone)]
pub struct SseDecoder {
    max_size: usize,
    max_overhead: usize,
    /// Nothing has come yet, so a byte order mark may.
    at_start: bool,
    /// The last line ended with CR: an LF at once behind it belongs to it.
    after_cr: bool,
    /// Where the line begins that is being read.
    line: usize,
    /// Bytes of `src` that are known to hold no further line end. At least `line`.
    scanned: usize,
    /// Where the event's payload begins, and its length so far with an LF behind each value; 0: no data line yet.
    base: usize,
    data: usize,
    /// Bytes of the event's lines so far, comments before the first other line left out.
    cost: u64,
    /// The event is over the limit and nothing of it is kept. Then: bytes of the unfinished line that are gone.
    skipping: Option<u64>,
    /// Size of a field that was too long.
    too_long: Option<usize>,
    blank: usize,
    event: Vec<u8>,
    next_event: Vec<u8>,
    id: Vec<u8>,
    next_id: Vec<u8>,
    retry: Option<Duration>,
}

impl Default for SseDecoder {
    fn default() -> Self {
        Self {
            max_size: MAX_MESSAGE_SIZE,
            max_overhead: MAX_EVENT_OVERHEAD,
            at_start: true,
            after_cr: false,
            line: 0,
            scanned: 0,
            base: 0,
            data: 0,
            cost: 0,
            skipping: None,
            too_long: None,
            blank: 0,
            event: Vec::new(),
            next_event: Vec::new(),
            id: Vec::new(),
            next_id: Vec::new(),
            retry: None,
        }
    }
}

impl Decode for SseDecoder {
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        // Ends with `src` at the latest: each round takes a line off it.
        loop {
            if !self.starts_line(src) {
                return Ok(self.unfinished(src.len()));
            }
            let Some(found) = memchr2(b'\n', b'\r', src.get(self.scanned..).unwrap_or_default()) else {
                return Ok(self.unfinished(src.len()));
            };
            let (start, end) = (self.line, self.scanned + found);
            self.after_cr = src.get(end) == Some(&b'\r');
            self.line = end + 1;
            self.scanned = self.line;
            let size = (end - start) as u64 + self.skipping.unwrap_or(0);
            if size == 0 {
                if let Some(step) = self.dispatch(src) {
                    return Ok(step);
                }
                continue;
            }
            self.blank = 0;
            if self.skipping.is_some() || self.is_over(size) {
                self.cost += size + 1;
                self.skip(0);
            } else {
                self.field(src, start, end);
            }
        }
    }

    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        let step = self.decode(src)?;
        let Step::Incomplete { .. } = step else { return Ok(step) };
        // What `decode` has just given back as done with is gone from `line`'s count.
        let partial = match step {
            Step::Incomplete { consumed, .. } => src.len() - consumed - self.line,
            _ => 0,
        };
        let left = partial as u64 + self.skipping.unwrap_or(0);
        let cut_off = left > 0 || self.data > 0 || self.skipping.is_some();
        let size = usize::try_from(self.cost + left).unwrap_or(usize::MAX);
        self.clear();
        (self.line, self.scanned) = (0, 0);
        Ok(if cut_off {
            Step::Fault { fault: Fault::Truncated { size }, consumed: src.len() }
        } else {
            Step::Incomplete { consumed: src.len(), needed: 0 }
        })
    }

    fn is_mid_message(&self) -> bool {
        self.skipping.is_some() || !self.next_event.is_empty()
    }
}

impl SseDecoder {
    /// What kind of event the last frame was; empty when it did not say, which means `message`.
    #[must_use]
    pub fn event(&self) -> &[u8] {
        &self.event
    }

    /// The last event id: where to go on after a break (header `Last-Event-ID`). It is kept from event to event until
    /// another takes its place; empty when there is none.
    #[must_use]
    pub fn last_event_id(&self) -> &[u8] {
        &self.id
    }

    /// How long to wait before connecting anew, if the peer has said so.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Steps over a byte order mark and the LF of a CRLF. False: more bytes have to come to tell.
    fn starts_line(&mut self, src: &[u8]) -> bool {
        let rest = src.get(self.line..).unwrap_or_default();
        if self.at_start {
            if rest.len() < BOM.len() && BOM.starts_with(rest) {
                return false;
            }
            self.at_start = false;
            if rest.starts_with(BOM) {
                self.line += BOM.len();
            }
        } else if self.after_cr {
            match rest.first() {
                None => return false,
                Some(b'\n') => self.line += 1,
                Some(_) => {}
            }
            self.after_cr = false;
        }
        self.scanned = self.scanned.max(self.line);
        true
    }

    /// Whether a line of `size` bytes more is too much for the event.
    fn is_over(&self, size: u64) -> bool {
        self.cost + size + 1 > self.limit() as u64
    }

    fn limit(&self) -> usize {
        self.max_size.saturating_add(self.max_overhead)
    }

    /// Keeps nothing more of the event; `gone` bytes of its unfinished line are done with.
    fn skip(&mut self, gone: u64) {
        self.skipping = Some(gone);
        self.data = 0;
    }

    /// No line end in the rest of `src`, which is `len` bytes long.
    fn unfinished(&mut self, len: usize) -> Step {
        let partial = (len - self.line) as u64;
        if !self.at_start && (self.skipping.is_some() || self.is_over(partial)) && partial > 0 {
            self.skip(self.skipping.unwrap_or(0) + partial);
            self.line = len;
        }
        let consumed = if self.data > 0 { self.base } else { self.line };
        self.base = 0;
        self.line -= consumed;
        self.scanned = len - consumed;
        Step::Incomplete { consumed, needed: 0 }
    }

    /// Takes in `src[start..end]`, a line that is not blank.
    fn field(&mut self, src: &mut [u8], start: usize, end: usize) {
        let line = src.get(start..end).unwrap_or_default();
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        // Comments that come while there is nothing else keep the connection alive, for any time.
        if name.is_empty() && self.cost == 0 {
            return;
        }
        self.cost += line.len() as u64 + 1;
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                let (from, size) = (end - value.len(), value.len());
                if self.data == 0 {
                    self.base = from;
                } else {
                    src.copy_within(from..end, self.base + self.data);
                }
                self.data += size + 1;
                // Not beyond the line's own end.
                if let Some(last) = src.get_mut(self.base + self.data - 1) {
                    *last = b'\n';
                }
            }
            b"event" | b"id" if value.len() > MAX_HEAD_SIZE => {
                self.too_long.get_or_insert(value.len());
            }
            b"event" => {
                self.next_event.clear();
                self.next_event.extend_from_slice(value);
            }
            b"id" if memchr(0, value).is_none() => {
                self.next_id.clear();
                self.next_id.extend_from_slice(value);
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let digit = |&byte: &u8| u64::from(byte - b'0');
                let millis =
                    value.iter().map(digit).fold(0_u64, |n, d| n.saturating_mul(10).saturating_add(d));
                self.retry = Some(Duration::from_millis(millis));
            }
            _ => {}
        }
    }

    /// A blank line: the event's end. `None`: there was nothing to deliver.
    fn dispatch(&mut self, src: &[u8]) -> Option<Step> {
        // The LF of a CRLF goes with its CR if it is here, so that nothing is left waiting.
        if self.after_cr && src.get(self.line) == Some(&b'\n') {
            self.after_cr = false;
            self.line += 1;
            self.scanned = self.line;
        }
        let consumed = self.line;
        let fault = |size, limit| Some(Step::Fault { fault: Fault::TooLarge { size, limit }, consumed });
        self.id.clone_from(&self.next_id);
        let step = if self.skipping.is_some() {
            fault(self.cost, self.limit())
        } else if let Some(size) = self.too_long {
            fault(size as u64, MAX_HEAD_SIZE)
        } else if self.data > 0 {
            let size = self.data - 1;
            if size > self.max_size {
                fault(size as u64, self.max_size)
            } else {
                self.event.clone_from(&self.next_event);
                Some(Step::Frame { payload: self.base..self.base + size, consumed })
            }
        } else if self.cost > 0 {
            None
        } else {
            self.blank += 1;
            (self.blank >= MAX_BLANK_LINES).then(|| {
                let size = std::mem::take(&mut self.blank);
                Step::Fault { fault: Fault::Noise { size }, consumed }
            })
        };
        self.clear();
        if step.is_some() {
            (self.line, self.scanned) = (0, 0);
        }
        step
    }

    /// Forgets the event; the ids stay.
    fn clear(&mut self) {
        (self.base, self.data, self.cost) = (0, 0, 0);
        (self.skipping, self.too_long) = (None, None);
        self.next_event.clear();
    }
}

/// One event to send, field by field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// What kind of event it is; `None` stands for `message`.
    pub event: Option<&'a [u8]>,
    /// Its id, which a client gives back as `Last-Event-ID`.
    pub id: Option<&'a [u8]>,
    /// How long the client shall wait before it connects anew; whole milliseconds go out.
    pub retry: Option<Duration>,
    /// The payload; each LF in it begins another data line. `None`: no event for the client's program.
    pub data: Option<&'a [u8]>,
}

/// Frames into events.
///
/// [`encode`](Encode::encode) and [`wrap`](Encode::wrap) write events of one data line and refuse payloads with a line
/// break; [`put`](Self::put) writes all fields and splits payloads into lines.
#[derive(Debug, Clone)]
pub struct SseEncoder {
    max_size: usize,
}

impl Default for SseEncoder {
    fn default() -> Self {
        Self { max_size: MAX_MESSAGE_SIZE }
    }
}

impl SseEncoder {
    /// Appends `event` to `dst`, whose room is grown at most once.
    ///
    /// # Errors
    /// A [`Rejection`], with `dst` untouched: data over the limit on payloads, `event` or `id` over
    /// [`MAX_HEAD_SIZE`]; or [`EmbeddedDelimiter`](Rejection::EmbeddedDelimiter) for what would not come back or would be
    /// taken for another field: a CR anywhere, an LF in `event` or `id`, a NUL in `id`.
    pub fn put(&self, event: &Event<'_>, dst: &mut BytesMut) -> Result<(), Rejection> {
        let millis = event.retry.map(|retry| u64::try_from(retry.as_millis()).unwrap_or(u64::MAX));
        let refused = |at| Err(Rejection::EmbeddedDelimiter { at });
        for field in [event.event, event.id].into_iter().flatten() {
            if field.len() > MAX_HEAD_SIZE {
                return Err(Rejection::TooLarge { size: field.len(), limit: MAX_HEAD_SIZE });
            }
            if let Some(at) = memchr2(b'\n', b'\r', field) {
                return refused(at);
            }
        }
        if let Some(at) = event.id.and_then(|id| memchr(0, id)) {
            return refused(at);
        }
        let mut room = MAX_DIGITS + b"event: \nid: \nretry: \n".len() + END.len();
        room += event.event.map_or(0, <[u8]>::len) + event.id.map_or(0, <[u8]>::len);
        if let Some(data) = event.data {
            self.check_size(data.len())?;
            let mut lines = 1;
            for at in memchr::memchr2_iter(b'\n', b'\r', data) {
                if data.get(at) == Some(&b'\r') {
                    return refused(at);
                }
                lines += 1;
            }
            room += data.len() + lines * (DATA.len() + 1);
        }
        dst.reserve(room);
        for (name, value) in [(&b"event: "[..], event.event), (b"id: ", event.id)] {
            if let Some(value) = value {
                dst.extend_from_slice(name);
                dst.extend_from_slice(value);
                dst.extend_from_slice(b"\n");
            }
        }
        if let Some(millis) = millis {
            put_retry(millis, dst);
        }
        for line in event.data.into_iter().flat_map(|data| data.split(|&byte| byte == b'\n')) {
            dst.extend_from_slice(DATA);
            dst.extend_from_slice(line);
            dst.extend_from_slice(b"\n");
        }
        dst.extend_from_slice(b"\n");
        Ok(())
    }

    fn check_size(&self, size: usize) -> Result<(), Rejection> {
        if size > self.max_size {
            return Err(Rejection::TooLarge { size, limit: self.max_size });
        }
        Ok(())
    }
}

/// Digits of the largest number of milliseconds.
const MAX_DIGITS: usize = 20;

fn put_retry(millis: u64, dst: &mut BytesMut) {
    let mut digits = [b'0'; MAX_DIGITS];
    let (mut left, mut count) = (millis, 0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        (left, count) = (left / 10, count + 1);
        if left == 0 {
            break;
        }
    }
    dst.extend_from_slice(b"retry: ");
    dst.extend_from_slice(digits.get(MAX_DIGITS - count..).unwrap_or_default());
    dst.extend_from_slice(b"\n");
}

impl Encode for SseEncoder {
    fn overhead(&self) -> usize {
        DATA.len() + END.len()
    }

    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        self.check_size(payload.len())?;
        if let Some(at) = memchr2(b'\n', b'\r', payload) {
            return Err(Rejection::EmbeddedDelimiter { at });
        }
        let end = super::join(DATA, payload, dst);
        if let Some(tail) = dst.get_mut(end..end + END.len()) {
            tail.copy_from_slice(END);
        }
        Ok(end + END.len())
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        self.check_size(parts.iter().map(|part| part.len()).sum())?;
        let mut before = 0;
        for part in parts {
            if let Some(at) = memchr2(b'\n', b'\r', part) {
                return Err(Rejection::EmbeddedDelimiter { at: before + at });
            }
            before += part.len();
        }
        Ok(Some(Wrap::new(DATA, END)))
    }
}
