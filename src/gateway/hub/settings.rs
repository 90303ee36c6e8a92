//! [`Settings`]: what the clients of a server want to be told of: logs from which level on, updates of which resources
//! (`logging/setLevel`, `resources/subscribe`; revisions before 2026-07-28). The server has one of each for all.
//!
//! Used by hub only.

use std::collections::HashMap;

use super::{
    desk::{Desk, NOBODY, What},
    slab::Digits,
};
use crate::{
    gateway::logging,
    json::{Envelope, RawString, member},
    limits::{ERA_MAX_SUBSCRIPTIONS, MAX_SUBSCRIPTIONS, SUBSCRIPTION_BYTES},
};

#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The level that the server was told; `None` as long as it decides by itself.
    level: Option<u8>,
    /// By what the URI says.
    resources: HashMap<String, Resource>,
    /// Subscriptions, and bytes of URIs.
    count: usize,
    bytes: usize,
}

/// A resource that somebody is subscribed to.
#[derive(Debug, Default)]
struct Resource {
    /// Its URI as JSON.
    json: Vec<u8>,
    clients: Vec<u64>,
    /// The server has agreed.
    agreed: bool,
}

/// What becomes of a wish to subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// The server is to be asked.
    Ask,
    /// The server does it already.
    Done,
    /// There are too many.
    Refused,
}

/// The URI in params, as it reads and as JSON.
pub(super) fn uri<'a>(envelope: &Envelope<'a>) -> Option<(String, &'a [u8])> {
    let json = member(envelope.params()?, "uri").ok()??;
    Some((RawString::of_value(json)?.unescape()?.into_owned(), json))
}

/// Whether what has happened to `updated` concerns who is subscribed to `uri`: it is the same, or a part of it.
fn concerns(uri: &str, updated: &str) -> bool {
    let Some(rest) = updated.strip_prefix(uri) else { return false };
    rest.is_empty() || uri.ends_with('/') || rest.starts_with(['/', '?', '#'])
}

impl Settings {
    /// Whether a log of `level` is for a client that has set `own`.
    pub(super) fn wants(&self, own: Option<u8>, level: Option<u8>) -> bool {
        let Some(level) = level else { return true };
        match (own, self.level) {
            (Some(own), _) => level >= own,
            // Others have asked for more, or less.
            (None, Some(_)) => level >= logging::UNASKED,
            (None, None) => true,
        }
    }

    /// Whom an update of `updated` is for. When it is of nothing that anybody has named, it is of a part of some resource
    /// that does not look like it: all that are subscribed to anything get it.
    pub(super) fn subscribers(&self, updated: &str) -> Vec<u64> {
        let clients = |all: bool| {
            let concerned = self.resources.iter().filter(|(uri, _)| all || concerns(uri, updated));
            let mut clients: Vec<u64> =
                concerned.flat_map(|(_, resource)| resource.clients.iter().copied()).collect();
            clients.sort_unstable();
            clients.dedup();
            clients
        };
        let named = clients(false);
        if named.is_empty() { clients(true) } else { named }
    }

    /// A request of this kind was taken back. Nobody learns what level the server has now: it is asked again.
    pub(super) fn taken_back(&mut self, what: Option<What>) {
        if what == Some(What::SetLevel) {
            self.level = None;
        }
    }

    fn remove(&mut self, uri: &str, client: u64) -> Option<Resource> {
        let resource = self.resources.get_mut(uri)?;
        let at = resource.clients.iter().position(|known| *known == client)?;
        resource.clients.swap_remove(at);
        self.count -= 1;
        if !resource.clients.is_empty() {
            return None;
        }
        self.bytes -= resource.json.len();
        self.resources.remove(uri)
    }
}

impl Desk {
    /// A client wants logs from `level` on. The level that the server is to be told: the least urgent that anybody wants;
    /// `None` when it was told that one already.
    pub(super) fn set_level(&mut self, client: u64, level: u8) -> Option<u8> {
        if let Some(client) = self.clients.get(client) {
            client.level = Some(level);
        }
        let wanted = self.clients.iter().filter_map(|(_, client)| match client.level {
            None if client.initialized => Some(logging::UNASKED),
            own => own,
        });
        let least = wanted.min().unwrap_or(level);
        (self.settings.level.replace(least) != Some(least)).then_some(least)
    }

    /// A client wants to be told of updates of a resource.
    pub(super) fn subscribe(&mut self, client: u64, uri: &str, json: &[u8]) -> Wish {
        let settings = &mut self.settings;
        if let Some(resource) = settings.resources.get(uri)
            && resource.clients.contains(&client)
        {
            return if resource.agreed { Wish::Done } else { Wish::Ask };
        }
        let Some(own) = self.clients.get(client) else { return Wish::Refused };
        if own.subscriptions >= ERA_MAX_SUBSCRIPTIONS
            || settings.count >= MAX_SUBSCRIPTIONS
            || settings.bytes + json.len() > SUBSCRIPTION_BYTES
        {
            return Wish::Refused;
        }
        own.subscriptions += 1;
        settings.count += 1;
        let resource = settings.resources.entry(uri.to_owned()).or_default();
        if resource.clients.is_empty() {
            settings.bytes += json.len();
            resource.json = json.to_vec();
        }
        resource.clients.push(client);
        if resource.agreed { Wish::Done } else { Wish::Ask }
    }

    /// A client does not want that any more. Whether others still do.
    pub(super) fn unsubscribe(&mut self, client: u64, uri: &str) -> bool {
        let had = self.settings.resources.get(uri).is_some_and(|resource| resource.clients.contains(&client));
        if had {
            self.settings.remove(uri, client);
            if let Some(client) = self.clients.get(client) {
                client.subscriptions -= 1;
            }
        }
        self.settings.resources.contains_key(uri)
    }

    /// The server has answered a wish.
    pub(super) fn settled(&mut self, client: u64, what: What, uri: &str, agreed: bool) {
        match (what, agreed) {
            (What::SetLevel, false) => {
                // It may never be told again that it is to do what it cannot.
                self.settings.level = None;
                if let Some(client) = self.clients.get(client) {
                    client.level = None;
                }
            }
            (What::Subscribe, true) => {
                if let Some(resource) = self.settings.resources.get_mut(uri) {
                    resource.agreed = true;
                }
            }
            (What::Subscribe, false)
                if self.settings.resources.get(uri).is_some_and(|resource| !resource.agreed) =>
            {
                self.unsubscribe(client, uri);
            }
            _ => {}
        }
    }

    /// A client leaves: what nobody else is subscribed to, the server need not tell any more.
    pub(super) fn unsubscribe_all(&mut self, client: u64) {
        let subscribed = self.clients.get(client).is_some_and(|client| {
            let subscribed = client.subscriptions > 0;
            client.subscriptions = 0;
            subscribed
        });
        if !subscribed {
            return;
        }
        let resources = self.settings.resources.iter();
        let own: Vec<String> = resources
            .filter(|(_, resource)| resource.clients.contains(&client))
            .map(|(uri, _)| uri.clone())
            .collect();
        for uri in own {
            if let Some(resource) = self.settings.remove(&uri, client)
                && self.over.is_none()
                && let Some(number) = self.call(NOBODY, What::Plain, b"", b"", "")
            {
                let digits = Digits::of(number);
                let pieces: [&[u8]; 5] = [
                    br#"{"jsonrpc":"2.0","id":"#,
                    digits.as_slice(),
                    br#","method":"resources/unsubscribe","params":{"uri":"#,
                    &resource.json,
                    b"}}",
                ];
                self.send(pieces.concat().into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_whom() {
        for (uri, updated, expected) in [
            ("a:/x", "a:/x", true),
            ("a:/x", "a:/x/y", true),
            ("a:/x/", "a:/x/y", true),
            ("a:/x", "a:/x#part", true),
            ("a:/x", "a:/xy", false),
            ("a:/x/y", "a:/x", false),
            ("a:/x", "", false),
        ] {
            assert_eq!(concerns(uri, updated), expected, "{uri} {updated}");
        }
    }
}
