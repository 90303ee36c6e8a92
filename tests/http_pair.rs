//! The HTTP client against the HTTP server of this crate: over TCP, Unix sockets and TLS, HTTP/1.1 and HTTP/2, in each
//! era; what is sent arrives, byte for byte and in order.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "http", feature = "tls", unix))]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use framewire::{
    Error,
    error::End,
    io::{
        tls::{self, TlsClientConfig, TlsServerConfig},
        unix,
    },
    transport::{
        PollTransport, Transport,
        http::{
            client::{HttpClient, HttpClientConfig, HttpClientTransport},
            server::{HttpServer, HttpServerConfig, HttpSession, SessionKind},
        },
    },
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};

/// Longer than anything here takes, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a process of tasks, whose tools answer with what they got.
struct World {
    url: String,
    kinds: mpsc::UnboundedReceiver<SessionKind>,
    _folder: tempfile::TempDir,
    ca: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    Tcp,
    Unix,
    /// TLS whose server takes HTTP/2.
    Http2,
    /// TLS whose server knows no application protocols.
    Tls,
}

fn certificates(folder: &Path) -> PathBuf {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    folder.join("ca.pem")
}

async fn world(below: Below) -> World {
    let folder = tempfile::tempdir().unwrap();
    let ca = certificates(folder.path());
    let (server, mut sessions) = HttpServer::new(HttpServerConfig::builder().path("/mcp").build().unwrap());
    let url = match below {
        Below::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (reader, writer) = stream.into_split();
                    let server = server.clone();
                    tokio::spawn(async move { server.serve(reader, writer, "tcp").await });
                }
            });
            format!("http://127.0.0.1:{port}/mcp")
        }
        Below::Unix => {
            let path = folder.path().join("socket");
            let listener = unix::Listener::bind(&path).unwrap();
            tokio::spawn(async move {
                loop {
                    let (reader, writer, _) = listener.accept().await.unwrap();
                    let server = server.clone();
                    tokio::spawn(async move { server.serve(reader, writer, "unix").await });
                }
            });
            format!("http+unix:{}:/mcp", path.display())
        }
        Below::Http2 | Below::Tls => {
            let mut config =
                TlsServerConfig::builder(folder.path().join("cert.pem"), folder.path().join("key.pem"));
            if below == Below::Http2 {
                config = config.alpn(["h2", "http/1.1"]);
            }
            let mut listener = tls::Listener::bind("127.0.0.1:0", config.build().unwrap()).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                loop {
                    let (reader, writer, _) = listener.accept().await.unwrap();
                    let server = server.clone();
                    tokio::spawn(async move { server.serve(reader, writer, "tls").await });
                }
            });
            format!("https://localhost:{port}/mcp")
        }
    };
    let (seen, kinds) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(session) = sessions.accept().await {
            let _gone = seen.send(session.kind());
            tokio::spawn(serve(session));
        }
    });
    World { url, kinds, _folder: folder, ca }
}

/// Answers `initialize`, and each other request with its own params, after two notifications.
async fn serve(mut session: HttpSession) {
    while let Ok(message) = session.receive().await {
        let request: Value = serde_json::from_slice(&message).unwrap();
        let Some(id) = request.get("id") else { continue };
        if request["method"] == "initialize" {
            let result = json!({"jsonrpc": "2.0", "id": id, "result": {"protocolVersion": request["params"]["protocolVersion"], "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}});
            session.send(result.to_string().as_bytes()).await.unwrap();
            continue;
        }
        for step in 1..=2 {
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": request["params"]["_meta"]["progressToken"], "progress": step}});
            session.send(progress.to_string().as_bytes()).await.unwrap();
        }
        // As it came, so that what no parser keeps is there too.
        let text = String::from_utf8(message).unwrap();
        let params = text.split_once("\"params\":").unwrap().1.strip_suffix('}').unwrap();
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{params}}}"#);
        session.send(answer.as_bytes()).await.unwrap();
    }
}

async fn client(world: &World) -> HttpClientTransport {
    let tls = TlsClientConfig::builder()
        .ca_file(&world.ca)
        .alpn(["h2", "http/1.1"])
        .require_alpn(false)
        .build()
        .unwrap();
    let config = HttpClientConfig::builder().tls(tls).build().unwrap();
    HttpClient::connect(&world.url.parse().unwrap(), config).await.unwrap()
}

async fn receive(client: &mut HttpClientTransport) -> String {
    String::from_utf8(timeout(PATIENCE, client.receive()).await.expect("in time").unwrap()).unwrap()
}

async fn initialize(client: &mut HttpClientTransport, revision: &str) {
    let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    client.send(request.to_string().as_bytes()).await.unwrap();
    let answer: Value = serde_json::from_str(&receive(client).await).unwrap();
    assert_eq!(answer["result"]["protocolVersion"], revision, "{answer}");
    client.send(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await.unwrap();
}

/// Sixteen calls at once, each with its notifications in order before its own answer, whose bytes are those sent.
async fn sixteen(client: &mut HttpClientTransport, meta: &str) {
    let filler = "ü".repeat(10_000);
    let params = |id: u32| {
        format!(
            r#"{{"name":"t","_meta":{{"progressToken":{id}{meta}}},"arguments":{{"n":12345678901234567890.10,"x":"{filler}\u00e9"}}}}"#
        )
    };
    for id in 1..=16 {
        let call = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{}}}"#, params(id));
        client.send(call.as_bytes()).await.unwrap();
    }
    let mut steps = [0; 17];
    let mut answered = 0;
    while answered < 16 {
        let text = receive(client).await;
        let message: Value = serde_json::from_str(&text).unwrap();
        if message["method"] == "notifications/progress" {
            let of =
                &mut steps[usize::try_from(message["params"]["progressToken"].as_u64().unwrap()).unwrap()];
            *of += 1;
            assert_eq!(message["params"]["progress"], *of);
        } else {
            let id = u32::try_from(message["id"].as_u64().unwrap()).unwrap();
            assert_eq!(steps[id as usize], 2, "the answer has passed a notification");
            assert_eq!(text, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#, params(id)));
            answered += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_pass_everything_whatever_is_below() {
    for below in [Below::Tcp, Below::Unix, Below::Tls, Below::Http2] {
        let mut world = world(below).await;
        let mut client = client(&world).await;
        initialize(&mut client, "2025-11-25").await;
        assert_eq!(world.kinds.recv().await.unwrap(), SessionKind::Session);
        sixteen(&mut client, "").await;
        let stats = client.stats();
        assert_eq!((stats.requests, stats.answers, stats.errors, stats.strays), (17, 17, 0, 0), "{below:?}");
        // HTTP/2 needs one; each of HTTP/1.1 carries one request at a time.
        assert_eq!(stats.connections == 1, below == Below::Http2, "{below:?}: {stats:?}");
        timeout(PATIENCE, client.close()).await.unwrap().unwrap();
        let end = std::future::poll_fn(|cx| client.poll_receive(cx)).await;
        assert!(matches!(end, Err(Error::Ended(End::Closed))), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_stands_alone_in_the_newest_revision() {
    let mut world = world(Below::Tcp).await;
    let mut client = client(&world).await;
    let meta = r#","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}"#;
    sixteen(&mut client, meta).await;
    for _ in 0..16 {
        assert_eq!(world.kinds.recv().await.unwrap(), SessionKind::Stateless);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_endpoints_pass_everything() {
    let mut world = world(Below::Tcp).await;
    // Where the server has only the old transport: POST is refused there.
    world.url = world.url.replace("/mcp", "/sse");
    let mut client = client(&world).await;
    initialize(&mut client, "2024-11-05").await;
    assert_eq!(world.kinds.recv().await.unwrap(), SessionKind::Legacy);
    sixteen(&mut client, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_megabytes_go_there_and_back() {
    let world = world(Below::Tcp).await;
    let mut client = client(&world).await;
    initialize(&mut client, "2025-06-18").await;
    let params = format!(r#"{{"x":"{}"}}"#, "y".repeat(15 * 1024 * 1024));
    let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    client.send(call.as_bytes()).await.unwrap();
    loop {
        let text = receive(&mut client).await;
        if text.len() > 1000 {
            assert_eq!(text, format!(r#"{{"jsonrpc":"2.0","id":1,"result":{params}}}"#));
            break;
        }
    }
}
