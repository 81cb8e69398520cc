//! One arm, with the system's allocator.

fn main() {
    mainspring_benches::arms::main(mainspring_benches::gate::Used::default);
}
