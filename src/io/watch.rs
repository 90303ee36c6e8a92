//! The one place where a descriptor is handed to tokio's poller.
//!
//! Used by stdio and child.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Watches `fd` for `interest`. Fails with `PermissionDenied` (`EPERM`) for what the poller does not know, such as
/// regular files.
///
/// tokio 1.54 deprecates the safe constructor for an unsafe one, because a caller's type could name another descriptor
/// from one call to the next. An `OwnedFd` names one open descriptor all its life, so the safe one is sound here, and
/// this folder stays free of unsafe code.
#[allow(deprecated)]
pub(super) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
