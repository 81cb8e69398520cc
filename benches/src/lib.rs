//! What a request costs: bare `axum::serve` and the kit, the same route and the same client, side by side.
//!
//! | file | noun |
//! |---|---|
//! | `arms.rs` | the servers that are compared |
//! | `child.rs` | an arm in a process of its own, and what it has used |
//! | `http.rs` | requests: arms in turn |
//! | `hostile.rs` | connections that do nothing, or harm: others' latency, and memory |
//! | `watched.rs` | a CPU profile and a scrape while requests are served |
//! | `figures.rs`, `limits.rs` | their tables; as many descriptors as they need |
//! | `tower.rs` | the usual layers, for one of the arms |
//! | `load.rs` | the client |
//! | `messages.rs` | the paths of a message |
//! | `peer.rs` | the same through RustStream, as a mark |
//! | `rounds.rs` | arms in turn, and the table of what they did |
//! | `pubsub/` | messages: the kit beside channels and Kafka's own client |
//! | `machine.rs` | the machine's facts |
//! | `table.rs` | medians, spread, and how they are printed |
//! | `gate/` | instructions and allocations against committed numbers |
//! | `bin/gates.rs` | measures what is gated, and judges it |
//! | `bin/bench.rs` | runs it all, arms interleaved |
//! | `bin/serve.rs`, `bin/serve_counting.rs` | an arm, with the system's allocator or one that counts |

pub mod arms;
pub mod child;
pub mod figures;
pub mod gate;
pub mod hostile;
pub mod http;
pub mod limits;
pub mod load;
pub mod machine;
pub mod messages;
mod peer;
pub mod pubsub;
pub mod rounds;
pub mod table;
mod tower;
pub mod watched;
