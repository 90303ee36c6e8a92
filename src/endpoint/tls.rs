//! [`TlsAddress`]: where a `tls://` endpoint is, and how it is made safe.

use std::path::{Path, PathBuf};

use super::{EndpointError, did_you_mean, nearest, path_bytes, shown, unescaped};

/// A port that speaks TLS, with what its options say. Whether they fit connecting or listening is not checked here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TlsAddress {
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Port. 0 asks the system for a free one, which only makes sense for listening.
    pub port: u16,
    /// PEM file of the authorities that may vouch for the server, instead of the system's (`ca`; connecting).
    pub ca: Option<PathBuf>,
    /// PEM file of this end's certificate (`cert`).
    pub cert: Option<PathBuf>,
    /// PEM file of its private key (`key`).
    pub key: Option<PathBuf>,
    /// PEM file of the authorities that must vouch for clients (`client-ca`; listening).
    pub client_ca: Option<PathBuf>,
    /// Pins of the server's key, SHA-256 in base64, separated by commas in the text (`pin`; connecting).
    pub pins: Vec<String>,
    /// Name to expect in the server's certificate instead of the host (`server-name`; connecting).
    pub server_name: Option<String>,
    /// Whether TLS 1.2 is accepted, too (`min-version=1.2`).
    pub allow_tls_1_2: bool,
    /// Application protocols, best first, separated by commas in the text (`alpn`).
    pub alpn: Vec<String>,
}

/// The options of `tls://` beside those that every endpoint has.
const NAMES: [&str; 8] = ["ca", "cert", "key", "client-ca", "pin", "server-name", "min-version", "alpn"];

/// The options of `tls://`, for an error.
const KNOWN: &str =
    "framing, max-message-size, ca, cert, key, client-ca, pin, server-name, min-version, alpn";

/// Those of a URL (`wss://`, `https://`), which says itself where messages end.
const KNOWN_OF_URLS: &str = "max-message-size, ca, cert, key, client-ca, pin, server-name, min-version, alpn";

impl TlsAddress {
    /// An address without options.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, ..Self::default() }
    }

    /// Reads one option. `seen` holds those that came before; `framed` when the endpoint takes a framing, too.
    pub(super) fn option(
        &mut self,
        name: &str,
        value: &str,
        seen: &mut Vec<&'static str>,
        framed: bool,
    ) -> Result<(), EndpointError> {
        let Some(option) = NAMES.into_iter().find(|known| *known == name) else {
            let framing = framed.then_some("framing");
            let names: Vec<_> = NAMES.into_iter().chain(["max-message-size"]).chain(framing).collect();
            return Err(EndpointError::UnknownOption {
                hint: did_you_mean(nearest(name, &names)),
                option: shown(name),
                known: if framed { KNOWN } else { KNOWN_OF_URLS },
            });
        };
        if seen.contains(&option) {
            return Err(EndpointError::RepeatedOption { option });
        }
        seen.push(option);
        if value.is_empty() {
            return Err(EndpointError::MissingValue { option });
        }
        let file = || unescaped(value).map(Some);
        match option {
            "ca" => self.ca = file()?,
            "cert" => self.cert = file()?,
            "key" => self.key = file()?,
            "client-ca" => self.client_ca = file()?,
            "server-name" => self.server_name = Some(text(value)?),
            "min-version" => {
                self.allow_tls_1_2 = match value {
                    "1.2" => true,
                    "1.3" => false,
                    _ => return Err(EndpointError::BadTlsVersion { version: shown(value) }),
                };
            }
            "pin" => {
                for pin in value.split(',') {
                    if !is_pin(pin) {
                        return Err(EndpointError::BadPin { pin: shown(pin) });
                    }
                    self.pins.push(pin.to_owned());
                }
            }
            _ => {
                for protocol in value.split(',') {
                    let protocol = text(protocol)?;
                    if protocol.is_empty() {
                        return Err(EndpointError::MissingValue { option });
                    }
                    self.alpn.push(protocol);
                }
            }
        }
        Ok(())
    }

    /// What only makes sense together.
    pub(super) fn check(&self) -> Result<(), EndpointError> {
        match (&self.cert, &self.key) {
            (Some(_), None) => Err(EndpointError::Lonely { option: "cert", missing: "key" }),
            (None, Some(_)) => Err(EndpointError::Lonely { option: "key", missing: "cert" }),
            _ => Ok(()),
        }
    }

    /// The options as they would be typed, each name with its value.
    pub(super) fn typed(&self) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        let files =
            [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key), ("client-ca", &self.client_ca)];
        for (name, file) in files {
            if let Some(file) = file {
                options.push((name, escaped_file(file)));
            }
        }
        if !self.pins.is_empty() {
            options.push(("pin", self.pins.join(",")));
        }
        if let Some(name) = &self.server_name {
            options.push(("server-name", escaped(name.as_bytes())));
        }
        if self.allow_tls_1_2 {
            options.push(("min-version", "1.2".to_owned()));
        }
        if !self.alpn.is_empty() {
            let alpn: Vec<_> = self.alpn.iter().map(|protocol| escaped(protocol.as_bytes())).collect();
            options.push(("alpn", alpn.join(",")));
        }
        options
    }
}

fn text(value: &str) -> Result<String, EndpointError> {
    unescaped(value)?.into_os_string().into_string().map_err(|_| EndpointError::BadEscape)
}

/// 43 characters of base64, with or without the `=` at the end and curl's prefix.
fn is_pin(text: &str) -> bool {
    let text = text.strip_suffix('=').unwrap_or(text);
    // From the end: the digest's own first character may be a slash.
    let Some((prefix, digest)) = text.len().checked_sub(43).and_then(|at| text.split_at_checked(at)) else {
        return false;
    };
    ["", "sha256/", "sha256//"].contains(&prefix)
        && digest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte))
}

fn escaped_file(path: &Path) -> String {
    escaped(path_bytes(path))
}

/// Everything that could be read as something else is written %XX.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() || char.is_whitespace() || "%?&,".contains(char) {
                let mut utf8 = [0; 4];
                for byte in char.encode_utf8(&mut utf8).bytes() {
                    text.push_str(&format!("%{byte:02X}"));
                }
            } else {
                text.push(char);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
