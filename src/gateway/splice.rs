//! The bytes that tie messages together, ids and what refers to them, exchanged in place.
