//! The ends that are inside this program: `demo:` and `echo:`.

use framewire::{
    Link,
    codec::{Encode, WebSocket, websocket::Role},
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
    // Any bytes pass, also those that a line could not hold; and what they are said to be comes back from an echo.
    let codec = |role| match builtin {
        Builtin::Demo => AnyCodec::new(Framing::Length, max_message_size),
        Builtin::Echo => {
            AnyCodec::WebSocket(Box::new(WebSocket::new(role).max_size(max_message_size).keep_alive(None)))
        }
    };
    let link = |role, (reader, writer): (MemoryReader, MemoryWriter)| {
        Link::pair(codec(role), AnyReader::Memory(reader), AnyWriter::Memory(writer))
    };
    let (near, far) = (link(Role::Server, near), link(Role::Client, far));
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
        match receiver.receive_with_kind().await {
            Ok((kind, message)) => {
                sender.encoder_mut().set_kind(kind);
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
