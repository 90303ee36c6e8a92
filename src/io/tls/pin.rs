//! [`SpkiPin`]: the SHA-256 of a public key that a server must have, beside a certificate that verifies.
//!
//! The form is that of RFC 7469 §2.4 and of curl's `--pinnedpubkey`. Only the server's own key counts: what else it sends
//! along proves nothing, since anyone may append a certificate that is not theirs.

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD};
use rustls::{
    CertificateError, DigitallySignedStruct, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// SHA-256 of a SubjectPublicKeyInfo in DER.
///
/// Written as 43 or 44 characters of base64, with `sha256/` or `sha256//` before it or not. Of a certificate, openssl
/// tells it by `openssl x509 -pubkey -noout -in FILE | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary |
/// base64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpkiPin([u8; 32]);

/// Why a text is not a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("a pin is the base64 of a SHA-256, 44 characters with the '=' at the end")]
pub struct PinError;

impl SpkiPin {
    /// A pin of 32 bytes.
    #[must_use]
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The pin of the key of a certificate in DER.
    ///
    /// # Errors
    /// When it is no certificate.
    pub fn of_certificate(der: &[u8]) -> Result<Self, PinError> {
        let der = CertificateDer::from(der);
        let parsed = ParsedCertificate::try_from(&der).map_err(|_| PinError)?;
        Ok(Self::of_key(parsed.subject_public_key_info().as_ref()))
    }

    fn of_key(spki: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, spki);
        let mut bytes = [0; 32];
        for (byte, of) in bytes.iter_mut().zip(digest.as_ref()) {
            *byte = *of;
        }
        Self(bytes)
    }
}

impl FromStr for SpkiPin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let text = text.trim();
        let text = text.strip_suffix('=').unwrap_or(text);
        // From the end: the digest's own first character may be a slash.
        let (prefix, digest) =
            text.len().checked_sub(43).and_then(|at| text.split_at_checked(at)).ok_or(PinError)?;
        if !["", "sha256/", "sha256//"].contains(&prefix) {
            return Err(PinError);
        }
        let bytes = BASE64_NOPAD
            .decode(digest.as_bytes())
            .or_else(|_| BASE64URL_NOPAD.decode(digest.as_bytes()))
            .map_err(|_| PinError)?;
        bytes.try_into().map(Self).map_err(|_| PinError)
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpkiPin({self})")
    }
}

/// A certificate that verifies, of a key that was not pinned.
#[derive(Debug, thiserror::Error)]
#[error("the key {presented} is not pinned")]
pub(super) struct PinMismatch {
    pub(super) presented: SpkiPin,
}

/// Verifies as ever, and asks for one of the pinned keys besides.
#[derive(Debug)]
pub(super) struct PinVerifier {
    pub(super) chain: Arc<WebPkiServerVerifier>,
    pub(super) pins: Vec<SpkiPin>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let presented = SpkiPin::of_key(parsed.subject_public_key_info().as_ref());
        if self.pins.contains(&presented) {
            Ok(verified)
        } else {
            let mismatch = OtherError(Arc::new(PinMismatch { presented }));
            Err(CertificateError::Other(mismatch).into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
