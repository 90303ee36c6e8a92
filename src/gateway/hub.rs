//! Many clients on one backend, or on a few.
