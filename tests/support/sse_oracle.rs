//! Server-sent events once more, as WHATWG HTML §9.2 tells them, the whole stream at once, without a thought of speed.
//! Use it with `oracle` beside it, as `#[path = "support/sse_oracle.rs"] mod sse_oracle;`.
#![allow(dead_code, unreachable_pub)]

use framewire::{
    error::Fault,
    limits::{MAX_BLANK_LINES, MAX_HEAD_SIZE},
};

use super::oracle::Outcome;

/// One outcome with the kind of event and the last event id that belong to it (both only looked at for frames).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub outcome: Outcome,
    pub event: Vec<u8>,
    pub id: Vec<u8>,
}

/// The lines of a stream, and what stands behind the last line end.
fn lines(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut lines, mut line, mut at) = (Vec::new(), Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\n' => lines.push(std::mem::take(&mut line)),
            b'\r' => {
                lines.push(std::mem::take(&mut line));
                at += usize::from(bytes.get(at + 1) == Some(&b'\n'));
            }
            byte => line.push(byte),
        }
        at += 1;
    }
    (lines, line)
}

/// What a stream says, and the last retry time in milliseconds.
pub fn events(bytes: &[u8], max_size: usize, max_overhead: usize) -> (Vec<Told>, Option<u64>) {
    let limit = max_size + max_overhead;
    let (lines, rest) = lines(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let (mut told, mut retry, mut id, mut blank) = (Vec::new(), None, Vec::new(), 0);
    let (mut data, mut event, mut cost, mut over, mut too_long) = (Vec::new(), Vec::new(), 0, false, None);
    for line in lines {
        if line.is_empty() {
            let large = |size: usize, limit| Outcome::Fault(Fault::TooLarge { size: size as u64, limit });
            blank = if cost == 0 { blank + 1 } else { blank };
            let outcome = if over {
                Some(large(cost, limit))
            } else if let Some(size) = too_long {
                Some(large(size, MAX_HEAD_SIZE))
            } else if data.pop().is_some() {
                let fits = data.len() <= max_size;
                Some(if fits { Outcome::Frame(data) } else { large(data.len(), max_size) })
            } else if blank == MAX_BLANK_LINES {
                blank = 0;
                Some(Outcome::Fault(Fault::Noise { size: MAX_BLANK_LINES }))
            } else {
                None
            };
            told.extend(outcome.map(|outcome| Told { outcome, event, id: id.clone() }));
            (data, event, cost, over, too_long) = (Vec::new(), Vec::new(), 0, false, None);
            continue;
        }
        blank = 0;
        over |= cost + line.len() + 1 > limit;
        if over || cost > 0 || line[0] != b':' {
            cost += line.len() + 1;
        }
        if over {
            continue;
        }
        let mut halves = line.splitn(2, |&byte| byte == b':');
        let (name, value) = (halves.next().unwrap(), halves.next().unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => data.extend([value, b"\n"].concat()),
            b"event" | b"id" if value.len() > MAX_HEAD_SIZE => too_long = too_long.or(Some(value.len())),
            b"event" => event = value.to_vec(),
            b"id" if !value.contains(&0) => id = value.to_vec(),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                retry = Some(std::str::from_utf8(value).unwrap().parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }
    if over || !data.is_empty() || !rest.is_empty() {
        let outcome = Outcome::Fault(Fault::Truncated { size: cost + rest.len() });
        told.push(Told { outcome, event: Vec::new(), id: Vec::new() });
    }
    (told, retry)
}
