//! `Sec-WebSocket-Extensions` (RFC 6455 §9.1), and the negotiation of `permessage-deflate` (RFC 7692 §7.1).

use std::borrow::Cow;

use super::{
    HandshakeError,
    field::{is_token, is_token_byte},
};

const DEFLATE: &str = "permessage-deflate";

/// The parameters of `permessage-deflate` that both ends have agreed on (RFC 7692 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeflateParams {
    /// The server starts each message with an empty window.
    pub server_no_context_takeover: bool,
    /// The client starts each message with an empty window.
    pub client_no_context_takeover: bool,
    /// The base-2 logarithm of the server's window in bytes, 8 to 15.
    pub server_max_window_bits: u8,
    /// The same of the client's.
    pub client_max_window_bits: u8,
}

impl Default for DeflateParams {
    fn default() -> Self {
        Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        }
    }
}

/// What was agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Agreed {
    /// The value of the header that says so.
    pub(super) header: String,
    /// The parameters.
    pub(super) params: DeflateParams,
}

/// One element of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extension<'a> {
    name: &'a str,
    params: Vec<(&'a str, Option<Cow<'a, str>>)>,
}

/// Reads the list.
///
/// # Errors
/// When it breaks the grammar.
pub(super) fn parse<'a>(values: &[&'a str]) -> Result<Vec<Extension<'a>>, HandshakeError> {
    let malformed = || HandshakeError::bad("malformed Sec-WebSocket-Extensions", "RFC 6455 §9.1");
    let mut extensions = Vec::new();
    for value in values {
        let mut rest = *value;
        loop {
            let mut extension =
                Extension { name: token(&mut rest).ok_or_else(malformed)?, params: Vec::new() };
            while take(&mut rest, ';') {
                let name = token(&mut rest).ok_or_else(malformed)?;
                let value =
                    if take(&mut rest, '=') { Some(word(&mut rest).ok_or_else(malformed)?) } else { None };
                extension.params.push((name, value));
            }
            extensions.push(extension);
            if take(&mut rest, ',') {
                continue;
            }
            if rest.is_empty() {
                break;
            }
            return Err(malformed());
        }
    }
    Ok(extensions)
}

fn take(rest: &mut &str, mark: char) -> bool {
    *rest = rest.trim_ascii_start();
    match rest.strip_prefix(mark) {
        Some(after) => {
            *rest = after.trim_ascii_start();
            true
        }
        None => false,
    }
}

fn token<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let end = rest.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(rest.len());
    let (token, after) = rest.split_at_checked(end)?;
    *rest = after.trim_ascii_start();
    (!token.is_empty()).then_some(token)
}

/// A token, or a quoted string whose content is one once what is escaped in it is not any more (RFC 6455 §9.1).
fn word<'a>(rest: &mut &'a str) -> Option<Cow<'a, str>> {
    let Some(quoted) = rest.strip_prefix('"') else { return token(rest).map(Cow::Borrowed) };
    // No token has a quotation mark in it, escaped or not: the first one ends the string.
    let (content, after) = quoted.split_once('"')?;
    *rest = after.trim_ascii_start();
    let content = if content.contains('\\') { Cow::Owned(unescaped(content)?) } else { content.into() };
    is_token(&content).then_some(content)
}

/// The content of a quoted string without the backslashes that escape what follows them.
fn unescaped(content: &str) -> Option<String> {
    let mut plain = String::with_capacity(content.len());
    let mut chars = content.chars();
    while let Some(char) = chars.next() {
        plain.push(if char == '\\' { chars.next()? } else { char });
    }
    Some(plain)
}

/// What one element asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Asked {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// `Some(None)`: the client can be told a window.
    client_max_window_bits: Option<Option<u8>>,
}

impl Asked {
    /// Reads the parameters; `None` when one is unknown, doubled or has a value that it must not have (RFC 7692 §7.1).
    fn read(params: &[(&str, Option<Cow<'_, str>>)]) -> Option<Self> {
        let mut asked = Self::default();
        for (name, value) in params {
            match (*name, value.as_deref()) {
                ("server_no_context_takeover", None) if !asked.server_no_context_takeover => {
                    asked.server_no_context_takeover = true;
                }
                ("client_no_context_takeover", None) if !asked.client_no_context_takeover => {
                    asked.client_no_context_takeover = true;
                }
                ("server_max_window_bits", Some(value)) if asked.server_max_window_bits.is_none() => {
                    asked.server_max_window_bits = Some(bits(value)?);
                }
                ("client_max_window_bits", value) if asked.client_max_window_bits.is_none() => {
                    asked.client_max_window_bits = Some(match value {
                        Some(value) => Some(bits(value)?),
                        None => None,
                    });
                }
                _ => return None,
            }
        }
        Some(asked)
    }
}

/// 8 to 15, without leading zeros.
fn bits(text: &str) -> Option<u8> {
    text.parse().ok().filter(|bits| (8..=15).contains(bits) && !text.starts_with(['0', '+']))
}

/// The server's choice among the client's offers: the first that can be taken.
pub(super) fn choose(offered: &[Extension<'_>], own: DeflateParams) -> Option<Agreed> {
    offered.iter().filter(|extension| extension.name == DEFLATE).find_map(|extension| {
        let asked = Asked::read(&extension.params)?;
        let params = DeflateParams {
            server_no_context_takeover: asked.server_no_context_takeover || own.server_no_context_takeover,
            client_no_context_takeover: asked.client_no_context_takeover || own.client_no_context_takeover,
            server_max_window_bits: asked
                .server_max_window_bits
                .unwrap_or(15)
                .min(own.server_max_window_bits),
            client_max_window_bits: match asked.client_max_window_bits {
                // The client cannot be told a window (RFC 7692 §7.1.2.2): it uses the largest.
                None => 15,
                Some(at_most) => at_most.unwrap_or(15).min(own.client_max_window_bits),
            },
        };
        let mut header = String::from(DEFLATE);
        if params.server_no_context_takeover {
            header.push_str("; server_no_context_takeover");
        }
        if params.client_no_context_takeover {
            header.push_str("; client_no_context_takeover");
        }
        if asked.server_max_window_bits.is_some() || params.server_max_window_bits < 15 {
            header.push_str(&format!("; server_max_window_bits={}", params.server_max_window_bits));
        }
        if asked.client_max_window_bits.is_some() && params.client_max_window_bits < 15 {
            header.push_str(&format!("; client_max_window_bits={}", params.client_max_window_bits));
        }
        Some(Agreed { header, params })
    })
}

/// The header of a client's offer. Where the client wants to keep its contexts there is a second one, of dropping them,
/// for servers that would have it so.
pub(super) fn offer(params: DeflateParams) -> String {
    let mut header = one_offer(params);
    if !params.client_no_context_takeover {
        header.push_str(", ");
        header.push_str(&one_offer(DeflateParams { client_no_context_takeover: true, ..params }));
    }
    header
}

fn one_offer(params: DeflateParams) -> String {
    let mut header = String::from(DEFLATE);
    if params.server_no_context_takeover {
        header.push_str("; server_no_context_takeover");
    }
    if params.client_no_context_takeover {
        header.push_str("; client_no_context_takeover");
    }
    if params.server_max_window_bits < 15 {
        header.push_str(&format!("; server_max_window_bits={}", params.server_max_window_bits));
    }
    header.push_str("; client_max_window_bits");
    if params.client_max_window_bits < 15 {
        header.push_str(&format!("={}", params.client_max_window_bits));
    }
    header
}

/// What a server's answer to `offer` means.
///
/// # Errors
/// When it takes what was not offered, or says what it must not (RFC 7692 §7.1, RFC 6455 §4.1).
pub(super) fn confirm(
    answered: &[Extension<'_>],
    offer: Option<DeflateParams>,
) -> Result<Option<DeflateParams>, HandshakeError> {
    let not_offered =
        || HandshakeError::bad("the server took an extension that was not offered", "RFC 6455 §4.1");
    let bad =
        || HandshakeError::bad("the server's permessage-deflate is not what was offered", "RFC 7692 §7.1");
    let [extension] = answered else {
        return if answered.is_empty() { Ok(None) } else { Err(not_offered()) };
    };
    let offer = offer.filter(|_| extension.name == DEFLATE).ok_or_else(not_offered)?;
    let asked = Asked::read(&extension.params).ok_or_else(bad)?;
    let client_bits = match asked.client_max_window_bits {
        // In an answer the value must be there (RFC 7692 §7.1.2.2).
        Some(None) => return Err(bad()),
        Some(Some(bits)) if bits > offer.client_max_window_bits => return Err(bad()),
        Some(Some(bits)) => bits,
        None => offer.client_max_window_bits,
    };
    let server_bits = asked.server_max_window_bits.unwrap_or(15);
    if server_bits > offer.server_max_window_bits
        || (offer.server_no_context_takeover && !asked.server_no_context_takeover)
    {
        return Err(bad());
    }
    Ok(Some(DeflateParams {
        server_no_context_takeover: asked.server_no_context_takeover,
        client_no_context_takeover: asked.client_no_context_takeover || offer.client_no_context_takeover,
        server_max_window_bits: server_bits,
        client_max_window_bits: client_bits,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_kept() {
        for good in [
            "foo",
            "foo, bar; baz=2",
            "foo; bar=\"2\" , baz",
            "foo; bar=\"\\2\\x\"",
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
        ] {
            assert!(parse(&[good]).is_ok(), "{good}");
        }
        for bad in [
            "",
            ",",
            "foo,",
            "foo;",
            "foo; =2",
            "foo; bar=",
            "foo bar",
            "foo; bar=\"",
            "foo; bar=\"a b\"",
            "foo; bar=\"a\\\\b\"",
            "foo; bar=\"a\\\"b\"",
            "foo; bar=\"a\\\"",
            "f@o",
            "foo; a=b c",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }

    fn answer(header: &str, ready: DeflateParams) -> Option<String> {
        choose(&parse(&[header]).unwrap(), ready).map(|agreed| agreed.header)
    }

    #[test]
    fn the_first_offer_that_can_be_taken_is() {
        let plain = DeflateParams::default();
        for (offered, answered) in [
            ("permessage-deflate", Some("permessage-deflate")),
            ("permessage-deflate; client_max_window_bits", Some("permessage-deflate")),
            (
                "x; y, permessage-deflate; server_no_context_takeover",
                Some("permessage-deflate; server_no_context_takeover"),
            ),
            (
                "permessage-deflate; server_max_window_bits=10",
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            (
                "permessage-deflate; client_max_window_bits=\"9\"",
                Some("permessage-deflate; client_max_window_bits=9"),
            ),
            (
                "permessage-deflate; server_max_window_bits=\"1\\0\"",
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            ("permessage-deflate; foo, permessage-deflate", Some("permessage-deflate")),
            ("permessage-deflate; server_max_window_bits=7", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=010", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", None),
            ("permessage-deflate; client_max_window_bits=20", None),
            ("permessage-bzip2", None),
        ] {
            assert_eq!(answer(offered, plain).as_deref(), answered, "{offered}");
        }
        let small = DeflateParams { server_max_window_bits: 11, client_max_window_bits: 12, ..plain };
        assert_eq!(
            answer("permessage-deflate", small).unwrap(),
            "permessage-deflate; server_max_window_bits=11"
        );
        assert_eq!(
            answer("permessage-deflate; client_max_window_bits", small).unwrap(),
            "permessage-deflate; server_max_window_bits=11; client_max_window_bits=12"
        );
    }

    #[test]
    fn an_answer_is_held_against_the_offer() {
        let confirm = |answer: &str, params| {
            confirm(&parse(&[answer]).unwrap(), Some(params)).map(|params| params.unwrap())
        };
        let plain = DeflateParams::default();
        assert_eq!(confirm("permessage-deflate", plain), Ok(plain));
        assert_eq!(
            confirm("permessage-deflate; client_max_window_bits=9", plain).unwrap().client_max_window_bits,
            9
        );
        let strict = DeflateParams { server_no_context_takeover: true, server_max_window_bits: 10, ..plain };
        for (answer, params) in [
            ("permessage-deflate; client_max_window_bits", plain),
            ("permessage-deflate; x", plain),
            ("permessage-deflate; server_max_window_bits=10", strict),
            ("permessage-deflate; server_no_context_takeover", strict),
            ("permessage-deflate; server_no_context_takeover; server_max_window_bits=11", strict),
            (
                "permessage-deflate; client_max_window_bits=12",
                DeflateParams { client_max_window_bits: 11, ..plain },
            ),
            ("other", plain),
            ("permessage-deflate, permessage-deflate", plain),
        ] {
            assert!(confirm(answer, params).is_err(), "{answer}");
        }
        assert!(super::confirm(&parse(&["permessage-deflate"]).unwrap(), None).is_err());
        assert_eq!(super::confirm(&[], Some(DeflateParams::default())), Ok(None));
    }
}
