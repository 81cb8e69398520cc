//! Lines of files and of standard input, as bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::exit::Exit;

/// Lines that are read ahead.
const AHEAD: usize = 1024;

/// One line, or why there is none.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) source: Arc<str>,
    /// From 1.
    pub(crate) number: u64,
    /// Without the line break.
    pub(crate) bytes: Result<Vec<u8>, Fault>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The line is longer than the broker takes.
    TooLong { limit: usize },
    /// The source cannot be read on.
    Read(String),
}

/// A place that lines come from.
pub(crate) struct Source {
    name: Arc<str>,
    reader: Box<dyn Read + Send>,
}

/// Opens all files, so that nothing is published when one is missing.
pub(crate) fn open(files: &[std::path::PathBuf]) -> Result<Vec<Source>, Exit> {
    if files.is_empty() {
        return Ok(vec![Source::stdin()]);
    }
    files.iter().map(|file| if file.as_os_str() == "-" { Ok(Source::stdin()) } else { Source::file(file) }).collect()
}

/// Reads the sources one after the other. A line that is longer than `limit` is passed over without being held.
///
/// A thread does it that nobody joins: a read from a terminal or a pipe cannot be cancelled, and must not keep a process
/// that is told to stop. It ends with its sources, or with the receiver.
pub(crate) fn read(sources: Vec<Source>, limit: usize) -> Receiver<Line> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        for Source { name, reader } in sources {
            if read_one(&name, BufReader::with_capacity(64 * 1024, reader), limit, &sender).is_none() {
                return;
            }
        }
    });
    receiver
}

/// `None` when nobody listens any more.
fn read_one(name: &Arc<str>, mut reader: impl BufRead, limit: usize, sender: &Sender<Line>) -> Option<()> {
    for number in 1.. {
        let bytes = match next(&mut reader, limit) {
            Ok(None) => break,
            Ok(Some(bytes)) => bytes,
            Err(error) => Err(Fault::Read(error.to_string())),
        };
        let ended = matches!(bytes, Err(Fault::Read(_)));
        sender.blocking_send(Line { source: Arc::clone(name), number, bytes }).ok()?;
        if ended {
            break;
        }
    }
    Some(())
}

/// The next line; `None` at the end.
fn next(reader: &mut impl BufRead, limit: usize) -> io::Result<Option<Result<Vec<u8>, Fault>>> {
    let (mut line, mut length, mut begun) = (Vec::new(), 0_usize, false);
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() && !begun {
            return Ok(None);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        length += part.len();
        if length <= limit {
            line.extend_from_slice(part);
        } else {
            line = Vec::new();
        }
        let (taken, ended) = (part.len() + usize::from(end.is_some()), end.is_some() || buffer.is_empty());
        begun = true;
        reader.consume(taken);
        if ended {
            return Ok(Some(if length <= limit { Ok(line) } else { Err(Fault::TooLong { limit }) }));
        }
    }
}

impl Source {
    fn stdin() -> Self {
        Self { name: "standard input".into(), reader: Box::new(io::stdin()) }
    }

    fn file(path: &Path) -> Result<Self, Exit> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Exit::usage(format!("cannot open {name}: {error}")))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Exit::usage(format!("cannot read {name}: it is a directory")));
        }
        Ok(Self { name: name.into(), reader: Box::new(file) })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong { limit } => write!(f, "the line has more than {limit} bytes, the broker's limit"),
            Self::Read(error) => write!(f, "cannot read on: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut input: &[u8], limit: usize) -> Vec<Result<Vec<u8>, Fault>> {
        // A buffer of three bytes, so that lines span it.
        let mut reader = BufReader::with_capacity(3, &mut input);
        std::iter::from_fn(|| next(&mut reader, limit).unwrap()).collect()
    }

    fn ok(line: &str) -> Result<Vec<u8>, Fault> {
        Ok(line.as_bytes().to_vec())
    }

    #[test]
    fn lines_are_the_bytes_between_breaks() {
        assert_eq!(lines(b"", 100), []);
        assert_eq!(lines(b"\n", 100), [ok("")]);
        assert_eq!(lines(b"one\n\ntwo longer\r\nlast", 100), [ok("one"), ok(""), ok("two longer\r"), ok("last")]);
        assert_eq!(lines(b"abc\n", 100), [ok("abc")]);
        assert_eq!(lines(b"\xff\xfe\n\0", 100), [Ok(b"\xff\xfe".to_vec()), Ok(b"\0".to_vec())]);
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over_and_the_next_is_read() {
        assert_eq!(lines(b"12345\n123456\nx\n", 5), [ok("12345"), Err(Fault::TooLong { limit: 5 }), ok("x")]);
        assert_eq!(lines(b"123456", 5), [Err(Fault::TooLong { limit: 5 })]);
    }
}
