//! The rules of revision 2026-07-28: each POST stands alone, says in `_meta` what it is, and repeats in its head what
//! proxies want to know, which has to agree.
//!
//! | code | status | when |
//! |---|---|---|
//! | -32602 | 400 | `_meta` lacks the revision or the client's capabilities |
//! | -32020 | 400 | a header is missing, malformed or says something else than the body |
//! | -32022 | 400 | a revision that is not spoken |
//! | -32600 | 400 | a batch, or an answer: there is nothing to answer |
//! | -32601 | 404 | `initialize`, which this revision has not |

use std::borrow::Cow;

use data_encoding::BASE64;
use http::{HeaderMap, StatusCode, header::HeaderName};

use super::{
    head::{self, Named},
    params::Params,
    reply::{self, INVALID, Reply},
};
use crate::{
    json::{Envelope, Kind, member, string},
    transport::Revision,
};

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// Head and body do not agree.
const MISMATCH: i32 = -32020;

/// A client that cannot do what is needed.
const INCAPABLE: i32 = -32021;

/// A revision that is not spoken.
pub(super) const UNSUPPORTED: i32 = -32022;

const NO_METHOD: i32 = -32601;
const BAD_PARAMS: i32 = -32602;

/// What a POST is, by its revision.
#[derive(Debug)]
pub(super) enum Era<'a> {
    /// Of a revision with sessions: that of the head, if it has one.
    Sessions(Option<Revision>),
    /// One that stands alone.
    Stateless,
    /// Of a revision that is not spoken.
    Unsupported(Cow<'a, str>),
}

/// What kind of POST it is, and whether it keeps the rules of its kind.
pub(super) fn classify<'a>(
    headers: &'a HeaderMap,
    envelope: &Envelope<'a>,
    speaks: impl Fn(Revision) -> bool,
    params: &Params,
) -> Result<Era<'a>, Box<Reply>> {
    let id = envelope.raw_id();
    let named = head::revision(headers);
    let stateless = matches!(named, Named::Known(revision) if revision.is_stateless());
    let by_head = || match named {
        Named::None => Era::Sessions(None),
        Named::Known(revision) if speaks(revision) => {
            if revision.is_stateless() {
                Era::Stateless
            } else {
                Era::Sessions(Some(revision))
            }
        }
        Named::Known(revision) => Era::Unsupported(revision.as_str().into()),
        Named::Unknown(text) => Era::Unsupported(text.into()),
    };
    let refused = |code, text: &str| Err(reply::error(StatusCode::BAD_REQUEST, id, code, text).into());
    let is_request = envelope.kind() == Kind::Request;
    if !matches!(envelope.kind(), Kind::Request | Kind::Notification) {
        if stateless {
            return refused(INVALID, "this revision knows neither batches nor answers of clients");
        }
        return Ok(by_head());
    }
    let Ok(meta) = envelope.meta() else { return refused(INVALID, "a name stands twice in params") };
    let field = |key| meta.map_or(Ok(None), |meta| member(meta, key));
    let Ok(version) = field(META_VERSION) else { return refused(INVALID, "a name stands twice in _meta") };
    let Some(version) = version else {
        if stateless && envelope.method().is_some_and(|method| method.is("initialize")) {
            return refused(MISMATCH, "initialize is of a revision before that of MCP-Protocol-Version");
        }
        if stateless && is_request {
            let text = match meta {
                None => "Invalid params: _meta is missing".to_owned(),
                Some(_) => format!("Invalid params: _meta lacks {META_VERSION}"),
            };
            return refused(BAD_PARAMS, &text);
        }
        if stateless && let Err(text) = check_method(headers, envelope, false) {
            return refused(MISMATCH, &text);
        }
        return Ok(by_head());
    };
    let Some(version) = string(version).and_then(|version| version.unescape()) else {
        return refused(BAD_PARAMS, &format!("Invalid params: {META_VERSION} is no string"));
    };
    if is_request && !matches!(field(META_CAPABILITIES), Ok(Some([b'{', ..]))) {
        return refused(BAD_PARAMS, &format!("Invalid params: _meta lacks {META_CAPABILITIES}"));
    }
    if headers.contains_key(head::VERSION) && head::one(headers, &head::VERSION) != Some(&*version) {
        return refused(MISMATCH, "MCP-Protocol-Version and _meta name different revisions");
    }
    match version.parse::<Revision>() {
        Ok(revision) if revision.is_stateless() && speaks(revision) => {}
        _ => return Ok(Era::Unsupported(version)),
    }
    if is_request && !headers.contains_key(head::VERSION) {
        return refused(MISMATCH, "the header MCP-Protocol-Version is needed");
    }
    let checked = check_method(headers, envelope, is_request)
        .and_then(|()| if is_request { check_name(headers, envelope) } else { Ok(()) })
        .and_then(|()| params.check(headers, envelope));
    if let Err(text) = checked {
        return refused(MISMATCH, &text);
    }
    if is_request && envelope.method().is_some_and(|method| method.is("initialize")) {
        // Answered here: a server of an older revision behind the gateway would take it.
        let text = "Method not found: this revision has no initialize";
        return Err(reply::error(StatusCode::NOT_FOUND, id, NO_METHOD, text).into());
    }
    Ok(Era::Stateless)
}

/// Whether a POST of a revision that is not spoken is of one without sessions: it says so in `_meta`, or names no session.
pub(super) fn is_modern(headers: &HeaderMap, envelope: &Envelope<'_>) -> bool {
    let meta = envelope.meta().ok().flatten();
    let says = meta.is_some_and(|meta| member(meta, META_VERSION).is_ok_and(|version| version.is_some()));
    says || !headers.contains_key(head::SESSION)
}

fn check_method(headers: &HeaderMap, envelope: &Envelope<'_>, needed: bool) -> Result<(), String> {
    if !headers.contains_key(METHOD) {
        return if needed { Err("the header Mcp-Method is needed".into()) } else { Ok(()) };
    }
    let said = head::one(headers, &METHOD).unwrap_or_default();
    let same = envelope.method().is_some_and(|method| method.is(said));
    if same { Ok(()) } else { Err("Mcp-Method is not the method of the body".into()) }
}

/// The field of params that `Mcp-Name` repeats.
fn named(envelope: &Envelope<'_>) -> Option<&'static str> {
    let method = envelope.method()?;
    let known = [
        ("tools/call", "name"),
        ("prompts/get", "name"),
        ("resources/read", "uri"),
        ("tasks/get", "taskId"),
        ("tasks/update", "taskId"),
        ("tasks/cancel", "taskId"),
    ];
    known.into_iter().find(|(known, _)| method.is(known)).map(|(_, field)| field)
}

fn check_name(headers: &HeaderMap, envelope: &Envelope<'_>) -> Result<(), String> {
    let Some(field) = named(envelope) else { return Ok(()) };
    let value = envelope.params().and_then(|params| member(params, field).ok().flatten());
    let value = value.and_then(string);
    if !headers.contains_key(NAME) {
        return match value {
            Some(_) => Err("the header Mcp-Name is needed".into()),
            None => Ok(()),
        };
    }
    let said = raw(headers, &NAME).and_then(decode);
    let Some(said) = said else { return Err("Mcp-Name is malformed".into()) };
    match value {
        Some(value) if !value.is(&said) => Err(format!("Mcp-Name is not params.{field} of the body")),
        _ => Ok(()),
    }
}

/// The one value of a header, as bytes that are text.
pub(super) fn raw<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    std::str::from_utf8(value.as_bytes()).ok().map(str::trim_ascii)
}

/// What a value says: as it is, or in base64 between `=?base64?` and `?=`. `None` for base64 that is none.
pub(super) fn decode(value: &str) -> Option<Cow<'_, str>> {
    let packed = value.strip_prefix("=?base64?").and_then(|value| value.strip_suffix("?="));
    let Some(packed) = packed else { return Some(value.into()) };
    let bytes = BASE64.decode(packed.as_bytes()).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The status of an answer.
pub(super) fn status(message: &[u8]) -> StatusCode {
    let Ok(envelope) = Envelope::peek(message) else { return StatusCode::OK };
    let code = envelope.error().and_then(|error| member(error, "code").ok().flatten());
    let code = code.and_then(|code| std::str::from_utf8(code).ok()).and_then(|code| code.parse::<i32>().ok());
    match code {
        Some(NO_METHOD) => StatusCode::NOT_FOUND,
        Some(MISMATCH | INCAPABLE | UNSUPPORTED) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(headers: &[(&'static str, &str)], body: &str) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let envelope = Envelope::strict(body.as_bytes()).unwrap();
        let speaks = |revision| revision != Revision::R2025_03_26;
        let (status, body) = match classify(&map, &envelope, speaks, &Params::default()) {
            Ok(era) => return format!("{era:?}"),
            Err(reply) => {
                let status = reply.status().as_u16();
                let reply::ReplyBody::Whole(Some(body)) = reply.into_body() else { panic!("no body") };
                (status, body)
            }
        };
        let code = member(Envelope::peek(&body).unwrap().error().unwrap(), "code").unwrap().unwrap();
        format!("{status} {}", String::from_utf8_lossy(code))
    }

    #[test]
    fn head_and_body_agree_or_are_refused() {
        let meta =
            |version: &str| format!(r#""_meta":{{"{META_VERSION}":"{version}","{META_CAPABILITIES}":{{}}}}"#);
        let modern = meta("2026-07-28");
        let call = |params: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{params}}}}}"#)
        };
        let list = |params: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{params}}}}}"#)
        };
        let note =
            |params: &str| format!(r#"{{"jsonrpc":"2.0","method":"notifications/x","params":{{{params}}}}}"#);
        let modern_initialize =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{{modern}}}}}"#);
        let version = ("mcp-protocol-version", "2026-07-28");
        let method = ("mcp-method", "tools/list");
        let named = format!(r#"{modern},"name":"caf\u00e9""#);
        let plain = |name| [version, ("mcp-method", "tools/call"), ("mcp-name", name)];
        for (headers, body, expected) in [
            (&[][..], list(""), "Sessions(None)"),
            (&[("mcp-protocol-version", "2025-06-18")], list(""), "Sessions(Some(R2025_06_18))"),
            (&[("mcp-protocol-version", "2025-03-26")], list(""), "Unsupported(\"2025-03-26\")"),
            (&[("mcp-protocol-version", "x")], list(""), "Unsupported(\"x\")"),
            (&[version, method], list(&modern), "Stateless"),
            (&[version], list(&modern), "400 -32020"),
            (&[method], list(&modern), "400 -32020"),
            (&[version, ("mcp-method", "TOOLS/LIST")], list(&modern), "400 -32020"),
            (&[version, method, method], list(&modern), "400 -32020"),
            (&[version, method], list(""), "400 -32602"),
            (&[version, method], list(r#""_meta":{}"#), "400 -32602"),
            (
                &[version, method],
                list(&format!(r#""_meta":{{"{META_VERSION}":"2026-07-28"}}"#)),
                "400 -32602",
            ),
            (&[version, method], list(&format!(r#""_meta":{{"{META_VERSION}":1}}"#)), "400 -32602"),
            (&[version, method], list(&meta("v999")), "400 -32020"),
            (&[("mcp-protocol-version", "v999"), method], list(&meta("v999")), "Unsupported(\"v999\")"),
            (&[version], INITIALIZE.into(), "400 -32020"),
            (&[version, ("mcp-method", "initialize")], modern_initialize.clone(), "404 -32601"),
            (&[version], modern_initialize, "400 -32020"),
            (&[], INITIALIZE.into(), "Sessions(None)"),
            (&[version], note(""), "Stateless"),
            (&[version, ("mcp-method", "x")], note(""), "400 -32020"),
            (&[], note(&modern), "Stateless"),
            (&[version], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into(), "400 -32600"),
            (&[version], "[]".into(), "400 -32600"),
            (&plain("caf\u{e9}"), call(&named), "Stateless"),
            (&plain("=?base64?Y2Fmw6k=?="), call(&named), "Stateless"),
            (&plain("=?base64?Y2Fmw6k?="), call(&named), "400 -32020"),
            (&plain("=?base64?!!!?="), call(&named), "400 -32020"),
            (&plain("other"), call(&named), "400 -32020"),
            (&plain("")[..2], call(&named), "400 -32020"),
            (&plain("")[..2], call(&modern), "Stateless"),
        ] {
            assert_eq!(judged(headers, &body), expected, "{headers:?} {body}");
        }
    }

    const INITIALIZE: &str =
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;

    #[test]
    fn errors_have_their_status() {
        for (code, expected) in
            [(-32601, 404), (-32020, 400), (-32021, 400), (-32022, 400), (-32602, 200), (1, 200)]
        {
            let message = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"message":"","code":{code}}}}}"#);
            assert_eq!(status(message.as_bytes()).as_u16(), expected, "{code}");
        }
        assert_eq!(status(br#"{"jsonrpc":"2.0","id":1,"result":{"error":{"code":-32601}}}"#).as_u16(), 200);
    }
}
