//! [`Head`]: the first bytes of a frame, and the rules they have to keep (RFC 6455 §5.2).

use super::{Kind, Role};
use crate::error::Violation;

/// The most bytes of a head.
pub(super) const MAX_HEAD: usize = 14;

/// The most payload bytes of a control frame (§5.5).
pub(super) const MAX_CONTROL: usize = 125;

pub(super) const FIN: u8 = 0x80;
pub(super) const RSV1: u8 = 0x40;
pub(super) const MASKED: u8 = 0x80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Data(Kind),
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Data(Kind::Text) => 1,
            Self::Data(Kind::Binary) => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// A head that keeps the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) is_final: bool,
    /// RSV1: the message is compressed.
    pub(super) compressed: bool,
    pub(super) opcode: Opcode,
    pub(super) key: Option<[u8; 4]>,
    /// Bytes of the payload.
    pub(super) size: u64,
    /// Bytes of the head.
    pub(super) len: usize,
}

/// A breach of a rule.
pub(super) fn protocol(rule: &'static str, section: &'static str) -> Violation {
    Violation::Protocol { rule, section, code: 1002 }
}

impl Head {
    /// Reads the head at the start of `src`; `Err(Ok(n))` when `n` bytes are needed to tell more.
    ///
    /// A rule that the bytes here already break is told of without waiting for the others.
    pub(super) fn parse(
        src: &[u8],
        role: Role,
        may_compress: bool,
    ) -> Result<Self, Result<usize, Violation>> {
        let Some(&first) = src.first() else { return Err(Ok(2)) };
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Data(Kind::Text),
            2 => Opcode::Data(Kind::Binary),
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Err(protocol("reserved opcode", "RFC 6455 §5.2"))),
        };
        let is_final = first & FIN != 0;
        let compressed = first & RSV1 != 0;
        if first & 0x30 != 0 || (compressed && !may_compress) {
            return Err(Err(protocol("reserved bit set without an extension for it", "RFC 6455 §5.2")));
        }
        if compressed && !matches!(opcode, Opcode::Data(_)) {
            return Err(Err(protocol("RSV1 on a frame that starts no message", "RFC 7692 §6.1")));
        }
        if opcode.is_control() && !is_final {
            return Err(Err(protocol("fragmented control frame", "RFC 6455 §5.5")));
        }
        let Some(&second) = src.get(1) else { return Err(Ok(2)) };
        let masked = second & MASKED != 0;
        match role {
            Role::Server if !masked => {
                return Err(Err(protocol("unmasked frame from a client", "RFC 6455 §5.1")));
            }
            Role::Client if masked => {
                return Err(Err(protocol("masked frame from a server", "RFC 6455 §5.1")));
            }
            Role::Server | Role::Client => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(Err(protocol("control frame of more than 125 bytes", "RFC 6455 §5.5")));
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let len = 2 + extended + if masked { 4 } else { 0 };
        let rest = src.get(2..).unwrap_or_default();
        let size = match short {
            126 => {
                let Some(size) = rest.first_chunk() else { return Err(Ok(len)) };
                let size = u64::from(u16::from_be_bytes(*size));
                if size < 126 {
                    return Err(Err(protocol("length not in the shortest form", "RFC 6455 §5.2")));
                }
                size
            }
            127 => {
                let Some(size) = rest.first_chunk() else { return Err(Ok(len)) };
                let size = u64::from_be_bytes(*size);
                if size > i64::MAX as u64 {
                    return Err(Err(protocol("length with its highest bit set", "RFC 6455 §5.2")));
                }
                if size <= u64::from(u16::MAX) {
                    return Err(Err(protocol("length not in the shortest form", "RFC 6455 §5.2")));
                }
                size
            }
            short => u64::from(short),
        };
        let key = if masked {
            let Some(key) = rest.get(extended..).and_then(|rest| rest.first_chunk()) else {
                return Err(Ok(len));
            };
            Some(*key)
        } else {
            None
        };
        Ok(Self { is_final, compressed, opcode, key, size, len })
    }
}

/// Writes the head of a frame to the start of `dst`; returns its length. `dst` has at least [`MAX_HEAD`] bytes.
#[inline]
pub(super) fn write(dst: &mut [u8; MAX_HEAD], first: u8, size: usize, key: Option<[u8; 4]>) -> usize {
    let masked = if key.is_some() { MASKED } else { 0 };
    let [to_first, to_second, rest @ ..] = dst;
    *to_first = first;
    let extended: usize = if size <= MAX_CONTROL {
        *to_second = masked | size as u8;
        0
    } else if let Ok(size) = u16::try_from(size) {
        *to_second = masked | 126;
        if let Some(to) = rest.first_chunk_mut() {
            *to = size.to_be_bytes();
        }
        2
    } else {
        *to_second = masked | 127;
        if let Some(to) = rest.first_chunk_mut() {
            *to = (size as u64).to_be_bytes();
        }
        8
    };
    let Some(key) = key else { return 2 + extended };
    if let Some(to) = rest.get_mut(extended..).and_then(|rest| rest.first_chunk_mut()) {
        *to = key;
    }
    6 + extended
}
