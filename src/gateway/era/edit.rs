//! Looks into and changes a message where it must be changed: every other byte stays as it came.
//!
//! Used by the translators of the two eras only.

use std::ops::Range;

use crate::json::{RawString, Walk};

/// A part that is no object, or one in which a name that matters stands twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Where the values of `names` lie in the object that begins at `at`; empty where there is none.
pub(super) fn fields<const N: usize>(
    message: &[u8],
    at: usize,
    names: [&str; N],
) -> Result<[Range<usize>; N], Malformed> {
    let mut found: [Range<usize>; N] = std::array::from_fn(|_| 0..0);
    each(message, at, |name, _, value| {
        if let Some((_, place)) = names.iter().zip(&mut found).find(|(wanted, _)| name.is(wanted)) {
            if place.start < place.end {
                return Err(Malformed);
            }
            *place = value;
        }
        Ok(())
    })?;
    Ok(found)
}

/// As [`fields`], of the object that `range` is; one of no bytes is none.
pub(super) fn fields_in<const N: usize>(
    message: &[u8],
    range: &Range<usize>,
    names: [&str; N],
) -> Result<[Range<usize>; N], Malformed> {
    if range.start < range.end { fields(message, range.start, names) } else { Err(Malformed) }
}

/// The value of `name` in the object that `object` is.
pub(super) fn field<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let [value] = fields(object, 0, [name]).ok()?;
    object.get(value).filter(|value| !value.is_empty())
}

/// Goes over the members of the object that begins at `at`: each name, where it begins, quote included, and where its
/// value lies.
pub(super) fn each<'a>(
    message: &'a [u8],
    at: usize,
    mut member: impl FnMut(RawString<'a>, usize, Range<usize>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    if message.get(at) != Some(&b'{') {
        return Err(Malformed);
    }
    let mut walk = Walk::new(message, at, 0);
    while let Some((name, value)) = walk.next().map_err(|_| Malformed)? {
        let start = name.raw().as_ptr().addr() - message.as_ptr().addr();
        member(name, start.saturating_sub(1), value)?;
    }
    Ok(())
}

/// Goes over the elements of an array.
pub(super) fn elements<'a>(array: &'a [u8], mut element: impl FnMut(&'a [u8])) -> Result<(), Malformed> {
    // An array is walked over as the values of an object would be; there is no such walk, and arrays here are short.
    let inner = array.strip_prefix(b"[").and_then(|array| array.strip_suffix(b"]")).ok_or(Malformed)?;
    let (mut depth, mut quoted, mut escaped, mut start) = (0_usize, false, false, 0);
    for (at, byte) in inner.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.checked_sub(1).ok_or(Malformed)?,
            b',' if depth == 0 => {
                element(inner.get(start..at).unwrap_or_default().trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = inner.get(start..).unwrap_or_default().trim_ascii();
    if !last.is_empty() {
        element(last);
    }
    Ok(())
}

/// Writes the object that begins at `at` without the members that `leave_out` names. False, and nothing is written, when
/// it has none of them.
pub(super) fn without(
    message: &[u8],
    at: usize,
    leave_out: impl Fn(RawString<'_>) -> bool,
    to: &mut Vec<u8>,
) -> Result<bool, Malformed> {
    let start = to.len();
    let mut left_out = false;
    to.push(b'{');
    let walked = each(message, at, |name, begin, value| {
        if leave_out(name) {
            left_out = true;
            return Ok(());
        }
        if to.last() != Some(&b'{') || to.len() > start + 1 {
            to.push(b',');
        }
        to.extend_from_slice(message.get(begin..value.end).unwrap_or_default());
        Ok(())
    });
    to.push(b'}');
    if walked.is_err() || !left_out {
        to.truncate(start);
    }
    walked.map(|()| left_out)
}

/// Whether the object that begins at `at` has no members.
pub(super) fn is_bare(message: &[u8], at: usize) -> bool {
    let rest = message.get(at + 1..).unwrap_or_default();
    rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}')
}

/// The most changes of one message.
const MAX_EDITS: usize = 12;

/// Changes of one message, each a range and what stands there instead. Those at one place keep their order.
pub(super) struct Edits<'a> {
    message: &'a [u8],
    edits: [(usize, usize, &'a [u8]); MAX_EDITS],
    len: usize,
}

impl<'a> Edits<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { message, edits: [(0, 0, &[]); MAX_EDITS], len: 0 }
    }

    pub(super) fn replace(&mut self, range: Range<usize>, with: &'a [u8]) {
        debug_assert!(self.len < MAX_EDITS);
        if let Some(edit) = self.edits.get_mut(self.len) {
            *edit = (range.start, range.end, with);
            self.len += 1;
        }
    }

    pub(super) fn insert(&mut self, at: usize, bytes: &'a [u8]) {
        if !bytes.is_empty() {
            self.replace(at..at, bytes);
        }
    }

    /// Writes `members` into the object that begins at `at`, before those it has.
    pub(super) fn add_members(&mut self, at: usize, members: &[&'a [u8]]) {
        for piece in members {
            self.insert(at + 1, piece);
        }
        if !is_bare(self.message, at) {
            self.insert(at + 1, b",");
        }
    }

    pub(super) fn write(mut self, to: &mut Vec<u8>) {
        let edits = self.edits.get_mut(..self.len).unwrap_or_default();
        edits.sort_by_key(|(start, ..)| *start);
        let mut done = 0;
        for (start, end, with) in edits {
            to.extend_from_slice(self.message.get(done..*start).unwrap_or_default());
            to.extend_from_slice(with);
            done = *end;
        }
        to.extend_from_slice(self.message.get(done..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_members_out_wherever_they_stand() {
        let cases = [
            (r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2}"#),
            (r#"{ "b" : [1,{"a":2}] , "a":1}"#, r#"{"b" : [1,{"a":2}]}"#),
            (r#"{"a":1}"#, "{}"),
            (r#"{"\u0061":1,"x":"}"}"#, r#"{"x":"}"}"#),
        ];
        for (object, expected) in cases {
            let mut to = b"before".to_vec();
            assert!(without(object.as_bytes(), 0, |name| name.is("a") || name.is("c"), &mut to) == Ok(true));
            assert_eq!(String::from_utf8(to).unwrap_or_default(), format!("before{expected}"));
        }
        let mut to = Vec::new();
        assert!(without(b"{\"b\":1}", 0, |name| name.is("a"), &mut to) == Ok(false) && to.is_empty());
        assert!(without(b"[1]", 0, |_| true, &mut to) == Err(Malformed) && to.is_empty());
    }

    #[test]
    fn a_name_that_matters_stands_once() {
        assert!(fields(br#"{"a":1,"a":2}"#, 0, ["a"]) == Err(Malformed));
        assert!(fields(br#"{"b":1,"b":2}"#, 0, ["a"]).is_ok());
        assert!(field(br#"{"x":{"a":1},"a": "y"}"#, "a") == Some(&b"\"y\""[..]));
    }

    #[test]
    fn elements_of_an_array() {
        let cases: [(&str, &[&str]); 4] = [
            ("[]", &[]),
            (r#"["a,]" , "b\"," ]"#, &[r#""a,]""#, r#""b\",""#]),
            (r"[1,[2,3],{}]", &["1", "[2,3]", "{}"]),
            ("[ ]", &[]),
        ];
        for (array, expected) in cases {
            let mut found = Vec::new();
            assert!(elements(array.as_bytes(), |element| found.push(element)).is_ok());
            assert_eq!(found, expected.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
        }
        assert!(elements(b"{}", |_| {}).is_err());
    }
}
