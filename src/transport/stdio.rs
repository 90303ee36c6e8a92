//! [`StdioTransport`]: this process's own standard input and output, one message per line.

use crate::{
    Link, Result,
    buffer::{BufferConfig, BufferManager, BufferMetrics},
    codec::Newline,
    io::stdio::{self, Stdin, Stdout},
    link::LinkConfig,
    transport::TransportError,
};

/// Newline framing on standard input and output, as MCP's stdio transport has it.
pub type StdioTransport = Link<Newline, Stdin, Stdout>;

/// The limit on messages of [`StdioTransport::new`], in bytes: 1 MiB, AIRS's.
pub const STDIO_MAX_MESSAGE_SIZE: usize = 1024 * 1024;

/// What the transport calls itself.
const TYPE: &str = "stdio";

impl Link<Newline, Stdin, Stdout> {
    /// Takes standard input and output, with a limit of 1 MiB per message and the shared buffers.
    ///
    /// # Errors
    /// When they are taken already ([`AlreadyTaken`](stdio::AlreadyTaken)) or not open.
    #[allow(clippy::unused_async)] // the name and the form are AIRS's; there has to be a runtime
    pub async fn new() -> Result<Self, TransportError> {
        Self::with_max_message_size(STDIO_MAX_MESSAGE_SIZE).await
    }

    /// As [`new`](Self::new), with a limit of `bytes` per message, in both directions.
    ///
    /// # Errors
    /// [`Format`](TransportError::Format) when `bytes` is 0; else as [`new`](Self::new).
    #[allow(clippy::unused_async)]
    pub async fn with_max_message_size(bytes: usize) -> Result<Self, TransportError> {
        if bytes == 0 {
            return Err(TransportError::format("max_message_size must be greater than 0"));
        }
        Ok(Self::open(Newline::new().max_size(bytes), LinkConfig::default())?)
    }

    /// As [`new`](Self::new), with buffers of its own and their limit per message.
    ///
    /// # Errors
    /// As [`with_max_message_size`](Self::with_max_message_size).
    #[allow(clippy::unused_async)]
    pub async fn with_buffer_config(config: BufferConfig) -> Result<Self, TransportError> {
        if config.max_message_size == 0 {
            return Err(TransportError::format("max_message_size must be greater than 0"));
        }
        let codec = Newline::new().max_size(config.max_message_size);
        Ok(Self::open(codec, LinkConfig::default().buffers(BufferManager::new(config)))?)
    }

    /// Takes standard input and output with any settings.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn open(codec: Newline, config: LinkConfig) -> Result<Self> {
        let (reader, writer) = stdio::open()?;
        Ok(Self::with_config(codec, reader, writer, config.transport_type(TYPE)))
    }

    /// The limit on received messages, in bytes.
    #[must_use]
    pub fn max_message_size(&self) -> usize {
        self.decoder().max_size()
    }

    /// Whether the transport has buffers of its own.
    #[must_use]
    pub fn has_advanced_buffer_management(&self) -> bool {
        !self.buffer_manager().is_shared()
    }

    /// What its own buffers have done; `None` when it uses the shared ones.
    #[must_use]
    pub fn buffer_metrics(&self) -> Option<BufferMetrics> {
        self.has_advanced_buffer_management().then(|| self.buffer_manager().metrics())
    }

    /// Whether the stream is over.
    #[allow(clippy::unused_async)] // the name and the form are AIRS's
    pub async fn is_closed(&self) -> bool {
        self.is_ended()
    }
}
