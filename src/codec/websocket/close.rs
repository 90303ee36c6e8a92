//! Closing (RFC 6455 §7): codes, reasons, and control frames as bytes of the wire.

use super::{
    Role,
    head::{FIN, MAX_CONTROL, MAX_HEAD, Opcode, protocol, write},
    key,
};
use crate::{codec::Reply, error::Violation, scan};

/// Why an end closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CloseReason {
    code: u16,
    text: Box<str>,
}

impl CloseReason {
    /// A reason of `code` with a `text`, of which at most 123 bytes are kept. `None` when the code must not be sent
    /// (RFC 6455 §7.4).
    #[must_use]
    pub fn new(code: u16, text: &str) -> Option<Self> {
        if !may_be_sent(code) {
            return None;
        }
        let mut end = text.len().min(MAX_CONTROL - 2);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Some(Self { code, text: text.get(..end).unwrap_or_default().into() })
    }

    /// The code: 1000 for a normal end (RFC 6455 §7.4.1); 1005 when the frame had none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The text, for people who look into logs; it may be empty.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads the payload of a Close frame.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Violation> {
        let Some((code, text)) = payload.split_first_chunk() else {
            return match payload {
                [] => Ok(Self { code: 1005, text: Box::default() }),
                _ => Err(protocol("close payload of one byte", "RFC 6455 §5.5.1")),
            };
        };
        let code = u16::from_be_bytes(*code);
        if !may_be_sent(code) {
            return Err(protocol("close code that must not be sent", "RFC 6455 §7.4"));
        }
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Self { code, text: text.into() }),
            Err(_) => Err(Violation::Protocol {
                rule: "close reason that is not UTF-8",
                section: "RFC 6455 §5.5.1",
                code: 1007,
            }),
        }
    }
}

/// Codes that may stand in a Close frame: those defined (§7.4.1 and IANA's registry) and those for libraries and
/// applications (§7.4.2).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// A control frame with `payload`, of which at most 125 bytes are kept.
pub(super) fn control(role: Role, opcode: Opcode, payload: &[u8]) -> Reply {
    let payload = payload.get(..MAX_CONTROL).unwrap_or(payload);
    let key = match role {
        Role::Client => Some(key::next()),
        Role::Server => None,
    };
    let mut head = [0; MAX_HEAD];
    let len = write(&mut head, FIN | opcode.bits(), payload.len(), key);
    let mut bytes = [0; Reply::MAX];
    let end = len + payload.len();
    if let (Some(to), Some(head)) = (bytes.get_mut(..len), head.get(..len)) {
        to.copy_from_slice(head);
    }
    if let Some(to) = bytes.get_mut(len..end) {
        scan::mask_copy(payload, to, key.unwrap_or_default());
    }
    Reply::new(bytes.get(..end).unwrap_or_default(), opcode == Opcode::Close)
}

/// A Close frame; without a code where there is none to send.
pub(super) fn frame(role: Role, code: u16, text: &str) -> Reply {
    let mut payload = [0; MAX_CONTROL];
    let mut len = 0;
    if may_be_sent(code) {
        for (to, from) in payload.iter_mut().zip(code.to_be_bytes().iter().chain(text.as_bytes())) {
            *to = *from;
            len += 1;
        }
    }
    control(role, Opcode::Close, payload.get(..len).unwrap_or_default())
}
