//! What is kept of what was said, bounded in bytes, events and age.

use tokio::time::Instant;

use super::{State, sub};
use crate::transport::http::server::{
    config::HttpServerConfig,
    stream::{Event, Stream},
};

impl State {
    pub(super) fn lose(&mut self, stream: &Stream) {
        sub(&mut self.held, (stream.log.iter().map(Event::cost).sum(), stream.log.len()));
    }

    /// Forgets what is too old or too much of what was delivered, or waits for nobody.
    pub(super) fn forget(&mut self, config: &HttpServerConfig) {
        let now = Instant::now();
        while let Some(stream) = self.finished.front() {
            let old = stream.log.back().is_none_or(|event| now.duration_since(event.at) > config.store_age);
            if !old && !self.is_overfull(config) {
                break;
            }
            if let Some(stream) = self.finished.pop_front() {
                self.lose(&stream);
            }
        }
        loop {
            let full = self.is_overfull(config);
            if !full && self.held.1 == self.queued.1 {
                return;
            }
            let oldest = self
                .streams
                .iter_mut()
                .chain([&mut self.listen])
                .filter_map(|stream| stream.forgettable().map(|at| (at, stream)))
                .min_by_key(|(at, _)| *at);
            let Some((at, stream)) = oldest else { return };
            if !full && now.duration_since(at) <= config.store_age {
                return;
            }
            let Some(freed) = stream.forget() else { return };
            let spent = stream.is_spent().then_some(stream.number);
            sub(&mut self.held, freed);
            if let Some(number) = spent {
                self.streams.retain(|stream| stream.number != number);
            }
        }
    }

    pub(super) fn is_overfull(&self, config: &HttpServerConfig) -> bool {
        let (bytes, events) =
            (self.held.0.saturating_sub(self.queued.0), self.held.1.saturating_sub(self.queued.1));
        // A single message is kept whatever its size: who asked for it comes back for it.
        (bytes > config.store_bytes && events > 1) || events > config.store_events
    }
}
