//! From addresses to names.

use std::collections::HashMap;
use std::ffi::c_void;

use super::table::Table;

/// One function at one address; more than one where functions were inlined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The function's name, without the hash that the compiler adds. Of an inlined function a build with
    /// `line-tables-only` knows the last part of the name alone.
    pub name: String,
    /// Its source file; empty when the build has no line tables.
    pub file: String,
    /// The line in it, 0 when unknown.
    pub line: u32,
}

/// The functions that the code at each address belongs to, the innermost inlined one first; none when nothing is
/// known. An address is that of the instruction after a call, as it stands on a stack.
///
/// This reads the program's debug information, which takes a while: do not call it on an async worker.
pub fn symbolize(addresses: impl IntoIterator<Item = usize>) -> HashMap<usize, Vec<Frame>> {
    let table = Table::of_this_program();
    let mut known = HashMap::new();
    for address in addresses {
        known.entry(address).or_insert_with(|| frames(address, &table));
    }
    // What was read of the program's file would stay in memory, a hundred megabytes for a debug build.
    backtrace::clear_symbol_cache();
    known
}

fn frames(address: usize, table: &Table) -> Vec<Frame> {
    let mut frames = Vec::new();
    backtrace::resolve(address as *mut c_void, |symbol| {
        let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
        let file = symbol.filename().map(|path| path.display().to_string()).unwrap_or_default();
        frames.push(Frame { name, file, line: symbol.lineno().unwrap_or(0) });
    });
    // Short debug information leaves out the path of a function; the symbol table has it, for whole functions.
    match (table.name(address), frames.last_mut()) {
        (Some(name), Some(outermost)) => outermost.name = name,
        (Some(name), None) => frames.push(Frame { name, file: String::new(), line: 0 }),
        (None, _) => {}
    }
    frames.retain(|frame| !frame.name.is_empty());
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_by_its_address_and_nonsense_is_not() {
        let (here, nowhere) = (a_function_is_found_by_its_address_and_nonsense_is_not as *const () as usize + 1, 16);
        let known = symbolize([here, nowhere]);
        let name = "mainspring_observe::profile::symbol::tests::a_function_is_found_by_its_address_and_nonsense_is_not";
        let frame = known[&here].last().unwrap();
        assert_eq!(frame.name, name);
        assert!(frame.file.ends_with("symbol.rs") && frame.line > 0, "{frame:?}");
        assert_eq!(known[&nowhere], []);
    }
}
