//! `profile.proto`, as `go tool pprof` reads it: <https://github.com/google/pprof/blob/main/proto/profile.proto>.
//!
//! Written by hand: the message is small, and a protobuf library would be one more in the build of every service.

use std::collections::HashMap;
use std::io::Write;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::stacks::{Kind, Profile};
use super::symbol::Frame;
use crate::proto::Message;

/// Strings by their place in the table; place 0 is the empty one.
struct Strings {
    places: HashMap<String, i64>,
    table: Vec<String>,
}

impl Profile {
    /// The profile as gzipped `profile.proto`. Functions are named in it, so that a reader needs no symbols of its own.
    pub fn pprof(&self) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to memory does not fail.
        let _ = gzip.write_all(&self.proto());
        gzip.finish().unwrap_or_default()
    }

    fn proto(&self) -> Vec<u8> {
        let mut strings = Strings { places: HashMap::new(), table: Vec::new() };
        strings.place("");
        let mut functions: HashMap<&Frame, u64> = HashMap::new();
        let mut locations: HashMap<usize, u64> = HashMap::new();
        let mut out = Message::default();
        for kind in self.kinds {
            out.message(1, |message| kind.encode(message, &mut strings));
        }
        for stack in &self.stacks {
            let ids: Vec<u64> = stack.addresses.iter().map(|address| place(&mut locations, *address)).collect();
            out.message(2, |sample| {
                sample.packed(1, ids);
                sample.packed(2, stack.values.iter().map(|value| *value as u64));
                if let Some(thread) = &stack.thread {
                    sample.message(3, |label| {
                        label.int(1, strings.place("thread"));
                        label.int(2, strings.place(thread));
                    });
                }
            });
        }
        out.message(3, |mapping| {
            let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
            mapping.int(1, 1);
            mapping.int(5, strings.place(&program));
            // Functions, files, lines and inlined frames are all here: nothing is left to look up.
            (7..=10).for_each(|has| mapping.int(has, 1));
        });
        let mut locations: Vec<_> = locations.into_iter().collect();
        locations.sort_by_key(|(_, id)| *id);
        for (address, id) in locations {
            out.message(4, |location| {
                location.int(1, id as i64);
                location.int(2, 1);
                location.int(3, address as i64);
                for frame in self.symbols.get(&address).into_iter().flatten() {
                    location.message(4, |line| {
                        line.int(1, place(&mut functions, frame) as i64);
                        line.int(2, i64::from(frame.line));
                    });
                }
            });
        }
        let mut functions: Vec<_> = functions.into_iter().collect();
        functions.sort_by_key(|(_, id)| *id);
        for (frame, id) in functions {
            out.message(5, |function| {
                function.int(1, id as i64);
                // Without a system name beside it: a reader that finds the same one there takes it for one of C++ that is
                // still to be simplified, and of `<T as Future>::poll` would leave `::poll`, the same for every `T`.
                function.int(2, strings.place(&frame.name));
                function.int(4, strings.place(&frame.file));
            });
        }
        out.int(9, self.began.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i64));
        out.int(10, self.took.as_nanos() as i64);
        out.message(11, |message| self.shown_kind().encode(message, &mut strings));
        out.int(12, self.period);
        out.int(14, strings.place(self.shown_kind().name));
        // Last, when all are known.
        for string in &strings.table {
            out.bytes(6, string.as_bytes());
        }
        out.into_bytes()
    }
}

impl Kind {
    fn encode(self, message: &mut Message, strings: &mut Strings) {
        message.int(1, strings.place(self.name));
        message.int(2, strings.place(self.unit));
    }
}

impl Strings {
    fn place(&mut self, text: &str) -> i64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.table.len() as i64;
        self.places.insert(text.to_owned(), place);
        self.table.push(text.to_owned());
        place
    }
}

/// Ids begin at 1: 0 means none.
fn place<K: std::hash::Hash + Eq>(ids: &mut HashMap<K, u64>, key: K) -> u64 {
    let next = ids.len() as u64 + 1;
    *ids.entry(key).or_insert(next)
}

#[cfg(test)]
mod tests {
    use super::super::stacks::tests::example;
    use crate::proto::tests::{Field, read};
    use std::io::Read;

    #[test]
    fn a_profile_reads_back() {
        let mut raw = Vec::new();
        flate2::read::GzDecoder::new(&*example().pprof()).read_to_end(&mut raw).unwrap();
        let fields = read(&raw);
        let all = |number: u32| fields.iter().filter(move |(n, _)| *n == number).map(|(_, field)| field);
        let strings: Vec<String> = all(6).map(|field| String::from_utf8(field.bytes().to_vec()).unwrap()).collect();
        assert_eq!(strings[0], "");
        let text = |message: &[(u32, Field)], number: u32| {
            strings[message.iter().find(|(n, _)| *n == number).unwrap().1.int() as usize].clone()
        };
        let kinds: Vec<_> =
            all(1).map(|kind| read(kind.bytes())).map(|kind| (text(&kind, 1), text(&kind, 2))).collect();
        let owned = |kind: (&str, &str)| (kind.0.to_owned(), kind.1.to_owned());
        assert_eq!(kinds, [owned(("samples", "count")), owned(("cpu", "nanoseconds"))]);
        let samples: Vec<_> = all(2).map(|sample| read(sample.bytes())).collect();
        assert_eq!(samples.len(), 3);
        assert_eq!(samples[0].iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((samples[0][0].1.bytes(), samples[0][1].1.bytes()), (&[1, 2][..], &[3, 30][..]));
        let label = read(samples[0][2].1.bytes());
        assert_eq!((text(&label, 1), text(&label, 2)), ("thread".to_owned(), "main".to_owned()));
        let inlined = all(4).map(|location| read(location.bytes())).find(|location| location[2].1.int() == 0x20);
        assert_eq!(inlined.unwrap().iter().filter(|(n, _)| *n == 4).count(), 2, "one line for each inlined function");
        let functions: Vec<_> = all(5).map(|function| read(function.bytes())).collect();
        let names: Vec<_> = functions.iter().map(|function| text(function, 2)).collect();
        assert_eq!(names, ["inlined", "work<&'a>", "main"]);
        assert!(functions.iter().flatten().all(|(n, _)| *n != 3), "a system name has readers shorten the name");
        assert_eq!((all(10).next().unwrap().int(), all(12).next().unwrap().int()), (2_000_000_000, 10));
    }
}
