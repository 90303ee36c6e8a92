//! Certificates and keys from PEM files, and a server's own, which is loaded again when its files change.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring as provider},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::error::TlsConfigError;
use crate::limits::TLS_CERTIFICATE_CHECK;

/// The provider of all cryptography here.
pub(super) fn crypto() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsConfigError> {
    std::fs::read(path).map_err(|error| TlsConfigError::File { path: path.to_owned(), error })
}

fn no(what: &'static str, path: &Path, error: &pem::Error) -> TlsConfigError {
    let reason = match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        pem::Error::MissingSectionEnd { end_marker } => {
            let end = String::from_utf8_lossy(end_marker);
            format!("it ends before '-----END {end}-----': was it written to its end?")
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("a section begins with '{}'", String::from_utf8_lossy(line).escape_debug())
        }
        error => error.to_string(),
    };
    TlsConfigError::Pem { path: path.to_owned(), what, reason }
}

/// The certificates in a file, at least one.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(no("certificate", path, &pem::Error::NoItemsFound))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(no("certificate", path, &error)),
    }
}

/// The first private key in a file.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        // PKCS #8 says so in its label (RFC 7468 §11), openssl's older form in a header (RFC 1421 §4.6.1.1).
        let marks: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
        if marks.iter().any(|mark| memchr::memmem::find(&text, mark).is_some()) {
            TlsConfigError::EncryptedKey { path: path.to_owned() }
        } else {
            no("private key", path, &error)
        }
    })
}

/// The authorities in a bundle.
pub(super) fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsConfigError> {
    for certificate in chain(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsConfigError::Unusable { path: path.to_owned(), reason: error.to_string() })?;
    }
    Ok(())
}

/// A certificate with its key, from two files that may be one.
pub(super) fn certified(cert: &Path, key_file: &Path) -> Result<CertifiedKey, TlsConfigError> {
    let (chain, key) = (chain(cert)?, key(key_file)?);
    CertifiedKey::from_der(chain, key, &provider::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsConfigError::KeyMismatch { cert: cert.to_owned(), key: key_file.to_owned() }
        }
        rustls::Error::InvalidCertificate(error) => {
            TlsConfigError::Unusable { path: cert.to_owned(), reason: error.to_string() }
        }
        error => TlsConfigError::Unusable { path: key_file.to_owned(), reason: error.to_string() },
    })
}

/// What tells that a file is another than before: its date, its size, which file it is, and when anything about it last
/// changed. The last tells of what keeps the other three: a copy with the dates of its source, or that the file may be
/// read now.
type Stamp = Option<(SystemTime, u64, u64, (i64, i64))>;

fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let (inode, changed) = {
        use std::os::unix::fs::MetadataExt;
        (data.ino(), (data.ctime(), data.ctime_nsec()))
    };
    #[cfg(not(unix))]
    let (inode, changed) = (0, (0, 0));
    Some((data.modified().ok()?, data.len(), inode, changed))
}

/// Told of each load after the first.
pub(super) type OnReload = Box<dyn Fn(Result<(), &TlsConfigError>) + Send + Sync>;

/// A server's certificate, as its files have it.
pub(super) struct ServerCertificate {
    cert: PathBuf,
    key: PathBuf,
    on_reload: Option<OnReload>,
    current: Mutex<Current>,
}

struct Current {
    certified: Arc<CertifiedKey>,
    stamps: [Stamp; 2],
    /// When the files were last looked at.
    looked: Instant,
}

impl ServerCertificate {
    pub(super) fn load(
        cert: PathBuf,
        key: PathBuf,
        on_reload: Option<OnReload>,
    ) -> Result<Self, TlsConfigError> {
        // Before reading: a change in between is then seen as one.
        let stamps = [stamp(&cert), stamp(&key)];
        let certified = Arc::new(certified(&cert, &key)?);
        let current = Mutex::new(Current { certified, stamps, looked: Instant::now() });
        Ok(Self { cert, key, on_reload, current })
    }

    /// Loads the files again. When they cannot be used, what there is stays in use.
    pub(super) fn reload(&self) -> Result<(), TlsConfigError> {
        let stamps = [stamp(&self.cert), stamp(&self.key)];
        let loaded = certified(&self.cert, &self.key);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Also those that cannot be used: they are tried again when they change again, and not at each handshake.
        current.stamps = stamps;
        current.looked = Instant::now();
        let done = loaded.map(|certified| current.certified = Arc::new(certified));
        drop(current);
        if let Some(on_reload) = &self.on_reload {
            on_reload(match &done {
                Ok(()) => Ok(()),
                Err(error) => Err(error),
            });
        }
        done
    }

    /// Loads the files again if they have changed, which is looked for once a second at most.
    fn refresh(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() < TLS_CERTIFICATE_CHECK {
            return;
        }
        current.looked = Instant::now();
        let changed = current.stamps != [stamp(&self.cert), stamp(&self.key)];
        drop(current);
        if changed {
            // A failure was told to whom it may concern; this handshake goes on with what there is.
            drop(self.reload());
        }
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.refresh();
        Some(self.current.lock().unwrap_or_else(PoisonError::into_inner).certified.clone())
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("cert", &self.cert)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
