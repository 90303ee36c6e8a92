//! A certificate for the benchmark's own server, in files that only this user can read and that go with it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A certificate for 127.0.0.1 that vouches for itself.
pub(super) struct Certificate {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    pub(super) fn new() -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(io::Error::other)?;
        let file =
            |end: &str| std::env::temp_dir().join(format!("framewire-bench-{}.{end}", std::process::id()));
        let certificate = Self { cert: file("pem"), key: file("key") };
        write(&certificate.cert, &made.cert.pem())?;
        write(&certificate.key, &made.signing_key.serialize_pem())?;
        Ok(certificate)
    }
}

/// Never into a file that is there already: in a folder that is everyone's it may be anyone's.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.cert);
        let _ = fs::remove_file(&self.key);
    }
}
