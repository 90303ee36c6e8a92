//! [`AnyTransport`]: what the command holds of a client or a backend, and [`Backends`], which opens backends again and
//! again for the gateway.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use framewire::{
    Frame, Result,
    buffer::BufferManager,
    codec::{Excerpt, Kind, websocket::CloseReason},
    endpoint::Endpoint,
    gateway::{Backend, Opening},
    transport::PollTransport,
};

use super::{
    end::AnyLink,
    open::{self, Opened, Outgoing},
};

/// A link, known by its type so that a message costs one branch; or anything else.
pub(crate) enum AnyTransport {
    Link(Box<AnyLink>),
    Other(Box<dyn PollTransport>),
}

impl AnyTransport {
    /// Has what is received be JSON. Over HTTP, either role, WebSocket on its port included, each message is proved to be
    /// JSON in any case: its envelope is read strictly.
    pub(crate) fn validate(&mut self) {
        if let Self::Link(link) = self {
            link.decoder_mut().validate();
        }
    }

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

    fn excerpt(&self) -> Option<Excerpt<'_>> {
        each!(self, transport => PollTransport::excerpt(transport))
    }

    fn buffers(&self) -> &BufferManager {
        each!(self, transport => transport.buffers())
    }
}

/// Opens an endpoint for the gateway.
pub(crate) struct Backends {
    pub(crate) endpoint: Endpoint,
    pub(crate) outgoing: Outgoing,
}

impl Backend for Backends {
    fn open(&self, number: u64) -> Opening {
        let (endpoint, outgoing) = (self.endpoint.clone(), self.outgoing.clone());
        Box::pin(async move {
            match open::connect(&endpoint, &outgoing, number).await {
                Ok(opened) => Ok(Box::new(Ended { opened: Some(opened), ending: None }) as _),
                Err(failure) => Err(io::Error::other(failure.text().unwrap_or_default().to_owned())),
            }
        })
    }
}

/// A backend whose close also ends the process behind it.
struct Ended {
    opened: Option<Opened>,
    ending: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Ended {
    fn link(&mut self) -> Result<&mut AnyTransport> {
        match &mut self.opened {
            Some(opened) => Ok(&mut opened.link),
            None => Err(framewire::Error::Ended(framewire::error::End::Closed)),
        }
    }
}

impl PollTransport for Ended {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        self.link()?.poll_receive(cx)
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        self.link()?.poll_receive_lent(cx)
    }

    fn poll_receive_with_kind(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Kind, &mut [u8])>> {
        self.link()?.poll_receive_with_kind(cx)
    }

    fn set_kind(&mut self, kind: Kind) {
        if let Ok(link) = self.link() {
            link.set_kind(kind);
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.link()?.poll_ready(cx)
    }

    fn has_room(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.link.has_room())
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        self.link()?.start_send(payload)
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.link()?.start_send_frame(frame)
    }

    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        self.link()?.start_feed(payload)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.link()?.poll_flush(cx)
    }

    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.link()?.poll_close_sending(cx)
    }

    fn ends_both_ways(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.link.ends_both_ways())
    }

    /// The link is closed, and then the child ended in order.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(opened) = self.opened.take() {
            self.ending = Some(Box::pin(opened.end()));
        }
        if let Some(ending) = &mut self.ending {
            ready!(ending.as_mut().poll(cx));
            self.ending = None;
        }
        Poll::Ready(Ok(()))
    }

    fn is_connected(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.link.is_connected())
    }

    fn excerpt(&self) -> Option<Excerpt<'_>> {
        self.opened.as_ref().and_then(|opened| opened.link.excerpt())
    }

    fn transport_type(&self) -> &'static str {
        self.opened.as_ref().map_or("closed", |opened| opened.link.transport_type())
    }
}
