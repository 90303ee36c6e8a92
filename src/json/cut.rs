//! [`Cut`]: whose a message was of which only the beginning and the end are left.

use super::cursor::Cursor;

/// What a message was whose middle is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut<'a> {
    /// The answer to the request with this id, as it was written.
    Answer(&'a [u8]),
    /// A request or a notification, or nothing of JSON-RPC.
    Other,
    /// That cannot be told.
    Unknown,
}

impl<'a> Cut<'a> {
    /// Looks for the id before what is missing, and as the last member or before `"jsonrpc"` behind it, which is where
    /// servers write it. What stands there in a string or deeper cannot be taken for it, as long as the whole is JSON.
    pub(crate) fn of(head: &'a [u8], tail: &'a [u8]) -> Self {
        let mut cursor = Cursor::new(head, 0, 0);
        let (mut id, mut is_answer, mut first) = (None, false, true);
        if cursor.take(b'{').is_err() {
            // In a batch it may be anywhere; of what begins otherwise no part is an answer.
            let is_batch = matches!(cursor.peek(), None | Some(b'['));
            return if is_batch { Self::Unknown } else { Self::Other };
        }
        loop {
            if !first && cursor.take(b',').is_err() {
                break;
            }
            first = false;
            if cursor.peek() != Some(b'"') {
                break;
            }
            let Ok(name) = cursor.string() else { break };
            if cursor.take(b':').is_err() {
                break;
            }
            cursor.peek();
            if name.is("method") || name.is("params") {
                return Self::Other;
            }
            is_answer |= name.is("result") || name.is("error");
            // A value that reaches the end may go on behind it.
            let Some(value) = cursor.value().ok().filter(|value| value.end < head.len()) else { break };
            if name.is("id") {
                id = head.get(value);
            }
        }
        match id.or_else(|| last_id(tail)) {
            Some(id) if is_answer => Self::Answer(id),
            _ => Self::Unknown,
        }
    }
}

/// The id at the end of an object.
fn last_id(tail: &[u8]) -> Option<&[u8]> {
    let mut rest = tail.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
    let version = br#""jsonrpc":"2.0""#;
    if let Some(before) = rest.strip_suffix(version) {
        rest = before.trim_ascii_end().strip_suffix(b",")?.trim_ascii_end();
    }
    let start = match rest {
        [inner @ .., b'"'] => inner.iter().rposition(|byte| *byte == b'"')?,
        _ => {
            let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            let start = rest.len() - digits;
            let minus = rest.get(..start).is_some_and(|before| before.ends_with(b"-"));
            if digits == 0 { return None } else { start - usize::from(minus) }
        }
    };
    let (before, id) = rest.split_at_checked(start)?;
    let before = before.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end().strip_suffix(br#""id""#)?;
    // With an escape in it, the quote found may be one of its own.
    let whole = !id.contains(&b'\\') && matches!(before.trim_ascii_end().last(), Some(b',' | b'{'));
    whole.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_it_was() {
        for (head, tail, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a":[1"#, "]}}", Cut::Answer(b"7")),
            (r#" { "id" : "a\"b" , "error" : {"#, "", Cut::Answer(br#""a\"b""#)),
            (r#"{"result":"xx"#, r#"xx","jsonrpc":"2.0","id":7}"#, Cut::Answer(b"7")),
            (r#"{"result":{"id":1,"x":"#, "\"},\n \"id\" : -12 } \r", Cut::Answer(b"-12")),
            (r#"{"result":{"x":"#, r#"],"id":"abc","jsonrpc":"2.0"}"#, Cut::Answer(br#""abc""#)),
            (r#"{"result":null,"id":1"#, r#"","x":1,"id":123}"#, Cut::Answer(b"123")),
            // A request of the server may have the id of one at it.
            (r#"{"jsonrpc":"2.0","id":7,"method":"x","params":"#, "}}", Cut::Other),
            (r#"{"method":"x"#, r#"","id":7}"#, Cut::Other),
            (r#"{"params":["#, r#"],"id":7}"#, Cut::Other),
            // Not where it is looked for, or not it.
            (r#"{"result":{"x":"#, r#"1,"id":7}}"#, Cut::Unknown),
            (r#"{"result":"#, r#"1,"id":7.5}"#, Cut::Unknown),
            (r#"{"result":"#, r#"1,"id":null}"#, Cut::Unknown),
            (r#"{"result":"#, r#"1,"id":"a\"b"}"#, Cut::Unknown),
            (r#"{"result":"#, r#"1,"x\"id":7}"#, Cut::Unknown),
            (r#"{"result":"#, r#"1,"uuid":7}"#, Cut::Unknown),
            (r#"{"result":"#, r#"1,"x":","id":7"}"#, Cut::Unknown),
            (r#"{"result":"#, r#"1234567"#, Cut::Unknown),
            (r#"{"result":"#, "", Cut::Unknown),
            (r#"{"other":"#, r#"1,"id":7}"#, Cut::Unknown),
            (r#"[{"jsonrpc":"2.0","id":7,"result":"#, "}]", Cut::Unknown),
            (r#"{"jsonrpc":"2.0","id":7,"#, "}", Cut::Unknown),
            // No object, and no batch of them: something that was printed.
            (r#"loading "x": 1"#, r#","id":7}"#, Cut::Other),
            ("\"", "", Cut::Other),
            ("", r#","id":7}"#, Cut::Unknown),
        ] {
            assert_eq!(Cut::of(head.as_bytes(), tail.as_bytes()), expected, "{head} … {tail}");
        }
    }
}
