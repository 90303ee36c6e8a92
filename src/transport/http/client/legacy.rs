//! HTTP with SSE, as of revision 2024-11-05: one stream (GET) on which everything comes, whose first event names where
//! POSTs go.

use std::sync::Arc;

use http::Uri;
use tokio::time::timeout;

use super::{
    error::HttpClientError,
    events::ClientEvent,
    shared::Shared,
    signal::Signal,
    stream::{Event, Events, NoStream, Position},
};
use crate::limits::HTTP_ACCEPT_TIMEOUT;

impl Shared {
    /// Opens the stream, waits for the endpoint and keeps both.
    pub(super) async fn open_legacy(self: &Arc<Self>) -> Result<(), HttpClientError> {
        let mut events = match self.open_stream(&[]).await {
            Ok(events) => events,
            Err(NoStream::Failed(error)) => return Err(error),
            Err(NoStream::Refused(status)) => {
                let reason = "neither POST nor GET is for MCP there".into();
                return Err(HttpClientError::Refused { status: status.as_u16(), reason, retry_after: None });
            }
        };
        let mut position = Position::default();
        let endpoint = match timeout(HTTP_ACCEPT_TIMEOUT, endpoint(&mut events, &mut position)).await {
            Ok(found) => found?,
            Err(_) => return Err(HttpClientError::TimedOut { after: HTTP_ACCEPT_TIMEOUT }),
        };
        let target = self.resolve(&endpoint).ok_or_else(|| HttpClientError::BadAnswer {
            // Anywhere else, what a request carries would be for someone else.
            reason: format!("its endpoint {endpoint:?} is not on the same server"),
        })?;
        let over = {
            let mut session = self.session();
            session.legacy = true;
            session.endpoint = Some(target);
            session.listen()
        };
        self.tell(&ClientEvent::FellBack);
        let shared = Arc::clone(self);
        tokio::spawn(async move { shared.closing.or(shared.read_legacy(events, position, &over)).await });
        Ok(())
    }

    /// Hands on what comes. Nothing can be gone on with: when the stream ends, what waits for answers gets errors, and the
    /// next message opens another.
    async fn read_legacy(&self, mut events: Events, mut position: Position, over: &Signal) {
        let reason = over.or(async {
            loop {
                match events.next(&mut position).await {
                    Event::Data(name, bytes) if name.is_empty() || name == b"message" => {
                        self.take_in(bytes, None).await;
                    }
                    Event::Data(..) | Event::Empty => {}
                    Event::Fault(fault) => self.skipped(&fault),
                    Event::End(reason) => return reason,
                }
            }
        });
        let Some(reason) = reason.await else { return };
        self.session().endpoint = None;
        self.fail_all(&HttpClientError::Lost { reason });
    }

    /// What an endpoint names, on the same server.
    fn resolve(&self, endpoint: &str) -> Option<Uri> {
        let base = self.target();
        let target = if let Some((scheme, rest)) = endpoint.split_once("://") {
            let (own_scheme, own) = self.origin().split_once("://")?;
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, target) = rest.split_at_checked(end)?;
            let port = |authority: &str| match authority.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => (host.to_ascii_lowercase(), port.to_owned()),
                _ => (
                    authority.to_ascii_lowercase(),
                    if own_scheme == "https" { "443" } else { "80" }.to_owned(),
                ),
            };
            if !scheme.eq_ignore_ascii_case(own_scheme) || port(authority) != port(own) {
                return None;
            }
            if target.starts_with('/') { target.to_owned() } else { format!("/{target}") }
        } else if endpoint.starts_with("//") {
            return None;
        } else if endpoint.starts_with('/') {
            endpoint.to_owned()
        } else if endpoint.starts_with('?') {
            format!("{}{endpoint}", base.path())
        } else {
            let folder = base.path().rfind('/').and_then(|at| base.path().get(..=at)).unwrap_or("/");
            format!("{folder}{endpoint}")
        };
        Uri::try_from(target).ok()
    }
}

/// The first event, which names the endpoint.
async fn endpoint(events: &mut Events, position: &mut Position) -> Result<String, HttpClientError> {
    loop {
        match events.next(position).await {
            Event::Data(name, bytes) if name == b"endpoint" => {
                return Ok(String::from_utf8_lossy(&bytes).trim().to_owned());
            }
            Event::End(reason) => return Err(HttpClientError::Lost { reason }),
            Event::Data(..) | Event::Empty | Event::Fault(_) => {}
        }
    }
}
