//! Translation between clients and servers of the stateless revision and those with sessions.
