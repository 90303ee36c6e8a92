//! What a browser asks before a page of another origin may ask (Fetch, §3.2), and what lets the page read the answer.
//!
//! By now the origin is one that is allowed: `head` has looked at it.

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
    request::Parts,
};

use super::reply::{self, Reply};

/// The answer to a question that is asked before a request; `None` for a request.
pub(super) fn preflight(parts: &Parts) -> Option<Reply> {
    let headers = &parts.headers;
    if parts.method != Method::OPTIONS
        || !headers.contains_key(ORIGIN)
        || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    let mut reply = reply::empty(StatusCode::NO_CONTENT);
    let answers = reply.headers_mut();
    answers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    // `Mcp-Param-*` has any name: what is asked for is allowed.
    if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    answers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    Some(reply)
}

/// Lets pages of `origin` read an answer.
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Mcp-Session-Id, WWW-Authenticate, Retry-After"),
    );
    headers.append(VARY, HeaderValue::from_static("Origin"));
}
