//! The ends that are inside this program: `demo:` and `echo:`.

use framewire::{
    Link,
    endpoint::Framing,
    io::memory::{self, MemoryReader, MemoryWriter},
};

use super::{
    demo,
    end::{AnyCodec, AnyLink, AnyReader, AnyWriter},
};

/// Bytes that fit into the pipe between this program and itself, each way.
const PIPE: usize = 64 * 1024;

/// Which end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Builtin {
    Demo,
    Echo,
}

/// Starts `builtin` as a task and returns a link to it. The task ends when the link closes.
pub(crate) fn start(builtin: Builtin, max_message_size: usize) -> AnyLink {
    let (near, far) = memory::pair(PIPE);
    // With a length before each message any bytes pass, also those that a line could not hold.
    let link = |(reader, writer): (MemoryReader, MemoryWriter)| {
        Link::pair(
            AnyCodec::new(Framing::Length, max_message_size),
            AnyReader::Memory(reader),
            AnyWriter::Memory(writer),
        )
    };
    let (near, far) = (link(near), link(far));
    tokio::spawn(async move {
        match builtin {
            Builtin::Demo => demo::serve(far, max_message_size).await,
            Builtin::Echo => echo(far).await,
        }
    });
    near
}

/// Sends each message back until the peer has ended.
pub(crate) async fn echo(link: AnyLink) {
    let (mut sender, mut receiver) = link.split();
    loop {
        match receiver.receive_lent().await {
            Ok(message) => {
                if sender.send(message).await.is_err_and(|error| error.is_fatal()) {
                    return;
                }
            }
            Err(error) if error.is_fatal() => break,
            Err(_) => {}
        }
    }
    let _ = sender.close().await;
}
