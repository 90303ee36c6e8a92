//! Halves, parts and drops: what was accepted leaves and what was read is not lost, whichever half goes first.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/script.rs"]
mod script;
#[path = "support/wire.rs"]
mod wire;

use std::{io::Cursor, time::Duration};

use framewire::{
    Error, Frame, Link,
    codec::{Codec, Decode, Encode, Newline},
    error::{End, Fault},
    io::memory,
    link::LinkConfig,
};
use oracle::Outcome;
use script::{Act, Log, ScriptedReader, ScriptedWriter};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Builder,
    time::timeout,
};
use wire::{Form, Framing, Headed, Lines, Prefixed, Unframed, WAYS, Way, soon, waits};

fn silent() -> ScriptedReader {
    ScriptedReader::new([], []).after(Act::Never)
}

const SECOND: Duration = Duration::from_secs(1);

/// Lets everything happen that can.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

// Putting halves together.

#[tokio::test(start_paused = true)]
async fn halves_of_one_link_go_together_with_all_that_was_under_way() {
    let (writer, log) = ScriptedWriter::new([]);
    let reader = ScriptedReader::new("one\ntwo\nthree\n", [Act::Take(6), Act::Pending]);
    let mut link = Link::pair(Newline::new(), reader, writer);
    let mut accepted = 0;
    for (round, expected) in ["one", "two", "three"].into_iter().enumerate() {
        link.feed(expected.as_bytes()).await.unwrap();
        let (mut sender, mut receiver) = link.split();
        accepted += expected.len() + 1;
        assert_eq!(sender.backlog() + log.bytes().len(), accepted);
        sender.feed(b"more").await.unwrap();
        accepted += 5;
        assert_eq!(receiver.receive().await.unwrap(), expected);
        link = Link::<Newline, _, _>::unsplit(sender, receiver).ok().unwrap();
        assert_eq!(link.counters().frames_received, round as u64 + 1);
        assert_eq!(link.counters().frames_sent, 2 * (round as u64 + 1));
    }
    link.close().await.unwrap();
    assert_eq!(log.bytes(), b"one\nmore\ntwo\nmore\nthree\nmore\n");
}

#[tokio::test(start_paused = true)]
async fn halves_of_two_links_come_back_unchanged() {
    let link = |text: &str| {
        let (writer, log) = ScriptedWriter::new([]);
        (Link::pair(Newline::new(), ScriptedReader::new(text, []), writer), log)
    };
    let ((first, first_log), (second, second_log)) = (link("first\n"), link("second\n"));
    let ((mut to_first, from_first), (mut to_second, from_second)) = (first.split(), second.split());
    to_first.feed(b"a").await.unwrap();
    to_second.feed(b"b").await.unwrap();
    let (to_first, from_second) = Link::<Newline, _, _>::unsplit(to_first, from_second).unwrap_err();
    let (to_second, from_first) = Link::<Newline, _, _>::unsplit(to_second, from_first).unwrap_err();
    let mut first = Link::<Newline, _, _>::unsplit(to_first, from_first).ok().unwrap();
    let mut second = Link::<Newline, _, _>::unsplit(to_second, from_second).ok().unwrap();
    assert_eq!(first.receive().await.unwrap(), "first");
    assert_eq!(second.receive().await.unwrap(), "second");
    first.close().await.unwrap();
    second.close().await.unwrap();
    assert_eq!((first_log.bytes(), second_log.bytes()), (b"a\n".to_vec(), b"b\n".to_vec()));
}

// Dropping halves.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The link as a whole.
    Link,
    SenderFirst,
    ReceiverFirst,
    /// With everything done that can be done in between.
    SenderThenLater,
    ReceiverThenLater,
}

const ORDERS: [Order; 5] =
    [Order::Link, Order::SenderFirst, Order::ReceiverFirst, Order::SenderThenLater, Order::ReceiverThenLater];

async fn dropped<F: Framing>(order: Order, way: Way, size: usize, acts: &[Act], running: bool) {
    let what = format!("{}, {order:?}, {way:?}, {size} bytes, {acts:?}, running {running}", F::NAME);
    let (writer, log) = ScriptedWriter::new(acts.to_vec());
    let mut link = Link::pair(F::codec(1 << 20), silent(), writer);
    let mut accepted = Vec::new();
    if running {
        link.send(b"first").await.unwrap();
        tokio::task::yield_now().await;
        accepted.extend(F::frame(b"first"));
    }
    for byte in b'a'..b'e' {
        let message = vec![byte; size];
        wire::send(&mut link, way, &message).await.unwrap();
        accepted.extend(F::frame(&message));
    }
    match order {
        Order::Link => drop(link),
        Order::SenderFirst | Order::SenderThenLater => {
            let (sender, receiver) = link.split();
            drop(sender);
            if order == Order::SenderThenLater {
                settle().await;
                assert!(!log.get().dropped, "{what}: the receiver is still there");
            }
            drop(receiver);
        }
        Order::ReceiverFirst | Order::ReceiverThenLater => {
            let (sender, receiver) = link.split();
            drop(receiver);
            if order == Order::ReceiverThenLater {
                settle().await;
                assert!(!log.get().dropped, "{what}: the sender is still there");
            }
            drop(sender);
        }
    }
    settle().await;
    assert!(log.bytes() == accepted, "{what}: {} of {} bytes left", log.bytes().len(), accepted.len());
    assert!(log.get().dropped, "{what}: the writer is still there");
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_leaves_whichever_half_goes_first() {
    use Act::{Pending, Take};
    for order in ORDERS {
        for way in WAYS {
            for size in [3, 5000] {
                for acts in
                    [vec![], vec![Pending], vec![Pending, Take(1000), Take(1)], vec![Take(7), Pending]]
                {
                    let acts = if acts == [Pending] { vec![Pending, Take(usize::MAX)] } else { acts };
                    for running in [false, true] {
                        dropped::<Lines>(order, way, size, &acts, running).await;
                        dropped::<Prefixed>(order, way, size, &acts, running).await;
                        dropped::<Headed>(order, way, size, &acts, running).await;
                        dropped::<Unframed>(order, way, size, &acts, running).await;
                    }
                }
            }
        }
    }
}

/// The same on several threads, where the link's own task may run at any time.
#[test]
fn what_is_queued_leaves_on_several_threads() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    for round in 0..200 {
        let order = ORDERS[round % ORDERS.len()];
        let way = WAYS[round / ORDERS.len() % WAYS.len()];
        let acts = [Act::Take(1 + round % 9), Act::Later, Act::Take(900)];
        let (writer, log) = ScriptedWriter::new(acts);
        let accepted = runtime.block_on(runtime.spawn(async move {
            let mut link = Link::pair(Newline::new(), silent(), writer);
            let mut accepted = Vec::new();
            for byte in b'a'..b'd' {
                let message = vec![byte; if byte == b'b' { 5000 } else { 3 }];
                wire::send(&mut link, way, &message).await.unwrap();
                accepted.extend(Lines::frame(&message));
            }
            let (sender, receiver) = link.split();
            match order {
                Order::SenderFirst | Order::SenderThenLater => {
                    let other = tokio::spawn(async move { drop(receiver) });
                    drop(sender);
                    other.await.unwrap();
                }
                Order::ReceiverFirst | Order::ReceiverThenLater => {
                    let other = tokio::spawn(async move { drop(sender) });
                    drop(receiver);
                    other.await.unwrap();
                }
                Order::Link => drop((sender, receiver)),
            }
            accepted
        }));
        let start = std::time::Instant::now();
        while !log.get().dropped {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{order:?}, {way:?}: the writer is still there"
            );
            std::thread::sleep(Duration::from_micros(100));
        }
        assert!(log.bytes() == accepted.unwrap(), "{order:?}, {way:?}");
    }
}

/// One half is gone and the other goes on.
#[tokio::test(start_paused = true)]
async fn the_other_half_goes_on_alone() {
    for way in WAYS {
        let (writer, log) = ScriptedWriter::new([Act::Take(2), Act::Pending]);
        let reader = ScriptedReader::new("a\nb\n", [Act::Take(1), Act::Pending]);
        let mut link = Link::pair(Newline::new(), reader, writer);
        wire::send(&mut link, way, b"sent").await.unwrap();
        let (sender, mut receiver) = link.split();
        drop(sender);
        assert_eq!(receiver.receive().await.unwrap(), "a");
        assert_eq!(receiver.receive().await.unwrap(), "b");
        assert!(matches!(receiver.receive().await, Err(Error::Ended(End::Eof))));
        settle().await;
        assert_eq!(log.bytes(), b"sent\n", "{way:?}: what was fed leaves when the link reads");
    }
    let (writer, log) = ScriptedWriter::new([Act::Take(2), Act::Pending]);
    let (mut sender, receiver) = Link::pair(Newline::new(), silent(), writer).split();
    drop(receiver);
    sender.send(b"on").await.unwrap();
    settle().await;
    assert_eq!(log.bytes(), b"on\n");
    sender.feed(b"and on").await.unwrap();
    sender.flush().await.unwrap();
    assert_eq!(log.bytes(), b"on\nand on\n");
    sender.close().await.unwrap();
    assert!(log.get().shut_down);
}

/// The receiver waits already when the sender goes.
#[tokio::test(start_paused = true)]
async fn what_was_sent_leaves_when_the_sender_goes_while_the_receiver_waits() {
    for way in WAYS {
        if way == Way::Feed {
            continue;
        }
        sender_goes_while_the_receiver_waits(way).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_fed_leaves_when_the_sender_goes_while_the_receiver_waits() {
    sender_goes_while_the_receiver_waits(Way::Feed).await;
}

async fn sender_goes_while_the_receiver_waits(way: Way) {
    for size in [3, 5000] {
        let ((reader, writer), (mut far, _far_writer)) = memory::pair(1 << 16);
        let (mut sender, mut receiver) = Link::pair(Newline::new(), reader, writer).split();
        let waiting = tokio::spawn(async move { receiver.receive().await });
        settle().await;
        let message = vec![b'x'; size];
        match way {
            Way::Send => sender.send(&message).await.unwrap(),
            Way::Feed => sender.feed(&message).await.unwrap(),
            Way::Frame => sender.send_frame(Frame::copy_from_slice(&message)).await.unwrap(),
            Way::Vectored => sender.send_vectored(&[std::io::IoSlice::new(&message)]).await.unwrap(),
            Way::Permit => sender.reserve(size).await.unwrap().send(&message).unwrap(),
        }
        drop(sender);
        let mut got = vec![0; size + 1];
        soon(format!("{way:?}, {size} bytes"), far.read_exact(&mut got)).await.unwrap();
        assert!(got == Lines::frame(&message));
        assert!(!waiting.is_finished());
        waiting.abort();
    }
}

/// Closing the sending half leaves the receiving half what it has.
#[tokio::test(start_paused = true)]
async fn a_closed_sender_leaves_the_receiver_alone() {
    let ((reader, writer), (mut far, mut far_writer)) = memory::pair(64);
    let (mut sender, mut receiver) = Link::pair(Newline::new(), reader, writer).split();
    sender.send(b"question").await.unwrap();
    sender.close().await.unwrap();
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"question\n");
    far_writer.write_all(b"answer\n").await.unwrap();
    assert_eq!(receiver.receive().await.unwrap(), "answer");
    drop(far_writer);
    assert!(matches!(receiver.receive().await, Err(Error::Ended(End::Eof))));
    let mut link = Link::<Newline, _, _>::unsplit(sender, receiver).ok().unwrap();
    link.close().await.unwrap();
    assert!(link.into_parts().writer.is_none());
}

// Closing.

/// A fault was found behind the last message that was taken; then this side closes.
#[tokio::test(start_paused = true)]
async fn after_a_close_nothing_is_received_though_a_fault_was_kept() {
    let reader =
        ScriptedReader::new("ok\nover the limit\nnever to be seen\n", [Act::Take(18)]).after(Act::Never);
    let (writer, _log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::new().max_size(5), reader, writer);
    let mut frames = Vec::new();
    assert_eq!(link.receive_batch(&mut frames, 9).await.unwrap(), 1);
    link.close().await.unwrap();
    for _ in 0..3 {
        let error = soon("after a close", link.receive()).await.unwrap_err();
        assert!(matches!(error, Error::Ended(End::Closed)), "{error}");
        assert!(link.is_ended());
    }
    assert_eq!(link.reader().rest().len(), 17, "nothing is read after a close");
}

/// Closing at any point of receiving ends it.
#[tokio::test(start_paused = true)]
async fn after_a_close_nothing_is_received() {
    for form in wire::FORMS {
        for received in 0..4 {
            for after in [Act::End, Act::Never] {
                let reader = ScriptedReader::new("a\nb\nc\nd", [Act::Take(5)]).after(after);
                let mut link = Link::pair(Newline::new(), reader, tokio::io::sink());
                let mut got = Vec::new();
                for _ in 0..received {
                    if waits(wire::receive(&mut link, form, &mut got)).await {
                        break;
                    }
                }
                // At the end of the stream the end has been told already.
                let ended = link.is_ended();
                link.close().await.unwrap();
                got.clear();
                for _ in 0..2 {
                    let error = wire::receive_all(&mut link, form, &mut got).await;
                    let expected = if ended { End::Eof } else { End::Closed };
                    assert!(matches!(error, Error::Ended(end) if end == expected), "{form:?}: {error}");
                    assert!(matches!(link.receive_ready(), Ok(None)));
                }
                assert!(got.is_empty(), "{form:?}");
            }
        }
    }
}

/// A close that failed has lost bytes; nobody says later that all have left.
#[tokio::test(start_paused = true)]
async fn a_flush_after_a_failed_close_does_not_say_that_all_has_left() {
    for act in [Act::Fail(std::io::ErrorKind::BrokenPipe), Act::Never] {
        let (writer, log) = ScriptedWriter::new([]);
        let mut link = Link::pair(Newline::new(), silent(), writer.limit(3, act));
        link.send(b"0123456789").await.unwrap();
        assert!(link.close().await.is_err());
        assert_eq!(log.bytes(), b"012");
        assert!(link.flush().await.is_err(), "{act:?}");
    }
}

// Parts.

/// A decoder and an encoder that were in a link.
struct Pieces<D, E>(D, E);

impl<D: Decode, E: Encode> Codec for Pieces<D, E> {
    type Decoder = D;
    type Encoder = E;

    fn split(self) -> (D, E) {
        (self.0, self.1)
    }
}

/// Takes a link apart after `received` messages, with the reader cut after so many bytes, and goes on with a new link.
async fn taken_apart<F: Framing>(messages: &[Vec<u8>], limit: usize, piece: usize, received: usize) {
    let what = format!("{}, pieces of {piece}, after {received}", F::NAME);
    let bytes = F::wire(messages);
    let reader = ScriptedReader::new(bytes.clone(), [Act::Take(piece)]);
    let mut link = Link::pair(F::codec(limit), reader, tokio::io::sink());
    let mut got = Vec::new();
    let mut ended = false;
    for _ in 0..received {
        ended |= wire::receive(&mut link, Form::Owned, &mut got).await.is_err();
    }
    // In the middle of a message, too.
    let parts = link.into_parts();
    let rest = parts.reader.rest().len();
    assert!(bytes[..bytes.len() - rest].ends_with(&parts.unread), "{what}");
    if ended {
        assert!(parts.unread.is_empty(), "{what}");
        return;
    }
    let reader = Cursor::new(parts.unread.to_vec()).chain(parts.reader);
    let mut link = Link::pair(Pieces(parts.decoder, parts.encoder), reader, tokio::io::sink());
    let error = wire::receive_all(&mut link, Form::Owned, &mut got).await;
    assert!(error.is_clean_end(), "{what}: {error}");
    assert_eq!(got, F::outcomes(&bytes, limit), "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_link_taken_apart_has_lost_nothing_of_what_it_read() {
    let messages: Vec<Vec<u8>> =
        ["{}", "a", "over the limit", "[1,2]", "last"].map(|text| text.as_bytes().to_vec()).to_vec();
    for piece in 1..80 {
        for received in 0..7 {
            taken_apart::<Lines>(&messages, 5, piece, received).await;
            taken_apart::<Prefixed>(&messages, 5, piece, received).await;
            taken_apart::<Headed>(&messages, 5, piece, received).await;
            taken_apart::<Unframed>(&messages, 99, piece, received).await;
        }
    }
}

/// In the middle of a message: a receive that waits is dropped first.
#[tokio::test(start_paused = true)]
async fn a_link_taken_apart_within_a_message_has_lost_nothing() {
    async fn check<F: Framing>() {
        let bytes = F::wire(&["{}", "over the limit", "[1,2]"].map(|text| text.as_bytes().to_vec()));
        for cut in 0..bytes.len() {
            let reader = ScriptedReader::new(&bytes[..cut], []).after(Act::Never);
            let mut link = Link::pair(
                F::codec(if F::NAME == Unframed::NAME { 99 } else { 5 }),
                reader,
                tokio::io::sink(),
            );
            let mut got = Vec::new();
            assert!(waits(wire::receive_all(&mut link, Form::Owned, &mut got)).await);
            let parts = link.into_parts();
            let reader = Cursor::new(parts.unread.to_vec()).chain(Cursor::new(bytes[cut..].to_vec()));
            let mut link = Link::pair(Pieces(parts.decoder, parts.encoder), reader, tokio::io::sink());
            wire::receive_all(&mut link, Form::Owned, &mut got).await;
            let limit = if F::NAME == Unframed::NAME { 99 } else { 5 };
            assert_eq!(got, F::outcomes(&bytes, limit), "{}, cut at {cut}", F::NAME);
        }
    }
    check::<Lines>().await;
    check::<Prefixed>().await;
    check::<Headed>().await;
    check::<Unframed>().await;
}

/// A fault that was found behind a batch is not forgotten.
#[tokio::test(start_paused = true)]
async fn parts_do_not_forget_a_fault_that_was_not_told() {
    let reader = ScriptedReader::new("ok\nover the limit\nnext\n", []);
    let mut link = Link::pair(Newline::new().max_size(5), reader, tokio::io::sink());
    let mut frames = Vec::new();
    assert_eq!(link.receive_batch(&mut frames, 9).await.unwrap(), 1);
    let parts = link.into_parts();
    assert_eq!(parts.fault, Some(Fault::TooLarge { size: 14, limit: 5 }));
    let reader = Cursor::new(parts.unread.to_vec()).chain(parts.reader);
    let mut link = Link::pair(Pieces(parts.decoder, parts.encoder), reader, tokio::io::sink());
    let mut got = Vec::new();
    wire::receive_all(&mut link, Form::Owned, &mut got).await;
    assert_eq!(got, [Outcome::Frame(b"next".to_vec())]);
}

/// What left and what is unsent are together what was accepted, wherever the writer stopped.
async fn unsent<F: Framing>(way: Way, size: usize, stop: usize, running: bool) {
    let what = format!("{}, {way:?}, {size} bytes, stopped after {stop}, running {running}", F::NAME);
    let (writer, log) = ScriptedWriter::new([]);
    let mut link = Link::pair(F::codec(1 << 20), silent(), writer.limit(stop, Act::Never));
    let mut accepted = Vec::new();
    for byte in b'a'..b'e' {
        let message = vec![byte; if byte == b'c' { size } else { 3 }];
        wire::send(&mut link, way, &message).await.unwrap();
        accepted.extend(F::frame(&message));
        if running {
            tokio::task::yield_now().await;
        }
    }
    let parts = link.into_parts();
    let left: Vec<u8> = parts.unsent.iter().flat_map(|frame| frame.to_vec()).collect();
    assert!([log.bytes(), left.clone()].concat() == accepted, "{what}");
    assert!(parts.unsent.iter().all(|frame| !frame.is_empty()), "{what}");
    let before = log.bytes().len();
    settle().await;
    assert_eq!(log.bytes().len(), before, "{what}: nothing is written behind the back of who has the writer");
    assert!(!log.get().dropped, "{what}");
    assert!(parts.writer.is_some(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_link_taken_apart_has_lost_nothing_of_what_it_accepted() {
    for way in WAYS {
        for running in [false, true] {
            for (size, stops) in
                [(3, (0..40).collect::<Vec<_>>()), (5000, vec![0, 1, 9, 10, 100, 4999, 5003, 5011, 9000])]
            {
                for stop in stops {
                    unsent::<Lines>(way, size, stop, running).await;
                    unsent::<Prefixed>(way, size, stop, running).await;
                    unsent::<Headed>(way, size, stop, running).await;
                    unsent::<Unframed>(way, size, stop, running).await;
                }
            }
        }
    }
}

/// Halves that were two tasks' come together and are taken apart while writing is stuck.
#[tokio::test(start_paused = true)]
async fn parts_of_a_link_whose_writer_is_stuck() {
    let ((reader, writer), (mut far, mut far_writer)) = memory::pair(5);
    let config = LinkConfig::default().write_high_water(4);
    let (mut sender, mut receiver) = Link::with_config(Newline::new(), reader, writer, config).split();
    let sending = tokio::spawn(async move {
        sender.send(b"0123456789").await.unwrap();
        assert!(timeout(SECOND, sender.send(b"never queued")).await.is_err());
        sender
    });
    let receiving = tokio::spawn(async move {
        assert!(timeout(SECOND, receiver.receive()).await.is_err());
        receiver
    });
    far_writer.write_all(b"part").await.unwrap();
    let (sender, receiver) =
        (soon("sender", sending).await.unwrap(), soon("receiver", receiving).await.unwrap());
    let parts = Link::<Newline, _, _>::unsplit(sender, receiver).ok().unwrap().into_parts();
    assert_eq!(parts.unread, "part");
    let mut writer = parts.writer.unwrap();
    let finishing = async move {
        for frame in &parts.unsent {
            writer.write_all(frame).await.unwrap();
        }
    };
    let mut all = Vec::new();
    let (_, read) = tokio::join!(finishing, far.read_to_end(&mut all));
    read.unwrap();
    assert_eq!(all, b"0123456789\n");
}

fn text(log: &Log) -> String {
    String::from_utf8(log.bytes()).unwrap()
}

/// After a close or a failure nothing is unsent that could still be sent.
#[tokio::test(start_paused = true)]
async fn parts_after_a_close() {
    let (writer, log) = ScriptedWriter::new([]);
    let mut link = Link::pair(Newline::new(), ScriptedReader::new("a\nb\n", []), writer);
    assert_eq!(link.receive().await.unwrap(), "a");
    link.send(b"last").await.unwrap();
    link.close().await.unwrap();
    let parts = link.into_parts();
    assert!(parts.writer.is_none() && parts.unsent.is_empty());
    assert_eq!(text(&log), "last\n");
}
