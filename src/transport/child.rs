//! [`ChildTransport`]: a child process's standard output and input.

use crate::{
    Link, Result,
    codec::{Codec, Newline},
    io::child::{ChildBuilder, ChildHandle, ChildReader, ChildWriter},
    link::LinkConfig,
};

/// Any framing, by default newline, on a child's standard output and input. The child is in a process group of its own
/// and is killed with it when the transport is dropped.
pub type ChildTransport<C = Newline> = Link<C, ChildReader, ChildWriter>;

impl Link<Newline, ChildReader, ChildWriter> {
    /// Starts the child; one message per line. The handle tells how the child ended and ends it in order.
    ///
    /// # Errors
    /// See [`ChildBuilder::spawn`].
    pub fn spawn(builder: ChildBuilder) -> Result<(Self, ChildHandle)> {
        Self::spawn_with(Newline::new(), builder, LinkConfig::default())
    }
}

impl<C: Codec> Link<C, ChildReader, ChildWriter> {
    /// As [`spawn`](ChildTransport::spawn), with any framing and settings.
    ///
    /// # Errors
    /// As there.
    pub fn spawn_with(codec: C, builder: ChildBuilder, config: LinkConfig) -> Result<(Self, ChildHandle)> {
        let (reader, writer, handle) = builder.spawn()?;
        Ok((Self::with_config(codec, reader, writer, config.transport_type("child")), handle))
    }
}
