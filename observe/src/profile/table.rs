//! The symbol table of this program's file.

use std::fs::{self, File};

use backtrace::SymbolName;
use object::read::{ReadCache, elf::ElfFile64};
use object::{Endianness, Object, ObjectSegment, ObjectSymbol, SymbolKind};

/// Functions by address, in order. Empty when the file is stripped, gone, or no ELF file.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Start, end and mangled name.
    functions: Vec<(u64, u64, String)>,
    /// Where the program lies in memory, relative to what its file says.
    moved: u64,
}

impl Table {
    pub(super) fn of_this_program() -> Self {
        Self::read().unwrap_or_default()
    }

    /// The full name of the function that a call before `address` belongs to.
    pub(super) fn name(&self, address: usize) -> Option<String> {
        let at = (address as u64).wrapping_sub(self.moved).checked_sub(1)?;
        let next = self.functions.partition_point(|(start, _, _)| *start <= at);
        let (_, end, name) = self.functions.get(next.checked_sub(1)?)?;
        (at < *end).then(|| format!("{:#}", SymbolName::new(name.as_bytes())))
    }

    fn read() -> Option<Self> {
        let path = fs::read_link("/proc/self/exe").ok()?;
        let cache = ReadCache::new(File::open("/proc/self/exe").ok()?);
        let file = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
        let lowest = file.segments().map(|segment| segment.address()).min()?;
        // Its first page is that of the file's begin.
        let maps = fs::read_to_string("/proc/self/maps").ok()?;
        let first = maps.lines().find(|line| line.ends_with(path.to_str().unwrap_or("\n")))?;
        let begin = u64::from_str_radix(first.split('-').next()?, 16).ok()?;
        let mut functions: Vec<_> = file
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
            .filter_map(|symbol| {
                let start = symbol.address();
                Some((start, start + symbol.size(), symbol.name().ok()?.to_owned()))
            })
            .collect();
        functions.sort();
        Some(Self { functions, moved: begin.wrapping_sub(lowest & !0xfff) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_between_two_functions_belongs_to_none() {
        let function = |start, end, name: &str| (start, end, name.to_owned());
        let table = Table { functions: vec![function(16, 32, "first"), function(48, 64, "second")], moved: 0x1000 };
        let names: Vec<_> = [16, 17, 32, 33, 48, 49, 64, 65].map(|at| table.name(0x1000 + at)).into();
        let (first, second) = (Some("first".to_owned()), Some("second".to_owned()));
        assert_eq!(names, [None, first.clone(), first, None, None, second.clone(), second, None]);
        assert_eq!(Table::default().name(0), None);
    }
}
