//! Logs, subscriptions and changed lists: what is asked for by `_meta` and by streams of `subscriptions/listen`.

use super::{Listening, SessionClient, Stream, Verdict};
use crate::{
    gateway::{
        SERVER_ENDED,
        era::{
            edit::{self, Edits, field},
            message::{
                BUSY, INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, SUBSCRIPTION_KEY, level, own_id,
                own_number, quoted, text,
            },
            queue::{Outbox, RawId},
        },
        logging,
    },
    json::Envelope,
    limits::{ERA_MAX_DECLARATION, ERA_MAX_SUBSCRIPTIONS},
};

impl SessionClient {
    pub(super) fn set_level(&mut self, envelope: &Envelope<'_>, id: &[u8], out: &mut Outbox) {
        let asked = envelope.params().and_then(|params| field(params, "level")).and_then(level);
        let Some(name) = asked.map(logging::name) else {
            return out.client.error(id, INVALID_PARAMS, "level is not a level of logging");
        };
        let [.., (_, level)] = &mut self.envelope;
        *level = quoted(name);
        self.join();
        out.client.result(id, b"{}");
    }

    pub(super) fn subscribe(&mut self, envelope: &Envelope<'_>, id: &[u8], out: &mut Outbox) {
        let uri = envelope.params().and_then(|params| field(params, "uri")).filter(|uri| text(uri).is_some());
        let Some(uri) = uri else { return out.client.error(id, INVALID_PARAMS, "uri is not a string") };
        if self.stream_of(uri).is_some() {
            return out.client.result(id, b"{}");
        }
        if self.streams.len() >= ERA_MAX_SUBSCRIPTIONS || uri.len() > ERA_MAX_DECLARATION {
            return out.client.error(id, BUSY, "too many subscriptions");
        }
        let filter = [b"{\"resourceSubscriptions\":[", uri, b"]}"].concat();
        let stream = Stream::Resource { uri: uri.to_vec(), answer: Some(RawId::new(id)) };
        self.listen(&filter, stream, out);
    }

    pub(super) fn unsubscribe(&mut self, envelope: &Envelope<'_>, id: &[u8], out: &mut Outbox) {
        let uri = envelope.params().and_then(|params| field(params, "uri")).unwrap_or_default();
        if let Some(at) = self.stream_of(uri) {
            let Listening { number, stream, .. } = self.streams.swap_remove(at);
            out.server.cancel(&own_id(number));
            if let Stream::Resource { answer: Some(answer), .. } = stream {
                out.client.result(answer.as_slice(), b"{}");
            }
        }
        out.client.result(id, b"{}");
    }

    pub(super) fn stream_of(&self, wanted: &[u8]) -> Option<usize> {
        self.streams
            .iter()
            .position(|own| matches!(&own.stream, Stream::Resource { uri, .. } if uri == wanted))
    }

    pub(super) fn listen(&mut self, filter: &[u8], stream: Stream, out: &mut Outbox) {
        let number = self.number();
        self.streams.push(Listening { number, stream, filter: filter.to_vec(), agreed: false });
        let params = [b"{\"_meta\":{", &*self.members, b"},\"notifications\":", filter, b"}"].concat();
        out.server.request(&own_id(number), b"\"subscriptions/listen\"", &params);
    }

    pub(super) fn stream_ended(&mut self, number: u64, envelope: &Envelope<'_>, out: &mut Outbox) {
        let Some(at) = self.streams.iter().position(|own| own.number == number) else { return };
        let Listening { stream, filter, agreed, .. } = self.streams.swap_remove(at);
        let code = envelope.error().and_then(|error| field(error, "code"));
        if agreed && code.is_some_and(|code| *code == *SERVER_ENDED.to_string().as_bytes()) {
            // The next one is told what the client still wants; once, unless it agrees.
            return self.listen(&filter, stream, out);
        }
        if let Stream::Resource { answer: Some(answer), .. } = stream {
            match envelope.error() {
                Some(error) => out.client.pieces(&[
                    b"{\"jsonrpc\":\"2.0\",\"id\":",
                    answer.as_slice(),
                    b",\"error\":",
                    error,
                    b"}",
                ]),
                None => {
                    out.client.error(answer.as_slice(), INTERNAL_ERROR, "the server ended the subscription")
                }
            }
        }
    }

    pub(super) fn event(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) -> Verdict {
        let Some(method) = envelope.method() else { return Verdict::Unchanged };
        if method.is("notifications/subscriptions/acknowledged") {
            self.acknowledged(envelope, out);
            return Verdict::Done;
        }
        if method.is("notifications/cancelled") {
            let own = envelope.request_id().ok().flatten().and_then(own_number);
            let Some(at) = self.streams.iter().position(|listening| Some(listening.number) == own) else {
                return Verdict::Unchanged;
            };
            if let Stream::Resource { answer: Some(answer), .. } = self.streams.swap_remove(at).stream {
                out.client.error(answer.as_slice(), INTERNAL_ERROR, "the server ended the subscription");
            }
            return Verdict::Done;
        }
        let Some(tag) = tag_of(envelope) else { return Verdict::Unchanged };
        // What is not for a stream of this session is for nobody here.
        if own_number(tag).is_some_and(|tag| self.streams.iter().any(|own| own.number == tag)) {
            untag(envelope, out);
        }
        Verdict::Done
    }

    pub(super) fn acknowledged(&mut self, envelope: &Envelope<'_>, out: &mut Outbox) {
        let Some(number) = tag_of(envelope).and_then(own_number) else { return };
        let agreed = envelope.params().and_then(|params| field(params, "notifications"));
        let agreed = agreed.and_then(|filter| field(filter, "resourceSubscriptions"));
        let agreed = agreed.is_some_and(|uris| edit::elements(uris, |_| {}).is_ok() && uris.contains(&b'"'));
        let Some(at) = self.streams.iter().position(|own| own.number == number) else { return };
        let Some(own) = self.streams.get_mut(at) else { return };
        own.agreed = true;
        let Stream::Resource { answer, .. } = &mut own.stream else { return };
        let Some(answer) = answer.take() else { return };
        if agreed {
            out.client.result(answer.as_slice(), b"{}");
        } else {
            self.streams.swap_remove(at);
            out.server.cancel(&own_id(number));
            out.client.error(
                answer.as_slice(),
                METHOD_NOT_FOUND,
                "the server has no subscriptions to resources",
            );
        }
    }
}

/// The filter of `subscriptions/listen` for all lists that the server says may change.
pub(super) fn filter_of(capabilities: &[u8]) -> Vec<u8> {
    let kinds = [
        ("tools", "toolsListChanged"),
        ("prompts", "promptsListChanged"),
        ("resources", "resourcesListChanged"),
    ];
    let mut filter = String::new();
    for (kind, name) in kinds {
        let changes = field(capabilities, kind).and_then(|kind| field(kind, "listChanged"));
        if changes == Some(b"true") {
            filter.push_str(if filter.is_empty() { "{" } else { "," });
            filter.push_str(&format!("\"{name}\":true"));
        }
    }
    if !filter.is_empty() {
        filter.push('}');
    }
    filter.into_bytes()
}

/// The id of the stream that a notification came on.
pub(super) fn tag_of<'a>(envelope: &Envelope<'a>) -> Option<&'a [u8]> {
    field(envelope.meta().ok().flatten()?, SUBSCRIPTION_KEY)
}

/// Passes a notification on without the id of its stream.
pub(super) fn untag(envelope: &Envelope<'_>, out: &mut Outbox) {
    let Ok(Some(meta)) = envelope.meta() else { return };
    let Some(range) = envelope.range_of(meta) else { return };
    let mut kept = Vec::new();
    if edit::without(meta, 0, |name| name.is(SUBSCRIPTION_KEY), &mut kept) == Ok(true) {
        let mut edits = Edits::new(envelope.bytes());
        edits.replace(range, &kept);
        out.client.push(|to| edits.write(to));
    }
}
