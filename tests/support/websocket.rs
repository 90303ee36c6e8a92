//! A WebSocket decoder that is as plain as the RFC's prose, on all bytes at once, and frames made by hand.
#![allow(dead_code, unreachable_pub)]

use framewire::codec::websocket::{Kind, Role};

/// The key of RFC 6455 §5.7.
pub const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Message(Kind, Vec<u8>),
    /// Bytes that go out by themselves.
    Reply(Vec<u8>),
    /// With the code of the peer's Close frame.
    Closed(u16),
    /// With the code of the Close frame that goes out.
    Broken(u16),
}

#[derive(Debug, Clone)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
    pub key: Option<[u8; 4]>,
}

pub fn frame(frame: &Frame) -> Vec<u8> {
    let size = frame.payload.len();
    let mask = if frame.key.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![frame.first];
    if size < 126 {
        bytes.push(mask | size as u8);
    } else if size < 65536 {
        bytes.push(mask | 126);
        bytes.extend_from_slice(&(size as u16).to_be_bytes());
    } else {
        bytes.push(mask | 127);
        bytes.extend_from_slice(&(size as u64).to_be_bytes());
    }
    if let Some(key) = frame.key {
        bytes.extend_from_slice(&key);
        bytes.extend(frame.payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    } else {
        bytes.extend_from_slice(&frame.payload);
    }
    bytes
}

pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(&Frame { first, payload: payload.to_vec(), key: Some(KEY) })
}

pub fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(&Frame { first, payload: payload.to_vec(), key: None })
}

fn utf8_prefix(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// What is to be made of `bytes`, limits aside. For a client the replies are not compared byte by byte: left empty.
pub fn decode(bytes: &[u8], role: Role) -> Vec<Event> {
    let mut events = Vec::new();
    let mut at = 0;
    let mut message: Option<(Kind, Vec<u8>)> = None;
    macro_rules! broken {
        ($code:expr) => {{
            events.push(Event::Broken($code));
            return events;
        }};
    }
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (first, opcode, last) = (rest[0], rest[0] & 15, rest[0] & 0x80 != 0);
        if !matches!(opcode, 0..=2 | 8..=10) || first & 0x70 != 0 || (opcode >= 8 && !last) {
            broken!(1002);
        }
        let Some(&second) = rest.get(1) else { break };
        let masked = second & 0x80 != 0;
        let short = usize::from(second & 0x7f);
        if masked != (role == Role::Server) || (opcode >= 8 && short > 125) {
            broken!(1002);
        }
        let (size, mut head) = match short {
            126 => {
                if rest.len() < 4 {
                    break;
                }
                (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4)
            }
            127 => {
                if rest.len() < 10 {
                    break;
                }
                let size = u64::from_be_bytes(rest[2..10].try_into().unwrap());
                if size >> 63 != 0 {
                    broken!(1002);
                }
                (size as usize, 10)
            }
            short => (short, 2),
        };
        if (short == 126 && size < 126) || (short == 127 && size < 65536) {
            broken!(1002);
        }
        let mut key = [0; 4];
        if masked {
            if rest.len() < head + 4 {
                break;
            }
            key.copy_from_slice(&rest[head..head + 4]);
            head += 4;
        }
        match (opcode, &message) {
            (0, None) | (1 | 2, Some(_)) => broken!(1002),
            _ => {}
        }
        let before = message.as_ref().map_or(0, |(_, sofar)| sofar.len());
        if opcode < 8 && size.saturating_add(before) > framewire::limits::MAX_MESSAGE_SIZE {
            broken!(1009);
        }
        let here = &rest[head..rest.len().min(head + size)];
        let payload: Vec<u8> = here.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        let whole = payload.len() == size;
        if opcode >= 8 && !whole {
            break;
        }
        at += head + size;
        match opcode {
            8 => {
                let code = match payload.len() {
                    0 => 1005,
                    1 => broken!(1002),
                    _ => u16::from_be_bytes([payload[0], payload[1]]),
                };
                if !matches!(code, 1000..=1003 | 1005 | 1007..=1014 | 3000..=4999)
                    || (code == 1005 && !payload.is_empty())
                {
                    broken!(1002);
                }
                if payload.len() > 2 && std::str::from_utf8(&payload[2..]).is_err() {
                    broken!(1007);
                }
                let echo = if payload.is_empty() { &[][..] } else { &payload[..2] };
                events.push(Event::Reply(plain(0x88, echo)));
                events.push(Event::Closed(code));
                return events;
            }
            9 => events.push(Event::Reply(plain(0x8a, &payload))),
            10 => {}
            _ => {
                let (kind, mut sofar) = message
                    .take()
                    .unwrap_or_else(|| (if opcode == 1 { Kind::Text } else { Kind::Binary }, Vec::new()));
                sofar.extend_from_slice(&payload);
                if kind == Kind::Text && !utf8_prefix(&sofar) {
                    broken!(1007);
                }
                if !whole {
                    break;
                }
                if !last {
                    message = Some((kind, sofar));
                } else if kind == Kind::Text && std::str::from_utf8(&sofar).is_err() {
                    broken!(1007);
                } else {
                    events.push(Event::Message(kind, sofar));
                }
            }
        }
    }
    events
}
