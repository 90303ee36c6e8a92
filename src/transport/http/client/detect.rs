//! What a server speaks: asked in the newest way first, as the specification has it.

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    HttpClient, call::Call, config::HttpClientConfig, error::HttpClientError, message::Message,
    shared::Shared, stateless::VERSION_KEY,
};
use crate::{
    Frame,
    endpoint::Url,
    json::{Envelope, JsonParser, RawString, Value, member},
    limits::HTTP_GOODBYE_TIMEOUT,
    transport::Revision,
};

/// What a server speaks, and what it says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Detected {
    /// The revisions that it is known to speak, oldest first: one for a server that begins with `initialize`, as it tells
    /// no others.
    pub revisions: Vec<Revision>,
    /// The same as the server has written them, those that are not known here as well.
    pub named: Vec<String>,
    /// Whether it is HTTP with SSE of 2024-11-05, with two endpoints.
    pub two_endpoints: bool,
    /// `serverInfo` as it came (JSON).
    pub server_info: Option<String>,
    /// `capabilities` as they came (JSON).
    pub capabilities: Option<String>,
    /// `instructions`, if there are any.
    pub instructions: Option<String>,
    /// How long the request took that was answered, the connection and what was refused before left out.
    pub took: Duration,
}

const CLIENT_INFO: &str = concat!(r#"{"name":"framewire","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

impl HttpClient {
    /// Finds out what the server at `url` speaks: asks by `server/discover` of revision 2026-07-28, looks into what it
    /// answers, also with a status of refusal, and else begins with `initialize`; then by HTTP with SSE. A session that
    /// this opens is ended.
    ///
    /// # Errors
    /// When the server cannot be reached, wants other credentials, or answers in none of these ways.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future gives up; a session that was opened stays until the server forgets it.
    pub async fn detect(url: &Url, config: HttpClientConfig) -> Result<Detected, HttpClientError> {
        let shared = Shared::new(url, config)?;
        let detected = detect(&shared).await;
        shared.session().deafen();
        drop(tokio::time::timeout(HTTP_GOODBYE_TIMEOUT, super::driver::goodbye(&shared)).await);
        shared.close();
        shared.pool.close();
        detected
    }
}

async fn detect(shared: &Arc<Shared>) -> Result<Detected, HttpClientError> {
    let newest = Revision::R2026_07_28;
    let discover = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{{"_meta":{{"{VERSION_KEY}":"{newest}","io.modelcontextprotocol/clientInfo":{CLIENT_INFO},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    );
    let begun = Instant::now();
    match ask(shared, discover).await {
        Ok(answer) => {
            let envelope = Envelope::peek(&answer).map_err(|error| bad(&error))?;
            if let Some(result) = envelope.result() {
                let mut detected = about(result);
                detected.took = begun.elapsed();
                if let Some(supported) = part(result, "supportedVersions") {
                    detected.name(supported);
                } else {
                    detected.revisions.push(newest);
                }
                return Ok(detected);
            }
            // -32022: another of the stateless revisions, or one that begins with initialize.
            let supported = envelope
                .error()
                .and_then(|error| part(error, "data"))
                .and_then(|data| part(data, "supported"));
            if let Some(supported) = supported {
                let mut detected = Detected { took: begun.elapsed(), ..Detected::default() };
                detected.name(supported);
                if !detected.revisions.iter().any(|revision| !revision.is_stateless()) {
                    return Ok(detected);
                }
            }
        }
        Err(
            error @ (HttpClientError::Connect(_)
            | HttpClientError::Unauthorized { .. }
            | HttpClientError::Redirected { .. }),
        ) => {
            return Err(error);
        }
        Err(_) => {}
    }
    let latest = Revision::LATEST_WITH_SESSIONS;
    let initialize = format!(
        r#"{{"jsonrpc":"2.0","id":2,"method":"initialize","params":{{"protocolVersion":"{latest}","capabilities":{{}},"clientInfo":{CLIENT_INFO}}}}}"#
    );
    let begun = Instant::now();
    let answer = ask(shared, initialize).await?;
    let envelope = Envelope::peek(&answer).map_err(|error| bad(&error))?;
    let Some(result) = envelope.result() else {
        let error = envelope.error().map(String::from_utf8_lossy).unwrap_or_default();
        return Err(HttpClientError::BadAnswer { reason: format!("initialize was refused: {error}") });
    };
    let mut detected = about(result);
    detected.took = begun.elapsed();
    detected.two_endpoints = shared.session().legacy;
    if let Some(version) = part(result, "protocolVersion") {
        let mut list = b"[".to_vec();
        list.extend_from_slice(version);
        list.push(b']');
        detected.name(&list);
    }
    Ok(detected)
}

fn bad(error: &dyn std::fmt::Display) -> HttpClientError {
    HttpClientError::BadAnswer { reason: error.to_string() }
}

/// Sends one request and takes its answer out of what has come.
async fn ask(shared: &Arc<Shared>, request: String) -> Result<Frame, HttpClientError> {
    let message = Message::new(Bytes::from(request)).map_err(|error| bad(&error))?;
    let call = Call::uncounted(message);
    shared.enter(&call);
    let asked = shared.ask(&call).await;
    call.cancel(shared);
    shared.fail(&call, &HttpClientError::Closed);
    asked?;
    loop {
        // What has come is here; nothing is waited for.
        let next = poll_fn(|cx| Poll::Ready(shared.inbox.poll_receive(cx))).await;
        match next {
            Poll::Ready(Ok(frame)) => {
                let is_answer = Envelope::peek(&frame).is_ok_and(|envelope| envelope.method().is_none());
                if is_answer {
                    return Ok(frame);
                }
            }
            _ => {
                return Err(HttpClientError::BadAnswer { reason: "what was asked for was not in it".into() });
            }
        }
    }
}

fn part<'a>(object: &'a [u8], key: &str) -> Option<&'a [u8]> {
    member(object, key).ok().flatten()
}

/// What a result says about the server.
fn about(result: &[u8]) -> Detected {
    let text = |key| part(result, key).map(|part| String::from_utf8_lossy(part).into_owned());
    let instructions = match part(result, "instructions") {
        Some([b'"', raw @ .., b'"']) => RawString::new(raw).unescape().map(|text| text.into_owned()),
        _ => None,
    };
    // In 2026-07-28 it stands in `_meta`, where each result has it.
    let meta = part(result, "_meta").and_then(|meta| part(meta, "io.modelcontextprotocol/serverInfo"));
    let server_info =
        text("serverInfo").or_else(|| meta.map(|info| String::from_utf8_lossy(info).into_owned()));
    Detected { server_info, capabilities: text("capabilities"), instructions, ..Detected::default() }
}

impl Detected {
    /// Takes in a list of revisions (JSON).
    fn name(&mut self, list: &[u8]) {
        let mut parser = JsonParser::new();
        let mut frame = Frame::copy_from_slice(list);
        let Ok(document) = parser.parse_in_place(&mut frame) else { return };
        self.named =
            document.value().elements().filter_map(Value::as_str).take(64).map(str::to_owned).collect();
        self.revisions = Revision::ALL
            .into_iter()
            .filter(|revision| self.named.iter().any(|named| named == revision.as_str()))
            .collect();
    }
}
