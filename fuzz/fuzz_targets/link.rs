//! The driver: a sequence of operations, each of which may be given up after so many polls, over a reader and a writer
//! that move little, wait, or fail, against a plain model. What is received is a prefix of what the stream holds and all
//! of it at the end; what is written is a prefix of what was accepted and all of it after a flush.
//! Input: two bytes for the I/O behaviours, one for the high-water mark, then pairs of operation and argument.
#![no_main]

#[path = "../support/pipe.rs"]
mod pipe;

use std::{
    io::IoSlice,
    sync::{Arc, Mutex},
};

use framewire::{
    Error, Frame, Link,
    codec::{LengthPrefix, Newline},
    error::End,
    link::LinkConfig,
};
use libfuzzer_sys::fuzz_target;
use pipe::{Reader, Writer, polled};

/// The `index`th message, of a size around what matters inside.
fn message(index: usize, argument: u8) -> Vec<u8> {
    let sizes = [1, 100, 511, 512, 1, 4095, 4096, 4097, 40, 65_535, 70_000, 7];
    vec![b'a' + (index % 26) as u8; sizes[usize::from(argument) % sizes.len()]]
}

async fn drive(input: &[u8]) {
    let Some((&[reads, writes, mark], operations)) = input.split_first_chunk::<3>() else { return };
    let incoming: Vec<Vec<u8>> =
        (0..20).map(|index| message(index, reads.wrapping_add(index as u8 * 5))).collect();
    let bytes = incoming.iter().flat_map(|message| [message, &b"\n"[..]].concat()).collect();
    let written = Arc::new(Mutex::new(Vec::new()));
    let reader = Reader::new(bytes, reads);
    let writer = Writer::new(&written, writes);
    let config = LinkConfig::default().write_high_water(usize::from(mark) * 64 + 1).close(None);
    let mut link = Link::with_config(Newline::new(), reader, writer, config);

    let (mut received, mut accepted) = (Vec::<Vec<u8>>::new(), Vec::<u8>::new());
    let accept = |accepted: &mut Vec<u8>, payload: &[u8]| {
        accepted.extend_from_slice(payload);
        accepted.push(b'\n');
    };
    let mut checked = 0;
    for (index, pair) in operations.chunks_exact(2).take(64).enumerate() {
        let (operation, argument) = (pair[0] % 13, (pair[0] / 13).wrapping_add(pair[1]));
        let polls = pair[1] % 8;
        let payload = message(index, argument);
        match operation {
            0 => {
                if let Some(Ok(frame)) = polled(link.receive(), polls).await {
                    received.push(frame.to_vec());
                }
            }
            1 => {
                if let Some(Ok(payload)) = polled(link.receive_lent(), polls).await {
                    payload.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
                    received.push(payload.iter().map(|byte| byte.wrapping_sub(1)).collect());
                }
            }
            2 => {
                let mut frames = Vec::new();
                let _ = polled(link.receive_batch(&mut frames, usize::from(argument)), polls).await;
                received.extend(frames.iter().map(|frame| frame.to_vec()));
            }
            3 => {
                while let Ok(Some(payload)) = link.receive_ready() {
                    received.push(payload.to_vec());
                }
            }
            4 | 5 => {
                if let Some(Ok(())) = polled(link.send(&payload), polls).await {
                    accept(&mut accepted, &payload);
                }
            }
            6 => {
                if let Some(Ok(())) = polled(link.feed(&payload), polls).await {
                    accept(&mut accepted, &payload);
                }
            }
            7 => {
                if let Some(Ok(())) = polled(link.send_frame(Frame::from(payload.clone())), polls).await {
                    accept(&mut accepted, &payload);
                }
            }
            8 => {
                let (one, two) = payload.split_at(payload.len() / 2);
                let parts = [IoSlice::new(one), IoSlice::new(two)];
                if let Some(Ok(())) = polled(link.send_vectored(&parts), polls).await {
                    accept(&mut accepted, &payload);
                }
            }
            9 => {
                if let Some(Ok(permit)) = polled(link.reserve(payload.len()), polls).await {
                    permit.send(&payload).unwrap();
                    accept(&mut accepted, &payload);
                }
            }
            10 => {
                if let Some(flushed) = polled(link.flush(), polls).await {
                    flushed.unwrap();
                    assert_eq!(written.lock().unwrap().len(), accepted.len(), "after a flush");
                }
            }
            11 => {
                let before = link.counters().frames_sent;
                if let Some(flushed) = polled(link.send_flushed(&payload), polls).await {
                    flushed.unwrap();
                    accept(&mut accepted, &payload);
                    assert_eq!(written.lock().unwrap().len(), accepted.len(), "sent and flushed");
                } else if link.counters().frames_sent > before {
                    accept(&mut accepted, &payload);
                }
            }
            _ => {
                assert!(matches!(
                    polled(link.send(b"a\nb"), polls).await,
                    None | Some(Err(Error::Rejected(_)))
                ));
            }
        }
        for (index, message) in received.iter().enumerate().skip(checked) {
            assert!(*message == incoming[index], "received out of order");
        }
        checked = received.len();
        assert!(written.lock().unwrap().len() <= accepted.len(), "written and never accepted");
    }
    // The rest comes and leaves by itself.
    loop {
        match link.receive().await {
            Ok(frame) => received.push(frame.to_vec()),
            Err(Error::Ended(End::Eof)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(received == incoming, "not all was received");
    if operations.len() % 2 == 0 {
        link.close().await.unwrap();
    } else {
        drop(link);
        for _ in 0..100_000 {
            if written.lock().unwrap().len() == accepted.len() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert!(*written.lock().unwrap() == accepted, "not all that was accepted has left, in order");

    // The same bytes as one stream of another framing: never a panic, whatever they are.
    let reader = Reader::new(input.to_vec(), 6);
    let mut link = Link::pair(LengthPrefix::new().max_size(100), reader, tokio::io::sink());
    while link.receive_lent().await.map_or_else(|error| !error.is_fatal(), |_| true) {}
}

fuzz_target!(|input: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(drive(input));
});
