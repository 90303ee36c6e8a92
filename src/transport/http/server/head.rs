//! The rules of a request's head: what it accepts, what it brings, who asks.

use http::{
    HeaderMap, Version,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, ORIGIN,
    },
    request::Parts,
};

use crate::{
    guard::{Access, Refused},
    transport::Revision,
};

/// The id of a session.
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// The revision spoken.
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// The last event that came.
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// What is wrong with where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// No host, or several.
    NoHost,
    Refused(Refused),
}

/// The one value of a header, as text; `None` for none, several, or what is not visible ASCII.
pub(super) fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok().map(str::trim_ascii) }
}

/// Whether the host asked for and the page that asks may be answered.
pub(super) fn check_source(parts: &Parts, access: &Access) -> Result<(), Source> {
    let host = match one(&parts.headers, &HOST) {
        Some(host) => Some(host),
        // HTTP/2 has it in `:authority` (RFC 9113 §8.3.1); Host may be there too and is looked at above.
        None if parts.version == Version::HTTP_2 && !parts.headers.contains_key(HOST) => {
            parts.uri.authority().map(http::uri::Authority::as_str)
        }
        None => None,
    };
    let host = host.filter(|host| !host.is_empty()).ok_or(Source::NoHost)?;
    // What is meant has to be what is checked: an absolute target overrides Host (RFC 9112 §3.2.2).
    if let Some(authority) = parts.uri.authority()
        && authority.as_str() != host
    {
        access.check_source(authority.as_str(), None).map_err(Source::Refused)?;
    }
    let origin = if parts.headers.contains_key(ORIGIN) {
        Some(one(&parts.headers, &ORIGIN).unwrap_or_default())
    } else {
        None
    };
    access.check_source(host, origin).map_err(Source::Refused)
}

/// Whether the token is right.
pub(super) fn check_token(headers: &HeaderMap, access: &Access) -> Result<(), Refused> {
    if !access.needs_token() {
        return Ok(());
    }
    let token =
        one(headers, &AUTHORIZATION).and_then(|value| value.split_once(' ')).and_then(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_ascii().as_bytes())
        });
    access.check_token(token)
}

/// Whether both kinds of answers to a POST are accepted.
pub(super) fn accepts_answers(headers: &HeaderMap) -> bool {
    // What nearly every client says is known without taking it apart.
    one(headers, &ACCEPT) == Some("application/json, text/event-stream")
        || (accepts(headers, "application/json") && accepts(headers, "text/event-stream"))
}

/// Whether `kind` is accepted (RFC 9110 §12.5.1). No header accepts everything.
pub(super) fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let mut any = false;
    let family = kind.split_once('/').map_or(kind, |(family, _)| family);
    for value in headers.get_all(ACCEPT) {
        any = true;
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim_ascii);
            let Some(name) = parts.next() else { continue };
            let matches = name.eq_ignore_ascii_case(kind)
                || name == "*/*"
                || name
                    .strip_suffix("/*")
                    .is_some_and(|wild| !wild.is_empty() && wild.eq_ignore_ascii_case(family));
            if matches && !parts.any(is_zero) {
                return true;
            }
        }
    }
    !any
}

/// Whether a parameter says that it is not accepted: `q=0`.
fn is_zero(parameter: &str) -> bool {
    weight(parameter) == Some(0.0)
}

/// The weight that a parameter is, if it is one.
fn weight(parameter: &str) -> Option<f32> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    value.parse().ok()
}

/// Whether the client would rather have an answer as events than as JSON: it gives them more weight or, at the same weight,
/// names them first. Both have to be named. The order says nothing by RFC 9110 §12.5.1, and of two kinds that weigh the
/// same the server may choose.
pub(super) fn prefers_events(headers: &HeaderMap) -> bool {
    let (mut events, mut json, mut order) = (None, None, 0);
    for value in headers.get_all(ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim_ascii);
            let kind = parts.next().unwrap_or_default();
            let place = match () {
                () if kind.eq_ignore_ascii_case("text/event-stream") => &mut events,
                () if kind.eq_ignore_ascii_case("application/json") => &mut json,
                () => continue,
            };
            order -= 1;
            place.get_or_insert((parts.find_map(weight).unwrap_or(1.0), order));
        }
    }
    matches!((events, json), (Some(events), Some(json)) if events > json)
}

/// Whether the body is JSON, as it is.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let Some(kind) = one(headers, &CONTENT_TYPE) else { return false };
    if kind == "application/json" {
        return plain;
    }
    let mut parts = kind.split(';').map(str::trim_ascii);
    let json = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"));
    // JSON is UTF-8 (RFC 8259 §8.1).
    let utf8 = parts.all(|parameter| {
        let charset = parameter.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
        charset.is_none_or(|(_, value)| {
            let value = value.trim_matches('"');
            value.eq_ignore_ascii_case("utf-8")
                || value.eq_ignore_ascii_case("utf8")
                || value.eq_ignore_ascii_case("us-ascii")
        })
    });
    plain && json && utf8
}

/// How many bytes the body is said to have.
pub(super) fn declared(headers: &HeaderMap) -> Option<u64> {
    one(headers, &CONTENT_LENGTH)?.parse().ok()
}

/// The revision that the head names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named<'a> {
    None,
    Known(Revision),
    Unknown(&'a str),
}

pub(super) fn revision(headers: &HeaderMap) -> Named<'_> {
    if !headers.contains_key(VERSION) {
        return Named::None;
    }
    let text = one(headers, &VERSION).unwrap_or_default();
    text.parse().map_or(Named::Unknown(text), Named::Known)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn what_is_accepted() {
        let both = |values: &[&str]| {
            let headers = headers(ACCEPT, values);
            (accepts(&headers, "application/json"), accepts(&headers, "text/event-stream"))
        };
        for (values, expected) in [
            (&[][..], (true, true)),
            (&["application/json, text/event-stream"], (true, true)),
            (&["application/json", "text/event-stream"], (true, true)),
            (&["application/json"], (true, false)),
            (&["Application/JSON;q=0.5"], (true, false)),
            (&["text/event-stream ; q=1 , application/json;q=0"], (false, true)),
            (&["text/event-stream, application/json;q=0.000"], (false, true)),
            (&["*/*"], (true, true)),
            (&["text/*"], (false, true)),
            (&["application/*;q=0.1, text/html"], (true, false)),
            (&["text/html"], (false, false)),
            (&[""], (false, false)),
            (&["application/jsonx, xtext/event-stream"], (false, false)),
        ] {
            assert_eq!(both(values), expected, "{values:?}");
            let answers = accepts_answers(&headers(ACCEPT, values));
            assert_eq!(answers, expected == (true, true), "{values:?}");
        }
    }

    #[test]
    fn what_is_preferred() {
        for (values, expected) in [
            (&[][..], false),
            // What SDKs send.
            (&["application/json, text/event-stream"], false),
            (&["text/event-stream, application/json"], true),
            (&["Text/Event-Stream", "Application/JSON"], true),
            (&["application/json", "text/event-stream"], false),
            (&["application/json;q=0.9, text/event-stream"], true),
            (&["text/event-stream;q=0.9, application/json"], false),
            (&["text/event-stream;x=1;q=0.5, application/json;q=0.5"], true),
            (&["text/html, text/event-stream, application/json"], true),
            (&["text/event-stream"], false),
            (&["text/event-stream, */*"], false),
            (&["*/*"], false),
            (&[""], false),
            (&["text/event-stream;q=x, application/json;q=nan"], false),
        ] {
            assert_eq!(prefers_events(&headers(ACCEPT, values)), expected, "{values:?}");
        }
    }

    #[test]
    fn what_is_json() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; charset=latin1", false),
            ("application/json-rpc", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_json(&headers(CONTENT_TYPE, &[value])), expected, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
        assert!(!is_json(&headers(CONTENT_TYPE, &["application/json", "application/json"])));
        let mut packed = headers(CONTENT_TYPE, &["application/json"]);
        packed.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(!is_json(&packed));
    }

    #[test]
    fn which_revision() {
        assert_eq!(revision(&HeaderMap::new()), Named::None);
        assert_eq!(revision(&headers(VERSION, &["2025-06-18"])), Named::Known(Revision::R2025_06_18));
        assert_eq!(revision(&headers(VERSION, &["1.0"])), Named::Unknown("1.0"));
        assert_eq!(revision(&headers(VERSION, &["2025-06-18", "2025-06-18"])), Named::Unknown(""));
    }
}
