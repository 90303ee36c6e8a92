//! Names that stand twice in one object, anywhere in a message.

use std::{borrow::Cow, ops::Range};

use super::{cursor::near_quote, text::RawString};
use crate::scan::json::{Backend, string_end};

/// Names of an object up to which each is compared with each.
const FEW: usize = 12;

/// Looks for names that stand twice. Keeps its memory from one message to the next.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The names of all objects that are open, outermost first.
    names: Vec<Range<usize>>,
    /// For each open container the number of names around it; `None` stands for an array.
    open: Vec<Option<usize>>,
}

impl Keys {
    /// Looks at a message that is known to be JSON. The answer is where a name stands that stood before in its object.
    pub(super) fn duplicate(&mut self, message: &[u8]) -> Option<usize> {
        self.names.clear();
        self.open.clear();
        let backend = Backend::detect();
        let mut is_key = false;
        let mut at = 0;
        while let Some(byte) = message.get(at) {
            at += 1;
            match byte {
                b'"' => {
                    let rest = message.get(at..).unwrap_or_default();
                    let len = near_quote(rest)
                        .or_else(|| string_end(backend, rest, &mut false))
                        .unwrap_or(rest.len());
                    if is_key {
                        self.names.push(at..at + len);
                        is_key = false;
                    }
                    at += len + 1;
                }
                b'{' => {
                    self.open.push(Some(self.names.len()));
                    is_key = true;
                }
                b'[' => self.open.push(None),
                b',' => is_key = matches!(self.open.last(), Some(Some(_))),
                b'}' => {
                    is_key = false;
                    if let Some(Some(first)) = self.open.pop() {
                        let names = self.names.get(first..).unwrap_or_default();
                        if let Some(twice) = twice(message, names) {
                            return Some(twice);
                        }
                        self.names.truncate(first);
                    }
                }
                b']' => {
                    self.open.pop();
                }
                _ => {}
            }
        }
        None
    }
}

fn twice(message: &[u8], names: &[Range<usize>]) -> Option<usize> {
    let raw = |name: &Range<usize>| message.get(name.clone()).unwrap_or_default();
    if names.len() <= FEW && !names.iter().any(|name| raw(name).contains(&b'\\')) {
        return names.iter().enumerate().find_map(|(index, name)| {
            let before = names.get(..index).unwrap_or_default();
            before.iter().any(|other| raw(other) == raw(name)).then_some(name.start)
        });
    }
    let mut sorted: Vec<(Cow<'_, [u8]>, usize)> = names
        .iter()
        .map(|name| {
            let text = match RawString::new(raw(name)).unescape() {
                Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
                Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
                // Half of a surrogate pair stands for itself.
                None => Cow::Borrowed(raw(name)),
            };
            (text, name.start)
        })
        .collect();
    sorted.sort_unstable();
    sorted
        .windows(2)
        .filter_map(|pair| match pair {
            [(first, _), (second, at)] if first == second => Some(*at),
            _ => None,
        })
        .min()
}
