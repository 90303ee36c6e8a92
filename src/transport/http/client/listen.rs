//! The stream that the server sends on by itself: asked for by GET once the session stands, and again when it is cut.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::sleep;

use super::{
    events::{ClientEvent, count},
    shared::Shared,
    signal::Signal,
    stream::{Event, NoStream, Position},
};

/// Keeps the stream open until `over`, if the server has one.
pub(super) async fn run(shared: Arc<Shared>, over: Arc<Signal>) {
    let work = over.or(listen(&shared));
    if let Some(Some(Next::Renew(generation))) = shared.closing.or(work).await {
        // Not within the stream's own time: a session opened anew has another stream.
        let _told_by_the_next_request = shared.closing.or(shared.renew(generation)).await;
    }
}

enum Next {
    /// There is no stream.
    Nothing,
    /// The session is lost.
    Renew(u64),
}

async fn listen(shared: &Arc<Shared>) -> Next {
    let generation = shared.session().generation;
    let mut position = Position::default();
    let mut opened = false;
    loop {
        match shared.open_stream(&position.last).await {
            Ok(mut events) => {
                if opened {
                    count(&shared.counters.reconnects);
                }
                opened = true;
                loop {
                    match events.next(&mut position).await {
                        Event::Data(name, bytes) if name.is_empty() || name == b"message" => {
                            shared.take_in(bytes, None).await;
                        }
                        Event::Data(..) | Event::Empty => {}
                        Event::Fault(fault) => shared.skipped(&fault),
                        Event::End(_) => break,
                    }
                }
            }
            Err(NoStream::Refused(StatusCode::NOT_FOUND)) if opened => return Next::Renew(generation),
            // The server has not seen yet that the stream before is gone.
            Err(NoStream::Refused(StatusCode::CONFLICT)) if opened => {}
            Err(NoStream::Refused(_)) => return Next::Nothing,
            Err(NoStream::Failed(_)) => {}
        }
        // For ever, as nobody waits for it; ever more seldom, until something comes.
        let after = position.pause(&shared.config);
        shared.tell(&ClientEvent::StreamLost { attempt: position.attempts, after });
        sleep(after).await;
    }
}
