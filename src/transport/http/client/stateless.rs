//! What revision 2026-07-28 asks of the head of a request: headers that say what the body says.

use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;

use crate::{
    json::{Envelope, RawString, member},
    transport::Revision,
};

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The name in `_meta` whose value is the revision.
pub(super) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// The headers of one message.
#[derive(Debug, Clone)]
pub(super) struct Headers {
    method: HeaderValue,
    name: Option<HeaderValue>,
}

/// The headers of a message that names the stateless revision in its `_meta`; `None` for any other.
pub(super) fn headers(envelope: &Envelope<'_>) -> Option<Headers> {
    // Most have none of it, and to find that out must not cost a walk over large arguments.
    let params = envelope.params()?;
    memmem::find(params, VERSION_KEY.as_bytes())?;
    let version = member(envelope.meta().ok()??, VERSION_KEY).ok()??;
    if !string(version)?.is(Revision::R2026_07_28.as_str()) {
        return None;
    }
    let method = string_value(envelope.method()?)?;
    let named = |key| member(params, key).ok().flatten().and_then(string).and_then(string_value);
    let name = match method.as_bytes() {
        b"tools/call" | b"prompts/get" => named("name"),
        b"resources/read" => named("uri"),
        b"tasks/get" | b"tasks/update" | b"tasks/cancel" => named("taskId"),
        _ => None,
    };
    Some(Headers { method, name })
}

impl Headers {
    pub(super) fn put(&self, to: &mut HeaderMap) {
        to.insert(super::VERSION, HeaderValue::from_static(Revision::R2026_07_28.as_str()));
        to.insert(METHOD, self.method.clone());
        if let Some(name) = &self.name {
            to.insert(NAME, name.clone());
        }
    }

    pub(super) fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
}

fn string(value: &[u8]) -> Option<RawString<'_>> {
    match value {
        [b'"', raw @ .., b'"'] => Some(RawString::new(raw)),
        _ => None,
    }
}

/// What a JSON string says, as a header's value.
fn string_value(text: RawString<'_>) -> Option<HeaderValue> {
    value(&text.unescape()?)
}

/// A text as a header's value: as it is where a header can have it, else in base64 between `=?base64?` and `?=`; so is a
/// text that looks like that.
pub(super) fn value(text: &str) -> Option<HeaderValue> {
    let is_plain = !text.is_empty()
        && text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
        && text.trim() == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if is_plain {
        return HeaderValue::try_from(text).ok();
    }
    let encoded = data_encoding::BASE64.encode(text.as_bytes());
    HeaderValue::try_from(format!("=?base64?{encoded}?=")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_no_header_can_have_are_in_base64() {
        for (text, header) in [
            ("add", "add"),
            ("file:///a b.txt", "file:///a b.txt"),
            ("", "=?base64??="),
            (" a", "=?base64?IGE=?="),
            ("a\r\nX: y", "=?base64?YQ0KWDogeQ==?="),
            ("Köln", "=?base64?S8O2bG4=?="),
            ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
        ] {
            assert_eq!(value(text).expect("a value"), header, "{text:?}");
        }
    }
}
