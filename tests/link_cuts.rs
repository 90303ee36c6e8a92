//! However the bytes of a stream are cut, and wherever a call is dropped, what a link receives and sends is the same:
//! every cut and every pair of cuts of every fixture, and every async function dropped after every number of polls.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/script.rs"]
mod script;
#[path = "support/step.rs"]
mod step;
#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use framewire::{
    Error, Link,
    codec::{ContentLength, LengthPrefix, Newline, Unterminated},
    error::End,
    io::memory,
    link::LinkConfig,
};
use oracle::Outcome;
use script::{Act, ScriptedReader, ScriptedWriter};
use step::{breathe, dropped_after};
use tokio::io::AsyncReadExt;
use wire::{FORMS, Form, Framing, Headed, Lines, Prefixed, StrictLines, Unframed, WAYS, Way, soon};

const LIMIT: usize = 7;

fn silent() -> ScriptedReader {
    ScriptedReader::new([], []).after(Act::Never)
}

/// Streams with everything in them that a decoder tells apart.
fn fixture(name: &str) -> &'static [u8] {
    match name {
        "newline" | "newline, terminated" => {
            b"\xef\xbb\xbf{}\r\n\n\r\n\xef\xbb\xbfa\rb\r\r\ntoo long\r\r\n\xff\n1234567\nlast\r"
        }
        "length prefix" => b"\0\0\0\x02{}\0\0\0\0\0\0\0\x09too large\0\0\0\x07exactly\0\0\0\x05cut",
        "content length" => {
            b"Content-Length: 2\r\n\r\n{}content-length:\t8 \r\nX: y\r\n\r\ntoo longContent-Length: 0\r\n\r\n\
              Content-Length: 7\r\n\r\ncut"
        }
        _ => b"seven\n\0",
    }
}

/// One that breaks the framing behind a good message.
fn broken(name: &str) -> Option<(&'static [u8], Outcome)> {
    match name {
        "content length" => Some((b"Content-Length: 1\r\n\r\naContent-Length: 1\n\nb", Outcome::BadHeader)),
        _ => None,
    }
}

async fn received_in_pieces<F: Framing>(bytes: &[u8], acts: Vec<Act>, form: Form) -> (Vec<Outcome>, Error) {
    let reader = ScriptedReader::new(bytes, acts);
    let mut link = Link::pair(F::codec(LIMIT), reader, tokio::io::sink());
    let mut got = Vec::new();
    let error = wire::receive_all(&mut link, form, &mut got).await;
    (got, error)
}

async fn in_every_way<F: Framing>(bytes: &[u8], expected: &[Outcome], eof: bool) {
    use Act::{Pending, Take};
    for form in FORMS {
        for first in 0..=bytes.len() {
            let mut scripts = vec![
                // Pieces of this size, with and without waits.
                vec![Take(first.max(1))],
                vec![Pending, Take(first.max(1))],
            ];
            for second in first + 1..=bytes.len() {
                scripts.push(vec![
                    Take(first.max(1)),
                    Pending,
                    Take(second - first),
                    Pending,
                    Take(bytes.len()),
                ]);
            }
            for acts in scripts {
                let what = format!("{}, {form:?}, {acts:?}", F::NAME);
                let (got, error) = soon(&what, received_in_pieces::<F>(bytes, acts, form)).await;
                assert_eq!(got, expected, "{what}");
                assert_eq!(matches!(error, Error::Ended(End::Eof)), eof, "{what}: {error}");
            }
        }
    }
}

async fn all_fixtures_in_every_way<F: Framing>() {
    let bytes = fixture(F::NAME);
    in_every_way::<F>(bytes, &F::outcomes(bytes, LIMIT), true).await;
    if let Some((bytes, violation)) = broken(F::NAME) {
        let expected = F::outcomes(bytes, LIMIT);
        assert_eq!(expected.last(), Some(&violation));
        in_every_way::<F>(bytes, &expected, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_pair_of_cuts_newline() {
    all_fixtures_in_every_way::<Lines>().await;
    all_fixtures_in_every_way::<StrictLines>().await;
    all_fixtures_in_every_way::<Unframed>().await;
}

#[tokio::test(start_paused = true)]
async fn every_pair_of_cuts_length_prefix() {
    all_fixtures_in_every_way::<Prefixed>().await;
}

#[tokio::test(start_paused = true)]
async fn every_pair_of_cuts_content_length() {
    all_fixtures_in_every_way::<Headed>().await;
}

/// The options of the codecs, at every cut.
#[tokio::test(start_paused = true)]
async fn every_cut_with_other_options() {
    async fn check<C: framewire::codec::Codec>(codec: impl Fn() -> C, bytes: &[u8], expected: &[Outcome]) {
        for form in FORMS {
            for cut in 1..=bytes.len() {
                for acts in
                    [vec![Act::Take(cut), Act::Pending], vec![Act::Take(cut), Act::Take(1), Act::Pending]]
                {
                    let mut link = Link::pair(codec(), ScriptedReader::new(bytes, acts), tokio::io::sink());
                    let mut got = Vec::new();
                    soon("cut", wire::receive_all(&mut link, form, &mut got)).await;
                    assert_eq!(got, expected, "{form:?}, cut at {cut}");
                }
            }
        }
    }
    let bytes = fixture("newline");
    let strict = || Newline::new().max_size(7).check_utf8(true).unterminated(Unterminated::Fault);
    check(strict, bytes, &oracle::lines(bytes, 7, true, Unterminated::Fault)).await;

    let bytes = b"..\x07\0\0ab..\x08\0\0abc..\x05\0\0..\x04\0\0";
    let prefix = oracle::Prefix {
        width: Some(3),
        endian: framewire::codec::Endian::Little,
        offset: 2,
        counts_head: true,
        adjustment: 0,
    };
    let other = || {
        let codec = LengthPrefix::new().width(3).endian(framewire::codec::Endian::Little);
        codec.offset(2).counts_head(true).max_size(2)
    };
    check(other, bytes, &oracle::prefixed(bytes, 2, prefix)).await;

    let bytes = [&b"\x81\x01"[..], &[b'x'; 129], b"\x01y\x00\x80\x00"].concat();
    let prefix = oracle::Prefix { width: None, offset: 0, counts_head: false, ..prefix };
    check(|| LengthPrefix::new().leb128(), &bytes, &oracle::prefixed(&bytes, 1 << 20, prefix)).await;

    let bytes = [&b"Content-Length: 1\r\n\r\na"[..], &[b'h'; 60]].concat();
    check(|| ContentLength::new().max_head_size(40), &bytes, &oracle::headed(&bytes, 99, 40)).await;
}

/// Large messages, cut around every place where the link's own blocks end.
#[tokio::test(start_paused = true)]
async fn cuts_around_the_ends_of_blocks() {
    async fn check<F: Framing>() {
        let sizes = [1, 511, 512, 513, 4095, 4096, 4097, 65_530, 65_535, 65_536, 65_537, 131_072, 200_000, 3];
        let payloads: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(index, &size)| vec![b'a' + index as u8; size]).collect();
        let bytes = F::wire(&payloads);
        let expected = F::outcomes(&bytes, 1 << 20);
        for form in FORMS {
            for block in [4096, 8192, 65_536, 131_072] {
                for around in 0..7 {
                    let cut = block + around - 3;
                    let reader = ScriptedReader::new(bytes.clone(), [Act::Take(cut), Act::Pending]);
                    let mut link = Link::pair(F::codec(1 << 20), reader, tokio::io::sink());
                    let mut got = Vec::new();
                    soon(cut, wire::receive_all(&mut link, form, &mut got)).await;
                    assert!(got == expected, "{}, {form:?}, pieces of {cut}", F::NAME);
                }
            }
        }
    }
    check::<Lines>().await;
    check::<Prefixed>().await;
    check::<Headed>().await;
    check::<Unframed>().await;
}

// Dropped calls.

/// Receives all of a stream; the `at`th call is dropped after `polls` polls, or every call when `at` is `None`. Whether
/// a call was dropped at all.
async fn receiving_dropped<F: Framing>(
    (bytes, expected): (&[u8], &[Outcome]),
    acts: &[Act],
    form: Form,
    at: Option<usize>,
    polls: usize,
) -> bool {
    let what = format!("{}, {form:?}, call {at:?} dropped after {polls} polls", F::NAME);
    let reader = ScriptedReader::new(bytes, acts.to_vec());
    let mut link = Link::pair(F::codec(1 << 20), reader, tokio::io::sink());
    let (mut got, mut dropped) = (Vec::new(), false);
    for call in 0.. {
        let outcome = if at.is_none_or(|at| at == call) {
            let mut new = Vec::new();
            let outcome = if polls == 0 {
                drop(wire::receive(&mut link, form, &mut new));
                None
            } else {
                dropped_after(polls, wire::receive(&mut link, form, &mut new)).await
            };
            assert!(outcome.is_some() || new.is_empty(), "{what}");
            got.append(&mut new);
            let Some(outcome) = outcome else {
                dropped = true;
                continue;
            };
            outcome
        } else {
            soon(&what, wire::receive(&mut link, form, &mut got)).await
        };
        match outcome {
            Ok(()) => {}
            Err(Error::Ended(End::Eof)) => break,
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert!(got == expected, "{what}");
    dropped
}

async fn receiving_dropped_everywhere<F: Framing>() {
    use Act::{Pending, Take};
    let small = F::wire(&["{}", "a", "[1,2,3]"].map(|text| text.as_bytes().to_vec()));
    let mut cut_off = F::wire(&[b"{}".to_vec(), b"[1,2,3]".to_vec()]);
    cut_off.truncate(cut_off.len() - 2);
    let large = F::wire(&[vec![b'a'; 70_000], b"b".to_vec(), vec![b'c'; 140_000]]);
    let streams: [(&[u8], &[Act]); 4] = [
        (&small, &[Pending, Take(1)]),
        (&small, &[Pending, Take(5)]),
        (&cut_off, &[Pending, Take(1), Pending]),
        (&large, &[Take(19_973), Pending]),
    ];
    for (bytes, acts) in streams {
        let expected = F::outcomes(bytes, 1 << 20);
        for form in FORMS {
            for at in 0.. {
                let mut polls = 0;
                while receiving_dropped::<F>((bytes, &expected), acts, form, Some(at), polls).await {
                    polls += 1;
                }
                if polls == 0 {
                    // There was no such call.
                    break;
                }
            }
            for polls in 1..9 {
                receiving_dropped::<F>((bytes, &expected), acts, form, None, polls).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn receiving_is_dropped_after_every_poll() {
    receiving_dropped_everywhere::<Lines>().await;
    receiving_dropped_everywhere::<StrictLines>().await;
    receiving_dropped_everywhere::<Prefixed>().await;
    receiving_dropped_everywhere::<Headed>().await;
    receiving_dropped_everywhere::<Unframed>().await;
}

/// A call that can be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Send(Way),
    Flush,
    Close,
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Done,
    /// Dropped; the message was not queued.
    Dropped,
}

type TestLink<F> = Link<<F as Framing>::Codec, ScriptedReader, ScriptedWriter>;

async fn call<F: Framing>(link: &mut TestLink<F>, call: Call, payload: &[u8]) -> framewire::Result<()> {
    match call {
        Call::Send(way) => wire::send(link, way, payload).await,
        Call::Flush => link.flush().await,
        Call::Close => link.close().await,
    }
}

async fn call_dropped<F: Framing>(link: &mut TestLink<F>, what: Call, payload: &[u8], polls: usize) -> Fate {
    if polls == 0 {
        drop(call::<F>(link, what, payload));
        return Fate::Dropped;
    }
    match dropped_after(polls, call::<F>(link, what, payload)).await {
        Some(outcome) => {
            outcome.unwrap();
            Fate::Done
        }
        None => Fate::Dropped,
    }
}

/// What is done after a call was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The same call again.
    Again,
    /// The next call at once.
    Next,
    /// Others run, then the next call.
    Breathe,
}

struct Sequence<'a> {
    calls: &'a [(Call, Vec<u8>)],
    acts: &'a [Act],
    high_water: usize,
    after: After,
}

/// Makes all calls; the `at`th is dropped after `polls` polls. Whether it was there to be dropped.
async fn sending_dropped<F: Framing>(sequence: &Sequence<'_>, at: usize, polls: usize) -> bool {
    let Sequence { calls, acts, high_water, after } = sequence;
    let what = format!(
        "{}, {:?} dropped after {polls} polls, {acts:?}, mark {high_water}, {after:?}",
        F::NAME,
        calls[at].0
    );
    let (writer, log) = ScriptedWriter::new(acts.to_vec());
    let config = LinkConfig::default().write_high_water(*high_water).close(None);
    let mut link = Link::with_config(F::codec(1 << 20), silent(), writer, config);
    let (mut accepted, mut dropped, mut closing) = (Vec::new(), false, false);
    for (index, (next, payload)) in calls.iter().enumerate() {
        let mut fate = Fate::Dropped;
        if index == at {
            fate = call_dropped::<F>(&mut link, *next, payload, polls).await;
            dropped = fate == Fate::Dropped;
            closing = *next == Call::Close && polls > 0;
            if *after == After::Breathe {
                breathe().await;
            }
        }
        if fate == Fate::Dropped && (index != at || *after == After::Again) {
            let outcome = soon(&what, call::<F>(&mut link, *next, payload)).await;
            if closing && *next != Call::Close && matches!(next, Call::Send(_)) {
                assert!(matches!(outcome, Err(Error::Ended(End::Closed))), "{what}: a send after a close");
                continue;
            }
            outcome.unwrap();
            fate = Fate::Done;
        }
        match (next, fate) {
            (Call::Send(_), Fate::Done) => accepted.extend(F::frame(payload)),
            (Call::Flush | Call::Close, Fate::Done) => {
                assert!(
                    log.bytes() == accepted,
                    "{what}: {next:?} came back too early or the bytes are wrong"
                );
            }
            (_, Fate::Dropped) => {}
        }
        assert!(log.bytes() == accepted[..log.bytes().len()], "{what}");
    }
    if closing {
        // A close goes on by itself.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(log.get().shut_down, "{what}");
    }
    soon(&what, link.close()).await.unwrap();
    assert!(log.bytes() == accepted, "{what}");
    assert!(log.get().shut_down, "{what}");
    dropped
}

async fn sending_dropped_everywhere<F: Framing>() {
    use Act::{Pending, Take};
    let large = vec![b'x'; 5000];
    let way = |way: Way, payload: &[u8]| (Call::Send(way), payload.to_vec());
    for (size, acts, marks) in [
        (3, vec![Pending, Take(1)], [1, 9]),
        (3, vec![Pending, Pending, Take(4)], [1, 9]),
        (5000, vec![Pending, Take(1999)], [1, 6000]),
    ] {
        let mut calls = vec![way(Way::Send, b"{}"), way(Way::Frame, &large[..size])];
        for each in WAYS {
            calls.push(way(each, &large[..size]));
            calls.push(way(each, b"[]"));
        }
        calls.push((Call::Flush, vec![]));
        calls.push(way(Way::Feed, &large[..size]));
        calls.push((Call::Close, vec![]));
        for high_water in marks {
            for after in [After::Again, After::Next, After::Breathe] {
                let sequence = Sequence { calls: &calls, acts: &acts, high_water, after };
                for at in 0..calls.len() {
                    let mut polls = 0;
                    while sending_dropped::<F>(&sequence, at, polls).await {
                        polls += 1;
                    }
                    assert!(polls > 0);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sending_is_dropped_after_every_poll() {
    sending_dropped_everywhere::<Lines>().await;
    sending_dropped_everywhere::<Prefixed>().await;
    sending_dropped_everywhere::<Headed>().await;
    sending_dropped_everywhere::<Unframed>().await;
}

/// A close that is dropped in the middle goes on by itself, and nothing more is taken.
#[tokio::test(start_paused = true)]
async fn a_dropped_close_goes_on_by_itself() {
    for polls in 1.. {
        let (writer, log) = ScriptedWriter::new([Act::Pending, Act::Take(2)]);
        let mut link = Link::pair(Newline::new(), silent(), writer);
        link.feed(b"queued before the close").await.unwrap();
        let done = dropped_after(polls, link.close()).await.is_some();
        assert!(matches!(link.send(b"more").await, Err(Error::Ended(End::Closed))));
        assert!(matches!(link.receive().await, Err(Error::Ended(End::Closed))));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(log.bytes(), b"queued before the close\n", "{polls} polls");
        assert!(log.get().shut_down, "{polls} polls");
        if done {
            return;
        }
    }
}

/// Outside a runtime, too, a dropped call leaves no half message: the message has left whole, or not at all.
#[test]
fn without_a_runtime_a_dropped_send_leaves_no_half_message() {
    for way in WAYS {
        for (size, acts) in
            [(9, vec![Act::Pending, Act::Take(2)]), (5000, vec![Act::Pending, Act::Take(777)])]
        {
            for polls in 1..14 {
                let (writer, log) = ScriptedWriter::new(acts.clone());
                let mut link = Link::pair(Newline::new(), silent(), writer);
                let messages: Vec<Vec<u8>> = (b'a'..b'g').map(|byte| vec![byte; size]).collect();
                let sent: Vec<bool> = futures::executor::block_on(async {
                    let mut sent = Vec::new();
                    for message in &messages {
                        let outcome = dropped_after(polls, wire::send(&mut link, way, message)).await;
                        sent.push(outcome.map(|outcome| outcome.unwrap()).is_some());
                    }
                    link.close().await.unwrap();
                    sent
                });
                let lines = Lines::outcomes(&log.bytes(), 1 << 20);
                let mut rest = lines.iter();
                for (message, sent) in messages.iter().zip(sent) {
                    let mut look = rest.clone();
                    let found = look.next() == Some(&Outcome::Frame(message.clone()));
                    assert!(found || !sent, "{way:?}, {polls} polls, lost {:?}", message[0] as char);
                    if found {
                        rest = look;
                    }
                }
                assert_eq!(rest.len(), 0, "{way:?}, {polls} polls: half messages or doubles");
            }
        }
    }
}

/// An echo through the pair in memory, every call of both sides dropped after so many polls.
#[tokio::test(start_paused = true)]
async fn an_echo_in_memory_survives_dropped_calls() {
    async fn check<F: Framing>(capacity: usize, near_polls: usize, far_polls: usize) {
        let ((reader, writer), (far_reader, far_writer)) = memory::pair(capacity);
        let config = LinkConfig::default().write_high_water(capacity);
        let near = Link::with_config(F::codec(1 << 20), reader, writer, config.clone());
        let mut far = Link::with_config(F::codec(1 << 20), far_reader, far_writer, config);
        let echoing = async move {
            loop {
                let frame = match dropped_after(far_polls, far.receive()).await {
                    Some(Ok(frame)) => frame,
                    Some(Err(error)) => break assert!(error.is_clean_end(), "{error}"),
                    None => {
                        breathe().await;
                        continue;
                    }
                };
                while dropped_after(far_polls, far.send_frame(frame.clone())).await.is_none() {
                    breathe().await;
                }
            }
            while dropped_after(far_polls, far.close()).await.is_none() {
                breathe().await;
            }
        };
        let asking = async move {
            let (mut sender, mut receiver) = near.split();
            let messages: Vec<Vec<u8>> =
                [1, 2, 30, 4500, 7].iter().zip(b'a'..).map(|(&size, byte)| vec![byte; size]).collect();
            let sending = async {
                for message in &messages {
                    while dropped_after(near_polls, sender.send(message)).await.is_none() {
                        breathe().await;
                    }
                    while dropped_after(near_polls, sender.flush()).await.is_none() {
                        breathe().await;
                    }
                }
                while dropped_after(near_polls, sender.close()).await.is_none() {
                    breathe().await;
                }
            };
            let receiving = async {
                let mut got = Vec::new();
                loop {
                    match dropped_after(near_polls, receiver.receive()).await {
                        Some(Ok(frame)) => got.push(frame.to_vec()),
                        Some(Err(error)) => {
                            break assert!(matches!(error, Error::Ended(End::Eof)), "{error}");
                        }
                        None => breathe().await,
                    }
                }
                got
            };
            let ((), got) = tokio::join!(sending, receiving);
            assert!(got == messages, "{}", F::NAME);
        };
        let what = format!("{}, pipe of {capacity}, {near_polls} and {far_polls} polls", F::NAME);
        soon(&what, async { tokio::join!(echoing, asking) }).await;
    }
    for capacity in [1, 5, 64, 10_000] {
        for (near_polls, far_polls) in [(1, 1), (1, 2), (2, 1), (3, 2), (9, 9)] {
            check::<Lines>(capacity, near_polls, far_polls).await;
            check::<Prefixed>(capacity, near_polls, far_polls).await;
            check::<Headed>(capacity, near_polls, far_polls).await;
        }
    }
    // One message for the stream: it comes back when the stream has ended.
    let ((reader, writer), (mut far_reader, far_writer)) = memory::pair(3);
    let mut link = Link::pair(Unframed::codec(99), reader, writer);
    while dropped_after(1, link.send(b"the whole stream")).await.is_none() {
        breathe().await;
    }
    let taking = async {
        let mut all = Vec::new();
        far_reader.read_to_end(&mut all).await.unwrap();
        drop(far_writer);
        all
    };
    let closing = async {
        while dropped_after(1, link.close()).await.is_none() {
            breathe().await;
        }
    };
    let (all, ()) = soon("whole", async { tokio::join!(taking, closing) }).await;
    assert_eq!(all, b"the whole stream");
}
