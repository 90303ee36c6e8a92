//! In steady state a request through a supervisor, and through a hub, costs no allocation.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(all(feature = "gateway", feature = "net", unix))]

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex},
};

use framewire::{
    Link,
    codec::Newline,
    gateway::{Backend, Hub, HubConfig, Opening, Supervisor, SupervisorConfig},
    io::unix,
    json::Envelope,
    transport::PollTransport,
};

#[path = "support/allocation.rs"]
mod allocation;

/// The counter is the thread's, but the pool is the process's: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

fn run(test: impl Future<Output = ()>) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// A server that answers each request with `size` bytes, after progress when asked for it.
fn server(size: usize) -> Arc<dyn Backend> {
    Arc::new(move |_: u64| -> Opening {
        Box::pin(async move {
            let (near, far) = unix::pair()?;
            tokio::spawn(async move {
                let mut link = Link::pair(Newline::new(), far.0, far.1);
                let (mut answer, mut progress) = (Vec::new(), Vec::new());
                let text = vec![b'x'; size];
                while let Ok(message) = link.receive_lent().await {
                    let envelope = Envelope::peek(message).unwrap();
                    progress.clear();
                    if let Some(token) = envelope.progress_token().unwrap() {
                        progress.extend_from_slice(br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"#);
                        progress.extend_from_slice(token);
                        progress.extend_from_slice(b"}}");
                    }
                    answer.clear();
                    answer.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
                    // What was cancelled has been answered already.
                    let Some(id) = envelope.raw_id() else { continue };
                    answer.extend_from_slice(id);
                    answer.extend_from_slice(b",\"result\":\"");
                    answer.extend_from_slice(&text);
                    answer.extend_from_slice(b"\"}");
                    if !progress.is_empty() {
                        link.send(&progress).await.unwrap();
                    }
                    link.send(&answer).await.unwrap();
                }
            });
            Ok(Box::new(Link::pair(Newline::new(), near.0, near.1)) as Box<dyn PollTransport>)
        })
    })
}

/// Each client asks twice at a time and takes the answers and the progress.
async fn round(clients: &mut [Box<dyn PollTransport>], requests: &[&[u8]]) {
    for client in clients.iter_mut() {
        for request in requests {
            poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
            client.start_feed(request).unwrap();
        }
        poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
    }
    for client in clients.iter_mut() {
        for _ in 0..3 {
            let size = poll_fn(|cx| client.poll_receive_lent(cx).map_ok(|message| message.len())).await;
            assert!(size.unwrap() > 30);
        }
    }
}

/// Repeats rounds until a whole series of them allocates nothing, which has to be soon.
async fn assert_free(what: &str, mut clients: Vec<Box<dyn PollTransport>>) {
    const SERIES: usize = 16;
    let requests: &[&[u8]] = &[
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"hello"}}}"#,
        br#"{"jsonrpc":"2.0","id":"a longer id","method":"tools/call","params":{"_meta":{"progressToken":"t"},"name":"echo"}}"#,
    ];
    let mut counts = Vec::with_capacity(SERIES);
    while counts.len() < SERIES && counts.last() != Some(&0) {
        let before = allocation::calls();
        for _ in 0..100 {
            round(&mut clients, requests).await;
        }
        counts.push(allocation::calls() - before);
    }
    println!("{what}: {counts:?} allocations in series of {} requests", 200 * clients.len());
    assert_eq!(counts.last(), Some(&0), "{what}: {counts:?}");
}

#[test]
fn through_a_supervisor() {
    for size in [10, 1_000, 10_000] {
        run(async {
            let client = Supervisor::new(server(size), SupervisorConfig::default());
            assert_free(&format!("supervisor, {size}"), vec![Box::new(client)]).await;
        });
    }
}

#[test]
fn through_a_hub() {
    for (clients, size) in [(1, 10), (16, 10), (4, 1_000), (4, 10_000)] {
        run(async {
            let hub = Hub::new(vec![server(size)], HubConfig::default());
            let clients = (0..clients).map(|_| Box::new(hub.attach()) as Box<dyn PollTransport>).collect();
            assert_free(&format!("hub, {size}"), clients).await;
        });
    }
}

/// Heap that an attached client holds when it has been used and nothing is under way.
#[test]
fn an_idle_client_of_a_hub_holds_less_than_1_kib() {
    run(async {
        const CLIENTS: usize = 1_000;
        let hub = Hub::new(vec![server(100)], HubConfig::default());
        let request: &[u8] =
            br#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1}}}"#;
        for warm in [true, false] {
            let mut clients = Vec::with_capacity(CLIENTS);
            let live = allocation::live();
            for _ in 0..CLIENTS {
                let mut client = hub.attach();
                poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
                client.start_send(request).unwrap();
                for _ in 0..2 {
                    poll_fn(|cx| client.poll_receive_lent(cx).map_ok(|message| message.len())).await.unwrap();
                }
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(client.poll_receive(&mut cx).is_pending());
                clients.push(client);
            }
            let each = allocation::live().wrapping_sub(live) / CLIENTS + size_of_val(&clients[0]);
            if !warm {
                println!("an idle client: {each} bytes");
                assert!(each < 1024, "{each} bytes");
            }
        }
    });
}

/// What clients that come, ask and go without waiting for an answer leave behind.
#[test]
fn clients_that_have_left_hold_nothing() {
    run(async {
        let hub = Hub::new(vec![server(100)], HubConfig::default());
        let request: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"x","params":{}}"#;
        let mut after = Vec::new();
        for _ in 0..4 {
            for _ in 0..1_000 {
                let mut client = hub.attach();
                client.start_send(request).unwrap();
                drop(client);
                tokio::task::yield_now().await;
            }
            // One more, who waits for its answer: all before it is dealt with then.
            let mut client = hub.attach();
            client.start_send(request).unwrap();
            poll_fn(|cx| client.poll_receive_lent(cx).map_ok(|message| message.len())).await.unwrap();
            drop(client);
            after.push(allocation::live());
        }
        println!("live after each thousand: {after:?}");
        // A block of the pool more or less, but nothing that grows with them.
        assert!(after[3].abs_diff(after[1]) < 64 << 10, "{after:?}");
        let counts = hub.status().counts();
        assert_eq!((counts.clients, counts.in_flight), (0, 0));
    });
}
