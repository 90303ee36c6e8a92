//! [`EndpointError`]: what is wrong with the text of an endpoint, and what was probably meant.

use super::SizeError;

/// Why a text is not an [`Endpoint`](super::Endpoint). The messages are written for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text is empty.
    #[error(
        "an endpoint is needed: stdio:, exec:COMMAND, tcp://HOST:PORT, tls://HOST:PORT, unix:PATH, ws://HOST:PORT, http://HOST:PORT, demo: or echo:"
    )]
    Empty,
    /// No scheme stands before a colon.
    #[error("'{text}' has no scheme{hint}")]
    NoScheme {
        /// The text.
        text: String,
        /// What was probably meant, ready to be appended.
        hint: String,
    },
    /// The scheme is none that is known.
    #[error(
        "unknown scheme '{scheme}' (known: stdio, exec, tcp, tls, unix, ws, wss, ws+unix, http, https, http+unix, demo, echo){hint}"
    )]
    UnknownScheme {
        /// The scheme.
        scheme: String,
        /// What was probably meant, ready to be appended.
        hint: String,
    },
    /// A URL that is none.
    #[error("'{url}' is no URL that can be used here: {reason}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The scheme is reserved for a transport that this version does not have.
    #[error(
        "'{scheme}' is reserved but not built into this version (there are stdio, exec, tcp, tls, unix, ws, wss, ws+unix, http, https, http+unix, demo and echo)"
    )]
    NotBuiltIn {
        /// The scheme.
        scheme: &'static str,
    },
    /// A TCP or TLS endpoint without a host.
    #[error("a host is missing: {scheme}://HOST:PORT, for example {scheme}://127.0.0.1:9110")]
    MissingHost {
        /// The scheme.
        scheme: &'static str,
    },
    /// A TCP or TLS endpoint without a port.
    #[error("a port is missing: {scheme}://{host}:PORT")]
    MissingPort {
        /// The scheme.
        scheme: &'static str,
        /// The host.
        host: String,
    },
    /// A port that is no number between 0 and 65535.
    #[error("'{port}' is not a port: a number from 0 to 65535 is")]
    BadPort {
        /// The port as written.
        port: String,
    },
    /// A host that cannot be one.
    #[error("'{host}' is not a host: {reason}")]
    BadHost {
        /// The host as written.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something stands after the part that counts.
    #[error("'{extra}' does not belong to a {scheme} endpoint")]
    Trailing {
        /// What is too much.
        extra: String,
        /// The scheme.
        scheme: &'static str,
    },
    /// A path that cannot be that of a Unix socket.
    #[error("bad socket path: {reason}")]
    BadPath {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A bad `%XX`.
    #[error("'%' in a path starts an escape of two hexadecimal digits; a percent sign itself is written %25")]
    BadEscape,
    /// The command holds a NUL byte.
    #[error("a NUL byte cannot be part of a command or path")]
    Nul,
    /// A quote that is not closed, or a backslash at the end.
    #[error("{quote} at the end of the command is not closed")]
    UnclosedQuote {
        /// Which.
        quote: char,
    },
    /// A pipe, redirection or list, which only a shell understands.
    #[error(
        "'{operator}' needs a shell and none is used: write exec:sh -c '…', or quote it when it is an argument"
    )]
    ShellOperator {
        /// Which.
        operator: String,
    },
    /// Options at the end of a command.
    #[error("options of exec stand before its colon: exec?{options}:COMMAND ARGS")]
    OptionsAfterCommand {
        /// The options.
        options: String,
    },
    /// An option that no endpoint, or not this one, has.
    #[error("unknown option '{option}' (known: {known}){hint}")]
    UnknownOption {
        /// Those that this endpoint has.
        known: &'static str,
        /// The option.
        option: String,
        /// What was probably meant, ready to be appended.
        hint: String,
    },
    /// An option that is given twice.
    #[error("option '{option}' is given twice")]
    RepeatedOption {
        /// The option.
        option: &'static str,
    },
    /// An option without its value.
    #[error("option '{option}' needs a value: {option}=…")]
    MissingValue {
        /// The option.
        option: &'static str,
    },
    /// A certificate without its key, or the other way round.
    #[error("{option}=FILE needs {missing}=FILE as well (the same file, when it holds both)")]
    Lonely {
        /// What is there.
        option: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// A pin that is none.
    #[error("'{pin}' is no pin: the base64 of the SHA-256 of the server's public key is, 44 characters")]
    BadPin {
        /// As written.
        pin: String,
    },
    /// A version of TLS that is not offered.
    #[error("'{version}' is no version that min-version can be: 1.2 and 1.3 are")]
    BadTlsVersion {
        /// As written.
        version: String,
    },
    /// A framing that is none that is known.
    #[error("unknown framing '{framing}' (known: newline, length, content-length, json){hint}")]
    UnknownFraming {
        /// The framing.
        framing: String,
        /// What was probably meant, ready to be appended.
        hint: String,
    },
    /// `framing=json`, which this build does not have.
    #[error("framing=json needs the json feature, which is not part of this build")]
    NeedsJson,
    /// A framing for an endpoint that carries whole messages.
    #[error("{scheme}: carries whole messages, so it takes no framing")]
    FramingOnWhole {
        /// The scheme.
        scheme: &'static str,
    },
    /// A bad size.
    #[error("max-message-size: {0}")]
    BadSize(#[from] SizeError),
    /// A size of zero.
    #[error("max-message-size: no message fits into 0 bytes")]
    ZeroSize,
}
