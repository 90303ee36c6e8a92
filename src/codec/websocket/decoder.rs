//! [`WebSocketDecoder`]: frames into messages.

#[cfg(feature = "deflate")]
mod compressed;

use std::{ops::Range, time::Duration};

use super::{
    Kind, Role, close,
    close::CloseReason,
    head::{FIN, Head, MAX_CONTROL, MAX_HEAD, Opcode, protocol},
};
use crate::{
    codec::{Decode, Reply, Step},
    error::Violation,
    limits::{KEEP_ALIVE, MAX_CONTROL_FRAMES, MAX_FRAGMENTS, MAX_MESSAGE_SIZE},
    scan::{self, Utf8},
};

/// Bytes that are looked at twice at most, the second time in the first-level cache.
const STRIDE: usize = 4096;

/// Bytes for which there is nothing faster than to take the mask off and look again if they are not ASCII.
const SMALL: usize = 255;

/// Dead bytes between the parts of a message above which its parts are moved up behind them, so that the front can go.
const MAX_GAP: usize = 4096;

/// Pings in a row that a peer may leave unanswered.
const MAX_UNANSWERED: u8 = 2;

/// The receiving direction of [`WebSocket`](super::WebSocket).
///
/// ```text
///  src:  ├ dead ┼ begin: the message, plain ┼ dead ┼ next: masked, or the head of the next frame ─▶
///                 ├────── have ─────────────┤        ├───── left of the frame's payload ───┤
/// ```
#[derive(Debug, Clone)]
pub struct WebSocketDecoder {
    role: Role,
    /// No message is unfinished and nothing is broken: the next byte begins a frame.
    fresh: bool,
    /// The kind of the last message, or of the one that is unfinished.
    kind: Kind,
    /// The largest message, and the largest of one frame.
    max_size: usize,
    max_plain: usize,
    message: Message,
    /// The frame whose payload is being taken in.
    frame: Option<Payload>,
    utf8: Utf8,
    /// `None`: the default ones. An idle connection is to be small.
    limits: Option<Box<Limits>>,
    /// Control frames since the last data frame.
    controls: u32,
    /// Pings since the peer was last heard.
    unanswered: u8,
    parts: bool,
    /// The largest payload of a whole frame that is taken to be ASCII until seen to be otherwise.
    max_small: u16,
    /// The last part that was delivered ended its message.
    is_final: bool,
    #[cfg(feature = "deflate")]
    inflater: Option<Box<super::deflate::Inflater>>,
    reply: Option<Box<Reply>>,
    outcome: Option<Box<Outcome>>,
}

#[derive(Debug, Clone)]
struct Limits {
    frame: usize,
    fragments: usize,
    controls: usize,
    keep_alive: Option<Duration>,
}

static DEFAULT_LIMITS: Limits = Limits {
    frame: usize::MAX,
    fragments: MAX_FRAGMENTS,
    controls: MAX_CONTROL_FRAMES,
    keep_alive: Some(KEEP_ALIVE),
};

/// The unfinished message, as offsets in `src`.
#[derive(Debug, Clone, Copy, Default)]
struct Message {
    open: bool,
    /// It is inflated as it comes; nothing of it stays in `src`.
    compressed: bool,
    begin: usize,
    have: usize,
    next: usize,
    fragments: u32,
}

/// What is left of a frame.
#[derive(Debug, Clone, Copy)]
struct Payload {
    key: Option<[u8; 4]>,
    left: u64,
    is_final: bool,
}

/// How the stream ended.
#[derive(Debug, Clone)]
enum Outcome {
    Closed(CloseReason),
    Broken(Violation),
}

impl WebSocketDecoder {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            fresh: true,
            kind: Kind::Text,
            max_size: MAX_MESSAGE_SIZE,
            max_plain: MAX_MESSAGE_SIZE,
            message: Message::default(),
            frame: None,
            utf8: Utf8::default(),
            limits: None,
            controls: 0,
            unanswered: 0,
            parts: false,
            max_small: STRIDE as u16,
            is_final: true,
            #[cfg(feature = "deflate")]
            inflater: None,
            reply: None,
            outcome: None,
        }
    }

    /// Whether the last part that was delivered ended its message; always so for whole messages.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// What the peer's Close frame said, once it has come.
    #[must_use]
    pub fn close_reason(&self) -> Option<&CloseReason> {
        match self.outcome.as_deref() {
            Some(Outcome::Closed(reason)) => Some(reason),
            Some(Outcome::Broken(_)) | None => None,
        }
    }

    pub(super) fn set_max_size(&mut self, bytes: usize) {
        self.max_size = bytes;
        self.max_plain = bytes.min(self.limits().frame);
    }

    fn limits(&self) -> &Limits {
        self.limits.as_deref().unwrap_or(&DEFAULT_LIMITS)
    }

    fn limits_mut(&mut self) -> &mut Limits {
        self.limits.get_or_insert_with(|| Box::new(DEFAULT_LIMITS.clone()))
    }

    pub(super) fn set_max_frame_size(&mut self, bytes: usize) {
        self.limits_mut().frame = bytes;
        self.max_plain = bytes.min(self.max_size);
    }

    pub(super) fn set_max_fragments(&mut self, count: usize) {
        self.limits_mut().fragments = count;
    }

    pub(super) fn set_max_control_frames(&mut self, count: usize) {
        self.limits_mut().controls = count;
    }

    pub(super) fn set_keep_alive(&mut self, after: Option<Duration>) {
        self.limits_mut().keep_alive = after;
    }

    pub(super) fn set_parts(&mut self, parts: bool) {
        self.parts = parts;
    }

    /// A whole message in one frame that is here: where its payload lies, and whether it is known to be ASCII.
    #[inline(always)]
    fn plain_frame(&mut self, src: &mut [u8]) -> Option<(Range<usize>, bool)> {
        let &[first, second, ref rest @ ..] = &*src else { return None };
        let text = first == FIN | 1;
        let is_server = self.role == Role::Server;
        if !self.fresh || (!text && first != FIN | 2) || (second >= 0x80) != is_server {
            return None;
        }
        let (extended, size) = match second & 0x7f {
            126 => {
                let size = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
                (2, if size < 126 { usize::MAX } else { size })
            }
            127 => {
                let size = u64::from_be_bytes(*rest.first_chunk()?);
                (8, if size <= u64::from(u16::MAX) { usize::MAX } else { usize::try_from(size).ok()? })
            }
            short => (0, usize::from(short)),
        };
        if size > self.max_plain {
            return None;
        }
        let start = 2 + extended + if is_server { 4 } else { 0 };
        let end = start + size;
        if end > src.len() {
            return None;
        }
        self.kind = if text { Kind::Text } else { Kind::Binary };
        if size > usize::from(self.max_small) {
            return self.plain_large(src, start..end).then_some((start..end, true));
        }
        let ascii = if is_server {
            let (head, rest) = src.split_at_mut_checked(start)?;
            let key = *head.last_chunk()?;
            scan::unmask(rest.get_mut(..size)?, key)
        } else {
            text && scan::is_ascii(src.get(start..end)?)
        };
        Some((start..end, ascii || !text))
    }

    /// The same for any but a small one; false when it is not UTF-8, with everything as it was but for the mask.
    #[inline(never)]
    fn plain_large(&mut self, src: &mut [u8], payload: Range<usize>) -> bool {
        let key = match self.role {
            Role::Server => src.get(..payload.start).and_then(|head| head.last_chunk()).copied(),
            Role::Client => None,
        };
        let mut utf8 = Utf8::default();
        let bytes = src.get_mut(payload).unwrap_or_default();
        let good = take_in(bytes, key, (self.kind == Kind::Text).then_some(&mut utf8)) && utf8.is_whole();
        if !good {
            self.break_off(not_utf8());
        }
        good
    }

    /// Everything but the plain case.
    #[cold]
    #[inline(never)]
    fn decode_any(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        match self.outcome.as_deref() {
            Some(Outcome::Broken(violation)) => return Err(violation.clone()),
            Some(Outcome::Closed(_)) => return Ok(Step::End { consumed: src.len() }),
            None => {}
        }
        #[cfg(feature = "deflate")]
        self.let_go();
        let step = self.advance(src);
        if let Err(violation) = &step
            && self.outcome.is_none()
        {
            self.break_off(violation.clone());
        }
        step
    }

    /// Remembers a breach and has the Close frame for it go out.
    #[cold]
    fn break_off(&mut self, violation: Violation) {
        let code = if let Violation::Protocol { code, .. } = violation { code } else { 1002 };
        self.reply = Some(Box::new(close::frame(self.role, code, "")));
        self.outcome = Some(Box::new(Outcome::Broken(violation)));
        self.fresh = false;
    }

    /// Whether compression was agreed on.
    fn may_be_compressed(&self) -> bool {
        #[cfg(feature = "deflate")]
        return self.inflater.is_some();
        #[cfg(not(feature = "deflate"))]
        false
    }

    /// Takes in frames until there is something to tell.
    fn advance(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        loop {
            if self.frame.is_some() {
                if let Some(step) = self.payload(src)? {
                    return Ok(step);
                }
                continue;
            }
            let at = if self.message.open { self.message.next } else { 0 };
            let rest = src.get_mut(at..).unwrap_or_default();
            match Head::parse(rest, self.role, self.may_be_compressed()) {
                Ok(head) if head.opcode.is_control() => {
                    if let Some(step) = self.control(rest, head, at)? {
                        return Ok(step);
                    }
                    return Ok(self.incomplete(at, head.len + head.size as usize, src));
                }
                Ok(head) => self.begin(head, at)?,
                Err(Ok(needed)) => {
                    if rest.is_empty() && !self.message.open {
                        // A pause: whoever sends control frames now and then may do so for days.
                        self.controls = 0;
                    }
                    return Ok(self.incomplete(at, needed, src));
                }
                Err(Err(violation)) => return Err(violation),
            }
        }
    }

    /// `needed` bytes from `at` on are not all here. What is dead before the message goes.
    fn incomplete(&mut self, at: usize, needed: usize, src: &mut [u8]) -> Step {
        if !self.message.open {
            return Step::Incomplete { consumed: at, needed };
        }
        let Message { begin, have, next, .. } = self.message;
        let gap = next - begin - have;
        if gap > have.max(MAX_GAP) {
            // Each byte moves once for each byte that is dead: linear in what has come.
            src.copy_within(begin..begin + have, next - have);
            self.message.begin = next - have;
        }
        let Message { begin: dead, compressed, .. } = self.message;
        if dead <= MAX_HEAD && !compressed && !self.parts {
            // Its head stays with it: so the reader learns how much of the stream a message takes.
            return Step::Incomplete { consumed: 0, needed: at + needed };
        }
        self.message.begin = 0;
        self.message.next -= dead;
        Step::Incomplete { consumed: dead, needed: at - dead + needed }
    }

    /// A data frame begins at `at`.
    fn begin(&mut self, head: Head, at: usize) -> Result<(), Violation> {
        let open = self.message.open;
        match head.opcode {
            Opcode::Data(kind) if !open => {
                self.kind = kind;
                self.utf8 = Utf8::default();
                let (compressed, begin) = (head.compressed, at + head.len);
                self.message = Message { open: true, compressed, begin, ..Message::default() };
            }
            Opcode::Data(_) => {
                return Err(protocol("new message inside an unfinished one", "RFC 6455 §5.4"));
            }
            _ if !open => return Err(protocol("continuation without a message", "RFC 6455 §5.4")),
            _ => {}
        }
        self.fresh = false;
        self.controls = 0;
        self.unanswered = 0;
        self.message.fragments = self.message.fragments.saturating_add(1);
        self.message.next = at + head.len;
        let whole = if self.parts { head.size } else { head.size.saturating_add(self.message.have as u64) };
        let limited = !self.parts && !self.message.compressed;
        if head.size > self.limits().frame as u64 || (limited && whole > self.max_size as u64) {
            return Err(too_large("message over the limit"));
        }
        #[cfg(feature = "deflate")]
        if self.message.compressed && self.compressed_too_large(head.size) {
            return Err(too_large("compressed message over the limit"));
        }
        if self.message.fragments as usize > self.limits().fragments && !self.parts {
            return Err(too_large("message in too many fragments"));
        }
        self.frame = Some(Payload { key: head.key, left: head.size, is_final: head.is_final });
        Ok(())
    }

    /// Takes in what is here of the frame's payload; `None` when the frame is over and the message is not.
    fn payload(&mut self, src: &mut [u8]) -> Result<Option<Step>, Violation> {
        let Some(mut frame) = self.frame else { return Ok(None) };
        #[cfg(feature = "deflate")]
        if self.message.compressed {
            return self.inflate(src, frame);
        }
        let Message { begin, have, next, .. } = self.message;
        let here = src.len().saturating_sub(next) as u64;
        let count = frame.left.min(here) as usize;
        let end = begin + have;
        if count > 0 {
            if next > end {
                src.copy_within(next..next + count, end);
            }
            let bytes = src.get_mut(end..end + count).unwrap_or_default();
            let utf8 = (self.kind == Kind::Text).then_some(&mut self.utf8);
            if !take_in(bytes, frame.key, utf8) {
                return Err(not_utf8());
            }
            frame.key = frame.key.map(|key| scan::rotate(key, count));
            frame.left -= count as u64;
            // In the middle of a frame no pong can come; what does come says as much.
            self.unanswered = 0;
            self.message.have += count;
            self.message.next += count;
        }
        let over = frame.left == 0;
        if over && frame.is_final && !self.utf8.is_whole() {
            return Err(not_utf8());
        }
        self.frame = if over { None } else { Some(frame) };
        let Message { begin, have, next, .. } = self.message;
        if over && frame.is_final {
            self.fresh = true;
            self.is_final = true;
            self.message = Message::default();
            return Ok(Some(Step::Frame { payload: begin..begin + have, consumed: next }));
        }
        if self.parts && have > 0 {
            self.is_final = false;
            self.message.begin = 0;
            self.message.have = 0;
            self.message.next = 0;
            return Ok(Some(Step::Frame { payload: begin..begin + have, consumed: next }));
        }
        if over {
            return Ok(None);
        }
        let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
        Ok(Some(self.incomplete(next, left, src)))
    }

    /// A control frame at the start of `rest`, which is `src[at..]`; `None` when it is not all here.
    fn control(&mut self, rest: &mut [u8], head: Head, at: usize) -> Result<Option<Step>, Violation> {
        let size = head.size as usize;
        let end = head.len + size;
        let mut bytes = [0; MAX_CONTROL];
        let (Some(payload), Some(plain)) = (rest.get(head.len..end), bytes.get_mut(..size)) else {
            return Ok(None);
        };
        plain.copy_from_slice(payload);
        if let Some(key) = head.key {
            let _ascii = scan::unmask(plain, key);
        }
        self.unanswered = 0;
        self.controls = self.controls.saturating_add(1);
        if self.controls as usize > self.limits().controls {
            return Err(Violation::Protocol {
                rule: "too many control frames in a row",
                section: "RFC 6455 §10.4",
                code: 1008,
            });
        }
        match head.opcode {
            Opcode::Ping => self.reply = Some(Box::new(close::control(self.role, Opcode::Pong, plain))),
            Opcode::Close => {
                let reason = CloseReason::parse(plain)?;
                self.reply = Some(Box::new(close::frame(self.role, reason.code(), "")));
                self.outcome = Some(Box::new(Outcome::Closed(reason)));
                self.fresh = false;
                return Ok(Some(Step::End { consumed: at + end }));
            }
            _ => {}
        }
        if !self.message.open {
            return Ok(Some(Step::Event { consumed: at + end }));
        }
        self.message.next = at + end;
        Ok(Some(Step::Event { consumed: 0 }))
    }
}

/// Takes the mask off `bytes`, if there is one, and checks them if they are text; false when they cannot be UTF-8.
fn take_in(bytes: &mut [u8], key: Option<[u8; 4]>, utf8: Option<&mut Utf8>) -> bool {
    match (key, utf8) {
        (None, None) => true,
        (None, Some(utf8)) => bytes.chunks(STRIDE).all(|bytes| utf8.push(bytes, scan::is_ascii(bytes))),
        (Some(key), None) => {
            let _ascii = scan::unmask(bytes, key);
            true
        }
        (Some(key), Some(utf8)) => utf8.unmask(bytes, key),
    }
}

#[cold]
fn not_utf8() -> Violation {
    Violation::Protocol { rule: "text that is not UTF-8", section: "RFC 6455 §8.1", code: 1007 }
}

#[cold]
fn too_large(rule: &'static str) -> Violation {
    Violation::Protocol { rule, section: "RFC 6455 §7.4.1", code: 1009 }
}

impl Decode for WebSocketDecoder {
    #[inline(always)]
    fn decode(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        match self.plain_frame(src) {
            Some((payload, true)) => Ok(self.deliver(payload)),
            Some((payload, false)) => self.check(src, payload),
            None => self.decode_any(src),
        }
    }

    fn decode_eof(&mut self, src: &mut [u8]) -> Result<Step, Violation> {
        let step = self.decode(src)?;
        let Step::Incomplete { .. } = step else { return Ok(step) };
        // Nothing goes out: the peer is gone.
        let violation = Violation::Protocol {
            rule: "the connection ended without a Close frame",
            section: "RFC 6455 §7.1.5",
            code: 1006,
        };
        self.outcome = Some(Box::new(Outcome::Broken(violation.clone())));
        self.fresh = false;
        Err(violation)
    }

    #[inline]
    fn kind(&self) -> Kind {
        self.kind
    }

    #[cfg(feature = "deflate")]
    fn produced(&mut self) -> &mut [u8] {
        self.inflater.as_mut().map_or_else(Default::default, |inflater| inflater.produced())
    }

    #[cfg(feature = "deflate")]
    fn take_produced(&mut self) -> crate::Frame {
        self.inflater.as_mut().map_or_else(Default::default, |inflater| inflater.take_produced())
    }

    fn is_mid_message(&self) -> bool {
        self.message.open && !self.parts
    }

    fn unfinished(&self, _: &[u8]) -> Range<usize> {
        let Message { open, compressed, begin, have, .. } = self.message;
        if open && !compressed && !self.parts { begin..begin + have } else { 0..0 }
    }

    fn poll_reply(&mut self) -> Option<Reply> {
        self.reply.take().map(|reply| *reply)
    }

    fn idle_interval(&self) -> Option<Duration> {
        self.limits().keep_alive
    }

    fn handle_idle(&mut self) -> Result<(), Violation> {
        if self.outcome.is_some() {
            return Ok(());
        }
        if self.unanswered == MAX_UNANSWERED {
            let violation = Violation::Protocol {
                rule: "the peer has left two pings unanswered",
                section: "RFC 6455 §5.5.2",
                code: 1008,
            };
            self.break_off(violation.clone());
            return Err(violation);
        }
        self.unanswered += 1;
        self.reply = Some(Box::new(close::control(self.role, Opcode::Ping, &[self.unanswered])));
        Ok(())
    }
}

impl WebSocketDecoder {
    #[inline]
    fn deliver(&mut self, payload: Range<usize>) -> Step {
        self.controls = 0;
        self.unanswered = 0;
        self.is_final = true;
        let consumed = payload.end;
        Step::Frame { payload, consumed }
    }

    /// Text that is not ASCII.
    #[inline(never)]
    fn check(&mut self, src: &[u8], payload: Range<usize>) -> Result<Step, Violation> {
        if simdutf8::basic::from_utf8(src.get(payload.clone()).unwrap_or_default()).is_err() {
            self.break_off(not_utf8());
            return Err(not_utf8());
        }
        if payload.len() > SMALL {
            // Who writes so once will again: the mask off and the check in one pass, rather than in two if need be.
            self.max_small = SMALL as u16;
        }
        Ok(self.deliver(payload))
    }
}
