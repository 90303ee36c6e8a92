//! [`Access`]: Host, Origin and bearer token of one request against what is allowed.

use std::{fmt, net::IpAddr};

use subtle::ConstantTimeEq;

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The name by which the listener was asked for is none of its own: DNS rebinding looks so.
    #[error("this host is not allowed")]
    Host,
    /// The page that asks is not from here.
    #[error("this origin is not allowed")]
    Origin,
    /// There is no token, or it is not right.
    #[error("a valid bearer token is needed")]
    Token,
}

/// Whom a listener lets in: by the name it is asked for, the page that asks and the token shown.
///
/// By default only the names of loopback are answered to (`localhost`, 127.0.0.0/8, `::1`), which keeps pages out that
/// resolve their own name to this machine (DNS rebinding), and only pages of the listener's own host may ask. Programs that
/// are no browser send no Origin.
#[derive(Clone, Default)]
pub struct Access {
    hosts: Vec<String>,
    /// Whether any address is a name of the listener.
    addresses: bool,
    origins: Vec<String>,
    tokens: Vec<Vec<u8>>,
}

impl Access {
    /// Only loopback names, only pages of the same host, no token.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Also answers to `host`: a name, a name with a port, or `*` for any.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Also answers to any IP address, for a listener that other machines reach: a page can make its own name resolve to
    /// this machine, but has no address for a name.
    #[must_use]
    pub fn addresses(mut self) -> Self {
        self.addresses = true;
        self
    }

    /// Also lets pages of `origin` in (`https://example.com`), or of any for `*`.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Asks for a bearer token: `token`, or another added so. The empty one is none that can be shown.
    #[must_use]
    pub fn token(mut self, token: impl Into<Vec<u8>>) -> Self {
        self.tokens.push(token.into());
        self
    }

    /// Whether a token has to be shown.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether a request for `host`, from a page of `origin` if it is a browser's, may be looked at at all.
    ///
    /// # Errors
    /// [`Refused::Host`] or [`Refused::Origin`].
    pub fn check_source(&self, host: &str, origin: Option<&str>) -> Result<(), Refused> {
        let name = without_port(host);
        let known = is_loopback(name) || (self.addresses && address(name).is_some());
        if !(known || listed(&self.hosts, name) || listed(&self.hosts, host)) {
            return Err(Refused::Host);
        }
        let Some(origin) = origin else { return Ok(()) };
        if listed(&self.origins, origin) {
            return Ok(());
        }
        let from = origin.split_once("://").map_or("", |(_, rest)| without_port(rest));
        let own =
            !from.is_empty() && (from.eq_ignore_ascii_case(name) || (is_loopback(name) && is_loopback(from)));
        if own { Ok(()) } else { Err(Refused::Origin) }
    }

    /// Whether `shown`, the token of a request, is one of those asked for. Its time tells nothing but its length.
    ///
    /// # Errors
    /// [`Refused::Token`].
    pub fn check_token(&self, shown: Option<&[u8]>) -> Result<(), Refused> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let shown = shown.unwrap_or_default();
        let found =
            self.tokens.iter().fold(0, |found, token| found | token.as_slice().ct_eq(shown).unwrap_u8());
        if found == 1 && !shown.is_empty() { Ok(()) } else { Err(Refused::Token) }
    }
}

impl fmt::Debug for Access {
    /// Tokens are counted, not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("hosts", &self.hosts)
            .field("addresses", &self.addresses)
            .field("origins", &self.origins)
            .field("tokens", &self.tokens.len())
            .finish()
    }
}

fn listed(list: &[String], item: &str) -> bool {
    list.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(item))
}

/// `host` without its port; the brackets of an IPv6 address stay.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_and_own_pages_pass() {
        let open = Access::new();
        let listed = Access::new().host("mcp.example").origin("https://app.example").origin("null");
        let any = Access::new().host("*").origin("*");
        let exposed = Access::new().addresses();
        for (access, host, origin, expected) in [
            (&open, "127.0.0.1:9001", None, Ok(())),
            (&open, "LocalHost", None, Ok(())),
            (&open, "[::1]:9001", None, Ok(())),
            (&open, "[::1]", None, Ok(())),
            (&open, "evil.example:9001", None, Err(Refused::Host)),
            (&open, "127.0.0.1.evil.example", None, Err(Refused::Host)),
            (&open, "localhost.evil.example", None, Err(Refused::Host)),
            (&open, "", None, Err(Refused::Host)),
            (&open, "10.0.0.1", None, Err(Refused::Host)),
            (&open, "localhost", Some("http://localhost:3000"), Ok(())),
            (&open, "localhost", Some("http://127.0.0.1"), Ok(())),
            (&open, "localhost:1", Some("http://[::1]:2"), Ok(())),
            (&open, "localhost", Some("https://evil.example"), Err(Refused::Origin)),
            (&open, "localhost", Some("http://localhost.evil.example"), Err(Refused::Origin)),
            (&open, "localhost", Some("http://localhost@evil.example"), Err(Refused::Origin)),
            (&open, "localhost", Some("null"), Err(Refused::Origin)),
            (&open, "localhost", Some(""), Err(Refused::Origin)),
            (&listed, "mcp.example:443", None, Ok(())),
            (&listed, "other.example", None, Err(Refused::Host)),
            (&listed, "mcp.example", Some("https://mcp.example"), Ok(())),
            (&listed, "mcp.example", Some("http://localhost"), Err(Refused::Origin)),
            (&listed, "mcp.example", Some("https://app.example"), Ok(())),
            (&listed, "localhost", Some("null"), Ok(())),
            (&exposed, "192.0.2.7:9001", None, Ok(())),
            (&exposed, "[2001:db8::1]:9001", Some("http://[2001:db8::1]"), Ok(())),
            (&exposed, "192.0.2.7", Some("https://evil.example"), Err(Refused::Origin)),
            (&exposed, "evil.example:9001", Some("http://evil.example:9001"), Err(Refused::Host)),
            (&exposed, "192.0.2.7.evil.example", None, Err(Refused::Host)),
            (&any, "whatever", Some("https://evil.example"), Ok(())),
        ] {
            assert_eq!(access.check_source(host, origin), expected, "{host} {origin:?}");
        }
    }

    #[test]
    fn a_token_is_right_or_wrong() {
        assert_eq!(Access::new().check_token(None), Ok(()));
        let two = Access::new().token("secret").token("other").token("");
        for (shown, expected) in [
            (None, Err(Refused::Token)),
            (Some(&b""[..]), Err(Refused::Token)),
            (Some(b"secres"), Err(Refused::Token)),
            (Some(b"secret2"), Err(Refused::Token)),
            (Some(b"secret"), Ok(())),
            (Some(b"other"), Ok(())),
        ] {
            assert_eq!(two.check_token(shown), expected, "{shown:?}");
        }
        assert!(!format!("{two:?}").contains("secret"));
    }
}
