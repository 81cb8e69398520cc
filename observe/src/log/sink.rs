//! Where a queue's bytes end up.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::config::Output;

/// An open output. It does not buffer: its queue hands it whole batches.
pub(super) struct Sink {
    name: String,
    out: Box<dyn Write + Send>,
}

/// A write that did not succeed.
pub(super) struct WriteError {
    /// How many bytes were written before.
    pub(super) written: usize,
    pub(super) error: io::Error,
}

/// How long to wait before writing again to a pipe that is full and was made non-blocking by whoever shares it.
const FULL_PIPE: Duration = Duration::from_millis(5);

impl Sink {
    /// Opens `output`, a file for appending.
    pub(super) fn open(output: &Output) -> io::Result<Self> {
        match output {
            // A descriptor of its own: a pipe that nobody reads must not also hold the lock that `println!` takes.
            Output::Stdout => own("stdout", io::stdout().as_fd()),
            Output::Stderr => own("stderr", io::stderr().as_fd()),
            Output::File(path) => Ok(Self::new(path.display().to_string(), append_to(path)?)),
        }
    }

    pub(super) fn new(name: impl Into<String>, out: impl Write + Send + 'static) -> Self {
        Self { name: name.into(), out: Box::new(out) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Writes all of `bytes`, waiting as long as it takes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let mut written = 0;
        while written < bytes.len() {
            match self.out.write(&bytes[written..]) {
                Ok(0) => return Err(WriteError { written, error: io::ErrorKind::WriteZero.into() }),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PIPE),
                Err(error) => return Err(WriteError { written, error }),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sink").field(&self.name).finish()
    }
}

fn own(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<Sink> {
    Ok(Sink::new(name, File::from(descriptor.try_clone_to_owned()?)))
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
