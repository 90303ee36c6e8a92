//! How the command ends: why it failed, as a text and as an exit code.

use std::{fmt, process::ExitCode};

/// Below the short help.
pub(crate) const HELP: &str = "'--help' also tells the endpoints, exit codes and environment.";

/// Why the command failed. Each variant is one exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something failed while running.
    Runtime(String),
    /// The command line is wrong in a way that its parser cannot see.
    Usage(String),
    /// Cannot listen.
    Listen(String),
    /// Cannot connect, or no proper answer.
    Connect(String),
    /// The child process failed or could not be started.
    Child(String),
    /// A second signal: 128 and its number.
    Signal(u8),
}

impl Failure {
    pub(crate) fn runtime(text: impl fmt::Display) -> Self {
        Self::Runtime(text.to_string())
    }

    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self::Usage(text.to_string())
    }

    /// What to tell the user.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Runtime(text)
            | Self::Usage(text)
            | Self::Listen(text)
            | Self::Connect(text)
            | Self::Child(text) => Some(text),
            Self::Signal(_) => None,
        }
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Runtime(_) => 1,
            Self::Usage(_) => 2,
            Self::Listen(_) => 3,
            Self::Connect(_) => 4,
            Self::Child(_) => 5,
            Self::Signal(number) => 128u8.saturating_add(*number),
        })
    }
}
