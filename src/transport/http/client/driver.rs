//! The task that hands messages to connections, in their order, and ends the session at last.

use std::{sync::Arc, time::Instant};

use tokio::time::timeout;

use super::{
    call::{self, Ending},
    error::HttpClientError,
    message::{Message, Role},
    shared::Shared,
};
use crate::{error::End, limits::HTTP_GOODBYE_TIMEOUT};

pub(super) async fn run(shared: Arc<Shared>) {
    while let Some(Some(message)) = shared.closing.or(shared.outbox.next()).await {
        dispatch(&shared, message).await;
    }
    shared.outbox.close();
    shared.session().deafen();
    let end = if shared.closing.is_set() { End::Closed } else { End::Eof };
    shared.fail_all(&HttpClientError::Closed);
    for message in shared.outbox.drain(None) {
        Ending::new(&shared, message).fail(&HttpClientError::Closed);
    }
    shared.finish(end);
    // Bounded, and whatever comes of it: the server forgets sessions by itself, too.
    drop(timeout(HTTP_GOODBYE_TIMEOUT, goodbye(&shared)).await);
    shared.closing.set();
    shared.pool.close();
}

async fn dispatch(shared: &Arc<Shared>, message: Message) {
    if let Role::Cancelled(key) = &message.role {
        // What has not left need not be given up by the server.
        if let Some(withdrawn) = shared.outbox.withdraw(key) {
            drop(withdrawn);
            return drop(Ending::new(shared, message));
        }
        if let Some(call) = shared.find(key) {
            call.cancel(shared);
            if call.message.stateless.is_some() {
                // To close its stream is to cancel it.
                call.gone.set();
                return drop(Ending::new(shared, message));
            }
        }
    }
    let ending = Ending::new(shared, message);
    match shared.closing.or(shared.send(ending.call())).await {
        None => ending.fail(&HttpClientError::Closed),
        Some(Ok(sent)) => drop(tokio::spawn(call::run(ending, sent))),
        Some(Err(error @ HttpClientError::BadTool { .. })) => ending.fail(&error),
        Some(Err(error)) => {
            // Those that waited meanwhile share the fate, or each would wait for an attempt of its own.
            let until = Instant::now();
            ending.fail(&error);
            for message in shared.outbox.drain(Some(until)) {
                Ending::new(shared, message).fail(&error.again());
            }
        }
    }
}

pub(super) async fn goodbye(shared: &Arc<Shared>) {
    if shared.session().id.is_none() {
        return;
    }
    let Ok(connection) = shared.pool.acquire().await else { return };
    if let Some(request) = shared.goodbye(connection.is_http2())
        && let Ok(mut answer) = connection.send(request, &shared.pool).answer().await
    {
        answer.beginning(1024).await;
    }
}
