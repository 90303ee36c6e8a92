//! Nothing is lost, reordered, doubled or misframed, however calls are dropped and I/O is cut.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

#[path = "support/script.rs"]
mod script;
#[path = "support/step.rs"]
mod step;

use std::{io::IoSlice, time::Duration};

use bytes::BytesMut;
use framewire::{
    Error, Frame, Link,
    codec::{Codec, ContentLength, LengthPrefix, Newline},
    error::End,
    link::LinkConfig,
};
use script::{Act, ScriptedReader, ScriptedWriter};
use step::{breathe, dropped_after};
use tokio::io::{duplex, split};

fn newline(payload: &[u8]) -> Vec<u8> {
    [payload, b"\n"].concat()
}

fn length(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes(), payload].concat()
}

fn content(payload: &[u8]) -> Vec<u8> {
    [format!("Content-Length: {}\r\n\r\n", payload.len()).as_bytes(), payload].concat()
}

fn messages() -> Vec<Vec<u8>> {
    let sizes = [1, 2, 511, 512, 513, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000, 3];
    sizes.iter().enumerate().map(|(index, &size)| vec![b'a' + index as u8; size]).collect()
}

fn scripts() -> Vec<Vec<Act>> {
    use Act::{Pending, Take};
    vec![
        vec![],
        vec![Take(997), Pending],
        vec![Pending, Pending, Take(70_000)],
        vec![Take(1), Take(4093), Pending],
        vec![Pending, Take(65_536), Take(1)],
    ]
}

async fn receives<C: Codec + Clone>(codec: C, encode: fn(&[u8]) -> Vec<u8>) {
    let expected = messages();
    let wire: Vec<u8> = expected.iter().flat_map(|message| encode(message)).collect();
    for script in scripts() {
        for form in 0..4 {
            for polls in 1..3 {
                let reader = ScriptedReader::new(wire.clone(), script.clone());
                let (writer, _log) = ScriptedWriter::new([]);
                let mut link = Link::pair(codec.clone(), reader, writer);
                let mut got: Vec<Vec<u8>> = Vec::new();
                loop {
                    let mut batch: Vec<Frame> = Vec::new();
                    let mut buffer = BytesMut::new();
                    let outcome = match form {
                        0 => dropped_after(polls, link.receive())
                            .await
                            .map(|r| r.map(|f| got.push(f.to_vec()))),
                        1 => dropped_after(polls, link.receive_lent())
                            .await
                            .map(|r| r.map(|lent| got.push(lent.to_vec()))),
                        2 => dropped_after(polls, link.receive_into_buffer(&mut buffer))
                            .await
                            .map(|r| r.map(|_| got.push(buffer.to_vec()))),
                        _ => dropped_after(polls, link.receive_batch(&mut batch, 3))
                            .await
                            .map(|r| r.map(|_| got.extend(batch.iter().map(|f| f.to_vec())))),
                    };
                    match outcome {
                        Some(Ok(())) | None => {}
                        Some(Err(Error::Ended(End::Eof))) => break,
                        Some(Err(error)) => panic!("{error}"),
                    }
                }
                assert!(got == expected, "{script:?}, form {form}, dropped after {polls}");
            }
        }
    }
}

async fn sends<C: Codec + Clone>(codec: C, encode: fn(&[u8]) -> Vec<u8>) {
    for script in scripts() {
        for form in 0..5 {
            for (polls, high_water) in [(1, 1), (2, 1), (1, 5000), (2, 300_000)] {
                let (writer, log) = ScriptedWriter::new(script.clone());
                let reader = ScriptedReader::new([], []).after(Act::Never);
                let config = LinkConfig::default().write_high_water(high_water);
                let mut link = Link::with_config(codec.clone(), reader, writer, config);
                let mut wire = Vec::new();
                for message in messages() {
                    loop {
                        let (front, back) = message.split_at(message.len() / 2);
                        let parts = [IoSlice::new(front), IoSlice::new(back)];
                        let sent = match form {
                            0 => dropped_after(polls, link.send(&message)).await,
                            1 => dropped_after(polls, link.feed(&message)).await,
                            2 => dropped_after(polls, link.send_frame(Frame::from(message.clone()))).await,
                            3 => dropped_after(polls, link.send_vectored(&parts)).await,
                            _ => dropped_after(polls, link.reserve(message.len()))
                                .await
                                .map(|permit| permit.and_then(|permit| permit.send(&message))),
                        };
                        if let Some(sent) = sent {
                            sent.unwrap();
                            break;
                        }
                        breathe().await;
                    }
                    wire.extend(encode(&message));
                    while dropped_after(polls, link.flush()).await.is_none() && form == 2 {
                        breathe().await;
                    }
                }
                while dropped_after(polls, link.close()).await.is_none() {
                    breathe().await;
                }
                assert!(log.bytes() == wire, "{script:?}, form {form}, {polls} polls, mark {high_water}");
                assert!(log.get().shut_down);
            }
        }
    }
}

#[tokio::test]
async fn receiving_survives_being_dropped_at_every_poll() {
    receives(Newline::default(), newline).await;
    receives(LengthPrefix::default(), length).await;
    receives(ContentLength::default(), content).await;
}

#[tokio::test]
async fn sending_survives_being_dropped_at_every_poll() {
    sends(Newline::default(), newline).await;
    sends(LengthPrefix::default(), length).await;
    sends(ContentLength::default(), content).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_between_two_threads() {
    for capacity in [1, 2, 7, 64] {
        let (near, far) = duplex(capacity);
        let (reader, writer) = split(near);
        let (mut sender, mut receiver) = Link::pair(Newline::default(), reader, writer).split();
        let echo = tokio::spawn(async move {
            let (reader, writer) = split(far);
            let mut link = Link::pair(Newline::default(), reader, writer);
            while let Ok(message) = link.receive().await {
                link.send_frame(message).await.unwrap();
            }
            link.close().await.unwrap();
        });
        let sending = tokio::spawn(async move {
            for index in 0..2000_u32 {
                sender.send(index.to_string().as_bytes()).await.unwrap();
                if index % 64 == 63 {
                    sender.flush().await.unwrap();
                }
            }
            sender.close().await.unwrap();
        });
        let receiving = async {
            for index in 0..2000_u32 {
                assert_eq!(receiver.receive().await.unwrap(), index.to_string().as_str());
            }
            assert!(matches!(receiver.receive().await, Err(Error::Ended(End::Eof))));
            sending.await.unwrap();
            echo.await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(20), receiving).await.expect("a wake-up was lost");
    }
}
