//! Descriptors that cannot be polled: one thread each, with a bounded pipe in memory between it and the runtime.
//!
//! The thread is detached. It ends with its pipe or its descriptor; one that blocks in the system does not hold up
//! the end of the process.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    thread,
};
#[cfg(unix)]
use std::{fs::File, os::fd::OwnedFd};

use crate::io::memory::{MemoryReader, MemoryWriter, pipe};

/// Bytes of one read, and of the hand-over.
const CHUNK: usize = 64 * 1024;

/// The threads call the system and copy; they need no deep stack.
const STACK: usize = 128 * 1024;

/// A thread that reads `source` and hands it over.
pub(super) fn reader(source: impl Read + Send + 'static) -> io::Result<MemoryReader> {
    let (reader, writer) = pipe(CHUNK);
    thread::Builder::new()
        .name("framewire-stdin".into())
        .stack_size(STACK)
        .spawn(move || read_all(source, &writer))?;
    Ok(reader)
}

fn read_all(mut source: impl Read, writer: &MemoryWriter) {
    let mut chunk = vec![0; CHUNK];
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                if !writer.put_blocking(chunk.get(..count).unwrap_or_default()) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return writer.fail(error),
        }
    }
}

/// A thread that takes what is handed over and writes it to `target`.
pub(super) fn writer(target: impl Write + Send + 'static) -> io::Result<MemoryWriter> {
    let (reader, writer) = pipe(CHUNK);
    thread::Builder::new()
        .name("framewire-stdout".into())
        .stack_size(STACK)
        .spawn(move || write_all(target, &reader))?;
    Ok(writer)
}

// Takes `target` to close it before the reader, dropped by the caller, tells that it is gone.
fn write_all(mut target: impl Write, reader: &MemoryReader) {
    let mut chunk = VecDeque::new();
    while reader.take_blocking(&mut chunk) {
        let (front, back) = chunk.as_slices();
        let written =
            target.write_all(front).and_then(|()| target.write_all(back)).and_then(|()| target.flush());
        if let Err(error) = written {
            return reader.fail(error);
        }
    }
}

/// A descriptor that blocks even if someone else has made it non-blocking.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Patient {
    file: File,
}

#[cfg(unix)]
impl Patient {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { file: File::from(fd) }
    }

    fn insist<T>(
        &mut self,
        flags: rustix::event::PollFlags,
        mut call: impl FnMut(&mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(&mut self.file) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut waiting = [rustix::event::PollFd::new(&self.file, flags)];
                    match rustix::event::poll(&mut waiting, None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                done => return done,
            }
        }
    }
}

#[cfg(unix)]
impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.insist(rustix::event::PollFlags::IN, |file| file.read(buffer))
    }
}

#[cfg(unix)]
impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.insist(rustix::event::PollFlags::OUT, |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
