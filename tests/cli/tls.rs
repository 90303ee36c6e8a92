//! `tls://` endpoints of the command.

use std::{path::Path, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::harness::{Bridge, run};

struct Files {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { folder: tempfile::tempdir().unwrap(), issuer };
        std::fs::write(files.path("ca.pem"), files.issuer.pem()).unwrap();
        files.sign("server");
        files
    }

    fn sign(&self, name: &str) {
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> String {
        let path: &Path = self.folder.path();
        path.join(name).display().to_string()
    }

    /// `tls://` to listen on.
    fn listen(&self, more: &str) -> String {
        let (cert, key) = (self.path("server.pem"), self.path("server.key"));
        format!("tls://127.0.0.1:0?cert={cert}&key={key}{more}")
    }
}

/// A bridge to `echo:` and the `tls://HOST:PORT` it listens on.
fn echo(listen: &str) -> (Bridge, String) {
    let bridge = Bridge::start(1, &["--listen", listen, "--connect", "echo:"]);
    let address = bridge.endpoints[0].split('?').next().unwrap().to_owned();
    (bridge, address)
}

#[test]
fn lines_pass_over_tls_and_back() {
    let files = Files::new();
    let (_bridge, address) = echo(&files.listen(""));
    let ca = files.path("ca.pem");
    let mut lines: Vec<u8> = (0..2000).flat_map(|n| format!("{{\"id\":{n}}}\n").into_bytes()).collect();
    lines.extend(b"x".repeat(3 << 20));
    lines.push(b'\n');
    let to = format!("{address}?ca={ca}");
    let (code, out, err) = run(&["bridge", "--listen", "stdio:", "--connect", &to], &lines);
    assert_eq!(code, 0, "{err}");
    assert!(out == lines, "bytes in are bytes out");
}

#[test]
fn who_is_refused_learns_why() {
    let files = Files::new();
    files.sign("me");
    let ca = files.path("ca.pem");
    let (mut bridge, address) = echo(&files.listen(&format!("&client-ca={ca}")));
    let refused = |endpoint: &str, code: i32, answer: &str| {
        let (got, _, err) = run(&["bridge", "--listen", "stdio:", "--connect", endpoint], b"{}\n");
        assert!(got == code && err.contains(answer), "{endpoint}: {got} {err}");
    };
    refused(&address, 4, "signed by nobody who is trusted here");
    refused(&format!("{address}?ca={ca}&server-name=h.example"), 4, "not for h.example but for");
    let pin = "0/+AqW5Q4mFCSSDgYSS5xwhhrTsA+9HtWLxEVSWzbG0=";
    refused(&format!("{address}?ca={ca}&pin={pin}"), 4, "none of the pinned ones");
    refused(&format!("{address}?ca={ca}"), 1, "name one (cert and key)");
    bridge.log_line("the client presented no certificate");
    let me = format!("&cert={}&key={}", files.path("me.pem"), files.path("me.key"));
    let (code, out, err) =
        run(&["bridge", "--listen", "stdio:", "--connect", &format!("{address}?ca={ca}{me}")], b"{}\n");
    assert_eq!((code, &out[..]), (0, &b"{}\n"[..]), "{err}");
}

#[test]
fn settings_that_cannot_work_are_told_at_once() {
    let files = Files::new();
    let (ca, cert, key) = (files.path("ca.pem"), files.path("server.pem"), files.path("server.key"));
    std::fs::write(files.path("text"), "no PEM").unwrap();
    let text = files.path("text");
    for (listen, code, answer) in [
        ("tls://127.0.0.1:0".to_owned(), 2, "cert=FILE&key=FILE"),
        (format!("tls://127.0.0.1:0?cert={cert}"), 2, "needs key=FILE"),
        (files.listen(&format!("&ca={ca}")), 2, "client-ca"),
        (format!("tls://127.0.0.1:0?cert={text}&key={key}"), 3, "holds no certificate"),
        (format!("tls://127.0.0.1:0?cert={cert}x&key={key}"), 3, "cannot read"),
        (format!("tls://127.0.0.1:0?cert={cert}&key={cert}"), 3, "holds no private key"),
        (format!("tls://127.0.0.1:0?cert={ca}&key={key}"), 3, "is not that of the certificate"),
    ] {
        let (got, _, err) = run(&["bridge", "--listen", &listen, "--connect", "echo:"], b"");
        assert!(got == code && err.contains(answer), "{listen}: {got} {err}");
    }
    for (connect, code, answer) in [
        ("tls://127.0.0.1:0".to_owned(), 2, "port 0"),
        (format!("tls://127.0.0.1:9?client-ca={ca}"), 2, "client-ca is for listening"),
        (format!("tls://127.0.0.1:9?ca={text}"), 4, "holds no certificate"),
    ] {
        let (got, _, err) = run(&["bridge", "--listen", "stdio:", "--connect", &connect], b"");
        assert!(got == code && err.contains(answer), "{connect}: {got} {err}");
    }
}

#[test]
fn sighup_loads_the_certificate_again() {
    let files = Files::new();
    let (mut bridge, address) = echo(&files.listen(""));
    let to = format!("{address}?ca={}", files.path("ca.pem"));
    files.sign("server");
    bridge.signal("HUP");
    bridge.log_line("certificate loaded again");
    std::fs::write(files.path("server.key"), "broken").unwrap();
    // Not in the same moment as the last, so that it is no second look at the same signal.
    std::thread::sleep(Duration::from_millis(20));
    bridge.signal("HUP");
    bridge.log_line("the certificate stays what it was");
    let (code, out, err) = run(&["bridge", "--listen", "stdio:", "--connect", &to], b"{}\n");
    assert_eq!((code, &out[..]), (0, &b"{}\n"[..]), "{err}");
}
