//! What revision 2026-07-28 asks of the head of a request: headers that say what the body says.

use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;

use crate::{
    json::{Envelope, RawString},
    transport::Revision,
};

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The name in `_meta` whose value is the revision.
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

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
    let version = member(envelope.meta().ok()??, VERSION_KEY)?;
    if !string(version)?.is(Revision::R2026_07_28.as_str()) {
        return None;
    }
    let method = string_value(envelope.method()?)?;
    let named = |key| member(params, key).and_then(string).and_then(string_value);
    let name = match method.as_bytes() {
        b"tools/call" | b"prompts/get" => named("name"),
        b"resources/read" => named("uri"),
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
}

/// The value of a member of an object (JSON).
fn member<'a>(object: &'a [u8], key: &str) -> Option<&'a [u8]> {
    crate::json::member(object, key).ok()?
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

/// A text as a header's value: as it is when it is of visible ASCII and blanks within, else in base64 between `=?base64?`
/// and `?=`; so is a text that looks like that.
pub(super) fn value(text: &str) -> Option<HeaderValue> {
    let bytes = text.as_bytes();
    let is_plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.starts_with("=?base64?");
    let encoded = if is_plain {
        text.to_owned()
    } else {
        format!("=?base64?{}?=", data_encoding::BASE64.encode(bytes))
    };
    HeaderValue::try_from(encoded).ok()
}
