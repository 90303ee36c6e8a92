//! [`TlsError`]: why a connection is not safe to use, and who is at fault; [`TlsConfigError`]: what is wrong with the
//! settings.

use std::{io, path::PathBuf, time::Duration};

use rustls::{AlertDescription, CertificateError, OtherError, PeerIncompatible};

use super::pin::PinMismatch;
use crate::error::{Error, Origin};

/// Why a TLS connection failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer's certificate has expired.
    #[error("the peer's certificate has expired: it must be renewed (or this machine's clock is wrong)")]
    Expired,
    /// The peer's certificate is not valid yet.
    #[error("the peer's certificate is not valid yet: is this machine's clock wrong?")]
    NotYetValid,
    /// The certificate is for another name.
    #[error(
        "the peer's certificate is not for {expected} but for {presented}: connect by one of its names, or name the one to expect (server-name)"
    )]
    WrongHost {
        /// The name that was expected.
        expected: String,
        /// The names the certificate has, as a list.
        presented: String,
    },
    /// Nobody who is trusted vouches for the certificate.
    #[error(
        "the peer's certificate is signed by nobody who is trusted here: name the authority that signed it (ca)"
    )]
    UnknownCa,
    /// A signature does not verify, such as that of an authority that was made anew under the same name.
    #[error(
        "a signature of the peer's certificate does not verify: was its authority made anew under the same name?"
    )]
    BadSignature,
    /// The certificate has been revoked.
    #[error("the peer's certificate has been revoked")]
    Revoked,
    /// The certificate is good, but its key is none of those that were pinned.
    #[error("the peer's key {presented} is none of the pinned ones")]
    PinMismatch {
        /// SHA-256 of the key's SubjectPublicKeyInfo, in base64: what a pin for it would be.
        presented: String,
    },
    /// The certificate is bad in another way.
    #[error("the peer's certificate is bad: {reason}")]
    BadCertificate {
        /// How.
        reason: String,
    },
    /// The client has no certificate, and this server asks for one.
    #[error("the client presented no certificate, and this server asks for one (mutual TLS)")]
    ClientCertificateMissing,
    /// The server asks for a certificate, and this client presented none.
    #[error("the server asks for a client certificate and none was presented: name one (cert and key)")]
    ClientCertificateRequired,
    /// The peer does not accept this side's certificate.
    #[error("the peer does not accept this side's certificate: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The two have no version of TLS in common.
    #[error(
        "the peer has no version of TLS that is allowed here: 1.3 is by default, 1.2 on request (min-version=1.2)"
    )]
    Version,
    /// The two have no application protocol (ALPN) in common.
    #[error("the peer speaks none of the application protocols offered (alpn)")]
    Alpn,
    /// The handshake took too long.
    #[error("no TLS handshake within {after:?}")]
    HandshakeTimedOut {
        /// How long it may take.
        after: Duration,
    },
    /// The connection ended in the handshake.
    #[error("the peer ended the connection during the TLS handshake")]
    EndedInHandshake,
    /// The connection ended without the peer saying so: what came may be cut short.
    #[error("the connection was cut: it ended without TLS close_notify")]
    Truncated,
    /// What the peer sent is not TLS at all.
    #[error("what the peer sent is not TLS: does it speak plain text there?")]
    NotTls,
    /// The peer ended the session with an alert.
    #[error("the peer ended the session with the TLS alert {alert}")]
    Alert {
        /// Which.
        alert: String,
    },
    /// The peer broke a rule of TLS, or what it sent was changed on the way.
    #[error("the peer broke TLS: {reason}")]
    Protocol {
        /// How.
        reason: String,
    },
    /// The host is no name that a certificate can have.
    #[error("'{host}' is no name that a certificate can be for: name the one to expect (server-name)")]
    BadName {
        /// The host.
        host: String,
    },
    /// TLS failed on this side, such as for want of random numbers.
    #[error("TLS failed on this side: {reason}")]
    Internal {
        /// How.
        reason: String,
    },
    /// The operating system or the connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl TlsError {
    /// Who is at fault.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::ClientCertificateRequired | Self::Refused { .. } | Self::BadName { .. } => Origin::Caller,
            Self::Io(_) | Self::Truncated | Self::Internal { .. } => Origin::Io,
            _ => Origin::Peer,
        }
    }

    /// The TLS failure behind an I/O error, if it is one.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The TLS failure behind an error, if it is one.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        match error {
            Error::Io(error) => Self::of_io(error),
            _ => None,
        }
    }

    /// Tells apart what rustls tells.
    pub(super) fn from_rustls(error: rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(error) => Self::from_certificate(error),
            E::NoCertificatesPresented => Self::ClientCertificateMissing,
            E::NoApplicationProtocol => Self::Alpn,
            E::AlertReceived(alert) => Self::from_alert(alert),
            E::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => Self::Version,
            E::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => Self::NotTls,
            E::FailedToGetCurrentTime
            | E::FailedToGetRandomBytes
            | E::EncryptError
            | E::HandshakeNotComplete
            | E::General(_) => Self::Internal { reason: error.to_string() },
            error => Self::Protocol { reason: error.to_string() },
        }
    }

    fn from_certificate(error: CertificateError) -> Self {
        use CertificateError as C;
        match error {
            C::Expired | C::ExpiredContext { .. } => Self::Expired,
            C::NotValidYet | C::NotValidYetContext { .. } => Self::NotYetValid,
            C::Revoked => Self::Revoked,
            C::UnknownIssuer => Self::UnknownCa,
            C::BadSignature => Self::BadSignature,
            C::NotValidForNameContext { expected, presented } => {
                let names: Vec<_> = presented.iter().map(|name| bare_name(name)).collect();
                let presented = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
                Self::WrongHost { expected: expected.to_str().into_owned(), presented }
            }
            C::NotValidForName => {
                Self::WrongHost { expected: "this host".to_owned(), presented: "another".to_owned() }
            }
            C::Other(OtherError(other)) => match other.downcast_ref::<PinMismatch>() {
                Some(pin) => Self::PinMismatch { presented: pin.presented.to_string() },
                None => Self::BadCertificate { reason: certificate_reason(&other.to_string()) },
            },
            error => Self::BadCertificate { reason: certificate_reason(&error.to_string()) },
        }
    }

    fn from_alert(alert: AlertDescription) -> Self {
        use AlertDescription as A;
        let refused = |reason: &str| Self::Refused { reason: reason.to_owned() };
        match alert {
            A::CertificateRequired => Self::ClientCertificateRequired,
            A::ProtocolVersion => Self::Version,
            A::NoApplicationProtocol => Self::Alpn,
            A::CertificateExpired => refused("it has expired"),
            A::CertificateRevoked => refused("it has been revoked"),
            A::UnknownCA => refused("the peer does not trust who signed it"),
            A::BadCertificate | A::UnsupportedCertificate | A::CertificateUnknown | A::AccessDenied => {
                refused(&format!("{alert:?}"))
            }
            alert => Self::Alert { alert: format!("{alert:?}") },
        }
    }
}

/// A name of a certificate without its kind, which webpki shows around it: `DnsName("a.example")`, `IpAddress(::1)`.
fn bare_name(shown: &str) -> &str {
    let inner = shown.split_once('(').and_then(|(_kind, name)| name.strip_suffix(')'));
    inner.map_or(shown, |name| name.trim_matches('"'))
}

/// What a person can act upon, for what webpki tells by a name alone.
fn certificate_reason(reason: &str) -> String {
    if reason.contains("CaUsedAsEndEntity") {
        "it is that of an authority, which no server may use as its own: sign one for the server with it"
            .into()
    } else {
        reason.to_owned()
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        let kind = match &error {
            TlsError::Io(_) => {
                let TlsError::Io(error) = error else { return Self::other(error) };
                return error;
            }
            TlsError::Truncated => io::ErrorKind::ConnectionReset,
            TlsError::HandshakeTimedOut { .. } => io::ErrorKind::TimedOut,
            TlsError::EndedInHandshake => io::ErrorKind::UnexpectedEof,
            TlsError::BadName { .. } => io::ErrorKind::InvalidInput,
            TlsError::Internal { .. } => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl From<TlsError> for Error {
    fn from(error: TlsError) -> Self {
        io::Error::from(error).into()
    }
}

/// What is wrong with the settings of TLS. All of it is the caller's to correct.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is not PEM, or holds none of what is looked for.
    #[error("{path} holds no {what} in PEM form ({reason})", path = path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What was looked for: `certificate` or `private key`.
        what: &'static str,
        /// What was found instead.
        reason: String,
    },
    /// The private key asks for a passphrase.
    #[error(
        "the private key in {path} is encrypted, and nobody is here to ask for its passphrase: decrypt it (openssl pkey -in {path} -out FILE) and let only the server's user read it", path = path.display()
    )]
    EncryptedKey {
        /// Which file.
        path: PathBuf,
    },
    /// The private key is not that of the certificate.
    #[error("the private key in {key} is not that of the certificate in {cert} (the first in it, before those that vouch for it)", key = key.display(), cert = cert.display())]
    KeyMismatch {
        /// File of the certificate.
        cert: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
    /// A certificate or key that is PEM, but not one that can be used.
    #[error("cannot use {path}: {reason}", path = path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The system has no roots.
    #[error("this system has no certificates of authorities ({reason}): name a bundle of them (ca)")]
    NoSystemRoots {
        /// What was tried.
        reason: String,
    },
    /// A server name that is none.
    #[error("'{name}' is neither a host name nor an address")]
    BadName {
        /// The name.
        name: String,
    },
    /// An application protocol that is empty or longer than 255 bytes.
    #[error("an application protocol (alpn) has 1 to 255 bytes")]
    BadAlpn,
    /// Something that rustls refuses.
    #[error("TLS settings do not fit together: {reason}")]
    Other {
        /// What.
        reason: String,
    },
}
