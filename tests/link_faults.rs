//! The reader or the writer fails at every byte: what came before arrives unchanged, in order and once; the caller is
//! told what happened, by an error of the right type, and is told again whenever it asks; nothing hangs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/script.rs"]
mod script;
#[path = "support/wire.rs"]
mod wire;

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use framewire::{
    Error, Frame, Link,
    codec::Newline,
    error::{Deadline, End},
    io::memory,
    link::LinkConfig,
};
use oracle::Outcome;
use script::{Act, ScriptedReader, ScriptedWriter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use wire::{FORMS, Form, Framing, Headed, Lines, Prefixed, StrictLines, Unframed, WAYS, Way, soon, waits};

/// Payload bytes that a message may have.
const LIMIT: usize = 12;

/// Several messages, one of them over the limit.
fn messages() -> Vec<Vec<u8>> {
    ["{}", "a", "twelve bytes", "thirteen byte", "[1,2,3]", "last"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// How the bytes come: whole, in pieces, with waits between them.
fn pieces() -> [Vec<Act>; 4] {
    use Act::{Pending, Take};
    [vec![], vec![Take(1)], vec![Take(3), Pending], vec![Pending, Pending, Take(7), Take(1)]]
}

fn silent() -> ScriptedReader {
    ScriptedReader::new([], []).after(Act::Never)
}

/// Every byte at which something may happen, and nothing after the end.
fn every_cut(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..=bytes.len()).map(|cut| &bytes[..cut])
}

/// What is received when the stream goes on for ever after `cut` bytes, or fails: the messages that are whole by then.
/// A fault may be told as soon as its message's head is there.
fn assert_whole_messages<F: Framing>(got: &[Outcome], cut: usize, what: &str) {
    let messages = messages();
    let all = F::outcomes(&F::wire(&messages), LIMIT);
    let whole = F::ends(&messages).iter().filter(|&&end| end <= cut).count();
    let ahead = got.len() == whole + 1 && matches!(all.get(whole), Some(Outcome::Fault(_)));
    assert!(got.len() == whole || ahead, "{what}: {} of {whole} messages", got.len());
    assert_eq!(got, &all[..got.len()], "{what}");
}

async fn reader_ends<F: Framing>() {
    let bytes = F::wire(&messages());
    for cut in every_cut(&bytes) {
        for acts in pieces() {
            for form in FORMS {
                let what = format!("{}, {} bytes, {acts:?}, {form:?}", F::NAME, cut.len());
                let reader = ScriptedReader::new(cut, acts.clone());
                let mut link = Link::pair(F::codec(LIMIT), reader, tokio::io::sink());
                let mut got = Vec::new();
                for _ in 0..3 {
                    let error = soon(&what, wire::receive_all(&mut link, form, &mut got)).await;
                    assert!(matches!(error, Error::Ended(End::Eof)), "{what}: {error}");
                    assert!(error.is_clean_end() && link.is_ended());
                }
                assert_eq!(got, F::outcomes(cut, LIMIT), "{what}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_reader_ends_at_every_byte() {
    reader_ends::<Lines>().await;
    reader_ends::<StrictLines>().await;
    reader_ends::<Prefixed>().await;
    reader_ends::<Headed>().await;
    reader_ends::<Unframed>().await;
}

async fn reader_fails<F: Framing>() {
    let bytes = F::wire(&messages());
    for kind in [ErrorKind::ConnectionReset, ErrorKind::PermissionDenied] {
        for cut in every_cut(&bytes) {
            for acts in pieces() {
                for form in FORMS {
                    let what = format!("{}, {kind} after {} bytes, {acts:?}, {form:?}", F::NAME, cut.len());
                    let reader = ScriptedReader::new(cut, acts.clone()).after(Act::Fail(kind));
                    let mut link = Link::pair(F::codec(LIMIT), reader, tokio::io::sink());
                    let mut got = Vec::new();
                    for _ in 0..3 {
                        let error = soon(&what, wire::receive_all(&mut link, form, &mut got)).await;
                        match &error {
                            Error::Ended(End::Reset) => {
                                assert_ne!(kind, ErrorKind::PermissionDenied, "{what}")
                            }
                            Error::Io(error) => {
                                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}")
                            }
                            other => panic!("{what}: {other}"),
                        }
                        assert!(error.is_fatal() && !error.is_clean_end(), "{what}");
                    }
                    assert_whole_messages::<F>(&got, cut.len(), &what);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_reader_fails_at_every_byte() {
    reader_fails::<Lines>().await;
    reader_fails::<Prefixed>().await;
    reader_fails::<Headed>().await;
    reader_fails::<Unframed>().await;
}

async fn reader_stays_silent<F: Framing>() {
    let bytes = F::wire(&messages());
    for cut in every_cut(&bytes) {
        for acts in pieces() {
            for form in FORMS {
                let what = format!("{}, silent after {} bytes, {acts:?}, {form:?}", F::NAME, cut.len());
                let reader = ScriptedReader::new(cut, acts.clone()).after(Act::Never);
                let mut link = Link::pair(F::codec(LIMIT), reader, tokio::io::sink());
                let mut got = Vec::new();
                for _ in 0..2 {
                    assert!(waits(wire::receive_all(&mut link, form, &mut got)).await, "{what}");
                }
                assert!(!link.is_ended(), "{what}");
                assert_whole_messages::<F>(&got, cut.len(), &what);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_reader_stays_silent_after_every_byte() {
    reader_stays_silent::<Lines>().await;
    reader_stays_silent::<Prefixed>().await;
    reader_stays_silent::<Headed>().await;
    reader_stays_silent::<Unframed>().await;
}

/// Says `kind` once, and is silent from then on.
struct FailsOnce(Option<ErrorKind>);

impl AsyncRead for FailsOnce {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.take().map_or(Poll::Pending, |kind| Poll::Ready(Err(kind.into())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_told_again_though_the_reader_does_not_repeat_it() {
    for form in FORMS {
        let mut link =
            Link::pair(Newline::new(), FailsOnce(Some(ErrorKind::ConnectionReset)), tokio::io::sink());
        for _ in 0..3 {
            let error = soon("told again", wire::receive_all(&mut link, form, &mut vec![])).await;
            assert!(matches!(error, Error::Ended(End::Reset)), "{error}");
            assert!(link.is_ended());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_error_is_told_again_though_the_reader_does_not_repeat_it() {
    for form in FORMS {
        let mut link =
            Link::pair(Newline::new(), FailsOnce(Some(ErrorKind::PermissionDenied)), tokio::io::sink());
        for _ in 0..3 {
            let error = soon("told again", wire::receive_all(&mut link, form, &mut vec![])).await;
            assert!(error.is_fatal() && !error.is_clean_end(), "{error}");
            assert!(link.is_ended());
        }
    }
}

/// What a writer does for ever once it has taken so many bytes, and what the caller is told.
const REFUSALS: [(Act, &str); 3] = [
    (Act::Fail(ErrorKind::BrokenPipe), "reset"),
    (Act::Fail(ErrorKind::PermissionDenied), "denied"),
    (Act::End, "reset"),
];

fn assert_told(error: &Error, told: &str, what: &str) {
    match error {
        Error::Ended(End::Reset) => assert_eq!(told, "reset", "{what}"),
        Error::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
            assert_eq!(told, "denied", "{what}")
        }
        other => panic!("{what}: {other}"),
    }
}

/// How a writer takes bytes until then. The flag: of a vectored write it takes the first slice only.
fn takes() -> [(Vec<Act>, bool); 4] {
    use Act::{Pending, Take};
    [
        (vec![], false),
        (vec![Take(1)], false),
        (vec![Take(5), Pending], true),
        (vec![Pending, Take(1000), Pending, Take(3)], false),
    ]
}

/// The same with few calls for each byte, for messages of thousands of bytes.
fn takes_much() -> [(Vec<Act>, bool); 3] {
    use Act::{Pending, Take};
    [(vec![], false), (vec![Take(1000), Pending], true), (vec![Pending, Take(4099), Take(1)], false)]
}

async fn writer_fails_at<F: Framing>(
    payloads: &[Vec<u8>],
    cut: usize,
    (acts, one_slice): &(Vec<Act>, bool),
    way: Way,
    running: bool,
) {
    let bytes = F::wire(payloads);
    for (act, told) in REFUSALS {
        let what = format!("{}, {act:?} after {cut} bytes, {acts:?}, {way:?}, {running}", F::NAME);
        let (writer, log) = ScriptedWriter::new(acts.clone());
        let writer = writer.limit(cut, act);
        let writer = if *one_slice { writer.one_slice() } else { writer };
        let mut link = Link::pair(F::codec(1 << 20), silent(), writer);
        let sending = async {
            for payload in payloads {
                wire::send(&mut link, way, payload).await?;
                if running {
                    // The link's own task writes.
                    tokio::task::yield_now().await;
                }
            }
            link.flush().await
        };
        let sent = soon(&what, sending).await;
        assert!(log.bytes() == bytes[..cut], "{what}: {} bytes written", log.bytes().len());
        if cut == bytes.len() {
            // Nothing was refused, for nothing more was written.
            sent.unwrap();
            continue;
        }
        assert_told(&sent.unwrap_err(), told, &what);
        for again in WAYS {
            let sent = soon(&what, wire::send(&mut link, again, b"more")).await;
            assert_told(&sent.unwrap_err(), told, &what);
            assert_told(&soon(&what, link.flush()).await.unwrap_err(), told, &what);
        }
        assert_told(&soon(&what, link.close()).await.unwrap_err(), told, &what);
        for again in WAYS {
            let error = soon(&what, wire::send(&mut link, again, b"more")).await.unwrap_err();
            assert!(matches!(error, Error::Ended(End::Closed)), "{what}: {error}");
        }
        drop(link);
        tokio::task::yield_now().await;
        assert!(log.bytes() == bytes[..cut], "{what}: nothing is written after the failure");
        assert!(log.get().dropped, "{what}: the writer is dropped");
    }
}

async fn writer_fails<F: Framing>() {
    let small: Vec<Vec<u8>> = ["{}", "a", "[1,2]"].map(|text| text.as_bytes().to_vec()).to_vec();
    for cut in 0..=F::wire(&small).len() {
        for take in takes() {
            for way in WAYS {
                writer_fails_at::<F>(&small, cut, &take, way, cut % 2 == 0).await;
            }
        }
    }
    let large = vec![b"{}".to_vec(), vec![b'x'; 4096], b"a".to_vec(), vec![b'y'; 5000], b"b".to_vec()];
    let ends: Vec<usize> = large
        .iter()
        .scan(0, |at, payload| {
            *at += F::frame(payload).len();
            Some(*at)
        })
        .collect();
    let total = F::wire(&large).len();
    let near = |cut: usize| {
        ends.iter().any(|&end| cut.abs_diff(end) <= 3) || cut.is_multiple_of(997) || cut % 4096 < 2
    };
    for cut in (0..=total).filter(|&cut| near(cut)) {
        for take in takes_much() {
            for way in WAYS {
                writer_fails_at::<F>(&large, cut, &take, way, cut % 2 == 0).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_writer_fails_at_every_byte() {
    writer_fails::<Lines>().await;
    writer_fails::<Prefixed>().await;
    writer_fails::<Headed>().await;
    writer_fails::<Unframed>().await;
}

/// Every message is sent while the writer takes so many bytes, waits, and takes the rest; all of them arrive.
async fn writer_waits<F: Framing>() {
    let payloads = vec![b"{}".to_vec(), b"a".to_vec(), vec![b'x'; 4100], b"[1,2]".to_vec()];
    let bytes = F::wire(&payloads);
    let cuts = (1..40).chain(4092..4140).chain([500, 1000, 4000]);
    for cut in cuts {
        for wait in [Act::Pending, Act::Take(1)] {
            for way in WAYS {
                let what = format!("{}, {wait:?} after {cut} bytes, {way:?}", F::NAME);
                let (writer, log) = ScriptedWriter::new([Act::Take(cut), wait, wait]);
                let mut link = Link::pair(F::codec(1 << 20), silent(), writer);
                for payload in &payloads {
                    soon(&what, wire::send(&mut link, way, payload)).await.unwrap();
                    if cut % 2 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                if way != Way::Feed && cut % 3 == 0 {
                    // By itself.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    assert!(log.bytes() == bytes, "{what}");
                }
                soon(&what, link.close()).await.unwrap();
                assert!(log.bytes() == bytes, "{what}");
                assert!(log.get().shut_down, "{what}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_writer_waits_at_every_byte() {
    writer_waits::<Lines>().await;
    writer_waits::<Prefixed>().await;
    writer_waits::<Headed>().await;
    writer_waits::<Unframed>().await;
}

/// A writer that takes so many bytes and no more: the write deadline tells, whatever is called, and goes on telling.
async fn writer_stalls<F: Framing>() {
    let payloads = vec![b"{}".to_vec(), b"[1,2]".to_vec(), b"abc".to_vec()];
    let bytes = F::wire(&payloads);
    for cut in 0..bytes.len() {
        for way in WAYS {
            let what = format!("{}, stalled after {cut} bytes, {way:?}", F::NAME);
            let (writer, log) = ScriptedWriter::new([]);
            let config = LinkConfig::default().write(Duration::from_secs(1)).close(None);
            let mut link = Link::with_config(F::codec(99), silent(), writer.limit(cut, Act::Never), config);
            for payload in &payloads {
                wire::send(&mut link, way, payload).await.unwrap();
            }
            for _ in 0..3 {
                let error = soon(&what, link.flush()).await.unwrap_err();
                assert!(
                    matches!(error, Error::TimedOut { deadline: Deadline::Write, .. }),
                    "{what}: {error}"
                );
                let error = soon(&what, wire::send(&mut link, way, b"more")).await.unwrap_err();
                assert!(
                    matches!(error, Error::TimedOut { deadline: Deadline::Write, .. }),
                    "{what}: {error}"
                );
            }
            assert_eq!(log.bytes(), &bytes[..cut], "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_writer_stalls_at_every_byte() {
    writer_stalls::<Lines>().await;
    writer_stalls::<Prefixed>().await;
    writer_stalls::<Headed>().await;
    writer_stalls::<Unframed>().await;
}

/// The reader fails and the writer goes on, and the other way round.
#[tokio::test(start_paused = true)]
async fn one_direction_fails_alone() {
    let (writer, log) = ScriptedWriter::new([]);
    let reader = ScriptedReader::new("a\n", []).after(Act::Fail(ErrorKind::ConnectionReset));
    let mut link = Link::pair(Newline::new(), reader, writer);
    assert_eq!(link.receive().await.unwrap(), "a");
    assert!(matches!(link.receive().await, Err(Error::Ended(End::Reset))));
    link.send(b"answer").await.unwrap();
    link.close().await.unwrap();
    assert_eq!(log.bytes(), b"answer\n");

    let (writer, _log) = ScriptedWriter::new([]);
    let reader = ScriptedReader::new("a\nb\nc", [Act::Take(1), Act::Pending]);
    let mut link = Link::pair(Newline::new(), reader, writer.limit(1, Act::Fail(ErrorKind::BrokenPipe)));
    link.send(b"lost").await.unwrap();
    let mut got = Vec::new();
    let error = soon("reading on", wire::receive_all(&mut link, Form::Owned, &mut got)).await;
    assert!(matches!(error, Error::Ended(End::Eof)), "{error}");
    assert_eq!(got, Lines::outcomes(b"a\nb\nc", 99));
    assert!(matches!(link.flush().await, Err(Error::Ended(End::Reset))));
}

/// The pair in memory: the peer takes so many bytes and goes, or brings so many bytes and goes.
async fn memory_peer_goes<F: Framing>() {
    let payloads = messages();
    let bytes = F::wire(&payloads);
    for cut in every_cut(&bytes) {
        for capacity in [1, 3, 64, 4096] {
            let what = format!("{}, {} bytes, pipe of {capacity}", F::NAME, cut.len());
            let ((reader, writer), (far_reader, mut far_writer)) = memory::pair(capacity);
            let mut link = Link::pair(F::codec(LIMIT), reader, writer);
            let cut = cut.to_vec();
            let expected = F::outcomes(&cut, LIMIT);
            let bringing = async move {
                far_writer.write_all(&cut).await.unwrap();
                drop((far_reader, far_writer));
            };
            let mut got = Vec::new();
            let receiving = wire::receive_all(&mut link, Form::Owned, &mut got);
            let (error, ()) = soon(&what, async { tokio::join!(receiving, bringing) }).await;
            assert!(matches!(error, Error::Ended(End::Eof)), "{what}: {error}");
            assert_eq!(got, expected, "{what}");
            // The peer has gone, and so do writes fail.
            link.send(b"anybody?").await.unwrap();
            assert_told(&soon(&what, link.flush()).await.unwrap_err(), "reset", &what);
        }
    }
    for taken in 0..bytes.len() {
        let what = format!("{}, the peer takes {taken} bytes", F::NAME);
        let ((reader, writer), (mut far_reader, far_writer)) = memory::pair(1);
        let mut link = Link::pair(F::codec(99), reader, writer);
        let taking = async move {
            let mut got = vec![0; taken];
            far_reader.read_exact(&mut got).await.unwrap();
            drop(far_writer);
            got
        };
        let sending = async {
            for payload in &payloads {
                link.send_frame(Frame::copy_from_slice(payload)).await?;
            }
            link.flush().await
        };
        let (sent, got) = soon(&what, async { tokio::join!(sending, taking) }).await;
        assert_told(&sent.unwrap_err(), "reset", &what);
        assert_eq!(got, &bytes[..taken], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_peer_in_memory_goes_at_every_byte() {
    memory_peer_goes::<Lines>().await;
    memory_peer_goes::<StrictLines>().await;
    memory_peer_goes::<Prefixed>().await;
    memory_peer_goes::<Headed>().await;
    memory_peer_goes::<Unframed>().await;
}
