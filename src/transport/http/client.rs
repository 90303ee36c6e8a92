//! The client: each message sent is a POST, what comes back on any stream is received.
