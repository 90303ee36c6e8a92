//! [`TlsClientConfig`]: whom a client trusts, and who it is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{IpAddr, ServerName},
};

use super::{
    TlsReader, TlsVersion, TlsWriter,
    certificates::{add_authorities, certified, crypto},
    error::{TlsConfigError, TlsError},
    pin::{PinVerifier, SpkiPin},
    server::check_alpn,
    stream::{Agreement, handshake},
};
use crate::{
    io::tcp::{TcpReader, TcpWriter},
    limits::TLS_HANDSHAKE_TIMEOUT,
};

/// Settings of TLS clients, checked. Clones share everything, sessions that can be resumed as well.
#[derive(Debug, Clone)]
pub struct TlsClientConfig {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
    agreement: Agreement,
}

/// Makes a [`TlsClientConfig`].
#[derive(Debug, Clone)]
#[must_use]
pub struct TlsClientBuilder {
    bundles: Vec<PathBuf>,
    system_roots: bool,
    identity: Option<(PathBuf, PathBuf)>,
    pins: Vec<SpkiPin>,
    alpn: Vec<Vec<u8>>,
    require_alpn: bool,
    name: Option<String>,
    min_version: TlsVersion,
    timeout: Duration,
}

impl TlsClientConfig {
    /// Settings to begin with: the system's roots, TLS 1.3, no certificate of its own, no pins, no application protocol,
    /// [`TLS_HANDSHAKE_TIMEOUT`].
    pub fn builder() -> TlsClientBuilder {
        TlsClientBuilder {
            bundles: Vec::new(),
            system_roots: false,
            identity: None,
            pins: Vec::new(),
            alpn: Vec::new(),
            require_alpn: true,
            name: None,
            min_version: TlsVersion::V1_3,
            timeout: TLS_HANDSHAKE_TIMEOUT,
        }
    }

    /// Takes servers, too, that do not answer the offer of application protocols.
    #[cfg(feature = "http")]
    pub(crate) fn any_alpn(mut self) -> Self {
        self.agreement.alpn = false;
        self
    }

    /// Makes a TCP connection to `host` a TLS one.
    ///
    /// # Errors
    /// Why it is not safe to use.
    ///
    /// # Panics
    /// When called outside a tokio runtime with time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn handshake(
        &self,
        host: &str,
        reader: TcpReader,
        writer: TcpWriter,
    ) -> Result<(TlsReader, TlsWriter), TlsError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => server_name(host).ok_or_else(|| TlsError::BadName { host: host.to_owned() })?,
        };
        let connection = ClientConnection::new(self.config.clone(), name).map_err(TlsError::from_rustls)?;
        handshake(connection.into(), reader, writer, self.agreement).await
    }
}

/// A host as a certificate names it: brackets and the zone of an IPv6 address are not part of it.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = host.split_once('%').map_or(host, |(address, _zone)| address);
    if let Ok(address) = address.parse::<std::net::IpAddr>() {
        return Some(ServerName::IpAddress(IpAddr::from(address)));
    }
    ServerName::try_from(host.strip_suffix('.').unwrap_or(host).to_owned()).ok()
}

impl TlsClientBuilder {
    /// Trusts the authorities in this PEM file and no longer those of the system. May repeat.
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.bundles.push(path.as_ref().to_owned());
        self
    }

    /// Trusts the system's authorities, too, beside those of [`ca_file`](Self::ca_file).
    pub fn system_roots_too(mut self) -> Self {
        self.system_roots = true;
        self
    }

    /// Presents the certificate in one PEM file, with the key in another or the same (mutual TLS).
    pub fn identity(mut self, cert: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.identity = Some((cert.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// Asks for one of these keys beside a certificate that verifies. Adds to those asked for before; none asks for
    /// nothing.
    pub fn pins(mut self, pins: impl IntoIterator<Item = SpkiPin>) -> Self {
        self.pins.extend(pins);
        self
    }

    /// Offers these application protocols (ALPN, RFC 7301), best first, and refuses a server that takes none.
    pub fn alpn<T: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = T>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Whether a server that does not answer the offer of application protocols is refused. Default: yes.
    pub fn require_alpn(mut self, on: bool) -> Self {
        self.require_alpn = on;
        self
    }

    /// Expects the certificate to be for this name and asks for it (SNI), whatever the host connected to.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The oldest version of TLS that is accepted. Default: 1.3.
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// How long a handshake may take. Default: [`TLS_HANDSHAKE_TIMEOUT`].
    pub fn handshake_timeout(mut self, after: Duration) -> Self {
        self.timeout = after;
        self
    }

    /// Reads the files and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn build(self) -> Result<TlsClientConfig, TlsConfigError> {
        let other = |error: &dyn std::fmt::Display| TlsConfigError::Other { reason: error.to_string() };
        check_alpn(&self.alpn)?;
        let mut roots = RootCertStore::empty();
        for bundle in &self.bundles {
            add_authorities(&mut roots, bundle)?;
        }
        if self.bundles.is_empty() || self.system_roots {
            add_system(&mut roots)?;
        }
        let name = match self.name {
            Some(name) => Some(server_name(&name).ok_or(TlsConfigError::BadName { name })?),
            None => None,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto())
            .build()
            .map_err(|error| other(&error))?;
        let builder = ClientConfig::builder_with_provider(crypto())
            .with_protocol_versions(self.min_version.and_later())
            .map_err(|error| other(&error))?;
        // "Dangerous" for what a verifier could leave out; this one verifies first and asks for more.
        let builder = if self.pins.is_empty() {
            builder.with_webpki_verifier(verifier)
        } else {
            let verifier = PinVerifier { chain: verifier, pins: self.pins };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let certified = Arc::new(certified(cert, key)?);
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
            }
        };
        let agreement = Agreement { timeout: self.timeout, alpn: self.require_alpn && !self.alpn.is_empty() };
        config.alpn_protocols = self.alpn;
        Ok(TlsClientConfig { config: Arc::new(config), name, agreement })
    }
}

fn add_system(roots: &mut RootCertStore) -> Result<(), TlsConfigError> {
    let found = rustls_native_certs::load_native_certs();
    // Systems carry some that nobody can use; those are passed over.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = match found.errors.first() {
            Some(error) => error.to_string(),
            None => "none was found".to_owned(),
        };
        return Err(TlsConfigError::NoSystemRoots { reason });
    }
    Ok(())
}
