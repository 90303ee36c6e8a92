//! A large message that comes in small pieces is moved a few times in all, not once for each piece: work stays linear in
//! what has come, whatever the peer does.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "link")]

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use framewire::{
    Link,
    buffer::{BufferConfig, BufferManager},
    codec::{Codec, ContentLength, Encode, LengthPrefix, Newline},
    link::LinkConfig,
};
use tokio::io::{AsyncRead, ReadBuf};

/// The payload of a TCP segment over Ethernet, in bytes.
const PIECE: usize = 1448;

struct Pieces {
    bytes: Vec<u8>,
    at: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let end = self.bytes.len().min(self.at + PIECE.min(buffer.remaining()));
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

/// Blocks that the pool had to lend while messages of these sizes came in pieces.
fn blocks<C: Codec + Clone>(codec: C, sizes: &[usize], buffers: &BufferManager) -> u64 {
    let (_, mut encoder) = codec.clone().split();
    let mut bytes = Vec::new();
    for size in sizes {
        let mut message = vec![0; size + encoder.overhead()];
        let written = encoder.encode(&vec![b'x'; *size], &mut message).unwrap();
        bytes.extend_from_slice(&message[..written]);
    }
    let config = LinkConfig::default().buffers(buffers.clone());
    let mut link = Link::with_config(codec, Pieces { bytes, at: 0 }, tokio::io::sink(), config);
    let before = buffers.metrics().acquired();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for size in sizes {
            assert_eq!(link.receive_lent().await.unwrap().len(), *size);
        }
    });
    buffers.metrics().acquired() - before
}

/// The first round leaves idle blocks of every size behind: to find one must not be a reason to move.
#[test]
fn a_large_message_in_pieces_is_moved_a_few_times_only() {
    for sizes in [
        &[16_000_000][..],
        &[50, 16_000_000],
        &[50, 3_000_000, 50, 3_000_000, 50],
        &[1_000_000, 1_000_000, 1_000_000],
        &[60_000, 60_000, 60_000, 120_000, 200_000, 200_000],
    ] {
        let buffers = BufferManager::new(BufferConfig::default());
        for round in 0..3 {
            for (name, count) in [
                ("newline", blocks(Newline::new(), sizes, &buffers)),
                ("length", blocks(LengthPrefix::new(), sizes, &buffers)),
                ("content-length", blocks(ContentLength::new(), sizes, &buffers)),
            ] {
                let limit = 12 * sizes.len() as u64;
                assert!(count <= limit, "{count} blocks for {sizes:?}, {name}, round {round}");
            }
        }
    }
}
