//! JSON once more, byte by byte and without a thought of speed. Use it as
//! `#[path = "support/json_oracle.rs"] mod json_oracle;`.
#![allow(dead_code, unreachable_pub)]

use framewire::{
    error::JsonReason,
    scan::json::{Container, Invalid},
};

/// Where the container that begins at `from` ends.
pub fn close(bytes: &[u8], from: usize) -> Container {
    let (mut open, mut in_string, mut escaped) = (Vec::new(), false, false);
    for (at, &byte) in bytes.iter().enumerate().skip(from) {
        let was_escaped = escaped;
        escaped = byte == b'\\' && !was_escaped;
        match byte {
            b'"' if !was_escaped => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' if open.len() == 1024 => return Container::TooDeep { at },
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' if open.pop() != Some(byte) => return Container::Mismatched { at },
            b'}' | b']' if open.is_empty() => return Container::Closed { end: at + 1 },
            _ => {}
        }
    }
    Container::Open
}

/// What is wrong with `bytes` as a JSON text, by a reader that goes forward one byte at a time.
pub fn check(bytes: &[u8]) -> Result<(), Invalid> {
    let invalid = |at: usize, reason| Err(Invalid { at: at as u64, reason });
    let utf8 = std::str::from_utf8(bytes).err();
    let json = Reader { bytes, at: 0 }.text();
    match (json, utf8) {
        (Err((at, reason)), Some(error)) if at <= error.valid_up_to() && reason != JsonReason::Incomplete => {
            invalid(at, reason)
        }
        (Err((at, reason)), None) => invalid(at, reason),
        (_, Some(error)) if error.error_len().is_some() => invalid(error.valid_up_to(), JsonReason::Utf8),
        (_, Some(_)) => invalid(bytes.len(), JsonReason::Incomplete),
        (Ok(()), None) => Ok(()),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Read = Result<(), (usize, JsonReason)>;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn wrong<T>(&self, reason: JsonReason) -> Result<T, (usize, JsonReason)> {
        let reason = match (self.peek(), reason) {
            (None, _) => JsonReason::Incomplete,
            (Some(0..=0x1f), JsonReason::Escape) => JsonReason::Control,
            (Some(_), reason) => reason,
        };
        Err((self.at, reason))
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn text(&mut self) -> Read {
        let mut open: Vec<u8> = Vec::new();
        loop {
            // A value begins here.
            self.blanks();
            match self.peek() {
                Some(byte @ (b'{' | b'[')) => {
                    if open.len() == 1024 {
                        return self.wrong(JsonReason::TooDeep);
                    }
                    self.at += 1;
                    open.push(byte + 2);
                    self.blanks();
                    if self.peek() != Some(byte + 2) {
                        if byte == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => self.number()?,
            }
            // And ends here; so may containers.
            loop {
                self.blanks();
                match (self.peek(), open.last()) {
                    (None, None) => return Ok(()),
                    (Some(b','), Some(&close)) => {
                        self.at += 1;
                        if close == b'}' {
                            self.blanks();
                            self.key()?;
                        }
                        break;
                    }
                    (Some(byte), Some(&close)) if byte == close => {
                        self.at += 1;
                        open.pop();
                    }
                    _ => return self.wrong(JsonReason::Unexpected),
                }
            }
        }
    }

    fn key(&mut self) -> Read {
        if self.peek() != Some(b'"') {
            return self.wrong(JsonReason::Unexpected);
        }
        self.string()?;
        self.blanks();
        if self.peek() != Some(b':') {
            return self.wrong(JsonReason::Unexpected);
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Read {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(0..=0x1f) => return self.wrong(JsonReason::Control),
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'u') => {
                            for _ in 0..4 {
                                self.at += 1;
                                if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                                    return self.wrong(JsonReason::Escape);
                                }
                            }
                        }
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                        _ => return self.wrong(JsonReason::Escape),
                    }
                }
                Some(_) => {}
                None => return self.wrong(JsonReason::Incomplete),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Read {
        for &byte in word {
            if self.peek() != Some(byte) {
                return self.wrong(JsonReason::Unexpected);
            }
            self.at += 1;
        }
        Ok(())
    }

    fn digits(&mut self) -> Read {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.wrong(JsonReason::Unexpected);
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Read {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }
}

/// What came out of a stream of values, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Value(Vec<u8>),
    Noise(usize),
    TooLarge(usize),
    Broken { at: usize, reason: JsonReason },
    Truncated(usize),
}

fn is_between(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x1e)
}

/// Where noise that begins at `from` ends; `forgotten` bytes before `from` belong to something broken.
fn noise_end(bytes: &[u8], from: usize, before: u8) -> usize {
    let mut before = before;
    for (at, &byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            0x1e => return at + 1,
            b'{' | b'[' if !matches!(before, b':' | b',' | b'{' | b'[') => return at,
            _ if is_between(byte) => {}
            _ => before = byte,
        }
    }
    bytes.len()
}

/// JSON values one after the other.
pub fn values(bytes: &[u8], limit: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut at = 0;
    let mut start = true;
    let mut marked = false;
    loop {
        while bytes.get(at).is_some_and(|byte| is_between(*byte)) {
            marked |= bytes[at] == 0x1e;
            at += 1;
        }
        if start && bytes[at..].starts_with(b"\xef\xbb\xbf") {
            start = false;
            at += 3;
            continue;
        }
        start = false;
        let Some(&first) = bytes.get(at) else { return messages };
        // Behind an RS the next one ends what ends by itself.
        let next = bytes[at..].iter().position(|byte| *byte == 0x1e).map_or(bytes.len(), |len| at + len);
        let own = if marked { &bytes[..next] } else { bytes };
        marked = false;
        let end = match first {
            b'{' | b'[' => match close(own, at) {
                Container::Closed { end } => Ok(end),
                Container::Open => Err(None),
                Container::Mismatched { at: wrong } => {
                    messages.push(Message::Broken { at: wrong - at, reason: JsonReason::Unexpected });
                    at = noise_end(bytes, wrong + 1, 0);
                    marked = bytes[at - 1] == 0x1e;
                    continue;
                }
                Container::TooDeep { at: wrong } => {
                    messages.push(Message::Broken { at: wrong - at, reason: JsonReason::TooDeep });
                    at = noise_end(bytes, wrong + 1, b'[');
                    marked = bytes[at - 1] == 0x1e;
                    continue;
                }
            },
            b'"' => {
                let mut end = at + 1;
                while end < own.len() && own[end] != b'"' {
                    end += if own[end] == b'\\' { 2 } else { 1 };
                }
                if end < own.len() { Ok(end + 1) } else { Err(None) }
            }
            _ => {
                let end =
                    bytes[at..].iter().position(|byte| is_between(*byte)).map_or(bytes.len(), |len| at + len);
                match check(&bytes[at..end]) {
                    Ok(()) => Ok(end),
                    Err(Invalid { reason: JsonReason::Incomplete, .. }) if end == bytes.len() => Err(None),
                    Err(_) => Err(Some(noise_end(bytes, at, 0))),
                }
            }
        };
        match end {
            Ok(end) if end - at > limit => {
                messages.push(Message::TooLarge(end - at));
                at = end;
            }
            Ok(end) => {
                messages.push(Message::Value(bytes[at..end].to_vec()));
                at = end;
            }
            Err(Some(end)) => {
                messages.push(Message::Noise(end - at));
                at = end;
                marked = bytes[at - 1] == 0x1e;
            }
            Err(None) => {
                let size = own.len() - at;
                messages.push(if size > limit { Message::TooLarge(size) } else { Message::Truncated(size) });
                at = own.len();
            }
        }
    }
}
