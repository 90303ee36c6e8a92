//! Streams of events: read, and gone on with by GET and `Last-Event-ID` when they are cut.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::{Buf, Bytes, BytesMut};
use http::header;
use tokio::time::{Instant, sleep, timeout};

use super::{
    call::{Call, text},
    config::HttpClientConfig,
    error::HttpClientError,
    events::{ClientEvent, count},
    pool::{Answer, SendError},
    shared::{Came, Shared},
};
use crate::{
    codec::{Codec, Decode, Sse, SseDecoder, Step},
    error::Fault,
    limits::{HTTP_MAX_REPEATS, HTTP_MAX_RETRY, HTTP_STREAM_GRACE},
};

/// Least pause, when the server asks for none.
const LEAST: Duration = Duration::from_millis(10);

/// Where a stream stands, across connections.
#[derive(Debug, Default)]
pub(super) struct Position {
    pub(super) last: Vec<u8>,
    retry: Option<Duration>,
    /// Attempts in a row without any event.
    pub(super) attempts: u32,
    /// Pauses in a row without a message.
    pauses: u32,
}

impl Position {
    /// How long to wait before the next attempt, which is counted.
    pub(super) fn pause(&mut self, config: &HttpClientConfig) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        let pause = self.peek(config);
        self.pauses = self.pauses.saturating_add(1);
        pause
    }

    fn peek(&self, config: &HttpClientConfig) -> Duration {
        let exponential = |min: Duration, max: Duration| {
            let builder =
                ExponentialBuilder::new().with_min_delay(min).with_max_delay(max).without_max_times();
            let steps = self.pauses.min(32) as usize;
            builder.build().nth(steps).unwrap_or(max)
        };
        // Clients that were cut off together do not come back together.
        let jitter = |pause: Duration| {
            let random = ExponentialBuilder::new().with_min_delay(pause).with_max_times(1).with_jitter();
            random.build().next().unwrap_or(pause).saturating_sub(pause)
        };
        match self.retry {
            Some(retry) => {
                let pause = retry.max(exponential(LEAST, config.back_off_max)).min(HTTP_MAX_RETRY);
                pause + jitter(pause) / 10
            }
            None => {
                let pause = exponential(config.back_off_min, config.back_off_max);
                pause + jitter(pause.min(config.back_off_min))
            }
        }
    }
}

/// What a stream brings.
pub(super) enum Event {
    /// A message, or what has another name than that: its name is the first part.
    Data(Vec<u8>, Bytes),
    /// An event without a payload: its id counts.
    Empty,
    /// Something that is left out.
    Fault(Fault),
    /// The stream is over: why.
    End(String),
}

pub(super) struct Events {
    answer: Answer,
    buffer: BytesMut,
    decoder: SseDecoder,
}

impl Events {
    pub(super) fn new(answer: Answer, max_message_size: usize) -> Self {
        let (decoder, _) = Sse::new().max_decode_size(max_message_size).split();
        Self { answer, buffer: BytesMut::new(), decoder }
    }

    /// The next event. Its id and `retry` are noted in `position`.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&mut self, position: &mut Position) -> Event {
        loop {
            let step = self.decoder.decode(&mut self.buffer);
            if !self.decoder.last_event_id().is_empty() {
                position.last.clear();
                position.last.extend_from_slice(self.decoder.last_event_id());
            }
            position.retry = self.decoder.retry().or(position.retry);
            match step {
                Ok(Step::Frame { payload, consumed }) => {
                    position.attempts = 0;
                    let bytes = self.buffer.split_to(consumed).freeze();
                    if payload.is_empty() {
                        return Event::Empty;
                    }
                    position.pauses = 0;
                    return Event::Data(self.decoder.event().to_vec(), bytes.slice(payload));
                }
                Ok(Step::Fault { fault, consumed }) => {
                    self.buffer.advance(consumed);
                    return Event::Fault(fault);
                }
                Ok(Step::Incomplete { consumed, .. }) => self.buffer.advance(consumed),
                Ok(_) => return Event::End("events are not framed like that".into()),
                Err(violation) => return Event::End(violation.to_string()),
            }
            match self.answer.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Event::End("it ended".into()),
                Err(reason) => return Event::End(reason),
            }
        }
    }
}

/// Why there is no stream to go on with.
pub(super) enum NoStream {
    /// The server said no for good.
    Refused(http::StatusCode),
    /// It may be otherwise later.
    Failed(HttpClientError),
}

impl Shared {
    /// Reads the stream that answers a call, and goes on with it when it is cut.
    pub(super) async fn follow(
        self: &Arc<Self>,
        call: &Arc<Call>,
        answer: Answer,
    ) -> Result<(), HttpClientError> {
        let mut position = Position::default();
        let mut events = Events::new(answer, self.config.max_message_size);
        loop {
            let Some(reason) = self.read(call, &mut events, &mut position).await? else { return Ok(()) };
            if call.is_settled() || call.is_cancelled() {
                return Ok(());
            }
            if position.last.is_empty() || call.message.stateless.is_some() {
                return Err(HttpClientError::Lost { reason });
            }
            drop(events);
            events = self.resume(call, &mut position, reason).await?;
        }
    }

    /// Reads until the stream is over, which is `Some` reason, or what is still to come of it is of no interest.
    async fn read(
        self: &Arc<Self>,
        call: &Arc<Call>,
        events: &mut Events,
        position: &mut Position,
    ) -> Result<Option<String>, HttpClientError> {
        // Who listens waits for something to happen.
        let patience = if call.message.listens() { Duration::MAX } else { self.config.response_timeout };
        let mut grace: Option<Instant> = None;
        loop {
            if grace.is_none() && (call.is_settled() || call.is_cancelled()) {
                grace = Instant::now().checked_add(HTTP_STREAM_GRACE);
            }
            let event = if let Some(grace) = grace {
                match tokio::time::timeout_at(grace, events.next(position)).await {
                    Ok(event) => event,
                    Err(_) => return Ok(None),
                }
            } else {
                // A cancellation that comes meanwhile shortens the wait.
                match call.cancelled.or(timeout(patience, events.next(position))).await {
                    Some(Ok(event)) => event,
                    Some(Err(_)) => return Err(HttpClientError::TimedOut { after: patience }),
                    None => continue,
                }
            };
            match event {
                Event::Data(name, bytes) if name.is_empty() || name == b"message" => {
                    if self.take_in(bytes, Some(call)).await == Came::Nothing {
                        continue;
                    }
                }
                Event::Data(..) | Event::Empty => {}
                Event::Fault(fault @ Fault::TooLarge { limit, .. }) => {
                    self.skipped(&fault);
                    // It may have been the answer, which would then never come.
                    return Err(HttpClientError::TooLarge { limit });
                }
                Event::Fault(fault) => self.skipped(&fault),
                Event::End(reason) => return Ok(Some(reason)),
            }
        }
    }

    /// Goes on with the stream of a call behind the last event.
    async fn resume(
        self: &Arc<Self>,
        call: &Arc<Call>,
        position: &mut Position,
        mut reason: String,
    ) -> Result<Events, HttpClientError> {
        loop {
            let after = position.pause(&self.config);
            if position.attempts > self.config.max_resumes {
                return Err(HttpClientError::NotResumed { reason });
            }
            self.tell(&ClientEvent::StreamLost { attempt: position.attempts, after });
            if call.cancelled.or(sleep(after)).await.is_none() {
                return Err(HttpClientError::Closed);
            }
            if self.session().generation != call.generation() {
                let reason = "it was under way when the server lost the session".into();
                return Err(HttpClientError::SessionLost { reason });
            }
            match self.open_stream(&position.last).await {
                Ok(events) => {
                    count(&self.counters.resumes);
                    return Ok(events);
                }
                Err(NoStream::Refused(status)) => {
                    return Err(HttpClientError::NotResumed { reason: format!("{reason}; then {status}") });
                }
                Err(NoStream::Failed(error)) => reason = error.to_string(),
            }
        }
    }

    /// Asks for a stream by GET, behind the event `last` if there is one.
    pub(super) async fn open_stream(&self, last: &[u8]) -> Result<Events, NoStream> {
        let lost = |reason: String| NoStream::Failed(HttpClientError::Lost { reason });
        let mut unsent = 0;
        let answer = loop {
            let connection = self.pool.acquire().await.map_err(NoStream::Failed)?;
            let request = self.get(last, connection.is_http2());
            // A server that has nothing to say yet may keep its head back, too.
            let patience = self.config.response_timeout;
            match timeout(patience, connection.send(request, &self.pool).answer()).await {
                Ok(Ok(answer)) => break answer,
                Ok(Err(SendError::Unsent)) if unsent < HTTP_MAX_REPEATS => unsent += 1,
                Ok(Err(SendError::Unsent)) => return Err(lost("no connection lasted".into())),
                Ok(Err(SendError::Lost(reason))) => return Err(lost(reason)),
                Err(_) => return Err(NoStream::Failed(HttpClientError::TimedOut { after: patience })),
            }
        };
        let status = answer.head.status;
        if status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(lost(format!("the server answered {status}")));
        }
        let content_type = text(&answer.head.headers, header::CONTENT_TYPE).unwrap_or_default();
        if status != http::StatusCode::OK
            || !content_type.to_ascii_lowercase().starts_with("text/event-stream")
        {
            return Err(NoStream::Refused(status));
        }
        Ok(Events::new(answer, self.config.max_message_size))
    }
}
