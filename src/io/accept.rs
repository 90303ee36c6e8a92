//! What a listener does about a failed accept: most failures concern one connection or pass by themselves, and a
//! server must not die of them.
//!
//! Used by the listeners of this folder only.

use std::{io, time::Duration};

/// First pause after running out of a resource, in time. Doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(5);

/// Longest pause: within it of a descriptor coming free, the listener accepts again.
const LONGEST: Duration = Duration::from_secs(1);

/// Pause between accepts that fail in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pause: Option<Duration>,
}

impl Backoff {
    /// Waits as the error demands, or gives it back when waiting does not help.
    pub(super) async fn survive(&mut self, error: io::Error) -> io::Result<()> {
        match classify(&error) {
            Kind::Connection => {
                // One connection died before it was accepted; the next may stand in line already. The yield keeps a
                // peer that resets in a loop from holding this task.
                tokio::task::yield_now().await;
                Ok(())
            }
            Kind::Resource => {
                // The pending connection stays readable, so without a pause this would spin.
                let pause = self.pause.map_or(FIRST, |pause| (pause * 2).min(LONGEST));
                self.pause = Some(pause);
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Kind::Listener => Err(error),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The connection that was to be accepted is gone.
    Connection,
    /// The process or the machine has run out of something.
    Resource,
    /// The listener itself is broken.
    Listener,
}

fn classify(error: &io::Error) -> Kind {
    use io::ErrorKind as E;
    match error.kind() {
        // Linux hands errors already pending on the new socket to accept; accept(2) says to treat them as "try again".
        E::ConnectionAborted
        | E::ConnectionReset
        | E::ConnectionRefused
        | E::Interrupted
        | E::WouldBlock
        | E::NetworkDown
        | E::NetworkUnreachable
        | E::HostUnreachable
        | E::TimedOut => Kind::Connection,
        E::OutOfMemory => Kind::Resource,
        _ => classify_raw(error),
    }
}

#[cfg(unix)]
fn classify_raw(error: &io::Error) -> Kind {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Kind::Resource,
        // PERM: a firewall rule forbids this one connection.
        Some(Errno::PROTO | Errno::PERM | Errno::NOPROTOOPT | Errno::HOSTDOWN) => Kind::Connection,
        _ => Kind::Listener,
    }
}

#[cfg(not(unix))]
fn classify_raw(error: &io::Error) -> Kind {
    // WSAEMFILE and WSAENOBUFS.
    match error.raw_os_error() {
        Some(10024 | 10055) => Kind::Resource,
        _ => Kind::Listener,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_server_survives_what_passes_and_reports_what_does_not() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(classify(&errno.into()), Kind::Resource, "{errno}");
        }
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::NETDOWN, Errno::PERM] {
            assert_eq!(classify(&errno.into()), Kind::Connection, "{errno}");
        }
        for errno in [Errno::BADF, Errno::INVAL, Errno::NOTSOCK] {
            assert_eq!(classify(&errno.into()), Kind::Listener, "{errno}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_second() {
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let before = tokio::time::Instant::now();
            assert!(backoff.survive(Errno::MFILE.into()).await.is_ok());
            pauses.push(before.elapsed());
        }
        assert!(pauses.first().is_some_and(|first| *first < Duration::from_millis(10)));
        assert_eq!(pauses.last(), Some(&LONGEST));
    }
}
