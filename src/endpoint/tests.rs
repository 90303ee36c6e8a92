use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Endpoint {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => panic!("{text} was read as {endpoint:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_form_is_read() {
    assert_eq!(parsed("stdio:").address, Address::Stdio);
    assert_eq!(parsed("demo:").address, Address::Demo);
    assert_eq!(parsed("echo:").address, Address::Echo);
    assert_eq!(parsed("tcp://127.0.0.1:9110").address, Address::Tcp { host: "127.0.0.1".into(), port: 9110 });
    assert_eq!(parsed("tcp://[::1]:0").address, Address::Tcp { host: "::1".into(), port: 0 });
    assert_eq!(parsed("tcp:localhost:80").address, Address::Tcp { host: "localhost".into(), port: 80 });
    assert_eq!(
        parsed("tcp://[fe80::1%eth0]:80").address,
        Address::Tcp { host: "fe80::1%eth0".into(), port: 80 }
    );
    assert_eq!(parsed("unix:x.sock").address, Address::Unix("x.sock".into()));
    assert_eq!(parsed("unix:///run/x").address, Address::Unix("/run/x".into()));
    assert_eq!(parsed("unix:a%3Fb%25").address, Address::Unix("a?b%".into()));
    #[cfg(target_os = "linux")]
    assert_eq!(parsed("unix:@a%3F/b?framing=length").address, Address::Unix("\0a?/b".into()));
    assert_eq!(parsed("unix:%40x").address, Address::Unix("@x".into()));
    assert_eq!(parsed("exec:").address, Address::Exec(vec![]));
    assert_eq!(
        parsed("exec:npx -y 'a b' \"http://h/?framed=1\"").address,
        Address::Exec(vec!["npx".into(), "-y".into(), "a b".into(), "http://h/?framed=1".into()])
    );
}

#[test]
fn options_are_read() {
    assert_eq!(parsed("tcp://h:1?framing=length").framing, Some(Framing::Length));
    assert_eq!(parsed("unix:x?framing=content-length").framing, Some(Framing::ContentLength));
    #[cfg(feature = "json")]
    assert_eq!(parsed("tcp://h:1?framing=json").to_string(), "tcp://h:1?framing=json");
    let endpoint = parsed("stdio:?max-message-size=64KiB&framing=newline");
    assert_eq!((endpoint.framing, endpoint.max_message_size), (Some(Framing::Newline), Some(65536)));
    let endpoint = parsed("exec?framing=length:cat -u");
    assert_eq!(endpoint.framing, Some(Framing::Length));
    assert_eq!(endpoint.address, Address::Exec(vec!["cat".into(), "-u".into()]));
    assert_eq!(parsed("echo:?max-message-size=1MiB").max_message_size, Some(1 << 20));
}

#[test]
fn tls_options_are_read() {
    const PIN: &str = "0/+AqW5Q4mFCSSDgYSS5xwhhrTsA+9HtWLxEVSWzbG0=";
    let text = format!(
        "tls://[::1]:9443?framing=length&ca=/etc/ca%26.pem&cert=c.pem&key=k.pem&pin={PIN},sha256//{PIN}&server-name=h.example&min-version=1.2&alpn=mcp,x%2Cy&client-ca=d"
    );
    let endpoint = parsed(&text);
    let Address::Tls(tls) = &endpoint.address else { panic!("{endpoint:?}") };
    assert_eq!((tls.host.as_str(), tls.port, endpoint.framing), ("::1", 9443, Some(Framing::Length)));
    assert_eq!(tls.ca.as_deref(), Some(Path::new("/etc/ca&.pem")));
    assert_eq!(
        (tls.cert.as_deref(), tls.key.as_deref()),
        (Some(Path::new("c.pem")), Some(Path::new("k.pem")))
    );
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("d")));
    assert_eq!(tls.pins, [PIN.to_owned(), format!("sha256//{PIN}")]);
    assert_eq!(tls.server_name.as_deref(), Some("h.example"));
    assert!(tls.allow_tls_1_2);
    assert_eq!(tls.alpn, ["mcp", "x,y"]);
    assert_eq!(parsed(&endpoint.to_string()), endpoint);
    assert_eq!(parsed("tls://h:1?min-version=1.3"), parsed("tls://h:1"));
}

#[test]
fn a_pin_may_begin_with_a_slash() {
    const PIN: &str = "/7gDVGBau5GsFC8ymVUz6ItrE2YA4BKhJO6LEAfJWnA=";
    for text in [PIN.to_owned(), format!("sha256/{PIN}"), format!("sha256//{PIN}")] {
        let endpoint = parsed(&format!("tls://h:1?pin={text}"));
        let Address::Tls(tls) = &endpoint.address else { panic!("{endpoint:?}") };
        assert_eq!(tls.pins, [text]);
    }
    for text in [format!("/{PIN}"), format!("sha256///{PIN}"), format!("sha256{PIN}")] {
        assert!(format!("tls://h:1?pin={text}").parse::<Endpoint>().is_err(), "{text}");
    }
}

#[test]
fn mistakes_get_an_answer_that_helps() {
    for (text, answer) in [
        ("", "an endpoint is needed"),
        ("stdio", "did you mean stdio:?"),
        ("-", "did you mean stdio:?"),
        ("tcp", "did you mean tcp://HOST:PORT?"),
        ("/run/x.sock", "did you mean unix:/run/x.sock or"),
        ("127.0.0.1:9110", "did you mean tcp://127.0.0.1:9110?"),
        ("[::1]:9110", "did you mean tcp://[::1]:9110?"),
        ("localhost:9110", "did you mean tcp://localhost:9110?"),
        ("tpc://h:1", "did you mean tcp?"),
        ("TCP://h:1", "did you mean tcp?"),
        ("unx:/run/x", "did you mean unix?"),
        ("stido:", "did you mean stdio?"),
        ("ftp://x", "unknown scheme 'ftp'"),
        ("http", "did you mean http://HOST:PORT/PATH?"),
        ("http+unix", "did you mean http+unix:PATH?"),
        ("http:h", "://HOST:PORT/PATH is needed"),
        ("http://h:1#framing=length", "http: carries whole messages"),
        ("http://h:1#ca=x", "unknown option 'ca' (known: max-message-size)"),
        ("ws://h:1#max-size=1", "unknown option 'max-size' (known: max-message-size)"),
        ("wss://h:1#size=1", "unknown option 'size' (known: max-message-size, ca, cert, key,"),
        ("https://h:1#cert=x", "cert=FILE needs key=FILE"),
        ("kafka://h/topic", "'kafka' is reserved"),
        ("tls://h", "a port is missing: tls://h:PORT"),
        ("tls://:1", "a host is missing: tls://HOST:PORT"),
        ("tls", "did you mean tls://HOST:PORT?"),
        ("tls://h:1/x", "does not belong to a tls endpoint"),
        ("tls://h:1?cert=a", "cert=FILE needs key=FILE"),
        ("tls://h:1?key=a", "key=FILE needs cert=FILE"),
        ("tls://h:1?ca=", "option 'ca' needs a value"),
        ("tls://h:1?ca=a&ca=b", "'ca' is given twice"),
        ("tls://h:1?pin=abc", "'abc' is no pin"),
        ("tls://h:1?min-version=1.1", "1.2 and 1.3 are"),
        ("tls://h:1?alpn=mcp,,x", "option 'alpn' needs a value"),
        ("tls://h:1?server_name=x", "did you mean server-name?"),
        ("tls://h:1?insecure=true", "unknown option 'insecure'"),
        ("tcp://h:1?ca=x", "unknown option 'ca' (known: framing, max-message-size)"),
        ("tcp://h", "a port is missing: tcp://h:PORT"),
        ("tcp://[::1]", "a port is missing: tcp://[::1]:PORT"),
        ("tcp://:80", "a host is missing"),
        ("tcp://h:65536", "'65536' is not a port"),
        ("tcp://h:+80", "'+80' is not a port"),
        ("tcp://h:http", "'http' is not a port"),
        ("tcp://h:80/mcp", "'/mcp' does not belong to a tcp endpoint"),
        ("tcp://::1:80", "stands in brackets"),
        ("tcp://[::1:80", "not closed"),
        ("tcp://[h]:80", "brackets hold an IPv6 address"),
        ("tcp://me@h:80", "without path, user or blanks"),
        ("unix:", "it is empty"),
        ("unix://run/x", "absolute path"),
        ("unix:@", "abstract sockets"),
        ("unix:a%2", "%25"),
        ("unix:a%00", "NUL"),
        ("stdio:x", "'x' does not belong to a stdio endpoint"),
        ("exec:a 'b", "' at the end of the command is not closed"),
        ("exec:a | b", "sh -c"),
        ("exec:a b?framing=length", "exec?framing=length:COMMAND"),
        ("tcp://h:1?framing=lenght", "did you mean length?"),
        #[cfg(not(feature = "json"))]
        ("tcp://h:1?framing=json", "needs the json feature"),
        ("tcp://h:1?framign=newline", "did you mean framing?"),
        ("tcp://h:1?", "unknown option ''"),
        ("tcp://h:1?framing=length&framing=length", "given twice"),
        ("tcp://h:1?max-message-size=64k", "did you mean KiB?"),
        ("tcp://h:1?max-message-size=0", "no message fits"),
        ("echo:?framing=length", "echo: carries whole messages"),
    ] {
        let got = refused(text);
        assert!(got.contains(answer), "{text}: {got}");
    }
    let long = format!("unix:/{}", "x".repeat(200));
    assert!(refused(&long).contains("longer than the system allows"));
    let bytes: String = (0..500).map(|_| '\u{1b}').collect();
    let answer = refused(&bytes);
    assert!(answer.len() < 2000 && !answer.contains('\u{1b}'), "peer text is escaped and cut: {answer}");
}

#[test]
fn a_quoted_word_that_looks_like_options_is_written_so_that_it_is_read_back() {
    for text in ["exec:a 'b?framing=length'", "exec:a \"?max-message-size=1\"", "exec:a b\\?framing='x'"] {
        let endpoint = parsed(text);
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint), "{text}");
    }
}

fn endpoints() -> impl Strategy<Value = Endpoint> {
    let host = prop_oneof![
        "[a-z0-9.-]{1,20}",
        any::<std::net::Ipv4Addr>().prop_map(|host| host.to_string()),
        any::<Ipv6Addr>().prop_map(|host| host.to_string()),
    ];
    let address = prop_oneof![
        Just(Address::Stdio),
        Just(Address::Demo),
        Just(Address::Echo),
        (host, any::<u16>()).prop_map(|(host, port)| Address::Tcp { host, port }),
        (
            "[a-z0-9.-]{1,20}",
            any::<u16>(),
            proptest::option::of("[^\0]{1,12}"),
            proptest::option::of("[^\0]{1,12}"),
            proptest::collection::vec("[^\0]{1,8}", 0..3)
        )
            .prop_map(|(host, port, ca, server_name, alpn)| {
                let (cert, key) = (ca.clone().map(PathBuf::from), ca.clone().map(PathBuf::from));
                let ca = ca.map(PathBuf::from);
                Address::Tls(Box::new(TlsAddress {
                    ca,
                    cert,
                    key,
                    server_name,
                    alpn,
                    ..TlsAddress::new(host, port)
                }))
            }),
        "[^\0]{1,25}".prop_map(|path| Address::Unix(path.into())),
        "[^\0]{1,25}".prop_map(|name| {
            let mark = if cfg!(target_os = "linux") { "\0" } else { "" };
            Address::Unix(format!("{mark}{name}").into())
        }),
        proptest::collection::vec("[^\0]{0,12}", 0..4)
            .prop_map(|words| Address::Exec(words.into_iter().map(OsString::from).collect())),
    ];
    let framing = proptest::option::of(prop_oneof![
        Just(Framing::Newline),
        Just(Framing::Length),
        Just(Framing::ContentLength)
    ]);
    (address, framing, proptest::option::of(1..usize::MAX)).prop_map(
        |(address, framing, max_message_size)| {
            let framing = framing.filter(|_| !matches!(address, Address::Demo | Address::Echo));
            Endpoint { address, framing, max_message_size }
        },
    )
}

proptest! {
    #[test]
    fn display_is_read_back(endpoint in endpoints()) {
        prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[test]
    fn any_text_is_read_or_refused_and_what_is_read_is_stable(text in "\\PC*|.*|(exec|tcp|unix|stdio)[:?].{0,40}") {
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }
}
