//! [`EventReader`]: the events of what a reader gives.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{super::StreamingError, Event, EventHandler, Tokens};
use crate::buffer::{BufferManager, PooledBuffer};

/// Reads JSON of any size and takes it apart, in one buffer of the pool: 64 KiB, whatever the size of a value.
///
/// Nothing is read before all events of what was read are taken out, so whoever is slow to take them holds the peer back.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use framewire::json::{Event, EventReader};
///
/// let mut reader = EventReader::new(&br#"{"name": "a", "blob": "TWFueSBoYW5kcw=="}"#[..]);
/// let mut strings = 0;
/// while let Some(event) = reader.next().await? {
///     if let Event::String(chunk) = event {
///         strings += usize::from(chunk.is_last());
///     }
/// }
/// assert_eq!(strings, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EventReader<R> {
    reader: R,
    buffers: BufferManager,
    tokens: Tokens,
    /// There from the first read on.
    buffer: Option<PooledBuffer>,
    is_over: bool,
}

impl<R> EventReader<R> {
    /// Reads one JSON text up to the end of `reader`.
    #[must_use]
    pub fn new(reader: R) -> Self {
        Self::with_buffers(reader, BufferManager::shared().clone(), false)
    }

    /// Reads any number of JSON values one after the other; see [`EventParser::many`](super::EventParser::many).
    #[must_use]
    pub fn many(reader: R) -> Self {
        Self::with_buffers(reader, BufferManager::shared().clone(), true)
    }

    /// As [`new`](Self::new) or [`many`](Self::many), with a buffer of `buffers` and of its size.
    #[must_use]
    pub fn with_buffers(reader: R, buffers: BufferManager, many: bool) -> Self {
        Self { reader, buffers, tokens: Tokens::new(many), buffer: None, is_over: false }
    }

    /// How many containers are open.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.tokens.depth()
    }

    /// How many outermost values have come out whole.
    #[must_use]
    pub fn values(&self) -> u64 {
        self.tokens.values()
    }

    /// Gives the reader back. What was read of it and not taken out is lost.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.reader
    }
}

impl<R: AsyncRead + Unpin> EventReader<R> {
    /// Waits for the next event; `None` once all was taken out and the reader has ended.
    ///
    /// # Errors
    /// [`StreamingError::JsonError`] once no bytes to come could make JSON of it, and then again;
    /// [`StreamingError::IoError`] when the reader failed or no buffer came free in time.
    ///
    /// # Cancel safety
    /// Safe: what has been read stays here, and no event is lost.
    pub async fn next(&mut self) -> Result<Option<Event<'_>>, StreamingError> {
        // Tokens are places in the buffer, so that it is lent only once there is one.
        let token = loop {
            let bytes = self.buffer.as_deref().unwrap_or_default();
            if let Some(token) = self.tokens.next(bytes)? {
                break Some(token);
            }
            if self.is_over {
                break self.tokens.finish()?;
            }
            self.read().await?;
        };
        let bytes = self.buffer.as_deref().unwrap_or_default();
        Ok(token.map(|token| Event::new(token, bytes)))
    }

    /// Tells `handler` all events up to the end of the reader. Nothing is read while it is told.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Cancel safety
    /// Safe: a later call goes on with the event that follows the last one told.
    pub async fn tell(&mut self, handler: &mut (impl EventHandler + ?Sized)) -> Result<(), StreamingError> {
        while let Some(event) = self.next().await? {
            event.tell(handler);
        }
        Ok(())
    }

    /// Reads the next chunk; all events of the last one have come out.
    async fn read(&mut self) -> Result<(), StreamingError> {
        let buffer = match &mut self.buffer {
            Some(buffer) => buffer,
            none => {
                let buffer = self.buffers.acquire_read_buffer().await.map_err(std::io::Error::other)?;
                none.insert(buffer)
            }
        };
        // Should the read be dropped, there is nothing in the buffer, and the tokens know of nothing.
        self.tokens.feed(&[]);
        buffer.clear();
        let len = self.reader.read_buf(buffer.as_vec_mut()).await?;
        self.tokens.feed(buffer);
        self.is_over = len == 0;
        if self.is_over {
            self.buffer = None;
        }
        Ok(())
    }
}
