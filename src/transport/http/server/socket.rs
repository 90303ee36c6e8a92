//! WebSocket on the port of HTTP: the handshake by this crate's own rules, the connection taken over from hyper.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    config::HttpServerConfig,
    io::Halves,
    lent::Lent,
    registry::Seat,
    reply::{self, INVALID, PARSE, REFUSED, Reply},
};
use crate::{
    Error, Frame, Link, Result,
    buffer::BufferManager,
    codec::{
        WebSocket,
        websocket::{
            CloseReason, Kind,
            handshake::{Server, ServerConfig},
        },
    },
    error::End,
    json::{Envelope, EnvelopeError},
    link::LinkConfig,
    transport::{PollTransport, websocket::agreed},
};

/// The subprotocol of MCP over WebSocket.
const PROTOCOL: &str = "mcp";

/// Makes a link of a connection that was taken over; the types of its halves are known where it is served.
pub(super) type Make = fn(Upgraded, WebSocket, LinkConfig) -> Option<Box<dyn PollTransport>>;

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim_ascii().eq_ignore_ascii_case("websocket"))
}

/// The answer to a handshake, and the codec that was agreed on.
pub(super) fn answer(parts: &Parts, settings: &HttpServerConfig) -> Result<(Reply, WebSocket), Box<Reply>> {
    // The rules read bytes: what hyper has taken apart is put together again.
    let mut head = Vec::with_capacity(1024);
    let version = if parts.version == http::Version::HTTP_11 { "1.1" } else { "1.0" };
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    head.extend_from_slice(format!("{} {target} HTTP/{version}\r\n", parts.method).as_bytes());
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    let config = ServerConfig::new().max_head(head.len().saturating_add(1)).protocol(PROTOCOL);
    #[cfg(feature = "deflate")]
    let config = config.map(|config| {
        let params = crate::codec::websocket::handshake::DeflateParams::default();
        if settings.deflate { config.deflate(params) } else { config }
    });
    let accepted = config.and_then(|config| Server::new(config).decode(&head));
    let accepted = match accepted {
        Ok(Some(accepted)) => accepted,
        Ok(None) => return Err(reply::error(StatusCode::BAD_REQUEST, None, REFUSED, "bad handshake").into()),
        Err(error) => {
            let status = error.status().and_then(|status| StatusCode::from_u16(status).ok());
            let status = status.unwrap_or(StatusCode::BAD_REQUEST);
            let mut reply = reply::error(status, None, REFUSED, &error.to_string());
            let headers = reply.headers_mut();
            if status == StatusCode::METHOD_NOT_ALLOWED {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
            }
            if status == StatusCode::UPGRADE_REQUIRED {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                // Where that header stands, this one does too (RFC 9110 §7.8).
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            return Err(reply.into());
        }
    };
    let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    let text = std::str::from_utf8(&accepted.response).unwrap_or_default();
    for line in text.split("\r\n").skip(1) {
        if let Some((name, value)) = line.split_once(": ")
            && let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            reply.headers_mut().insert(name, value);
        }
    }
    let mut codec = WebSocket::server().max_size(settings.max_message_size).check_sent_text(true);
    // Whatever ends it from here, this end goes away (RFC 6455 §7.4.1).
    if let Some(reason) = CloseReason::new(1001, "") {
        codec = codec.close_reason(reason);
    }
    Ok((reply, agreed(codec, accepted.deflate)))
}

/// The link on a connection that was taken over.
pub(super) fn make<R, W>(
    upgraded: Upgraded,
    codec: WebSocket,
    config: LinkConfig,
) -> Option<Box<dyn PollTransport>>
where
    R: AsyncRead + Unpin + Send + Sync + 'static,
    W: AsyncWrite + Unpin + Send + Sync + 'static,
{
    let parts = upgrade::downcast::<TokioIo<Halves<R, W>>>(upgraded).ok()?;
    let (reader, writer) = parts.io.into_inner().into_inner();
    let link = Link::with_unread(codec, reader, writer, config, &parts.read_buf).ok()?;
    Some(Box::new(link))
}

enum Stage {
    /// The answer to the handshake is on its way.
    Opening(OnUpgrade, Make, Box<(WebSocket, LinkConfig)>),
    Open(Box<dyn PollTransport>),
    Failed,
}

/// A WebSocket that comes out of an HTTP connection.
///
/// A text that is not JSON-RPC is answered with an error (-32700, -32600) and left out.
pub(super) struct Socket {
    stage: Stage,
    /// The answer to a text that was none.
    owed: Option<Bytes>,
    lent: Lent,
    _seat: Seat,
}

impl Socket {
    /// The deadlines of the HTTP connection, which it no longer is, are those of the link.
    pub(super) fn new(
        upgrade: OnUpgrade,
        make: Make,
        codec: WebSocket,
        settings: &HttpServerConfig,
        seat: Seat,
    ) -> Self {
        let mut config = LinkConfig::default().transport_type("websocket");
        config.idle = settings.socket_idle;
        config.frame = Some(settings.read_timeout);
        config.write = Some(settings.write_timeout);
        let stage = Stage::Opening(upgrade, make, Box::new((codec, config)));
        Self { stage, owed: None, lent: Lent::default(), _seat: seat }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut dyn PollTransport>> {
        if let Stage::Opening(upgrade, make, parts) = &mut self.stage {
            let upgraded = ready!(Pin::new(upgrade).poll(cx));
            let (codec, config) = (**parts).clone();
            let link = upgraded.ok().and_then(|upgraded| make(upgraded, codec, config));
            self.stage = link.map_or(Stage::Failed, Stage::Open);
        }
        Poll::Ready(match &mut self.stage {
            Stage::Open(link) => Ok(link.as_mut()),
            _ => Err(Error::Ended(End::Reset)),
        })
    }

    fn open(&mut self) -> Result<&mut dyn PollTransport> {
        match &mut self.stage {
            Stage::Open(link) => Ok(link.as_mut()),
            _ => Err(Error::Ended(End::Reset)),
        }
    }
}

/// What a text that is no message is answered with.
fn complaint(text: &[u8]) -> Option<Bytes> {
    match Envelope::strict(text) {
        Ok(envelope) if envelope.kind() == crate::json::Kind::Other => {
            Some(reply::error_message(None, INVALID, "not JSON-RPC 2.0"))
        }
        Ok(_) => None,
        Err(EnvelopeError::Invalid(invalid)) => {
            Some(reply::error_message(None, PARSE, &format!("Parse error: {invalid}")))
        }
        Err(error) => Some(reply::error_message(None, INVALID, &error.to_string())),
    }
}

impl PollTransport for Socket {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame>> {
        loop {
            let owed = self.owed.take();
            let link = ready!(self.poll_open(cx))?;
            if let Some(complaint) = owed {
                match link.poll_ready(cx) {
                    Poll::Ready(ready) => ready.and_then(|()| link.start_send(&complaint))?,
                    Poll::Pending => {
                        // One answer at a time: who sends nonsense and does not read is not read either.
                        self.owed = Some(complaint);
                        return Poll::Pending;
                    }
                }
            }
            let Poll::Ready(received) = link.poll_receive(cx) else {
                self.lent.clear();
                return Poll::Pending;
            };
            let frame = received?;
            match complaint(&frame) {
                None => return Poll::Ready(Ok(frame)),
                Some(complaint) => self.owed = Some(complaint),
            }
        }
    }

    fn poll_receive_lent(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut [u8]>> {
        let frame = ready!(self.poll_receive(cx))?;
        Poll::Ready(Ok(self.lent.lend(frame)))
    }

    fn set_kind(&mut self, kind: Kind) {
        // JSON is text, whatever the backend's framing calls it.
        let _ = kind;
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_open(cx))?.poll_ready(cx)
    }

    fn has_room(&self) -> bool {
        matches!(&self.stage, Stage::Open(link) if link.has_room())
    }

    fn start_send(&mut self, payload: &[u8]) -> Result<()> {
        self.open()?.start_send(payload)
    }

    fn start_send_frame(&mut self, frame: &Frame) -> Result<()> {
        self.open()?.start_send_frame(frame)
    }

    fn start_feed(&mut self, payload: &[u8]) -> Result<()> {
        self.open()?.start_feed(payload)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    fn poll_close_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_open(cx))?.poll_close_sending(cx)
    }

    fn ends_both_ways(&self) -> bool {
        true
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // A client that was told that it is a WebSocket is told of its end, too.
        match ready!(self.poll_open(cx)) {
            Ok(link) => link.poll_close(cx),
            Err(_) => Poll::Ready(Ok(())),
        }
    }

    fn is_connected(&self) -> bool {
        match &self.stage {
            Stage::Open(link) => link.is_connected(),
            Stage::Opening(..) => true,
            Stage::Failed => false,
        }
    }

    fn transport_type(&self) -> &'static str {
        "websocket"
    }

    fn buffers(&self) -> &BufferManager {
        match &self.stage {
            Stage::Open(link) => link.buffers(),
            _ => BufferManager::shared(),
        }
    }
}
