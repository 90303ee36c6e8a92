//! What a client tells beside the messages: events as they happen, and counters.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::error::HttpClientError;
use crate::error::Fault;

/// Is told what happens on the way. Called from the transport's own tasks: it must not wait.
pub trait ClientObserver: Send + Sync {
    /// Something happened.
    fn event(&self, event: &ClientEvent<'_>);
}

impl<F: Fn(&ClientEvent<'_>) + Send + Sync> ClientObserver for F {
    fn event(&self, event: &ClientEvent<'_>) {
        self(event);
    }
}

/// What happened. `Display` is a line for a log, without bytes of the peer that were not escaped.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent<'a> {
    /// The server has answered `initialize`.
    SessionStarted {
        /// The revision it chose, as it stands in its answer.
        revision: &'a str,
        /// Whether it gave the session an id.
        has_id: bool,
    },
    /// The server no longer knew the session; a new one was opened with the client's own `initialize`.
    SessionRenewed,
    /// The server speaks the HTTP with SSE of 2024-11-05.
    FellBack,
    /// A stream was cut before its request was answered, or the one that the server sends on by itself was.
    StreamLost {
        /// Which attempt in a row will be the next.
        attempt: u32,
        /// How long until then.
        after: Duration,
    },
    /// A request was answered with an error made here.
    Failed {
        /// Why.
        error: &'a HttpClientError,
    },
    /// A notification or response could not be delivered.
    Undelivered {
        /// Why.
        error: &'a HttpClientError,
    },
    /// Something that came was left out.
    Skipped {
        /// What was wrong with it.
        fault: &'a Fault,
    },
    /// A response to nothing that is waited for was left out.
    Stray,
}

impl fmt::Display for ClientEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionStarted { revision, has_id } => {
                let id = if *has_id { "with a session id" } else { "without a session id" };
                write!(f, "the server answered initialize: revision {}, {id}", revision.escape_debug())
            }
            Self::SessionRenewed => f.write_str("the server had lost the session; a new one is open"),
            Self::FellBack => f.write_str("the server speaks HTTP with SSE, as of 2024-11-05"),
            Self::StreamLost { attempt, after } => {
                write!(f, "a stream was cut; attempt {attempt} to go on follows in {after:?}")
            }
            Self::Failed { error } => write!(f, "a request was answered with an error: {error}"),
            Self::Undelivered { error } => write!(f, "a message could not be delivered: {error}"),
            Self::Skipped { fault } => write!(f, "left out: {fault}"),
            Self::Stray => f.write_str("left out: a response to nothing that is waited for"),
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a client has done so far.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ClientStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The same, live.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            pub(super) fn snapshot(&self) -> ClientStats {
                ClientStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Requests accepted to be sent.
    requests,
    /// Responses delivered that the server gave.
    answers,
    /// Responses made here, because the server gave none.
    errors,
    /// Sessions opened anew after the server had lost one.
    renewals,
    /// Streams of a request gone on with after they were cut.
    resumes,
    /// Times the stream that the server sends on by itself was opened again.
    reconnects,
    /// Responses left out, as nothing waited for them.
    strays,
    /// Messages left out, as they were none.
    faults,
    /// Notifications and responses that could not be delivered.
    undelivered,
    /// Connections opened.
    connections,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
