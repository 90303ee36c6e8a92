//! `subscriptions/listen` served from the notifications of a server with sessions.

use std::collections::HashMap;

use super::{
    edit::{Edits, elements, field, fields},
    message::{BUSY, INVALID_PARAMS, SUBSCRIPTION_KEY, own_id, text},
    queue::{Outbox, Queue, RawId},
};
use crate::{
    json::{Envelope, RawString, subscription_over},
    limits::{ERA_MAX_DECLARATION, ERA_MAX_STREAMS, ERA_MAX_SUBSCRIPTIONS},
};

/// The lists that may change: the capability, the name in a filter, the notification.
const LISTS: [(&str, &str, &str); 3] = [
    ("tools", "toolsListChanged", "notifications/tools/list_changed"),
    ("prompts", "promptsListChanged", "notifications/prompts/list_changed"),
    ("resources", "resourcesListChanged", "notifications/resources/list_changed"),
];

const UPDATED: &str = "notifications/resources/updated";

#[derive(Debug)]
struct Stream {
    id: RawId,
    lists: [bool; 3],
    /// URIs as JSON.
    resources: Vec<Vec<u8>>,
}

/// The streams of one client.
#[derive(Debug, Default)]
pub(super) struct Listening {
    lists: [bool; 3],
    resources: bool,
    streams: Vec<Stream>,
    /// How many streams want each resource.
    wanted: HashMap<Vec<u8>, usize>,
}

impl Listening {
    /// For a server with `capabilities`.
    pub(super) fn new(capabilities: &[u8]) -> Self {
        let has = |kind, name| field(capabilities, kind).and_then(|kind| field(kind, name)) == Some(b"true");
        Self {
            lists: LISTS.map(|(kind, ..)| has(kind, "listChanged")),
            resources: has("resources", "subscribe"),
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Opens the stream that the request `id` with `params` asks for: acknowledged first.
    pub(super) fn open(&mut self, id: &[u8], params: &[u8], next: &mut u64, out: &mut Outbox) {
        let filter = field(params, "notifications").filter(|filter| filter.first() == Some(&b'{'));
        let Some(filter) = filter else {
            return out.client.error(id, INVALID_PARAMS, "notifications is not an object");
        };
        let mut resources: Vec<Vec<u8>> = Vec::new();
        let mut is_sound = true;
        if let Some(uris) = field(filter, "resourceSubscriptions").filter(|uris| *uris != b"null") {
            let walked = elements(uris, |uri| {
                is_sound &= text(uri).is_some() && uri.len() <= ERA_MAX_DECLARATION;
                if resources.len() <= ERA_MAX_SUBSCRIPTIONS && !resources.iter().any(|other| other == uri) {
                    resources.push(uri.to_vec());
                }
            });
            is_sound &= walked.is_ok();
        }
        if !is_sound {
            return out.client.error(id, INVALID_PARAMS, "resourceSubscriptions is not an array of strings");
        }
        let total: usize = self.streams.iter().map(|stream| stream.resources.len()).sum();
        if self.streams.len() >= ERA_MAX_STREAMS || total + resources.len() > ERA_MAX_SUBSCRIPTIONS {
            return out.client.error(id, BUSY, "too many subscriptions");
        }
        let mut lists = self.lists;
        for (on, (_, name, _)) in lists.iter_mut().zip(LISTS) {
            *on &= field(filter, name) == Some(b"true");
        }
        if !self.resources {
            resources.clear();
        }
        acknowledge(id, &lists, &resources, &mut out.client);
        // With nothing to come it has ended.
        if !lists.contains(&true) && resources.is_empty() {
            return end(id, &mut out.client);
        }
        for uri in &resources {
            let wanted = self.wanted.entry(uri.clone()).or_default();
            *wanted += 1;
            if *wanted == 1 {
                ask(b"\"resources/subscribe\"", uri, next, &mut out.server);
            }
        }
        self.streams.push(Stream { id: RawId::new(id), lists, resources });
    }

    /// Closes the stream of the request `id`; false when there is none.
    pub(super) fn close(&mut self, id: &[u8], next: &mut u64, out: &mut Outbox) -> bool {
        let Some(at) = self.streams.iter().position(|stream| stream.id.as_slice() == id) else {
            return false;
        };
        for uri in self.streams.swap_remove(at).resources {
            let Some(wanted) = self.wanted.get_mut(&uri) else { continue };
            *wanted -= 1;
            if *wanted == 0 {
                ask(b"\"resources/unsubscribe\"", &uri, next, &mut out.server);
                self.wanted.remove(&uri);
            }
        }
        true
    }

    /// Gives a notification to the streams that asked for it. False when it is none that a stream may ask for.
    pub(super) fn deliver(&self, envelope: &Envelope<'_>, method: RawString<'_>, out: &mut Outbox) -> bool {
        let list = LISTS.iter().position(|(.., notification)| method.is(notification));
        if list.is_none() && !method.is(UPDATED) {
            return false;
        }
        // One for each stream: a large one would be many times that.
        if envelope.bytes().len() > ERA_MAX_DECLARATION {
            return true;
        }
        let uri = envelope.params().and_then(|params| field(params, "uri"));
        for stream in &self.streams {
            let wants = match list {
                Some(list) => stream.lists.get(list) == Some(&true),
                None => uri.is_some_and(|uri| stream.resources.iter().any(|wanted| covers(wanted, uri))),
            };
            if wants {
                out.client.push(|to| tag(envelope, stream.id.as_slice(), to));
            }
        }
        true
    }

    /// Ends all streams.
    pub(super) fn end(&mut self, to: &mut Queue) {
        for stream in self.streams.drain(..) {
            end(stream.id.as_slice(), to);
        }
        self.wanted.clear();
    }
}

/// Whether a subscription to `wanted` is one to `uri`, both as JSON.
fn covers(wanted: &[u8], uri: &[u8]) -> bool {
    wanted == uri
        || (uri.contains(&b'\\') || wanted.contains(&b'\\')) && {
            let plain = |value| text(value).and_then(RawString::unescape);
            plain(wanted).is_some() && plain(wanted) == plain(uri)
        }
}

fn ask(method: &[u8], uri: &[u8], next: &mut u64, to: &mut Queue) {
    to.request(&own_id(*next), method, &[b"{\"uri\":", uri, b"}"].concat());
    *next += 1;
}

fn acknowledge(id: &[u8], lists: &[bool; 3], resources: &[Vec<u8>], to: &mut Queue) {
    let mut agreed = b"{".to_vec();
    for (_, (_, name, _)) in lists.iter().zip(LISTS).filter(|(on, _)| **on) {
        agreed.extend_from_slice(if agreed.len() > 1 { b",\"" } else { b"\"" });
        agreed.extend_from_slice(name.as_bytes());
        agreed.extend_from_slice(b"\":true");
    }
    if !resources.is_empty() {
        agreed.extend_from_slice(if agreed.len() > 1 { b",\"" } else { b"\"" });
        agreed.extend_from_slice(b"resourceSubscriptions\":[");
        agreed.extend_from_slice(&resources.join(&b','));
        agreed.push(b']');
    }
    agreed.push(b'}');
    to.pieces(&[
        b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"_meta\":{\"",
        SUBSCRIPTION_KEY.as_bytes(),
        b"\":",
        id,
        b"},\"notifications\":",
        &agreed,
        b"}}",
    ]);
}

fn end(id: &[u8], to: &mut Queue) {
    to.pieces(&[&subscription_over(id)]);
}

/// Writes a notification with the id of the stream that it is for.
fn tag(envelope: &Envelope<'_>, id: &[u8], to: &mut Vec<u8>) {
    let message = envelope.bytes();
    let mut edits = Edits::new(message);
    let place = |part: Option<&[u8]>| part.and_then(|part| envelope.range_of(part));
    let member: [&[u8]; 4] = [b"\"", SUBSCRIPTION_KEY.as_bytes(), b"\":", id];
    match place(envelope.params()).filter(|params| message.get(params.start) == Some(&b'{')) {
        Some(params) => {
            let meta = fields(message, params.start, ["_meta"]).map(|[meta]| meta).unwrap_or_default();
            if message.get(meta.start) == Some(&b'{') && !meta.is_empty() {
                edits.add_members(meta.start, &member);
            } else if meta.is_empty() {
                let [quote, key, colon, id] = member;
                edits.add_members(params.start, &[b"\"_meta\":{", quote, key, colon, id, b"}"]);
            }
        }
        None => {
            let method = place(envelope.method().map(RawString::raw)).unwrap_or_default();
            edits.insert(method.end + 1, b",\"params\":{\"_meta\":{");
            member.iter().for_each(|piece| edits.insert(method.end + 1, piece));
            edits.insert(method.end + 1, b"}}");
        }
    }
    edits.write(to);
}
