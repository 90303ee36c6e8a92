//! The asking side of the opening handshake: however an answer is cut, the verdict is that on the whole; and what is
//! accepted keeps the rules of RFC 6455 §4.2.2, checked by eye on its lines. In the input, the byte 1 stands for the
//! right Sec-WebSocket-Accept. Input: two sizes of pieces, then the answer.
#![no_main]

use framewire::codec::websocket::handshake::{
    Client, Connected, HandshakeError, Request, Server, ServerConfig,
};
use libfuzzer_sys::fuzz_target;

fn client() -> Client {
    let request = Request::new("h.example", "/").unwrap().protocol("mcp").unwrap();
    Client::new(request.protocol("chat").unwrap())
}

/// What a client makes of an answer that comes in pieces of these sizes, in turn.
fn decode(mut client: Client, answer: &[u8], sizes: [usize; 2]) -> Result<Option<Connected>, HandshakeError> {
    let mut here = 0;
    for size in sizes.iter().cycle() {
        here = answer.len().min(here + size.max(&1));
        let verdict = client.decode(&answer[..here])?;
        if verdict.is_some() || here == answer.len() {
            return Ok(verdict);
        }
    }
    unreachable!()
}

/// The right answer to the client's key, as a server gives it.
fn accept(client: &Client) -> String {
    let accepted = Server::new(ServerConfig::new()).decode(client.request()).unwrap().unwrap();
    let response = String::from_utf8(accepted.response).unwrap();
    let line = response.lines().find(|line| line.starts_with("Sec-WebSocket-Accept: ")).unwrap();
    line["Sec-WebSocket-Accept: ".len()..].to_owned()
}

fn check(answer: &[u8], connected: &Connected, accept: &str) {
    let text: String = answer[..connected.consumed].iter().map(|&byte| char::from(byte)).collect();
    let mut lines = text.lines().skip_while(|line| line.is_empty());
    assert!(lines.next().unwrap().starts_with("HTTP/1.1 101"));
    let lines: Vec<(&str, &str)> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_once(':').expect("name and value"))
        .map(|(name, value)| (name, value.trim_matches([' ', '\t'])))
        .collect();
    let values = |name: &str| -> Vec<&str> {
        lines
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
            .collect()
    };
    assert_eq!(values("sec-websocket-accept"), [accept]);
    assert!(values("upgrade").iter().any(|value| value.eq_ignore_ascii_case("websocket")));
    let connection = values("connection").join(",").to_ascii_lowercase();
    assert!(connection.split(',').any(|token| token.trim() == "upgrade"));
    // Neither an extension nor a protocol that was not asked for.
    assert!(
        values("sec-websocket-extensions")
            .iter()
            .all(|value| value.trim_matches([' ', ',', '\t']).is_empty())
    );
    match &connected.protocol {
        Some(protocol) => {
            assert!(protocol == "mcp" || protocol == "chat");
            assert_eq!(values("sec-websocket-protocol"), [protocol]);
        }
        None => assert!(values("sec-websocket-protocol").is_empty()),
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[a, b], template)) = input.split_first_chunk::<2>() else { return };
    let client = client();
    let accept = accept(&client);
    let mut answer = Vec::new();
    for &byte in template {
        if byte == 1 {
            answer.extend_from_slice(accept.as_bytes());
        } else {
            answer.push(byte);
        }
    }
    if answer.len() > 1 << 20 {
        return;
    }
    let whole = decode(client.clone(), &answer, [answer.len(); 2]);
    let cut = decode(client, &answer, [a.into(), b.into()]);
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
            if let Some(connected) = whole {
                check(&answer, connected, &accept);
            }
        }
        (Err(whole), Err(cut)) => assert_eq!(whole.to_string(), cut.to_string()),
        _ => panic!("whole: {whole:?}, cut: {cut:?}"),
    }
});
