//! Resolves the escapes of strings that come in chunks.

use super::{super::text::resolve, Chunk};

/// Half of a surrogate pair (`"\ud800"`): JSON by its grammar, but no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("half of a surrogate pair")]
pub struct LoneSurrogate;

/// The most bytes that are one character: `\ud83d\ude00`.
const LONGEST: usize = 12;

/// Makes text of the chunks of a name or string, one string after the other: resolves escapes and holds back, in a few
/// bytes of its own, a character or escape that a chunk's end has cut.
///
/// ```
/// use framewire::json::{Event, EventParser, Unescape};
///
/// let (mut parser, mut unescape, mut text) = (EventParser::new(), Unescape::new(), String::new());
/// for chunk in [&b"\"caf\\u00"[..], b"e9 \xe2\x82", b"\xac\""] {
///     for event in parser.feed(chunk) {
///         if let Event::String(chunk) = event? {
///             unescape.push(chunk, |part| text.push_str(part))?;
///         }
///     }
/// }
/// assert_eq!(text, "caf\u{e9} \u{20ac}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Unescape {
    held: [u8; LONGEST],
    len: usize,
}

impl Unescape {
    /// Holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives what `chunk` adds to the text to `to`, piece by piece; runs without escapes come as they lie, uncopied.
    ///
    /// # Errors
    /// [`LoneSurrogate`]; the rest of the string is then of no meaning.
    pub fn push(&mut self, chunk: Chunk<'_>, mut to: impl FnMut(&str)) -> Result<(), LoneSurrogate> {
        if chunk.is_first() {
            self.len = 0;
        }
        let mut rest = self.complete(chunk.bytes(), &mut to)?;
        while !rest.is_empty() {
            rest = if rest.first() == Some(&b'\\') {
                match resolve(rest.get(1..).unwrap_or_default()) {
                    Some((char, rest)) => {
                        to(char.encode_utf8(&mut [0; 4]));
                        rest
                    }
                    None if needed(rest) > rest.len() => self.hold(rest),
                    None => return Err(LoneSurrogate),
                }
            } else {
                let len = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
                let (plain, after) = rest.split_at(len);
                match simdutf8::basic::from_utf8(plain) {
                    Ok(text) => {
                        to(text);
                        after
                    }
                    Err(_) => self.cut(plain, &mut to)?,
                }
            };
        }
        if chunk.is_last() && self.len > 0 { Err(LoneSurrogate) } else { Ok(()) }
    }

    /// What was held back, with what belongs to it; answers with the rest.
    fn complete<'a>(
        &mut self,
        mut bytes: &'a [u8],
        to: &mut impl FnMut(&str),
    ) -> Result<&'a [u8], LoneSurrogate> {
        while self.len > 0 {
            let held = self.held.get(..self.len).unwrap_or_default();
            if self.len >= needed(held) {
                match held.strip_prefix(b"\\") {
                    Some(escape) => {
                        let (char, _) = resolve(escape).ok_or(LoneSurrogate)?;
                        to(char.encode_utf8(&mut [0; 4]));
                    }
                    None => to(std::str::from_utf8(held).map_err(|_| LoneSurrogate)?),
                }
                self.len = 0;
                break;
            }
            let Some((&byte, rest)) = bytes.split_first() else { break };
            if let Some(slot) = self.held.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
            bytes = rest;
        }
        Ok(bytes)
    }

    /// Text whose last character is cut.
    fn cut(&mut self, plain: &[u8], to: &mut impl FnMut(&str)) -> Result<&'static [u8], LoneSurrogate> {
        let valid = std::str::from_utf8(plain).err().map_or(plain.len(), |error| error.valid_up_to());
        let (text, cut) = plain.split_at(valid);
        to(std::str::from_utf8(text).unwrap_or_default());
        // What was proved to be UTF-8 ends with less than a character.
        if cut.len() < 4 { Ok(self.hold(cut)) } else { Err(LoneSurrogate) }
    }

    fn hold(&mut self, bytes: &[u8]) -> &'static [u8] {
        for (slot, byte) in self.held.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        self.len = bytes.len().min(LONGEST);
        &[]
    }
}

/// How many bytes the character or escape has that begins with `bytes`, as far as they tell.
fn needed(bytes: &[u8]) -> usize {
    match bytes {
        [b'\\', b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'b' | b'A'..=b'B', ..] => LONGEST,
        [b'\\', b'u', b'd' | b'D'] | [b'\\', b'u', ..] => 6,
        [b'\\', ..] => 2,
        [0xf0..=0xff, ..] => 4,
        [0xe0..=0xef, ..] => 3,
        [0xc0..=0xdf, ..] => 2,
        _ => 1,
    }
}
