//! The server: each session that a client opens is a transport.
