//! One arm, with the system's allocator.

fn main() {
    mainspring_benches::arms::main(|| (0, 0));
}
