//! `framewire tap --replay`: plays the client of a recording to a backend and tells how its answers differ.

use std::{collections::BTreeMap, future::poll_fn, path::Path, time::Duration};

use framewire::{
    endpoint::Endpoint,
    gateway::Direction,
    json::{Envelope, Kind},
    transport::{PollTransport, Transport},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    exit::Failure,
    log,
    open::{self, Outgoing},
    recording::{self, Recorded},
    transport::AnyTransport,
};

/// How fast a recording is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Speed {
    /// Each message as soon as what came before it has come again
    Full,
    /// Each message at its time
    Recorded,
}

/// Bytes of a message to show where two differ.
const SHOWN: usize = 200;

/// Plays the recording at `path` to `endpoint`, connection by connection.
pub(crate) fn run(
    path: &Path,
    endpoint: &Endpoint,
    outgoing: &Outgoing,
    speed: Speed,
    patience: Duration,
) -> Result<(), Failure> {
    let cannot = |error| Failure::runtime(format!("cannot read {}: {error}", path.display()));
    let mut connections: BTreeMap<u64, Vec<Recorded>> = BTreeMap::new();
    for message in recording::read(path, outgoing.max).map_err(cannot)? {
        connections.entry(message.connection).or_default().push(message);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    let (mut same, mut differences) = (0, Vec::new());
    for (number, messages) in &connections {
        let got = runtime.block_on(play(*number, messages, endpoint, outgoing, speed, patience))?;
        let expected: Vec<&[u8]> = messages
            .iter()
            .filter(|message| message.direction == Direction::ToClient)
            .map(|message| &*message.payload)
            .collect();
        same += compare(*number, &expected, &got, &mut differences);
    }
    for difference in &differences {
        super::print(difference)?;
    }
    super::print(&format!("{same} messages as recorded, {} not", differences.len()))?;
    if differences.is_empty() {
        Ok(())
    } else {
        Err(Failure::runtime("the replay differs from the recording"))
    }
}

/// Plays one connection; gives what the backend sent.
async fn play(
    number: u64,
    messages: &[Recorded],
    endpoint: &Endpoint,
    outgoing: &Outgoing,
    speed: Speed,
    patience: Duration,
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut opened = open::connect(endpoint, outgoing, number).await?;
    let (begin, first) = (Instant::now(), messages.first().map_or(Duration::ZERO, |message| message.at));
    let mut got = Vec::new();
    let mut before = 0;
    for message in messages {
        if message.direction == Direction::ToClient {
            before += 1;
            continue;
        }
        if speed == Speed::Recorded {
            let due = begin + message.at.saturating_sub(first);
            receive_until(&mut opened.link, &mut got, usize::MAX, due).await;
            sleep_until(due).await;
        }
        receive_until(&mut opened.link, &mut got, before, Instant::now() + patience).await;
        if let Err(error) = Transport::send(&mut opened.link, &message.payload).await {
            let failure = Failure::Connect(format!("{endpoint}: {error}"));
            return Err(opened.blame(endpoint, failure).await);
        }
    }
    receive_until(&mut opened.link, &mut got, before, Instant::now() + patience).await;
    opened.end().await;
    Ok(got)
}

/// Receives until there are `count` messages, the time is up, or no more come.
async fn receive_until(link: &mut AnyTransport, got: &mut Vec<Vec<u8>>, count: usize, until: Instant) {
    while got.len() < count {
        match timeout_at(until, poll_fn(|cx| link.poll_receive(cx))).await {
            Ok(Ok(message)) => got.push(message.to_vec()),
            Ok(Err(error)) if !error.is_fatal() => {}
            _ => return,
        }
    }
}

/// What makes two messages the same one: the id that an answer is for, or the method.
fn key(message: &[u8]) -> Option<(bool, Vec<u8>)> {
    let envelope = Envelope::peek(message).ok()?;
    match envelope.kind() {
        Kind::Response | Kind::Error => Some((true, envelope.raw_id()?.to_vec())),
        _ => Some((false, envelope.method()?.raw().to_vec())),
    }
}

/// How many are as expected; what is not is told.
fn compare(number: u64, expected: &[&[u8]], got: &[Vec<u8>], differences: &mut Vec<String>) -> usize {
    let mut left: Vec<&[u8]> = got.iter().map(Vec::as_slice).collect();
    let mut open = Vec::new();
    for message in expected {
        match left.iter().position(|other| other == message) {
            Some(at) => {
                left.remove(at);
            }
            None => open.push(*message),
        }
    }
    let same = expected.len() - open.len();
    let shown = |message: &[u8]| log::preview(message, SHOWN);
    for message in open {
        let wanted = key(message);
        match left.iter().position(|other| wanted.is_some() && key(other) == wanted) {
            Some(at) => {
                let other = left.remove(at);
                differences.push(format!(
                    "#{number} differs\n  recorded {}\n  now      {}",
                    shown(message),
                    shown(other)
                ));
            }
            None => differences.push(format!("#{number} missing\n  recorded {}", shown(message))),
        }
    }
    differences
        .extend(left.iter().map(|other| format!("#{number} not recorded\n  now      {}", shown(other))));
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_differs() {
        let expected: [&[u8]; 4] = [
            br#"{"jsonrpc":"2.0","id":1,"result":1}"#,
            br#"{"jsonrpc":"2.0","id":2,"result":2}"#,
            br#"{"jsonrpc":"2.0","method":"n"}"#,
            b"noise",
        ];
        let got = [
            br#"{"jsonrpc":"2.0","id":2,"result":3}"#.to_vec(),
            br#"{"jsonrpc":"2.0","id":1,"result":1}"#.to_vec(),
            br#"{"jsonrpc":"2.0","method":"o"}"#.to_vec(),
        ];
        let mut differences = Vec::new();
        assert_eq!(compare(7, &expected, &got, &mut differences), 1);
        let kinds: Vec<&str> = differences.iter().filter_map(|text| text.lines().next()).collect();
        assert_eq!(kinds, ["#7 differs", "#7 missing", "#7 missing", "#7 not recorded"]);
    }
}
