//! [`Settings`]: what the client has set at its server, of which the next server knows nothing: the level of logs and the
//! resources that it is subscribed to (`logging/setLevel` and `resources/subscribe`, in revisions before 2026-07-28).
//!
//! Used by supervisor only. Knows what was answered with a result, within the limits of
//! [`limits`](crate::limits::MAX_SUBSCRIPTIONS); beyond them nothing more is remembered.

use std::collections::VecDeque;

use crate::gateway::calls::Key;
use crate::{
    json::{Envelope, RawString, member},
    limits::{MAX_SUBSCRIPTIONS, SUBSCRIPTION_BYTES},
};

/// What ids of repeated requests begin with, quote included.
const OWN: &str = "\"framewire-restore-";

/// Something set, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Setting {
    Level(Vec<u8>),
    Subscribed(Vec<u8>),
    Unsubscribed(Vec<u8>),
}

impl Setting {
    /// What a request asks to be set, if it does.
    fn of(envelope: &Envelope<'_>) -> Option<Self> {
        let method = envelope.method()?;
        let (name, make): (_, fn(Vec<u8>) -> Self) = match () {
            () if method.is("logging/setLevel") => ("level", Self::Level),
            () if method.is("resources/subscribe") => ("uri", Self::Subscribed),
            () if method.is("resources/unsubscribe") => ("uri", Self::Unsubscribed),
            () => return None,
        };
        let value = member(envelope.params()?, name).ok()??;
        RawString::of_value(value)?;
        Some(make(value.to_vec()))
    }

    fn size(&self) -> usize {
        let (Self::Level(value) | Self::Subscribed(value) | Self::Unsubscribed(value)) = self;
        value.len()
    }

    fn method(&self) -> &'static str {
        match self {
            Self::Level(_) => "logging/setLevel",
            Self::Subscribed(_) => "resources/subscribe",
            Self::Unsubscribed(_) => "resources/unsubscribe",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Settings {
    level: Option<Vec<u8>>,
    uris: Vec<Vec<u8>>,
    /// Bytes of those.
    bytes: usize,
    /// Under way: the text of the request's id, and what it sets.
    asked: Vec<(Vec<u8>, Setting)>,
    asked_bytes: usize,
    /// Repeated at a new server: the number of the request, and what it sets.
    repeated: Vec<(u64, Setting)>,
    repeats: u64,
}

/// Whether two strings of JSON say the same.
fn same(one: &[u8], other: &[u8]) -> bool {
    if one == other || !(one.contains(&b'\\') || other.contains(&b'\\')) {
        return one == other;
    }
    let text = RawString::of_value(one).and_then(RawString::unescape);
    text.is_some_and(|text| RawString::of_value(other).is_some_and(|other| other.is(&text)))
}

impl Settings {
    /// Looks at a request that was sent. True when it sets something: its answer is then to be told of.
    pub(super) fn note(&mut self, envelope: &Envelope<'_>, key: &Key<'_>) -> bool {
        let Some(setting) = Setting::of(envelope) else { return false };
        let bytes = self.asked_bytes + setting.size();
        if self.asked.len() >= MAX_SUBSCRIPTIONS || bytes > SUBSCRIPTION_BYTES {
            return false;
        }
        self.asked_bytes = bytes;
        self.asked.push((key.text().to_vec(), setting));
        true
    }

    /// A request that sets something is over; `done`: with a result.
    pub(super) fn answered(&mut self, key: &Key<'_>, done: bool) {
        let Some(at) = self.asked.iter().position(|(text, _)| text == key.text()) else { return };
        let (_, setting) = self.asked.remove(at);
        self.asked_bytes -= setting.size();
        if done {
            self.take(setting);
        }
    }

    fn take(&mut self, setting: Setting) {
        match setting {
            Setting::Level(level) => self.level = Some(level),
            Setting::Unsubscribed(uri) => self.forget(&uri),
            Setting::Subscribed(uri) => {
                let fits =
                    self.uris.len() < MAX_SUBSCRIPTIONS && self.bytes + uri.len() <= SUBSCRIPTION_BYTES;
                if fits && !self.uris.iter().any(|known| same(known, &uri)) {
                    self.bytes += uri.len();
                    self.uris.push(uri);
                }
            }
        }
    }

    fn forget(&mut self, uri: &[u8]) {
        if let Some(at) = self.uris.iter().position(|known| same(known, uri)) {
            self.bytes -= self.uris.remove(at).len();
        }
    }

    /// Nothing that was asked comes to anything.
    pub(super) fn fail_asked(&mut self) {
        (self.asked, self.asked_bytes) = (Vec::new(), 0);
    }

    /// The server has ended, and answers nothing that was repeated.
    pub(super) fn fail_repeated(&mut self) {
        self.repeated = Vec::new();
    }

    /// The requests that set all of it at a new server.
    pub(super) fn repeat(&mut self) -> VecDeque<Vec<u8>> {
        let level = self.level.iter().cloned().map(Setting::Level);
        let settings: Vec<_> = level.chain(self.uris.iter().cloned().map(Setting::Subscribed)).collect();
        let mut requests = VecDeque::with_capacity(settings.len());
        for setting in settings {
            self.repeats += 1;
            let (name, value) = match &setting {
                Setting::Level(level) => ("level", level),
                Setting::Subscribed(uri) | Setting::Unsubscribed(uri) => ("uri", uri),
            };
            let head = format!(
                r#"{{"jsonrpc":"2.0","id":{OWN}{}","method":"{}","params":{{"{name}":"#,
                self.repeats,
                setting.method()
            );
            requests.push_back([head.as_bytes(), value, b"}}"].concat());
            self.repeated.push((self.repeats, setting));
        }
        requests
    }

    /// Whether an answer is to a request of [`repeat`](Self::repeat). One that the server has refused is not set again;
    /// `refused` is told its method.
    pub(super) fn is_repeated(&mut self, key: &Key<'_>, done: bool, refused: impl FnOnce(&str)) -> bool {
        if self.repeated.is_empty() {
            return false;
        }
        let number = key.text().strip_prefix(OWN.as_bytes());
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok());
        let Some(at) = self.repeated.iter().position(|(own, _)| Some(*own) == number) else { return false };
        let (_, setting) = self.repeated.swap_remove(at);
        if !done {
            refused(setting.method());
            match setting {
                Setting::Level(_) => self.level = None,
                Setting::Subscribed(uri) | Setting::Unsubscribed(uri) => self.forget(&uri),
            }
        }
        true
    }
}
