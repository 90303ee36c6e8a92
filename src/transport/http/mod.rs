//! Streamable HTTP and HTTP with SSE, both roles: MCP's transports that are more than one codec on one pair.
//!
//! Uses `codec` (server-sent events, WebSocket), `json` (the envelope), hyper, and what is below; the gateway and the
//! command use it.

pub mod client;
pub mod server;
