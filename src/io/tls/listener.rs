//! [`Listener`]: accepts TLS connections, with many handshakes under way so that a silent client holds up nobody.

use std::{io, net::SocketAddr};

use tokio::{net::ToSocketAddrs, task::JoinSet};

use super::{TlsError, TlsReader, TlsServerConfig, TlsWriter};
use crate::{
    io::tcp::{self, TcpOptions},
    limits::TLS_HANDSHAKES_AT_ONCE,
};

/// What became of one connection.
type Outcome = (SocketAddr, Result<(TlsReader, TlsWriter), TlsError>);

/// A TLS listener.
///
/// Up to [`TLS_HANDSHAKES_AT_ONCE`] handshakes are under way while [`accept`](Self::accept) is waited for and also when it
/// is not; each has its deadline.
#[derive(Debug)]
pub struct Listener {
    listener: tcp::Listener,
    tls: TlsServerConfig,
    under_way: JoinSet<Outcome>,
    failures: u64,
}

impl Listener {
    /// Listens on `addr`.
    ///
    /// # Errors
    /// When the address cannot be resolved or is not free.
    ///
    /// # Panics
    /// When called outside a tokio runtime with I/O enabled.
    pub async fn bind(addr: impl ToSocketAddrs, tls: TlsServerConfig) -> io::Result<Self> {
        Self::bind_with(addr, tls, TcpOptions::default()).await
    }

    /// Listens on `addr`; its connections get `options`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Panics
    /// As [`bind`](Self::bind).
    pub async fn bind_with(
        addr: impl ToSocketAddrs,
        tls: TlsServerConfig,
        options: TcpOptions,
    ) -> io::Result<Self> {
        let listener = tcp::Listener::bind_with(addr, options).await?;
        Ok(Self { listener, tls, under_way: JoinSet::new(), failures: 0 })
    }

    /// The address listened on, with the port the system chose for port 0.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The settings of its connections, to [`reload`](TlsServerConfig::reload) their certificate.
    #[must_use]
    pub fn tls(&self) -> &TlsServerConfig {
        &self.tls
    }

    /// Handshakes that failed so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Waits for the next connection whose handshake is done. Handshakes that fail are counted and passed over;
    /// [`accept_any`](Self::accept_any) tells of them.
    ///
    /// # Errors
    /// Only when the listener itself is of no further use.
    ///
    /// # Panics
    /// When called outside a tokio runtime with time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    pub async fn accept(&mut self) -> io::Result<(TlsReader, TlsWriter, SocketAddr)> {
        loop {
            if let (peer, Ok((reader, writer))) = self.accept_any().await? {
                return Ok((reader, writer, peer));
            }
        }
    }

    /// Waits for the next handshake that is done or has failed.
    ///
    /// # Errors
    /// Only when the listener itself is of no further use.
    ///
    /// # Panics
    /// As [`accept`](Self::accept).
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    pub async fn accept_any(&mut self) -> io::Result<(SocketAddr, Result<(TlsReader, TlsWriter), TlsError>)> {
        loop {
            let Self { listener, tls, under_way, failures } = self;
            let step = {
                let mut accepting = std::pin::pin!(listener.accept());
                let room = under_way.len() < TLS_HANDSHAKES_AT_ONCE;
                std::future::poll_fn(|cx| {
                    use std::{future::Future, task::Poll};
                    // Those that are done come first, so that a flood of new ones does not hold them back.
                    if let Poll::Ready(Some(done)) = under_way.poll_join_next(cx) {
                        return Poll::Ready(Ok(Step::Done(done)));
                    }
                    if !room {
                        return Poll::Pending;
                    }
                    accepting.as_mut().poll(cx).map_ok(Step::Accepted)
                })
                .await?
            };
            match step {
                Step::Accepted((reader, writer, peer)) => {
                    let tls = tls.clone();
                    under_way.spawn(async move { (peer, tls.handshake(reader, writer).await) });
                }
                Step::Done(Ok(outcome)) => {
                    *failures += u64::from(outcome.1.is_err());
                    return Ok(outcome);
                }
                // The runtime ends, or a handshake panicked: that connection is gone.
                Step::Done(Err(_)) => *failures += 1,
            }
        }
    }
}

enum Step {
    Accepted((tcp::TcpReader, tcp::TcpWriter, SocketAddr)),
    Done(Result<Outcome, tokio::task::JoinError>),
}
