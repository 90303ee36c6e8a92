//! [`TlsServerConfig`]: who a server is, and whom it lets in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{RootCertStore, ServerConfig, ServerConnection, server::WebPkiClientVerifier};

use super::{
    TlsReader, TlsVersion, TlsWriter,
    certificates::{OnReload, ServerCertificate, add_authorities, crypto},
    error::{TlsConfigError, TlsError},
    stream::{Agreement, handshake},
};
use crate::{
    io::tcp::{TcpReader, TcpWriter},
    limits::TLS_HANDSHAKE_TIMEOUT,
};

/// Settings of TLS servers, checked. Clones share everything.
#[derive(Debug, Clone)]
pub struct TlsServerConfig {
    config: Arc<ServerConfig>,
    certificate: Arc<ServerCertificate>,
    agreement: Agreement,
}

/// Makes a [`TlsServerConfig`].
#[must_use]
pub struct TlsServerBuilder {
    cert: PathBuf,
    key: PathBuf,
    client_bundles: Vec<PathBuf>,
    alpn: Vec<Vec<u8>>,
    require_alpn: bool,
    min_version: TlsVersion,
    timeout: Duration,
    on_reload: Option<OnReload>,
}

impl std::fmt::Debug for TlsServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsServerBuilder")
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("client_bundles", &self.client_bundles)
            .finish_non_exhaustive()
    }
}

impl TlsServerConfig {
    /// Settings to begin with: the certificate in one PEM file, those that vouch for it after it, and its key in another
    /// file or the same; TLS 1.3, any client, no application protocol, [`TLS_HANDSHAKE_TIMEOUT`].
    ///
    /// The files are loaded again when they have changed, which a handshake notices within
    /// [`TLS_CERTIFICATE_CHECK`](crate::limits::TLS_CERTIFICATE_CHECK). Connections that are open go on as they are.
    pub fn builder(cert: impl AsRef<Path>, key: impl AsRef<Path>) -> TlsServerBuilder {
        TlsServerBuilder {
            cert: cert.as_ref().to_owned(),
            key: key.as_ref().to_owned(),
            client_bundles: Vec::new(),
            alpn: Vec::new(),
            require_alpn: true,
            min_version: TlsVersion::V1_3,
            timeout: TLS_HANDSHAKE_TIMEOUT,
            on_reload: None,
        }
    }

    /// Loads certificate and key again now. The bundle of clients' authorities stays what it was.
    ///
    /// # Errors
    /// Why the files cannot be used; what was loaded before stays in use then.
    pub fn reload(&self) -> Result<(), TlsConfigError> {
        self.certificate.reload()
    }

    /// Makes an accepted TCP connection a TLS one.
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
        reader: TcpReader,
        writer: TcpWriter,
    ) -> Result<(TlsReader, TlsWriter), TlsError> {
        let connection = ServerConnection::new(self.config.clone()).map_err(TlsError::from_rustls)?;
        handshake(connection.into(), reader, writer, self.agreement).await
    }
}

impl TlsServerBuilder {
    /// Lets only clients in whose certificate an authority in this PEM file vouches for (mutual TLS). May repeat.
    pub fn client_ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.client_bundles.push(path.as_ref().to_owned());
        self
    }

    /// Speaks these application protocols (ALPN, RFC 7301), best first, and refuses clients that offer none of them.
    pub fn alpn<T: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = T>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Whether a client that offers no application protocol at all is refused. Default: yes.
    pub fn require_alpn(mut self, on: bool) -> Self {
        self.require_alpn = on;
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

    /// Is told of each load after the first, whether asked for or because the files had changed: that it is done, or why
    /// the files cannot be used. Called from within a handshake, so it must not block.
    pub fn on_reload(mut self, told: impl Fn(Result<(), &TlsConfigError>) + Send + Sync + 'static) -> Self {
        self.on_reload = Some(Box::new(told));
        self
    }

    /// Reads the files and checks everything.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn build(self) -> Result<TlsServerConfig, TlsConfigError> {
        let other = |error: &dyn std::fmt::Display| TlsConfigError::Other { reason: error.to_string() };
        check_alpn(&self.alpn)?;
        let certificate = Arc::new(ServerCertificate::load(self.cert, self.key, self.on_reload)?);
        let builder = ServerConfig::builder_with_provider(crypto())
            .with_protocol_versions(self.min_version.and_later())
            .map_err(|error| other(&error))?;
        let builder = if self.client_bundles.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for bundle in &self.client_bundles {
                add_authorities(&mut roots, bundle)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto())
                .build()
                .map_err(|error| other(&error))?;
            builder.with_client_cert_verifier(verifier)
        };
        let mut config = builder.with_cert_resolver(certificate.clone());
        let agreement = Agreement { timeout: self.timeout, alpn: self.require_alpn && !self.alpn.is_empty() };
        config.alpn_protocols = self.alpn;
        Ok(TlsServerConfig { config: Arc::new(config), certificate, agreement })
    }
}

/// RFC 7301 §3.1: a name of 1 to 255 bytes.
pub(super) fn check_alpn(protocols: &[Vec<u8>]) -> Result<(), TlsConfigError> {
    if protocols.iter().all(|name| (1..=255).contains(&name.len())) {
        Ok(())
    } else {
        Err(TlsConfigError::BadAlpn)
    }
}
