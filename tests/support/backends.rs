//! Servers behind a gateway, for tests: ends in memory that the test plays itself, and real children.
//! Use it as `#[path = "support/backends.rs"] mod backends;`.
#![allow(dead_code, unreachable_pub)]

use std::{
    future::poll_fn,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use framewire::{
    Error,
    gateway::{Backend, Opening},
    transport::{MemoryTransport, PollTransport, Transport},
};
use tokio::sync::mpsc;

/// Longer than anything takes on a loaded machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Opens pairs in memory; the test gets the server's end of each. Fails as long as it is told to.
#[derive(Clone)]
pub struct Played {
    servers: mpsc::UnboundedSender<MemoryTransport>,
    failures: Arc<Mutex<u32>>,
}

impl Played {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<MemoryTransport>) {
        let (servers, opened) = mpsc::unbounded_channel();
        (Self { servers, failures: Arc::default() }, opened)
    }

    /// The next `count` openings fail.
    pub fn fail(&self, count: u32) {
        *self.failures.lock().unwrap() = count;
    }
}

impl Backend for Played {
    fn open(&self, _: u64) -> Opening {
        let this = self.clone();
        Box::pin(async move {
            {
                let mut failures = this.failures.lock().unwrap();
                if *failures > 0 {
                    *failures -= 1;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
            }
            let (near, far) = MemoryTransport::pair();
            let _ = this.servers.send(far);
            Ok(Box::new(near) as Box<dyn PollTransport>)
        })
    }
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, work).await.expect("it takes too long")
}

pub async fn send<T: PollTransport + ?Sized>(to: &mut T, message: impl AsRef<[u8]>) {
    within(poll_fn(|cx| to.poll_ready(cx))).await.unwrap();
    to.start_send(message.as_ref()).unwrap();
}

pub async fn text<T: PollTransport + ?Sized>(from: &mut T) -> String {
    String::from_utf8(within(Transport::receive(from)).await.unwrap()).unwrap()
}

pub async fn end<T: PollTransport + ?Sized>(from: &mut T) -> Error {
    within(poll_fn(|cx| from.poll_receive(cx))).await.unwrap_err()
}

/// Starts a Python program that speaks newline-delimited JSON.
#[cfg(all(unix, feature = "net"))]
pub fn python(script: &'static str) -> Arc<dyn Backend> {
    use framewire::transport::ChildTransport;

    Arc::new(move |_: u64| -> Opening {
        Box::pin(async move {
            let builder = framewire::io::child::ChildBuilder::new("python3").args(["-u", "-c", script]);
            let (child, _) = ChildTransport::spawn(builder).map_err(io::Error::other)?;
            Ok(Box::new(child) as Box<dyn PollTransport>)
        })
    })
}
