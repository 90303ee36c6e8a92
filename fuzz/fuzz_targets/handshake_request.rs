//! The answering side of the opening handshake: however a request is cut, the verdict is that on the whole; and what is
//! accepted keeps the rules of RFC 6455 §4.2.1, checked by eye on its lines. Input: two sizes of pieces, then the request.
#![no_main]

use framewire::codec::websocket::handshake::{Accepted, HandshakeError, Server, ServerConfig};
use libfuzzer_sys::fuzz_target;

/// What a server makes of a request that comes in pieces of these sizes, in turn.
fn decode(request: &[u8], sizes: [usize; 2]) -> Result<Option<Accepted>, HandshakeError> {
    let config = ServerConfig::new().protocol("mcp").unwrap().protocol("chat").unwrap();
    let mut server = Server::new(config);
    let mut here = 0;
    for size in sizes.iter().cycle() {
        here = request.len().min(here + size.max(&1));
        let verdict = server.decode(&request[..here])?;
        if verdict.is_some() || here == request.len() {
            return Ok(verdict);
        }
    }
    unreachable!()
}

/// The values of all headers of this name.
fn values<'a>(lines: &[(&str, &'a str)], name: &str) -> Vec<&'a str> {
    lines.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect()
}

fn lists(values: &[&str], token: &str) -> bool {
    values.iter().flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

fn check(request: &[u8], accepted: &Accepted) {
    let head = &request[..accepted.consumed];
    assert!(head.ends_with(b"\n"), "a head ends with an empty line");
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let mut lines = text.lines().skip_while(|line| line.is_empty());
    let words: Vec<&str> = lines.next().unwrap().split(' ').collect();
    assert_eq!((words[0], words[2]), ("GET", "HTTP/1.1"));
    assert!(accepted.target.starts_with('/'));
    match words[1].split_once("://") {
        _ if words[1].starts_with('/') => assert_eq!(words[1], accepted.target),
        Some((scheme, rest)) => {
            assert!(scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"));
            assert!(rest.ends_with(accepted.target.strip_prefix("/").unwrap()));
        }
        None => panic!("no target: {}", words[1]),
    }
    let lines: Vec<(&str, &str)> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_once(':').expect("name and value"))
        .map(|(name, value)| (name, value.trim_matches([' ', '\t'])))
        .collect();
    assert_eq!(values(&lines, "host").len(), 1);
    assert!(lists(&values(&lines, "upgrade"), "websocket"));
    assert!(lists(&values(&lines, "connection"), "upgrade"));
    assert_eq!(values(&lines, "sec-websocket-version"), ["13"]);
    let [key] = values(&lines, "sec-websocket-key")[..] else { panic!("one key") };
    assert!(key.len() == 24 && key.ends_with("=="), "16 bytes in base64: {key}");
    if let Some(protocol) = &accepted.protocol {
        let asked = values(&lines, "sec-websocket-protocol");
        assert!(asked.iter().flat_map(|value| value.split(',')).any(|item| item.trim() == protocol));
    }
    let response = std::str::from_utf8(&accepted.response).expect("ASCII");
    assert!(response.starts_with("HTTP/1.1 101 ") && response.ends_with("\r\n\r\n"));
    assert_eq!(
        response.matches("\r\n\r\n").count(),
        1,
        "nothing of the request gets into the answer's lines"
    );
}

fuzz_target!(|input: &[u8]| {
    let Some((&[a, b], request)) = input.split_first_chunk::<2>() else { return };
    let whole = decode(request, [request.len(); 2]);
    let cut = decode(request, [a.into(), b.into()]);
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
            if let Some(accepted) = whole {
                check(request, accepted);
            }
        }
        (Err(whole), Err(cut)) => {
            let response = whole.response();
            assert!(response.starts_with(b"HTTP/1.1 4") || response.starts_with(b"HTTP/1.1 5"), "{whole}");
            assert_eq!(response, cut.response());
        }
        _ => panic!("whole: {whole:?}, cut: {cut:?}"),
    }
});
