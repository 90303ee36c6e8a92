//! The words of both eras, and the messages that a translator makes itself.
//!
//! Names and codes are those of revision 2026-07-28's schema and of 2025-11-25's.

use super::queue::Queue;
use crate::json::{Envelope, Id, RawString};

pub(super) const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
pub(super) const CLIENT_INFO_KEY: &str = "io.modelcontextprotocol/clientInfo";
pub(super) const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
pub(super) const LOG_LEVEL_KEY: &str = "io.modelcontextprotocol/logLevel";
pub(super) const SERVER_INFO_KEY: &str = "io.modelcontextprotocol/serverInfo";
pub(super) use crate::{gateway::logging::level, json::SUBSCRIPTION_ID as SUBSCRIPTION_KEY};

pub(super) const INVALID_REQUEST: i32 = -32600;
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
pub(super) const INVALID_PARAMS: i32 = -32602;
pub(super) const INTERNAL_ERROR: i32 = -32603;
/// Of no specification: too much at once.
pub(super) const BUSY: i32 = -32005;
/// 2025-11-25 and before: there is no such resource.
pub(super) const RESOURCE_NOT_FOUND: &[u8] = b"-32002";
/// 2026-07-28: the version is not spoken here; `data.supported` says which are.
pub(super) const UNSUPPORTED_VERSION: &[u8] = b"-32022";

/// The ids of a translator's own requests begin so.
const OWN_ID: &str = "\"framewire-era-";

/// The id of own request `number`, as JSON.
pub(super) fn own_id(number: u64) -> Vec<u8> {
    format!("{OWN_ID}{number}\"").into_bytes()
}

/// Which own request an id is of.
pub(super) fn own_number(raw: &[u8]) -> Option<u64> {
    let digits = raw.strip_prefix(OWN_ID.as_bytes())?.strip_suffix(b"\"")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What a JSON value that is a string says.
pub(super) fn text(value: &[u8]) -> Option<RawString<'_>> {
    RawString::of_value(value)
}

/// Whether a JSON value is the string `expected`.
pub(super) fn is_text(value: &[u8], expected: &str) -> bool {
    text(value).is_some_and(|text| text.is(expected))
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> Vec<u8> {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            char if char < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => json.push(char),
        }
    }
    json.push('"');
    json.into_bytes()
}

/// The id to answer with.
pub(super) fn answerable<'a>(envelope: &Envelope<'a>) -> &'a [u8] {
    match envelope.id() {
        Id::Integer(_) | Id::String(_) => envelope.raw_id().unwrap_or(b"null"),
        _ => b"null",
    }
}

impl Queue {
    /// An answer; `result` is JSON.
    pub(super) fn result(&mut self, id: &[u8], result: &[u8]) {
        self.pieces(&[b"{\"jsonrpc\":\"2.0\",\"id\":", id, b",\"result\":", result, b"}"]);
    }

    /// An error.
    pub(super) fn error(&mut self, id: &[u8], code: i32, message: &str) {
        self.error_with(id, code, message, b"");
    }

    /// An error; `data` is JSON or empty.
    pub(super) fn error_with(&mut self, id: &[u8], code: i32, message: &str, data: &[u8]) {
        let name: &[u8] = if data.is_empty() { b"" } else { b",\"data\":" };
        self.pieces(&[
            b"{\"jsonrpc\":\"2.0\",\"id\":",
            id,
            b",\"error\":{\"code\":",
            code.to_string().as_bytes(),
            b",\"message\":",
            &quoted(message),
            name,
            data,
            b"}}",
        ]);
    }

    /// A request; `method` and `params` are JSON.
    pub(super) fn request(&mut self, id: &[u8], method: &[u8], params: &[u8]) {
        self.pieces(&[
            b"{\"jsonrpc\":\"2.0\",\"id\":",
            id,
            b",\"method\":",
            method,
            b",\"params\":",
            params,
            b"}",
        ]);
    }

    /// `notifications/cancelled` for the request with `id`.
    pub(super) fn cancel(&mut self, id: &[u8]) {
        self.pieces(&[
            b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":",
            id,
            b"}}",
        ]);
    }
}

/// What a client says that it can be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    pub(super) sampling: bool,
    pub(super) elicitation: bool,
    /// By sending the user to a page.
    pub(super) elicitation_url: bool,
    pub(super) roots: bool,
}

impl Abilities {
    /// Of `capabilities`, an object as both eras have it.
    pub(super) fn of(capabilities: &[u8]) -> Self {
        let is_there =
            |value: Option<&[u8]>| value.is_some_and(|value| value != b"null" && value != b"false");
        let elicitation = super::edit::field(capabilities, "elicitation").filter(|value| *value != b"null");
        let url = elicitation.is_some_and(|modes| is_there(super::edit::field(modes, "url")));
        let form = elicitation.is_some_and(|modes| is_there(super::edit::field(modes, "form")));
        Self {
            sampling: is_there(super::edit::field(capabilities, "sampling")),
            // A bare declaration is one of forms: that is what it meant before there were modes.
            elicitation: elicitation.is_some() && (form || !url),
            elicitation_url: url,
            roots: is_there(super::edit::field(capabilities, "roots")),
        }
    }

    /// Whether a client may be asked `method` with `params`; `None` when that is nothing to ask a client at all.
    pub(super) fn allow(self, method: RawString<'_>, params: Option<&[u8]>) -> Option<bool> {
        if method.is("sampling/createMessage") {
            Some(self.sampling)
        } else if method.is("roots/list") {
            Some(self.roots)
        } else if method.is("elicitation/create") {
            let mode = params.and_then(|params| super::edit::field(params, "mode"));
            Some(if mode.is_some_and(|mode| is_text(mode, "url")) {
                self.elicitation_url
            } else {
                self.elicitation
            })
        } else {
            None
        }
    }
}

/// The methods whose results may ask for more input first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    Tool,
    Prompt,
    Resource,
}

impl Asking {
    pub(super) fn of(method: RawString<'_>) -> Option<Self> {
        // Not by the raw bytes: some write the slash as an escape.
        let known =
            [("tools/call", Self::Tool), ("prompts/get", Self::Prompt), ("resources/read", Self::Resource)];
        known.into_iter().find(|(name, _)| method.is(name)).map(|(_, asking)| asking)
    }
}
