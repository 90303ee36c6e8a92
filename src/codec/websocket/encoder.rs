//! [`WebSocketEncoder`]: messages into frames.

#[cfg(feature = "deflate")]
mod compressed;

use std::io::IoSlice;

use super::{
    Kind, Role, close,
    close::CloseReason,
    head::{FIN, MAX_HEAD, Opcode, write},
    key,
};
use crate::{
    codec::{Encode, Reply, Wrap},
    error::Rejection,
    limits::MAX_MESSAGE_SIZE,
    scan,
};

/// The sending direction of [`WebSocket`](super::WebSocket).
#[derive(Debug, Clone)]
pub struct WebSocketEncoder {
    role: Role,
    max_size: usize,
    /// The first byte of the next frame.
    first: u8,
    /// The same, when the next frame is a whole message with which nothing else is to be done; 0 otherwise.
    plain: u8,
    kind: Kind,
    check_text: bool,
    /// What is sent next is not the last part of its message.
    more: bool,
    reason: Option<CloseReason>,
    #[cfg(feature = "deflate")]
    deflater: Option<Box<super::deflate::Deflater>>,
}

impl WebSocketEncoder {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            max_size: MAX_MESSAGE_SIZE,
            first: FIN | Opcode::Data(Kind::Text).bits(),
            plain: FIN | Opcode::Data(Kind::Text).bits(),
            kind: Kind::Text,
            check_text: false,
            more: false,
            reason: CloseReason::new(1000, ""),
            #[cfg(feature = "deflate")]
            deflater: None,
        }
    }

    /// What messages are sent as.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether what is sent next is followed by `more` of the same message (RFC 6455 §5.4): each payload goes out as a
    /// fragment until it is told otherwise, and the one sent then is the last.
    pub fn set_more(&mut self, more: bool) {
        self.more = more;
        self.look_again();
    }

    /// Finds out anew whether the next frame is plain. To be called after each change.
    fn look_again(&mut self) {
        #[cfg(feature = "deflate")]
        let compresses = self.deflater.is_some();
        #[cfg(not(feature = "deflate"))]
        let compresses = false;
        let whole = !self.more && self.first == FIN | Opcode::Data(self.kind).bits();
        self.plain = if whole && !self.check_text && !compresses { self.first } else { 0 };
    }

    /// Sets what the Close frame says when this end closes. Default: 1000, without a text.
    pub fn set_close_reason(&mut self, reason: CloseReason) {
        self.reason = Some(reason);
    }

    pub(super) fn set_max_size(&mut self, bytes: usize) {
        self.max_size = bytes;
    }

    pub(super) fn set_check_text(&mut self, check: bool) {
        self.check_text = check;
        self.look_again();
    }

    #[inline]
    fn check(&self, size: usize) -> Result<(), Rejection> {
        if size > self.max_size { Err(Rejection::TooLarge { size, limit: self.max_size }) } else { Ok(()) }
    }

    fn check_text(&self, payload: &[u8]) -> Result<(), Rejection> {
        // A fragment may end inside a character.
        let whole = !self.more && self.first & FIN != 0 && self.first & 0x0f != 0;
        if !self.check_text || self.kind != Kind::Text || !whole {
            return Ok(());
        }
        simdutf8::compat::from_utf8(payload)
            .map(drop)
            .map_err(|error| Rejection::InvalidUtf8 { valid_up_to: error.valid_up_to() })
    }

    #[cold]
    fn check_parts(&self, parts: &[IoSlice<'_>]) -> Result<(), Rejection> {
        match parts {
            _ if !self.check_text => Ok(()),
            [part] => self.check_text(part),
            // A character may lie across two parts.
            _ => self.check_text(&parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>()),
        }
    }

    /// The first byte of the frame that goes out now; what follows of the message is a continuation.
    #[inline]
    fn take_first(&mut self) -> u8 {
        let plain = FIN | Opcode::Data(self.kind).bits();
        if !self.more && self.first == plain { plain } else { self.take_fragment() }
    }

    #[cold]
    fn take_fragment(&mut self) -> u8 {
        let opcode = self.first & 0x0f;
        if self.more {
            self.first = FIN | Opcode::Continuation.bits();
            opcode
        } else {
            self.first = FIN | Opcode::Data(self.kind).bits();
            let first = FIN | opcode;
            self.look_again();
            first
        }
    }

    /// Whatever is not a plain frame.
    #[cold]
    fn encode_any(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        self.check(payload.len())?;
        if self.check_text {
            self.check_text(payload)?;
        }
        #[cfg(feature = "deflate")]
        if self.compresses(payload.len())
            && let Some(end) = self.deflate(payload, dst)
        {
            return Ok(end);
        }
        let first = self.take_first();
        Ok(self.put(first, payload, dst))
    }

    #[inline(always)]
    fn put(&self, first: u8, payload: &[u8], dst: &mut [u8]) -> usize {
        // Written where it will stand: what is copied is the payload alone.
        let Some(head) = dst.first_chunk_mut() else { return 0 };
        let size = payload.len();
        // Each role by itself: one way for both would ask at each step which it is.
        match self.role {
            Role::Server => {
                let len = write(head, first, size, None);
                if let Some(to) = dst.get_mut(len..len + size) {
                    to.copy_from_slice(payload);
                }
                len + size
            }
            Role::Client => {
                let key = key::next();
                let len = write(head, first, size, Some(key));
                if let Some(to) = dst.get_mut(len..len + size) {
                    scan::mask_copy(payload, to, key);
                }
                len + size
            }
        }
    }
}

impl Encode for WebSocketEncoder {
    #[inline]
    fn overhead(&self) -> usize {
        MAX_HEAD
    }

    #[inline(always)]
    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        if self.plain != 0 && payload.len() <= self.max_size {
            return Ok(self.put(self.plain, payload, dst));
        }
        self.encode_any(payload, dst)
    }

    #[cfg(feature = "deflate")]
    #[inline]
    fn room(&self, size: usize) -> usize {
        if self.compresses(size) { Self::compressed_room(size) } else { size.saturating_add(MAX_HEAD) }
    }

    fn set_kind(&mut self, kind: Kind) {
        self.kind = kind;
        if self.first & 0x0f != Opcode::Continuation.bits() {
            self.first = FIN | Opcode::Data(kind).bits();
        }
        self.look_again();
    }

    fn takes_leave(&self) -> bool {
        true
    }

    fn goodbye(&mut self) -> Option<Reply> {
        let reason = self.reason.as_ref();
        Some(close::frame(
            self.role,
            reason.map_or(1005, CloseReason::code),
            reason.map_or("", CloseReason::text),
        ))
    }

    #[inline(always)]
    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        let size = if let [part] = parts { part.len() } else { parts.iter().map(|part| part.len()).sum() };
        self.check(size)?;
        let first = if self.plain != 0 {
            self.plain
        } else {
            #[cfg(feature = "deflate")]
            if self.compresses(size) {
                return Ok(None);
            }
            self.check_parts(parts)?;
            self.take_first()
        };
        let key = match self.role {
            Role::Server => None,
            Role::Client => Some(key::next()),
        };
        Ok(Some(Wrap::with_head(key, |head| match head.first_chunk_mut() {
            Some(head) => write(head, first, size, key),
            None => 0,
        })))
    }
}
