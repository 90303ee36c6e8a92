//! [`AnyTransport`]: what the command holds of a client or a backend.

use std::task::{Context, Poll};

use framewire::{
    Frame, Result,
    buffer::BufferManager,
    codec::{Kind, websocket::CloseReason},
    transport::PollTransport,
};

use super::end::AnyLink;

/// A link, known by its type so that a message costs one branch; or anything else.
pub(crate) enum AnyTransport {
    Link(Box<AnyLink>),
    #[expect(dead_code, reason = "HTTP sessions are about to be such")]
    Other(Box<dyn PollTransport>),
}

impl AnyTransport {
    /// Why the peer closed, where that can be said.
    pub(crate) fn close_reason(&self) -> Option<&CloseReason> {
        match self {
            Self::Link(link) => link.decoder().close_reason(),
            Self::Other(_) => None,
        }
    }
}

impl From<AnyLink> for AnyTransport {
    fn from(link: AnyLink) -> Self {
        Self::Link(Box::new(link))
    }
}

macro_rules! each {
    ($self:expr, $transport:ident => $do:expr) => {
        match $self {
            AnyTransport::Link($transport) => $do,
            AnyTransport::Other($transport) => $do,
        }
    };
}

impl PollTransport for AnyTransport {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        each!(self, transport => transport.poll_receive(cx))
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        each!(self, transport => transport.poll_receive_lent(cx))
    }

    fn poll_receive_with_kind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Kind, &mut [u8])>> {
        each!(self, transport => transport.poll_receive_with_kind(cx))
    }

    fn set_kind(&mut self, kind: Kind) {
        each!(self, transport => PollTransport::set_kind(transport, kind));
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, transport => transport.poll_ready(cx))
    }

    fn has_room(&self) -> bool {
        each!(self, transport => PollTransport::has_room(transport))
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        each!(self, transport => transport.start_send(payload))
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        each!(self, transport => transport.start_send_frame(frame))
    }

    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        each!(self, transport => transport.start_feed(payload))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, transport => transport.poll_flush(cx))
    }

    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, transport => transport.poll_close_sending(cx))
    }

    fn ends_both_ways(&self) -> bool {
        each!(self, transport => PollTransport::ends_both_ways(transport))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, transport => PollTransport::poll_close(transport, cx))
    }

    fn is_connected(&self) -> bool {
        each!(self, transport => transport.is_connected())
    }

    fn transport_type(&self) -> &'static str {
        each!(self, transport => PollTransport::transport_type(transport))
    }

    fn buffers(&self) -> &BufferManager {
        each!(self, transport => transport.buffers())
    }
}
