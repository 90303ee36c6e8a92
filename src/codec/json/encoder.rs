//! The way out: a payload has to be one value by its structure.

use std::io::IoSlice;

use super::RS;
use crate::{
    codec::{Encode, Wrap, join},
    error::Rejection,
    limits::MAX_MESSAGE_SIZE,
    scan::json::{Backend, Container, Scalar, Structure, string_end},
};

/// JSON values into bytes: each with an LF behind it, and an RS before it where asked for.
///
/// A payload has to be exactly one value by its structure (what stands within it is not looked at); blanks around it are
/// sent along, and belong to no message at the other end. Where each has an RS before it, none may stand within, as the
/// other end would take it for the next.
#[derive(Debug, Clone)]
pub struct JsonValuesEncoder {
    pub(super) max_size: usize,
    pub(super) record_separators: bool,
    pub(super) backend: Backend,
}

impl Default for JsonValuesEncoder {
    fn default() -> Self {
        Self { max_size: MAX_MESSAGE_SIZE, record_separators: false, backend: Backend::detect() }
    }
}

impl JsonValuesEncoder {
    fn head(&self) -> &'static [u8] {
        if self.record_separators { &[RS] } else { &[] }
    }

    /// Checks that `parts` together are one value.
    fn check<'a>(&self, parts: impl Iterator<Item = &'a [u8]> + Clone) -> Result<(), Rejection> {
        let size = parts.clone().map(<[u8]>::len).sum();
        if size > self.max_size {
            return Err(Rejection::TooLarge { size, limit: self.max_size });
        }
        if size == 0 {
            return Err(Rejection::Empty);
        }
        if self.record_separators {
            let mut before = 0;
            for part in parts.clone() {
                if let Some(at) = memchr::memchr(RS, part) {
                    return Err(Rejection::NotOneValue { at: before + at });
                }
                before += part.len();
            }
        }
        let mut value = OneValue::new(self.backend);
        for part in parts {
            value.feed(part)?;
        }
        value.finish()
    }
}

impl Encode for JsonValuesEncoder {
    fn overhead(&self) -> usize {
        2
    }

    fn encode(&mut self, payload: &[u8], dst: &mut [u8]) -> Result<usize, Rejection> {
        self.check(std::iter::once(payload))?;
        let end = join(self.head(), payload, dst);
        if let Some(separator) = dst.get_mut(end) {
            *separator = b'\n';
        }
        Ok(end + 1)
    }

    fn wrap(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<Wrap>, Rejection> {
        self.check(parts.iter().map(|part| &**part))?;
        Ok(Some(Wrap::new(self.head(), b"\n")))
    }
}

/// Whether bytes that come in pieces are one value by their structure.
struct OneValue {
    structure: Structure,
    state: Value,
    escaped: bool,
    seen: usize,
}

enum Value {
    ToCome,
    Container,
    String,
    Scalar(Scalar),
    Over,
}

impl OneValue {
    fn new(backend: Backend) -> Self {
        Self { structure: Structure::with_backend(backend), state: Value::ToCome, escaped: false, seen: 0 }
    }

    fn feed(&mut self, part: &[u8]) -> Result<(), Rejection> {
        let mut rest = part;
        let size = part.len();
        let seen = self.seen;
        let at = |left: usize| Err(Rejection::NotOneValue { at: seen + size - left });
        while let Some(&first) = rest.first() {
            match &mut self.state {
                Value::ToCome | Value::Over if matches!(first, b' ' | b'\t' | b'\n' | b'\r') => {
                    let blanks =
                        rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
                    rest = rest.get(blanks..).unwrap_or_default();
                }
                Value::Over => return at(rest.len()),
                Value::ToCome => match first {
                    b'{' | b'[' => self.state = Value::Container,
                    b'"' => {
                        self.state = Value::String;
                        rest = rest.get(1..).unwrap_or_default();
                    }
                    _ => match Scalar::start(first) {
                        Some(scalar) => {
                            self.state = Value::Scalar(scalar);
                            rest = rest.get(1..).unwrap_or_default();
                        }
                        None => return at(rest.len()),
                    },
                },
                Value::Container => match self.structure.close(rest) {
                    Container::Closed { end } => {
                        self.state = Value::Over;
                        rest = rest.get(end..).unwrap_or_default();
                    }
                    Container::Open => {
                        self.structure.advance(rest.len());
                        rest = &[];
                    }
                    Container::Mismatched { at: wrong } | Container::TooDeep { at: wrong } => {
                        return at(rest.len() - wrong);
                    }
                },
                Value::String => match string_end(self.structure.backend(), rest, &mut self.escaped) {
                    Some(quote) => {
                        self.state = Value::Over;
                        rest = rest.get(quote + 1..).unwrap_or_default();
                    }
                    None => rest = &[],
                },
                Value::Scalar(scalar) => match scalar.feed(rest) {
                    Err(end) => {
                        rest = rest.get(end..).unwrap_or_default();
                        if !scalar.is_complete() {
                            return at(rest.len());
                        }
                        self.state = Value::Over;
                    }
                    Ok(()) => rest = &[],
                },
            }
        }
        self.seen += part.len();
        Ok(())
    }

    fn finish(self) -> Result<(), Rejection> {
        match self.state {
            Value::Over => Ok(()),
            Value::Scalar(scalar) if scalar.is_complete() => Ok(()),
            _ => Err(Rejection::NotOneValue { at: self.seen }),
        }
    }
}
