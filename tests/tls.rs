//! TLS: who is let in, who is refused and why, how a connection ends, and that certificates are loaded again.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "tls", unix))]

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use framewire::{
    Error, Link,
    codec::{LengthPrefix, Newline},
    error::{End, Origin},
    io::{
        tcp::{self, TcpOptions},
        tls::{
            self, Listener, SpkiPin, TlsClientBuilder, TlsClientConfig, TlsConfigError, TlsError, TlsReader,
            TlsServerBuilder, TlsServerConfig, TlsVersion, TlsWriter,
        },
    },
    link::LinkConfig,
    transport::TlsTransport,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "support/allocation.rs"]
mod allocation;

/// More than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A folder of PEM files: an authority and what it signed.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Self::named(&format!("authority {}", COUNT.fetch_add(1, Relaxed)))
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes `NAME.pem` and `NAME.key`; the certificate is for `host`. Gives its DER.
    fn sign(&self, name: &str, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }

    fn cert(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pem"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.key"))
    }

    fn server(&self, name: &str) -> TlsServerBuilder {
        TlsServerConfig::builder(self.cert(name), self.key(name))
    }

    fn client(&self) -> TlsClientBuilder {
        TlsClientConfig::builder().ca_file(self.ca())
    }
}

type Pair = (TlsReader, TlsWriter);

async fn meet(
    client: &TlsClientConfig,
    server: &TlsServerConfig,
) -> (std::io::Result<Pair>, Result<Pair, TlsError>) {
    let mut listener = Listener::bind("127.0.0.1:0", server.clone()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = TcpOptions::default();
    let both = async {
        let (client, server) =
            tokio::join!(tls::connect("127.0.0.1", port, client, &options), listener.accept_any());
        (client, server.unwrap().1)
    };
    tokio::time::timeout(LIMIT, both).await.expect("a handshake ends")
}

async fn good(client: TlsClientBuilder, server: TlsServerBuilder) -> (Pair, Pair) {
    let (client, server) = meet(&client.build().unwrap(), &server.build().unwrap()).await;
    (client.unwrap(), server.unwrap())
}

fn link(pair: Pair) -> TlsTransport {
    Link::pair(LengthPrefix::new(), pair.0, pair.1)
}

/// Why the client, and why the server, did not go on.
async fn bad(client: TlsClientBuilder, server: TlsServerBuilder) -> (TlsError, TlsError) {
    let (client, server) = meet(&client.build().unwrap(), &server.build().unwrap()).await;
    // A client of TLS 1.3 is done before the server has looked at its certificate: it is told when it reads.
    let client = match client {
        Err(error) => error,
        Ok((mut reader, _writer)) => {
            tokio::time::timeout(LIMIT, reader.read_u8()).await.unwrap().expect_err("refused")
        }
    };
    let client = client.into_inner().expect("told by TLS").downcast::<TlsError>().unwrap();
    (*client, server.expect_err("refused"))
}

#[tokio::test]
async fn a_link_carries_messages_and_ends_cleanly() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let server = ca.server("server").build().unwrap();
    let mut listener = Listener::bind("127.0.0.1:0", server).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = ca.client().build().unwrap();
    let (near, far) = tokio::join!(
        TlsTransport::connect("127.0.0.1", port, &client),
        TlsTransport::accept(LengthPrefix::new(), &mut listener, LinkConfig::default())
    );
    let (mut near, (mut far, _peer)) = (near.unwrap(), far.unwrap());
    assert_eq!(near.transport_type(), "tls");
    assert_eq!(near.reader().version(), TlsVersion::V1_3);
    assert_eq!(near.reader().peer_certificates().len(), 1);
    near.send(b"there").await.unwrap();
    assert_eq!(far.receive().await.unwrap(), "there");
    far.send(b"and back").await.unwrap();
    assert_eq!(near.receive().await.unwrap(), "and back");

    near.close().await.unwrap();
    assert!(matches!(far.receive().await, Err(Error::Ended(End::Eof))));
    far.close().await.unwrap();
}

#[tokio::test]
async fn a_dropped_link_ends_cleanly_too() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let (near, far) = good(ca.client(), ca.server("server")).await;
    let (mut near, mut far) = (link(near), link(far));
    near.send(b"last").await.unwrap();
    drop(near);
    assert_eq!(far.receive().await.unwrap(), "last");
    assert!(matches!(far.receive().await, Err(Error::Ended(End::Eof))));
}

#[tokio::test]
async fn certificates_that_are_not_good_are_refused_each_for_its_reason() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    ca.sign("expired", "127.0.0.1", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    ca.sign("early", "127.0.0.1", |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    });
    ca.sign("elsewhere", "elsewhere.example", |_| {});
    ca.sign("client-only", "127.0.0.1", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });

    let (client, server) = bad(ca.client(), ca.server("expired")).await;
    assert!(matches!(client, TlsError::Expired), "{client}");
    assert!(matches!(&server, TlsError::Refused { reason } if reason == "it has expired"), "{server:?}");
    assert_eq!((client.origin(), server.origin()), (Origin::Peer, Origin::Caller));

    let (client, _) = bad(ca.client(), ca.server("early")).await;
    assert!(matches!(client, TlsError::NotYetValid), "{client}");

    let (client, _) = bad(ca.client(), ca.server("elsewhere")).await;
    assert!(matches!(client, TlsError::WrongHost { .. }), "{client:?}");
    let text = client.to_string();
    assert!(text.contains("is not for 127.0.0.1 but for elsewhere.example: "), "{text}");
    // The name that is expected can be said, and then asks for that one alone.
    good(ca.client().server_name("elsewhere.example"), ca.server("elsewhere")).await;
    let (client, _) = bad(ca.client().server_name("elsewhere.example"), ca.server("server")).await;
    assert!(
        matches!(&client, TlsError::WrongHost { presented, .. } if presented == "127.0.0.1"),
        "{client:?}"
    );

    let stranger = Authority::new();
    let (client, server) = bad(stranger.client(), ca.server("server")).await;
    assert!(matches!(client, TlsError::UnknownCa), "{client:?}");
    assert!(matches!(server, TlsError::Refused { .. } | TlsError::Alert { .. }), "{server:?}");

    let (old, new) = (Authority::named("the same"), Authority::named("the same"));
    new.sign("server", "127.0.0.1", |_| {});
    let (client, _) = bad(old.client(), new.server("server")).await;
    assert!(matches!(client, TlsError::BadSignature), "{client:?}");

    let (client, _) = bad(ca.client(), ca.server("client-only")).await;
    assert!(matches!(client, TlsError::BadCertificate { .. }), "{client:?}");
}

#[tokio::test]
async fn a_pin_is_asked_for_beside_a_chain_that_verifies() {
    let ca = Authority::new();
    let der = ca.sign("server", "127.0.0.1", |_| {});
    ca.sign("expired", "127.0.0.1", |params| params.not_after = date_time_ymd(2021, 1, 1));
    let right = SpkiPin::of_certificate(&der).unwrap();
    let wrong = SpkiPin::new([7; 32]);
    good(ca.client().pins([wrong, right]), ca.server("server")).await;
    let (client, _) = bad(ca.client().pins([wrong]), ca.server("server")).await;
    assert!(matches!(&client, TlsError::PinMismatch { presented } if *presented == right.to_string()));
    assert_eq!(client.origin(), Origin::Peer);

    // A pin does not make up for a bad chain, nor does the authority's pin stand for the server's.
    let stranger = Authority::new();
    let (client, _) = bad(stranger.client().pins([right]), ca.server("server")).await;
    assert!(matches!(client, TlsError::UnknownCa), "{client:?}");
    let authority = SpkiPin::of_certificate(ca.issuer.der()).unwrap();
    let (client, _) = bad(ca.client().pins([authority]), ca.server("server")).await;
    assert!(matches!(client, TlsError::PinMismatch { .. }), "{client:?}");

    // In base64 each of these begins otherwise, the second with the slash that ends a prefix.
    for pin in [right, SpkiPin::new([0xff; 32]), SpkiPin::new([0; 32])] {
        let text = pin.to_string();
        assert_eq!(text.len(), 44);
        for form in [&text, text.trim_end_matches('='), &format!("sha256//{text}"), &format!("sha256/{text}")]
        {
            assert_eq!(form.parse(), Ok(pin), "{form}");
        }
        for not in ["", "AAAA", "x", &text[1..], &format!("{text}A"), &format!("sha256///{text}")] {
            assert!(not.parse::<SpkiPin>().is_err(), "{not}");
        }
    }
}

#[tokio::test]
async fn pins_are_those_that_openssl_computes() {
    let Some(_) = openssl() else { return };
    let ca = Authority::new();
    let der = ca.sign("server", "127.0.0.1", |_| {});
    let script = "openssl x509 -pubkey -noout -in $0 | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64";
    let output = Command::new("sh").args(["-c", script]).arg(ca.cert("server")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.trim(), SpkiPin::of_certificate(&der).unwrap().to_string());
}

#[tokio::test]
async fn mutual_tls_lets_in_those_with_a_certificate_and_nobody_else() {
    let (ca, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    ca.sign("server", "127.0.0.1", |_| {});
    let der = clients.sign("me", "me.example", |_| {});
    strangers.sign("other", "other.example", |_| {});
    let server = || ca.server("server").client_ca_file(clients.ca());

    let me = ca.client().identity(clients.cert("me"), clients.key("me"));
    let (_, (reader, _writer)) = good(me, server()).await;
    assert_eq!(reader.peer_certificates(), [der]);

    for version in [TlsVersion::V1_3, TlsVersion::V1_2] {
        let (client, server) = bad(ca.client().min_version(version), server().min_version(version)).await;
        assert!(matches!(client, TlsError::ClientCertificateRequired), "{client:?}");
        assert!(client.to_string().contains("client certificate"), "{client}");
        assert!(matches!(server, TlsError::ClientCertificateMissing), "{server:?}");
        assert_eq!((client.origin(), server.origin()), (Origin::Caller, Origin::Peer));
    }

    let other = ca.client().identity(strangers.cert("other"), strangers.key("other"));
    let (client, server) = bad(other, server()).await;
    assert!(matches!(client, TlsError::Refused { .. } | TlsError::Alert { .. }), "{client:?}");
    assert!(matches!(server, TlsError::UnknownCa), "{server:?}");
}

/// Lets a peer that only knows TLS 1.2 handshake with `config`.
async fn against_tls_1_2(config: TlsClientConfig, ca: &Authority) -> std::io::Result<Pair> {
    let openssl = SServer::start(ca, &["-tls1_2"]);
    tls::connect("127.0.0.1", openssl.port, &config, &TcpOptions::default()).await
}

#[tokio::test]
async fn tls_1_2_is_refused_unless_asked_for() {
    let Some(_) = openssl() else { return };
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let error = against_tls_1_2(ca.client().build().unwrap(), &ca).await.unwrap_err();
    let error = TlsError::of_io(&error).expect("told by TLS");
    assert!(matches!(error, TlsError::Version), "{error:?}");
    assert!(error.to_string().contains("min-version=1.2"));
    let config = ca.client().min_version(TlsVersion::V1_2).build().unwrap();
    let (reader, _writer) = against_tls_1_2(config, &ca).await.unwrap();
    assert_eq!(reader.version(), TlsVersion::V1_2);

    for (min, accepted) in [(TlsVersion::V1_3, false), (TlsVersion::V1_2, true)] {
        let config = ca.server("server").min_version(min).build().unwrap();
        let mut listener = Listener::bind("127.0.0.1:0", config).await.unwrap();
        let client = s_client(&ca, listener.local_addr().unwrap().port(), &["-tls1_2"]);
        let (_, outcome) = tokio::time::timeout(LIMIT, listener.accept_any()).await.unwrap().unwrap();
        match outcome {
            Ok((reader, _writer)) => assert!(accepted && reader.version() == TlsVersion::V1_2),
            Err(error) => assert!(!accepted && matches!(error, TlsError::Version), "{error:?}"),
        }
        assert_eq!(listener.failures(), u64::from(!accepted));
        drop(client);
    }
}

#[tokio::test]
async fn application_protocols_are_agreed_on_or_the_connection_is_refused() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let (near, far) =
        good(ca.client().alpn(["other", "mcp"]), ca.server("server").alpn(["mcp", "http/1.1"])).await;
    assert_eq!(near.0.alpn().as_deref(), Some(&b"mcp"[..]));
    assert_eq!(far.0.alpn().as_deref(), Some(&b"mcp"[..]));

    let (client, server) = bad(ca.client().alpn(["h2"]), ca.server("server").alpn(["mcp"])).await;
    assert!(matches!(client, TlsError::Alpn), "{client:?}");
    assert!(matches!(server, TlsError::Alpn), "{server:?}");

    // One side does not know of it at all.
    let config = ca.server("server").build().unwrap();
    let (client, _) = meet(&ca.client().alpn(["mcp"]).build().unwrap(), &config).await;
    let error = client.unwrap_err();
    assert!(matches!(TlsError::of_io(&error), Some(TlsError::Alpn)), "{error:?}");
    good(ca.client().alpn(["mcp"]).require_alpn(false), ca.server("server")).await;
    let config = ca.server("server").alpn(["mcp"]).build().unwrap();
    let (_, server) = meet(&ca.client().build().unwrap(), &config).await;
    assert!(matches!(server, Err(TlsError::Alpn)), "{server:?}");
    good(ca.client(), ca.server("server").alpn(["mcp"]).require_alpn(false)).await;
    assert!(matches!(ca.client().alpn([""]).build(), Err(TlsConfigError::BadAlpn)));
}

/// Passes bytes between two sockets until told to cut, then ends both without a word.
async fn cut_after(server: u16, cut: tokio::sync::oneshot::Receiver<()>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(("127.0.0.1", server)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = cut => {}
        }
    });
    port
}

#[tokio::test]
async fn a_cut_connection_is_not_taken_for_its_end() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let mut listener = Listener::bind("127.0.0.1:0", ca.server("server").build().unwrap()).await.unwrap();
    for raw in [true, false] {
        let (cut, told) = tokio::sync::oneshot::channel();
        let port = cut_after(listener.local_addr().unwrap().port(), told).await;
        let client = ca.client().build().unwrap();
        let options = TcpOptions::default();
        let (near, far) = tokio::join!(tls::connect("127.0.0.1", port, &client, &options), listener.accept());
        let ((mut reader, mut writer), (far_reader, mut far_writer, _)) = (near.unwrap(), far.unwrap());
        // Ends between two messages, so only TLS can tell that something may be missing.
        far_writer.write_all(b"\0\0\0\x02hi").await.unwrap();
        if raw {
            reader.read_exact(&mut [0; 6]).await.unwrap();
            cut.send(()).unwrap();
            let error = reader.read_u8().await.unwrap_err();
            assert!(matches!(TlsError::of_io(&error), Some(TlsError::Truncated)), "{error:?}");
            writer.shutdown().await.unwrap_or(());
        } else {
            let mut link = link((reader, writer));
            assert_eq!(link.receive().await.unwrap(), "hi");
            cut.send(()).unwrap();
            let error = link.receive().await.unwrap_err();
            assert!(matches!(error, Error::Ended(End::Reset)), "{error:?}");
            assert!(!error.is_clean_end());
        }
        drop((far_reader, far_writer));
    }
}

#[tokio::test]
async fn what_came_before_a_forged_record_is_delivered_and_the_rest_refused() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let mut listener = Listener::bind("127.0.0.1:0", ca.server("server").build().unwrap()).await.unwrap();
    let between = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = between.local_addr().unwrap().port();
    let server = listener.local_addr().unwrap();
    let (inject, told) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (near, _) = between.accept().await.unwrap();
        let far = tokio::net::TcpStream::connect(server).await.unwrap();
        let (mut near_reader, mut near_writer) = near.into_split();
        let (mut far_reader, mut far_writer) = far.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut near_reader, &mut far_writer).await });
        tokio::select! {
            _ = tokio::io::copy(&mut far_reader, &mut near_writer) => {}
            _ = told => {}
        }
        let forged = [&[23, 3, 3, 0, 32][..], &[0x55; 32]].concat();
        near_writer.write_all(&forged).await.unwrap();
        tokio::time::sleep(LIMIT).await;
    });
    let client = ca.client().build().unwrap();
    let options = TcpOptions::default();
    let (near, far) = tokio::join!(tls::connect("127.0.0.1", port, &client, &options), listener.accept());
    let ((mut reader, _writer), (mut far_reader, mut far_writer, _)) = (near.unwrap(), far.unwrap());
    far_writer.write_all(b"good").await.unwrap();
    let mut got = [0; 4];
    reader.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"good");
    inject.send(()).unwrap();
    let error = reader.read_u8().await.unwrap_err();
    let error = TlsError::of_io(&error).unwrap();
    assert!(matches!(error, TlsError::Protocol { .. }), "{error:?}");
    assert_eq!(error.origin(), Origin::Peer);
    // The server is told, though nothing of the client's writes any more.
    let error = tokio::time::timeout(LIMIT, far_reader.read_u8()).await.unwrap().unwrap_err();
    assert!(matches!(TlsError::of_io(&error), Some(TlsError::Alert { .. })), "{error:?}");
}

#[tokio::test]
async fn a_silent_peer_is_given_up_and_holds_nobody_up() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let short = Duration::from_millis(200);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let config = ca.client().handshake_timeout(short).build().unwrap();
    let error = tls::connect("127.0.0.1", port, &config, &TcpOptions::default()).await.unwrap_err();
    assert!(
        matches!(TlsError::of_io(&error), Some(TlsError::HandshakeTimedOut { after }) if *after == short)
    );

    let config = ca.server("server").handshake_timeout(Duration::from_millis(500)).build().unwrap();
    let mut listener = Listener::bind("127.0.0.1:0", config).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(tokio::net::TcpStream::connect(addr).await.unwrap());
    }
    let config = ca.client().build().unwrap();
    let options = TcpOptions::default();
    let (client, server) =
        tokio::join!(tls::connect("127.0.0.1", addr.port(), &config, &options), listener.accept());
    client.unwrap();
    server.unwrap();
    for _ in 0..8 {
        let (_, outcome) = listener.accept_any().await.unwrap();
        let error = outcome.unwrap_err();
        assert!(matches!(error, TlsError::HandshakeTimedOut { .. }), "{error:?}");
    }
    assert_eq!(listener.failures(), 8);
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_told_apart() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let mut listener = Listener::bind("127.0.0.1:0", ca.server("server").build().unwrap()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut plain = tokio::net::TcpStream::connect(addr).await.unwrap();
    plain.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n").await.unwrap();
    let error = listener.accept_any().await.unwrap().1.unwrap_err();
    assert!(matches!(error, TlsError::NotTls), "{error:?}");
    drop(tokio::net::TcpStream::connect(addr).await.unwrap());
    let error = listener.accept_any().await.unwrap().1.unwrap_err();
    assert!(matches!(error, TlsError::EndedInHandshake | TlsError::Io(_)), "{error:?}");

    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tokio::time::sleep(LIMIT).await;
    });
    let config = ca.client().build().unwrap();
    let error = tls::connect("127.0.0.1", port, &config, &TcpOptions::default()).await.unwrap_err();
    assert!(matches!(TlsError::of_io(&error), Some(TlsError::NotTls)), "{error:?}");
}

#[tokio::test]
async fn certificates_are_loaded_again_while_connections_live() {
    let ca = Authority::new();
    let first = ca.sign("server", "127.0.0.1", |_| {});
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let server = ca
        .server("server")
        .on_reload(move |done| tell.lock().unwrap().push(done.map_err(ToString::to_string)))
        .build()
        .unwrap();
    let client = ca.client().build().unwrap();
    let presented = async || {
        // Without resumption, which shows the certificate of the first time.
        let client = ca.client().build().unwrap();
        let (client, server) = meet(&client, &server).await;
        let (near, far) = (client.unwrap(), server.unwrap());
        (near.0.peer_certificates()[0].clone(), near, far)
    };
    let (der, near, far) = presented().await;
    assert_eq!(der, first);
    let (mut near, mut far) = (link(near), link(far));

    // On request.
    let second = ca.sign("server", "127.0.0.1", |_| {});
    server.reload().unwrap();
    assert_eq!(presented().await.0, second);

    // What cannot be used is reported and changes nothing.
    std::fs::write(ca.key("server"), "no key").unwrap();
    let error = server.reload().unwrap_err();
    assert!(matches!(&error, TlsConfigError::Pem { what: "private key", .. }), "{error}");
    assert_eq!(presented().await.0, second);

    // By itself.
    let third = ca.sign("server", "127.0.0.1", |_| {});
    tokio::time::sleep(framewire::limits::TLS_CERTIFICATE_CHECK + Duration::from_millis(50)).await;
    assert_eq!(presented().await.0, third);
    // A key that is another's, by itself.
    ca.sign("other", "127.0.0.1", |_| {});
    std::fs::copy(ca.key("other"), ca.key("server")).unwrap();
    tokio::time::sleep(framewire::limits::TLS_CERTIFICATE_CHECK + Duration::from_millis(50)).await;
    assert_eq!(presented().await.0, third);
    let told = told.lock().unwrap().clone();
    assert!(matches!(told.as_slice(), [Ok(()), Err(_), Ok(()), Err(_)]), "{told:?}");
    assert!(told[3].as_ref().unwrap_err().contains("is not that of the certificate"));

    // The first connection has lived through all of it; and a session that is resumed is one, too.
    near.send(b"still").await.unwrap();
    assert_eq!(far.receive().await.unwrap(), "still");
    for _ in 0..2 {
        let (near, far) = meet(&client, &server).await;
        let (mut near, mut far) = (link(near.unwrap()), link(far.unwrap()));
        far.send(b"hello").await.unwrap();
        assert_eq!(near.receive().await.unwrap(), "hello");
    }
}

#[tokio::test]
async fn files_that_changed_in_place_are_loaded_again_whatever_their_dates_say() {
    let ca = Authority::new();
    let pad = || {
        for path in [ca.cert("server"), ca.key("server")] {
            let mut text = std::fs::read(&path).unwrap();
            text.resize(4096, b'\n');
            std::fs::write(path, text).unwrap();
        }
    };
    ca.sign("server", "127.0.0.1", |_| {});
    pad();
    let server = ca.server("server").build().unwrap();
    let dates = [ca.cert("server"), ca.key("server")].map(|path| {
        let dates = std::fs::metadata(&path).unwrap().modified().unwrap();
        (path, dates)
    });
    tokio::time::sleep(framewire::limits::TLS_CERTIFICATE_CHECK + Duration::from_millis(50)).await;
    // As `cp -p` and `rsync --inplace` do; a file that was given to whom may read it has no other date either.
    let second = ca.sign("server", "127.0.0.1", |_| {});
    pad();
    for (path, date) in dates {
        std::fs::File::options().append(true).open(path).unwrap().set_modified(date).unwrap();
    }
    let (near, far) = meet(&ca.client().build().unwrap(), &server).await;
    assert_eq!(near.unwrap().0.peer_certificates()[0], second);
    drop(far);
}

#[test]
fn settings_that_cannot_work_are_told_when_they_are_made() {
    let ca = Authority::new();
    ca.sign("one", "127.0.0.1", |_| {});
    ca.sign("two", "127.0.0.1", |_| {});
    let folder = ca.folder.path();
    std::fs::write(folder.join("text"), "no PEM").unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(folder.join("broken"), broken).unwrap();
    let whole = std::fs::read(ca.cert("one")).unwrap();
    std::fs::write(folder.join("half"), &whole[..whole.len() / 2]).unwrap();
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(folder.join("locked"), locked).unwrap();
    let locked = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                  -----END EC PRIVATE KEY-----\n";
    std::fs::write(folder.join("locked of old"), locked).unwrap();
    let server = |cert: &Path, key: &Path| {
        TlsServerConfig::builder(cert, key).build().expect_err("refused").to_string()
    };
    for (got, expected) in [
        (server(&folder.join("none"), &ca.key("one")), "cannot read"),
        (server(&folder.join("text"), &ca.key("one")), "holds no certificate"),
        (server(&ca.cert("one"), &ca.cert("one")), "holds no private key"),
        (server(&ca.cert("one"), &ca.key("two")), "is not that of the certificate"),
        (server(&folder.join("broken"), &ca.key("one")), "cannot use"),
        (server(&folder.join("half"), &ca.key("one")), "was it written to its end?"),
        (server(&ca.cert("one"), &folder.join("locked")), "is encrypted"),
        (server(&ca.cert("one"), &folder.join("locked of old")), "is encrypted"),
        (
            ca.server("one").client_ca_file(folder.join("text")).build().unwrap_err().to_string(),
            "holds no certificate",
        ),
        (
            TlsClientConfig::builder().ca_file(folder.join("broken")).build().unwrap_err().to_string(),
            "cannot use",
        ),
        (ca.client().server_name("a b").build().unwrap_err().to_string(), "neither a host name"),
        (
            ca.client().identity(ca.cert("one"), ca.key("two")).build().unwrap_err().to_string(),
            "is not that of the certificate",
        ),
    ] {
        assert!(got.contains(expected), "{got}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_both_ways_at_once_do_not_lock() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let (near, far) = good(ca.client(), ca.server("server")).await;
    let payload: Vec<u8> = (0..4 << 20).map(|at: u32| (at % 251) as u8).collect();
    let payload = Arc::new(payload);
    let mut tasks = tokio::task::JoinSet::new();
    for pair in [near, far] {
        let (mut sender, mut receiver) = link(pair).split();
        let (sent, expected) = (payload.clone(), payload.clone());
        tasks.spawn(async move {
            for _ in 0..8 {
                sender.send(&sent).await.unwrap();
            }
            sender.flush().await.unwrap();
            // Kept open until the other has all.
            std::mem::forget(sender);
        });
        tasks.spawn(async move {
            for _ in 0..8 {
                assert!(*receiver.receive().await.unwrap() == **expected);
            }
        });
    }
    let all = async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    };
    tokio::time::timeout(LIMIT * 3, all).await.expect("nothing waits for ever");
}

#[tokio::test]
async fn a_receive_that_is_dropped_at_any_poll_loses_nothing() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let (near, far) = good(ca.client(), ca.server("server")).await;
    let (mut near, mut far) = (link(near), link(far));
    let sizes = [1, 100, 16 * 1024, 0, 100_000, 5, 40_000];
    let sending = tokio::spawn(async move {
        for (at, size) in sizes.iter().cycle().take(140).enumerate() {
            far.send(&vec![at as u8; *size]).await.unwrap();
            if at % 5 == 0 {
                tokio::task::yield_now().await;
            }
        }
        far.close().await.unwrap();
    });
    for (at, size) in sizes.iter().cycle().take(140).enumerate() {
        let mut polls = 0;
        let frame = loop {
            // Dropped after one poll, every time; the waker it left is nobody's, so the task asks again by itself.
            let mut receive = pin!(near.receive());
            match receive.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(done) => break done.unwrap(),
                Poll::Pending => polls += 1,
            }
            assert!(polls < 200_000, "message {at} never came");
            tokio::task::yield_now().await;
        };
        assert_eq!(frame.len(), *size, "message {at}");
        assert!(frame.iter().all(|byte| *byte == at as u8));
    }
    assert!(matches!(near.receive().await, Err(Error::Ended(End::Eof))));
    sending.await.unwrap();
}

/// rustls allocates for each record that it seals or opens, and the same count as with rustls alone is what there is here.
#[tokio::test]
async fn nothing_is_allocated_beside_what_rustls_does_for_a_record() {
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let (near, far) = good(ca.client(), ca.server("server")).await;
    let (mut near, mut far) = (link(near), link(far));
    for (size, records) in [(100, 1), (1 << 10, 1), (15 << 10, 1), (1 << 20, 65)] {
        let payload = vec![b'x'; size];
        let mut least = usize::MAX;
        for _ in 0..8 {
            let before = allocation::calls();
            for _ in 0..20 {
                let (sent, received) = tokio::join!(near.send(&payload), far.receive_lent());
                sent.unwrap();
                assert_eq!(received.unwrap().len(), size);
            }
            least = least.min(allocation::calls() - before);
        }
        let each = least as f64 / 20.0;
        println!("{size} bytes: {each} allocations a message, {:.2} a record", each / f64::from(records));
        assert!(each <= 5.0 * f64::from(records) + 1.0, "{size}: {each}");
    }
}

/// `openssl`, or word that this is passed over; in CI it has to be there.
fn openssl() -> Option<()> {
    let there =
        Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok_and(|is| is.success());
    if !there {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI needs openssl");
        println!("passed over: there is no openssl here");
        return None;
    }
    Some(())
}

/// `openssl s_client`, ended when dropped.
fn s_client(ca: &Authority, port: u16, more: &[&str]) -> tokio::process::Child {
    tokio::process::Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-connect",
            &format!("127.0.0.1:{port}"),
            "-CAfile",
        ])
        .arg(ca.ca())
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// `openssl s_server`, which prints what comes and sends what it is given; ended when dropped.
struct SServer {
    child: tokio::process::Child,
    port: u16,
}

impl SServer {
    fn start(ca: &Authority, more: &[&str]) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = tokio::process::Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert"])
            .arg(ca.cert("server"))
            .arg("-key")
            .arg(ca.key("server"))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        for _ in 0..200 {
            let listening = std::fs::read_to_string("/proc/net/tcp")
                .is_ok_and(|table| table.contains(&format!("0100007F:{port:04X} 00000000:0000 0A")));
            if listening {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }
}

#[tokio::test]
async fn openssl_s_client_is_served() {
    let Some(()) = openssl() else { return };
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    ca.sign("me", "me.example", |_| {});
    let config = ca.server("server").client_ca_file(ca.ca()).build().unwrap();
    let mut listener = Listener::bind("127.0.0.1:0", config).await.unwrap();
    let (cert, key) = (ca.cert("me"), ca.key("me"));
    let more = ["-cert", cert.to_str().unwrap(), "-key", key.to_str().unwrap()];
    let mut client = s_client(&ca, listener.local_addr().unwrap().port(), &more);
    let (reader, writer, _) = tokio::time::timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    assert_eq!(reader.version(), TlsVersion::V1_3);
    let mut link = Link::pair(Newline::new(), reader, writer);
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"{\"id\":1}\n").await.unwrap();
    assert_eq!(link.receive().await.unwrap(), "{\"id\":1}");
    link.send(b"{\"result\":1}").await.unwrap();
    link.flush().await.unwrap();
    let mut out = [0; 13];
    client.stdout.as_mut().unwrap().read_exact(&mut out).await.unwrap();
    assert_eq!(&out, b"{\"result\":1}\n");
    // It ends with close_notify, and takes ours for the end.
    link.close().await.unwrap();
    drop(stdin);
    let status = tokio::time::timeout(LIMIT, client.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_client_that_wants_to_renegotiate_is_told_at_once_that_it_cannot() {
    let Some(()) = openssl() else { return };
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let config = ca.server("server").min_version(TlsVersion::V1_2).build().unwrap();
    let mut listener = Listener::bind("127.0.0.1:0", config).await.unwrap();
    let mut client = tokio::process::Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect"])
        .arg(listener.local_addr().unwrap().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (reader, writer, _) = tokio::time::timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let mut link = Link::pair(Newline::new(), reader, writer);
    // Its command to renegotiate; it waits for the answer, and goes when that is no (RFC 5246 §7.2.2).
    client.stdin.as_mut().unwrap().write_all(b"R\n").await.unwrap();
    let ended = tokio::time::timeout(LIMIT, async { tokio::join!(link.receive(), client.wait()) }).await;
    let (received, _left) = ended.expect("it does not wait for ever");
    assert!(received.is_err(), "{received:?}");
}

#[tokio::test]
async fn openssl_s_server_is_connected_to() {
    let Some(()) = openssl() else { return };
    let ca = Authority::new();
    ca.sign("server", "127.0.0.1", |_| {});
    let mut server = SServer::start(&ca, &["-alpn", "mcp"]);
    let config = ca.client().alpn(["mcp"]).build().unwrap();
    let (reader, writer) =
        tls::connect("127.0.0.1", server.port, &config, &TcpOptions::default()).await.unwrap();
    assert_eq!(reader.alpn().as_deref(), Some(&b"mcp"[..]));
    let mut link = Link::pair(Newline::new(), reader, writer);
    link.send(b"{\"id\":1}").await.unwrap();
    link.flush().await.unwrap();
    let mut out = [0; 9];
    server.child.stdout.as_mut().unwrap().read_exact(&mut out).await.unwrap();
    assert_eq!(&out, b"{\"id\":1}\n");
    server.child.stdin.as_mut().unwrap().write_all(b"{\"result\":1}\n").await.unwrap();
    assert_eq!(link.receive().await.unwrap(), "{\"result\":1}");
    // Killed, it says no close_notify.
    server.child.kill().await.unwrap();
    let error = tokio::time::timeout(LIMIT, link.receive()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Ended(End::Reset)), "{error:?}");
}

#[tokio::test]
async fn a_handshake_that_is_dropped_closes_the_connection() {
    let ca = Authority::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = ca.client().build().unwrap();
    let (reader, writer) = tcp::connect(("127.0.0.1", port), &TcpOptions::default()).await.unwrap();
    let (mut there, _) = listener.accept().await.unwrap();
    {
        let mut handshake = pin!(config.handshake("127.0.0.1", reader, writer));
        let poll = handshake.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending());
    }
    let mut rest = Vec::new();
    tokio::time::timeout(LIMIT, there.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.starts_with(&[22, 3, 1]), "a ClientHello and then the end");
}
