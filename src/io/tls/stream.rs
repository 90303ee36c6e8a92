//! [`TlsReader`] and [`TlsWriter`]: the halves of a session, and the handshake before it.
//!
//! ```text
//! socket ─▶ 16 KiB on the stack ─▶ session (opens records) ─▶ the caller's window
//!                 └ held: what the session did not take, as it has enough to deliver
//! caller's parts ─▶ session (seals records) ─▶ socket, the same call, as far as it takes them
//! ```

use std::{
    fmt,
    io::{self, BufRead, IoSlice, Write},
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{TlsVersion, error::TlsError};
use crate::io::tcp::{TcpReader, TcpWriter};

/// Bytes that one read takes from the socket: a record has up to 16 KiB and some.
const READ: usize = 16 * 1024;

/// What both sides must agree on, and by when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreement {
    pub(super) timeout: Duration,
    /// Whether an application protocol must have been agreed on.
    pub(super) alpn: bool,
}

/// The session, for both halves.
struct Session {
    connection: Mutex<Connection>,
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the session what came and takes what it made of it. Returns how many bytes it took: fewer than all when it has
/// enough to deliver first. No bytes at all is the end of the stream.
fn feed(connection: &mut Connection, bytes: &[u8]) -> Result<usize, TlsError> {
    let mut rest = bytes;
    // Once it has enough to deliver it takes no more, which is an error of kind `Other`.
    while let Ok(taken) = connection.read_tls(&mut rest) {
        connection.process_new_packets().map_err(TlsError::from_rustls)?;
        if rest.is_empty() || taken == 0 {
            break;
        }
    }
    Ok(bytes.len() - rest.len())
}

/// Writes what the session has sealed as far as the socket takes it. Whether that was all.
fn write_sealed(connection: &mut Connection, mut socket: impl Write) -> io::Result<bool> {
    while connection.wants_write() {
        match connection.write_tls(&mut socket) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// A socket as a blocking writer sees one: what it cannot take now, it refuses.
struct Socket<'a>(&'a tokio::net::TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same for a half that is polled, which leaves word to be woken.
struct Polled<'a, 'b> {
    writer: &'a mut TcpWriter,
    cx: &'a mut Context<'b>,
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.writer).poll_write(self.cx, bytes) {
            Poll::Ready(done) => done,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.writer).poll_write_vectored(self.cx, parts) {
            Poll::Ready(done) => done,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn poll_sealed(
    connection: &mut Connection,
    writer: &mut TcpWriter,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    match write_sealed(connection, Polled { writer, cx }) {
        Ok(true) => Poll::Ready(Ok(())),
        Ok(false) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}

/// Makes a TCP connection a TLS one.
pub(super) async fn handshake(
    connection: Connection,
    reader: TcpReader,
    writer: TcpWriter,
    agreement: Agreement,
) -> Result<(TlsReader, TlsWriter), TlsError> {
    let agreed = agree(connection, reader, writer, agreement.alpn);
    match tokio::time::timeout(agreement.timeout, agreed).await {
        Ok(done) => done,
        Err(_) => Err(TlsError::HandshakeTimedOut { after: agreement.timeout }),
    }
}

async fn agree(
    mut connection: Connection,
    mut reader: TcpReader,
    mut writer: TcpWriter,
    alpn: bool,
) -> Result<(TlsReader, TlsWriter), TlsError> {
    let mut held = Vec::new();
    loop {
        let sent = std::future::poll_fn(|cx| poll_sealed(&mut connection, &mut writer, cx)).await;
        // A peer that refuses says why and hangs up; what it said counts for more than that writing failed.
        if !connection.is_handshaking() {
            sent?;
            break;
        }
        let mut bytes = vec![0; READ];
        let mut window = ReadBuf::new(&mut bytes);
        std::future::poll_fn(|cx| Pin::new(&mut reader).poll_read(cx, &mut window)).await?;
        let came = window.filled();
        if came.is_empty() {
            sent?;
            return Err(TlsError::EndedInHandshake);
        }
        match feed(&mut connection, came) {
            Ok(taken) => held.extend_from_slice(came.get(taken..).unwrap_or_default()),
            Err(error) => {
                // The peer is told why, if it can be told at once.
                let _told = write_sealed(&mut connection, Socket(writer.socket()));
                return Err(error);
            }
        }
    }
    if alpn && connection.alpn_protocol().is_none() {
        connection.send_close_notify();
        let _told = write_sealed(&mut connection, Socket(writer.socket()));
        return Err(TlsError::Alpn);
    }
    let session = Arc::new(Session { connection: Mutex::new(connection) });
    let reader = TlsReader { half: reader, session: session.clone(), held };
    Ok((reader, TlsWriter { half: writer, session, shut: false }))
}

/// The receiving half of a TLS connection.
///
/// Reading ends where the peer said close_notify, and fails with [`TlsError::Truncated`] behind an error of kind
/// `ConnectionReset` where the connection ended without it.
pub struct TlsReader {
    half: TcpReader,
    session: Arc<Session>,
    /// Sealed bytes that the session did not take yet.
    held: Vec<u8>,
}

impl TlsReader {
    /// Address of the peer.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.half.peer_addr()
    }

    /// Address of this end.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.half.local_addr()
    }

    /// The version agreed on.
    #[must_use]
    pub fn version(&self) -> TlsVersion {
        match self.session.lock().protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
            _ => TlsVersion::V1_3,
        }
    }

    /// The application protocol agreed on (ALPN).
    #[must_use]
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.session.lock().alpn_protocol().map(<[u8]>::to_vec)
    }

    /// The peer's certificate and those it sent along, in DER; none for a client that was not asked for one.
    #[must_use]
    pub fn peer_certificates(&self) -> Vec<Vec<u8>> {
        let session = self.session.lock();
        session.peer_certificates().unwrap_or_default().iter().map(|der| der.to_vec()).collect()
    }

    /// Gives the session what came. Tells the peer what the session has to say to that, such as that it broke the rules.
    fn feed(&self, bytes: &[u8]) -> Result<usize, TlsError> {
        let mut connection = self.session.lock();
        let owes = connection.wants_write();
        let fed = feed(&mut connection, bytes);
        // An answer to TLS itself leaves now, as the writer may have nothing to say for long: a client of TLS 1.2 waits
        // for the refusal of its renegotiation. Behind what the socket would not take, it leaves with that.
        if fed.is_err() || (!owes && connection.wants_write()) {
            let _told = write_sealed(&mut connection, Socket(self.half.socket()));
        }
        fed
    }

    /// What the session has opened; `None` when it needs more to open.
    fn deliver(&self, window: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let mut connection = self.session.lock();
        let mut reader = connection.reader();
        let before = window.filled().len();
        loop {
            let delivered = window.filled().len() - before;
            match reader.fill_buf() {
                // close_notify, or the window is full.
                Ok(opened) if opened.is_empty() || window.remaining() == 0 => return Some(Ok(())),
                Ok(opened) => {
                    let count = opened.len().min(window.remaining());
                    window.put_slice(opened.get(..count).unwrap_or_default());
                    reader.consume(count);
                }
                Err(_) if delivered > 0 => return Some(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Some(Err(TlsError::Truncated.into()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl AsyncRead for TlsReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        window: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if window.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(delivered) = this.deliver(window) {
                return Poll::Ready(delivered);
            }
            if !this.held.is_empty() {
                let taken = this.feed(&this.held)?;
                this.held.drain(..taken);
                continue;
            }
            let mut space = [MaybeUninit::uninit(); READ];
            let mut came = ReadBuf::uninit(&mut space);
            match Pin::new(&mut this.half).poll_read(cx, &mut came) {
                Poll::Ready(done) => done?,
                Poll::Pending => {
                    // An idle connection keeps nothing of its busy times.
                    this.held = Vec::new();
                    return Poll::Pending;
                }
            }
            let came = came.filled();
            let taken = this.feed(came)?;
            this.held.extend_from_slice(came.get(taken..).unwrap_or_default());
        }
    }
}

impl fmt::Debug for TlsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsReader").field("half", &self.half).finish_non_exhaustive()
    }
}

/// The sending half of a TLS connection. Shutting it down tells the peer that no more comes (close_notify); so does
/// dropping it, unless sealed bytes wait that the socket would not take.
pub struct TlsWriter {
    half: TcpWriter,
    session: Arc<Session>,
    shut: bool,
}

impl TlsWriter {
    /// Address of the peer.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.half.peer_addr()
    }

    /// Seals what `seal` writes, once all that was sealed before has left: so what waits for the socket is bounded by
    /// one call's worth, 64 KiB.
    fn poll_seal(
        &mut self,
        cx: &mut Context<'_>,
        seal: impl FnOnce(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut connection = self.session.lock();
        ready!(poll_sealed(&mut connection, &mut self.half, cx))?;
        let sealed = seal(&mut connection.writer())?;
        // Sealed is accepted, also when the socket takes it only later or never: the next call tells.
        let _later = poll_sealed(&mut connection, &mut self.half, cx);
        Poll::Ready(Ok(sealed))
    }
}

impl AsyncWrite for TlsWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, |writer| writer.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, |writer| writer.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut connection = this.session.lock();
        poll_sealed(&mut connection, &mut this.half, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut connection = this.session.lock();
        if !this.shut {
            this.shut = true;
            connection.send_close_notify();
        }
        ready!(poll_sealed(&mut connection, &mut this.half, cx))?;
        Pin::new(&mut this.half).poll_shutdown(cx)
    }
}

impl Drop for TlsWriter {
    fn drop(&mut self) {
        let mut connection = self.session.lock();
        if !self.shut && !connection.wants_write() {
            connection.send_close_notify();
            let _gone = write_sealed(&mut connection, Socket(self.half.socket()));
        }
    }
}

impl fmt::Debug for TlsWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsWriter").field("half", &self.half).finish_non_exhaustive()
    }
}
