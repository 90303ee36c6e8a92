//! What a `tls://` endpoint says, as settings of TLS; and SIGHUP, which loads certificates again.

use std::sync::{Mutex, PoisonError};

use framewire::{
    endpoint::{Endpoint, TlsAddress},
    io::tls::{SpkiPin, TlsClientConfig, TlsServerConfig, TlsVersion},
};
use tracing::{info, warn};

use super::exit::Failure;

fn version(address: &TlsAddress) -> TlsVersion {
    if address.allow_tls_1_2 { TlsVersion::V1_2 } else { TlsVersion::V1_3 }
}

/// The settings that connections were made with: whoever connects again resumes the session of the one before, and reads
/// no authorities again. One entry for each endpoint that was named.
static KNOWN: Mutex<Vec<(TlsAddress, TlsClientConfig)>> = Mutex::new(Vec::new());

/// The settings to connect with.
pub(crate) fn client(endpoint: &Endpoint, address: &TlsAddress) -> Result<TlsClientConfig, Failure> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, settings)) = known.iter().find(|(known, _)| known == address) {
        return Ok(settings.clone());
    }
    let settings = settings(endpoint, address)?;
    known.push((address.clone(), settings.clone()));
    Ok(settings)
}

fn settings(endpoint: &Endpoint, address: &TlsAddress) -> Result<TlsClientConfig, Failure> {
    let usage = |text: &str| Failure::usage(format!("{endpoint}: {text}"));
    if address.client_ca.is_some() {
        return Err(usage(
            "client-ca is for listening; the authority to trust when connecting is ca, this end's certificate cert and key",
        ));
    }
    let mut pins = Vec::new();
    for pin in &address.pins {
        pins.push(pin.parse::<SpkiPin>().map_err(|error| usage(&error.to_string()))?);
    }
    let mut builder =
        TlsClientConfig::builder().min_version(version(address)).pins(pins).alpn(address.alpn.clone());
    if let Some(ca) = &address.ca {
        builder = builder.ca_file(ca);
    }
    if let (Some(cert), Some(key)) = (&address.cert, &address.key) {
        builder = builder.identity(cert, key);
    }
    if let Some(name) = &address.server_name {
        builder = builder.server_name(name);
    }
    builder.build().map_err(|error| Failure::Connect(format!("cannot connect to {endpoint}: {error}")))
}

/// The settings to listen with. Says when a certificate was loaded again.
pub(crate) fn server(endpoint: &Endpoint, address: &TlsAddress) -> Result<TlsServerConfig, Failure> {
    let usage = |text: &str| Failure::usage(format!("{endpoint}: {text}"));
    for (option, given) in [
        ("ca", address.ca.is_some()),
        ("pin", !address.pins.is_empty()),
        ("server-name", address.server_name.is_some()),
    ] {
        if given {
            return Err(usage(&format!(
                "{option} is for connecting; to let in only clients with a certificate, name who vouches for them with client-ca"
            )));
        }
    }
    let (Some(cert), Some(key)) = (&address.cert, &address.key) else {
        return Err(usage("listening needs the server's certificate and its key: cert=FILE&key=FILE"));
    };
    let file = cert.display().to_string();
    let mut builder = TlsServerConfig::builder(cert, key)
        .min_version(version(address))
        .alpn(address.alpn.clone())
        .on_reload(move |done| match done {
            Ok(()) => info!(file, "certificate loaded again"),
            Err(error) => warn!(file, "the certificate stays what it was: {error}"),
        });
    if let Some(client_ca) = &address.client_ca {
        builder = builder.client_ca_file(client_ca);
    }
    let tls =
        builder.build().map_err(|error| Failure::Listen(format!("cannot listen on {endpoint}: {error}")))?;
    #[cfg(unix)]
    reload_on_hangup(tls.clone())?;
    Ok(tls)
}

/// From then on SIGHUP no longer ends the process.
#[cfg(unix)]
fn reload_on_hangup(tls: TlsServerConfig) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::runtime)?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // Told by the settings themselves.
            drop(tls.reload());
        }
    });
    Ok(())
}
