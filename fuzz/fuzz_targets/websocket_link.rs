//! A link of WebSocket, either role: operations that may be given up after so many polls, over a reader and a writer that
//! move little or wait, while the peer's frames are whatever the input says. What is received is what the naive decoder
//! makes of the peer's bytes; what is written are whole frames: the messages that were accepted, in order, and after a
//! Close frame nothing. Input: role, two bytes for the I/O, one for the high-water mark, the number of operations, these
//! as pairs, then the peer's bytes.
#![no_main]

#[path = "../../tests/support/websocket.rs"]
mod naive;
#[path = "../support/pipe.rs"]
mod pipe;

use std::{
    io::IoSlice,
    sync::{Arc, Mutex},
};

use framewire::{
    Frame, Link,
    codec::{WebSocket, websocket::Role},
    link::LinkConfig,
};
use libfuzzer_sys::fuzz_target;
use naive::Event;
use pipe::{Reader, Writer, polled};

async fn drive(input: &[u8]) {
    let Some((&[role, reads, writes, mark, count], rest)) = input.split_first_chunk::<5>() else { return };
    let role = if role % 2 == 0 { Role::Server } else { Role::Client };
    let other = if role == Role::Server { Role::Client } else { Role::Server };
    let (operations, stream) = rest.split_at(rest.len().min(usize::from(count % 64) * 2));
    let expected: Vec<Vec<u8>> = naive::decode(stream, role)
        .into_iter()
        .filter_map(|event| if let Event::Message(_, message) = event { Some(message) } else { None })
        .collect();

    let written = Arc::new(Mutex::new(Vec::new()));
    let reader = Reader::new(stream.to_vec(), reads);
    let writer = Writer::new(&written, writes);
    let codec =
        WebSocket::new(role).max_control_frames(usize::MAX).max_fragments(usize::MAX).keep_alive(None);
    let config = LinkConfig::default().write_high_water(usize::from(mark) * 64 + 1).close(None);
    let mut link = Link::with_config(codec, reader, writer, config);

    let (mut received, mut messages, mut begun) = (Vec::<Vec<u8>>::new(), Vec::new(), Vec::<u8>::new());
    let mut open = false;
    for (index, pair) in operations.chunks_exact(2).enumerate() {
        let polls = pair[1] % 8;
        let sizes = [0, 1, 125, 126, 4095, 4096, 65_535, 70_000];
        let payload = vec![b'a' + (index % 26) as u8; sizes[usize::from(pair[1] / 8) % sizes.len()]];
        let operation = pair[0] % 8;
        let more = pair[0] >= 192;
        if operation >= 3 {
            link.encoder_mut().set_more(more);
        }
        let sent = match operation {
            0 => {
                if let Some(Ok(frame)) = polled(link.receive(), polls).await {
                    received.push(frame.to_vec());
                }
                continue;
            }
            1 => {
                if let Some(Ok(lent)) = polled(link.receive_lent(), polls).await {
                    received.push(lent.to_vec());
                }
                continue;
            }
            2 => {
                let _ = polled(link.flush(), polls).await;
                continue;
            }
            3 | 4 => polled(link.send(&payload), polls).await,
            5 => polled(link.send_frame(Frame::from(payload.clone())), polls).await,
            6 => {
                let (one, two) = payload.split_at(payload.len() / 2);
                polled(link.send_vectored(&[IoSlice::new(one), IoSlice::new(two)]), polls).await
            }
            _ => match polled(link.reserve(payload.len()), polls).await {
                Some(Ok(permit)) => Some(permit.send(&payload)),
                _ => None,
            },
        };
        if let Some(Ok(())) = sent {
            begun.extend(payload);
            open = more;
            if !open {
                messages.push(std::mem::take(&mut begun));
            }
        }
    }
    // The rest comes by itself, and the close leaves with all that was accepted.
    loop {
        match link.receive().await {
            Ok(frame) => received.push(frame.to_vec()),
            Err(error) if error.is_fatal() => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(received == expected, "{} of {} received", received.len(), expected.len());
    link.close().await.unwrap();
    let written = written.lock().unwrap();
    let events = naive::decode(&written, other);
    let said: Vec<&Vec<u8>> = events
        .iter()
        .filter_map(|event| if let Event::Message(_, message) = event { Some(message) } else { None })
        .collect();
    assert!(said.iter().copied().eq(&messages), "not what was accepted, in order");
    assert!(matches!(events.last(), Some(Event::Closed(_))), "{:?}", events.last());
    let _unfinished = open;
    assert!(written.ends_with(&[0x88, 0]) || written.len() >= 4, "a Close frame is the last of all");
}

fuzz_target!(|input: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(drive(input));
});
