//! What requests are answered with: bodies, and errors that are always JSON-RPC.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::{session::Ticket, state::Pieces};

/// Not JSON (JSON-RPC 2.0 §5.1).
pub(super) const PARSE: i32 = -32700;

/// JSON, but no request.
pub(super) const INVALID: i32 = -32600;

/// Nobody is there to answer.
pub(super) const INTERNAL: i32 = -32603;

/// What MCP's own servers say to requests that HTTP refuses.
pub(super) const REFUSED: i32 = -32000;

/// What they say to a session that is not there.
pub(super) const NO_SESSION: i32 = -32001;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A body on its way out.
pub(super) enum ReplyBody {
    Whole(Option<Bytes>),
    Events(Box<Events>),
}

/// An answer on its way out.
pub(super) type Reply = Response<ReplyBody>;

/// The events of a stream, as long as somebody reads them.
pub(super) struct Events {
    ticket: Ticket,
    pieces: Pieces,
    /// When the next comment is due.
    beat: Pin<Box<Sleep>>,
    /// When the stream is closed though more is to come.
    until: Option<Pin<Box<Sleep>>>,
}

impl Events {
    pub(super) fn new(ticket: Ticket, until: Option<std::time::Duration>) -> Self {
        let beat = Box::pin(sleep(ticket.config().keep_alive));
        Self { ticket, pieces: Pieces::default(), beat, until: until.map(|after| Box::pin(sleep(after))) }
    }

    fn piece(&mut self) -> Option<Bytes> {
        let Pieces { first, rest: [second, third] } = &mut self.pieces;
        first.take().or_else(|| second.take()).or_else(|| third.take())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(piece) = self.piece() {
                return Poll::Ready(Some(piece));
            }
            match self.ticket.poll_events(cx) {
                Poll::Ready(Some(pieces)) => self.pieces = pieces,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        if self.beat.as_mut().poll(cx).is_ready() {
            let next = Instant::now() + self.ticket.config().keep_alive;
            self.beat.as_mut().reset(next);
            // Registers for the next one.
            cx.waker().wake_by_ref();
            return Poll::Ready(Some(Bytes::from_static(b":\n\n")));
        }
        Poll::Pending
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let data = match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Events(events) => events.poll(cx),
        };
        data.map(|data| data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// No body.
pub(super) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(None));
    *reply.status_mut() = status;
    reply
}

/// JSON.
pub(super) fn json(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(Some(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, JSON);
    reply
}

/// A stream of events.
pub(super) fn events(events: Events) -> Reply {
    let mut reply = Response::new(ReplyBody::Events(Box::new(events)));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}

/// An error of HTTP, said in JSON-RPC too. `id` is that of the request where it is known, as it stood there.
pub(super) fn error(status: StatusCode, id: Option<&[u8]>, code: i32, message: &str) -> Reply {
    json(status, error_message(id, code, message))
}

/// As [`error`], with `data` (JSON) beside the message.
pub(super) fn error_with(
    status: StatusCode,
    id: Option<&[u8]>,
    code: i32,
    message: &str,
    data: &str,
) -> Reply {
    json(status, error_text(id, code, message, Some(data)))
}

/// A JSON-RPC error. `message` is text of ours, or quoted.
pub(super) fn error_message(id: Option<&[u8]>, code: i32, message: &str) -> Bytes {
    error_text(id, code, message, None)
}

fn error_text(id: Option<&[u8]>, code: i32, message: &str, data: Option<&str>) -> Bytes {
    let mut text = BytesMut::with_capacity(96 + message.len() + data.map_or(0, str::len));
    text.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    text.extend_from_slice(id.unwrap_or(b"null"));
    text.extend_from_slice(br#","error":{"code":"#);
    text.extend_from_slice(code.to_string().as_bytes());
    text.extend_from_slice(br#","message":"#);
    put_string(message, &mut text);
    if let Some(data) = data {
        text.extend_from_slice(br#","data":"#);
        text.extend_from_slice(data.as_bytes());
    }
    text.extend_from_slice(b"}}");
    text.freeze()
}

/// `text` as a JSON string.
pub(super) fn put_string(text: &str, to: &mut BytesMut) {
    to.extend_from_slice(b"\"");
    for char in text.chars() {
        match char {
            '"' => to.extend_from_slice(b"\\\""),
            '\\' => to.extend_from_slice(b"\\\\"),
            char if (char as u32) < 0x20 => {
                to.extend_from_slice(format!("\\u{:04x}", char as u32).as_bytes());
            }
            char => to.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    to.extend_from_slice(b"\"");
}
