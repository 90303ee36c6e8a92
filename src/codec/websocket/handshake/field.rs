//! Header fields: the few rules of RFC 9110 and RFC 6455 §9.1 that the handshake needs.

use super::HandshakeError;

/// The headers of a head, as `httparse` found them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn raw(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The values of all headers called `name`, in order.
    ///
    /// # Errors
    /// When one is not visible ASCII.
    pub(super) fn all(self, name: &'static str) -> Result<Vec<&'a str>, HandshakeError> {
        self.raw(name)
            .map(|value| {
                std::str::from_utf8(value)
                    .ok()
                    .filter(|text| text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')))
                    .map(str::trim_ascii)
                    .ok_or(HandshakeError::bad("a header that is not visible ASCII", "RFC 9110 §5.5"))
            })
            .collect()
    }

    /// The one value of the header called `name`.
    ///
    /// # Errors
    /// `doubled` when there are several.
    pub(super) fn one(
        self,
        name: &'static str,
        doubled: &'static str,
        section: &'static str,
    ) -> Result<Option<&'a str>, HandshakeError> {
        match self.all(name)?[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(HandshakeError::bad(doubled, section)),
        }
    }

    /// Whether a comma-separated list, spread over any number of headers called `name`, has `token` in it.
    pub(super) fn has_token(self, name: &'static str, token: &str) -> Result<bool, HandshakeError> {
        Ok(self
            .all(name)?
            .iter()
            .flat_map(|value| value.split(','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token)))
    }

    pub(super) fn has(self, name: &'static str) -> bool {
        self.raw(name).next().is_some()
    }
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `text` is a host with or without a port, as it stands in `Host` (RFC 9110 §7.2, RFC 3986 §3.2). No comma, which
/// a host may have but none has: two were put together there.
pub(super) fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (text, ""),
    };
    let (name, is_address) = match name.strip_prefix('[') {
        Some(rest) => (rest.strip_suffix(']').unwrap_or_default(), true),
        None => (name, false),
    };
    let is_part = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte) || (is_address && byte == b':')
    };
    !name.is_empty() && name.bytes().all(is_part) && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// The subprotocols of a list (RFC 6455 §4.1, item 10): tokens, none twice.
pub(super) fn protocols<'a>(values: &[&'a str]) -> Result<Vec<&'a str>, HandshakeError> {
    let mut protocols = Vec::new();
    for protocol in values.iter().flat_map(|value| value.split(',')).map(str::trim_ascii) {
        if !is_token(protocol) {
            return Err(HandshakeError::bad("a subprotocol that is no token", "RFC 6455 §11.3.4"));
        }
        if protocols.contains(&protocol) {
            return Err(HandshakeError::bad("a subprotocol that is named twice", "RFC 6455 §4.1"));
        }
        protocols.push(protocol);
    }
    Ok(protocols)
}
