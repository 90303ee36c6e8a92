//! Answers that the gateway gives by itself: JSON-RPC errors with the request's own id.
//!
//! Uses std only; supervisor and hub use it.

/// The code of the answer to a request whose server ended, or is not running: the one that the official SDKs call
/// "connection closed". Of the range that JSON-RPC 2.0 §5.1 leaves to servers.
pub const SERVER_ENDED: i32 = -32000;

/// The code of the answer to a request that is one too many.
pub const TOO_MANY: i32 = -32005;

/// The code of the answer to a request that cannot be passed on as it is (JSON-RPC 2.0 §5.1: invalid request).
pub const INVALID_REQUEST: i32 = -32600;

/// The code of the answer to what is not JSON (JSON-RPC 2.0 §5.1: parse error).
pub(super) const PARSE_ERROR: i32 = -32700;

/// The code of the answer to a request that nobody attached can serve (JSON-RPC 2.0 §5.1: method not found).
pub(super) const NOBODY: i32 = -32601;

/// The code of the answer instead of one that cannot be passed on (JSON-RPC 2.0 §5.1: internal error).
pub(super) const BAD_ANSWER: i32 = -32603;

/// Appends the error answer to the request whose id, as JSON, is `id`. `text` has nothing that JSON escapes.
pub(super) fn refuse(id: &[u8], code: i32, text: &str, to: &mut Vec<u8>) {
    to.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    to.extend_from_slice(id);
    to.extend_from_slice(br#","error":{"code":"#);
    to.extend_from_slice(code.to_string().as_bytes());
    to.extend_from_slice(br#","message":""#);
    to.extend_from_slice(text.as_bytes());
    to.extend_from_slice(br#""}}"#);
}

/// Appends `notifications/cancelled` of the request whose id, as JSON, is `id`. `reason` has nothing that JSON escapes.
pub(super) fn cancel(id: &[u8], reason: &str, to: &mut Vec<u8>) {
    to.extend_from_slice(br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#);
    to.extend_from_slice(id);
    to.extend_from_slice(br#","reason":""#);
    to.extend_from_slice(reason.as_bytes());
    to.extend_from_slice(br#""}}"#);
}
