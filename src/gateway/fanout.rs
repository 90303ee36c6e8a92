//! One message to many receivers.
