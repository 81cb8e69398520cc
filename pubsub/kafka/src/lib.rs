//! Apache Kafka for `mainspring-pubsub`: `kafka://orders?group=ship`, `kafka://host:9092,host:9092/orders?group=ship`.
//!
//! Register [`opener`] for the scheme `kafka`; the facade crate does so with its feature `kafka`. The topic has to exist
//! (or the broker to make it when it is first published to), and opening waits up to `grace` for that, for a broker that
//! answers and takes the password; the error then names which of these it was.
//!
//! # Options
//! | option | default | |
//! |---|---|---|
//! | `group` | | the consumer group; subscribing needs one |
//! | `protocol` | `auto` | `consumer` (KIP-848), `classic` (`range`), or `auto`: the first where the broker has it |
//! | `auto_offset_reset` | `earliest` | where a new group begins; `latest` is noted as the group's position at once |
//! | `session_timeout` | the client's, 45 s | with `protocol=classic`: after how long a dead member's partitions move |
//! | `rebalance_timeout` | the client's, 5 min | how long the group waits for a member to give up partitions before it goes on without |
//! | `drain` | `5s` | how long a rebalance waits for messages that are being handled |
//! | `grace` | `10s` | how long opening waits for a broker and the topic |
//! | `client_id` | `mainspring` | what the broker's logs call this client |
//! | `compression` | `lz4` | `none`, `gzip`, `lz4`, `snappy` or `zstd` |
//! | `linger` | `5ms` | how long a message may wait for others to travel with |
//! | `membership` | `dynamic` | `static`: the group knows the member by its `instance`, and keeps its partitions for it while it is away, until its session ends |
//! | `instance` | the host's name | for transactions and static members: what tells this member of the group from the others, and is the same after a restart |
//! | `rack` | | where this consumer is: brokers that have a `replica.selector.class` for it let it read from a replica in the same place |
//!
//! # Security
//! `kafka.security` of the configuration says how connections are protected, `kafka.sasl` who logs in, `kafka.tls` whose
//! certificates are trusted and which to show: see [`KafkaConfig`](mainspring_pubsub::KafkaConfig). A user and a password
//! may also stand before the brokers, as in `kafka://user:password@host:9092/orders`; they come first, and are used with
//! TLS if that is configured.
//!
//! TLS and the SCRAM mechanisms need the cargo feature `tls` (`kafka-tls` of the facade), which links the system's OpenSSL.
//! To build with it, OpenSSL's headers and pkg-config have to be there (`apt-get install libssl-dev pkg-config`), and its
//! library (`libssl3`) where the program runs. Without the feature there are plaintext and `PLAIN`, and a configuration that wants more is
//! refused when a URL is opened.
//!
//! # Delivery
//! - **Acks** are noted at once and committed every second, when partitions move, and when the subscriber closes.
//!   Committed is the lowest message that is not done; what is done above it is noted beside it, up to 4096 bytes, so
//!   that one message that is stuck does not have thousands handled again after a crash.
//! - **Rebalances** wait for what is being handled, up to `drain`, and then commit, for 5 s at most. What is settled after its partition
//!   has moved answers [`Lost`](mainspring_pubsub::ErrorKind::Lost).
//! - **Nacked** and dropped messages are kept here and handed out again; attempts are counted as long as the partition
//!   stays. Kafka itself counts none, so a message that kills its process is at its first attempt with every next owner, and
//!   never becomes a dead letter. Messages of one key stand in one partition, in order, but one that is nacked does not hold back those
//!   behind it: a [`Router`](mainspring_pubsub::Router) does that.
//! - **Rejected** messages: Kafka has no dead letters, so that answers [`Unsupported`](mainspring_pubsub::ErrorKind::Unsupported),
//!   and the message comes again after ten seconds. A [`Router`](mainspring_pubsub::Router) that was given no other place
//!   publishes them to the topic `<topic>.dead`; it makes that topic when it starts, with the broker's defaults and room for
//!   the source's largest messages, and does not start where it neither is there nor can be made. Only that topic's own
//!   `max.message.bytes` limits dead letters. One over it is held, and tried again until somebody has raised the limit;
//!   its partition goes on meanwhile, and waits when it is 10,000 messages ahead. A partition that waits is named in the
//!   log each minute, and on `/debug/pubsub`; `pubsub_partitions_waiting` counts them.
//! - **Published** messages are confirmed by all replicas in sync, without duplicates by the client's retries, and stand
//!   in the partition in which Kafka's own clients would put their key.
//!
//! # Readiness
//! A [`Router`](mainspring_pubsub::Router) is ready when the group has let its consumer in, whether or not there was a partition
//! left for it, and no longer ready when for three seconds no broker can be reached or an error comes again and again without any message in
//! between, and when the topic is gone: while nothing comes, it is looked after every five seconds. All of that passes by itself, a
//! topic that is made anew is read from its beginning, and `/readyz?verbose` says what it is.
//!
//! # Metrics
//! Besides what all drivers have: `pubsub_lag` by partition, `pubsub_partitions`, `pubsub_rebalances_total`,
//! `pubsub_transaction_duration_seconds{outcome}`, `pubsub_transaction_messages_total`, and
//! `pubsub_settle_failures_total{error_type}`: commits that the broker refused or did not answer, by the kind of the error, and
//! transactions that were `aborted` or whose end is `unclear`. What such a one had, the next one has, unless the partition is lost.
//!
//! # Memory
//! A subscriber keeps up to 4 MiB, or 8,000 messages, that wait to be handed out, and the client up to 1 MiB for each
//! partition, as they are after decompression, besides the fetch that goes over it. What handlers and a router hold comes on top:
//! see [`Router::max_bytes`](mainspring_pubsub::Router::max_bytes).
//!
//! # Exactly once
//! A [`Router`](mainspring_pubsub::Router) that is `exactly_once` has what a handler leaves in its
//! [`Outbox`](mainspring_pubsub::Outbox) published, and its message's position committed, in one Kafka transaction.
//! - Outboxes are kept here until everything before them in their partition is done; then they are published in the order
//!   of the messages that they come from, many in one transaction, about every 50 ms. Handlers run meanwhile, as many as the router
//!   lets, and one that fails aborts nothing. A message that is retried holds back what comes of the later ones of its
//!   partition; fetching pauses at 10,000 of those, or 64 MiB.
//! - Whoever reads with `isolation.level=read_committed`, the default of this driver, sees each output once. Readers wait
//!   behind a transaction that is open, for as long as it takes the broker: some ten milliseconds.
//! - **Rebalances** commit what is done before partitions leave. A member that has lost its partitions without having
//!   noticed, since it was frozen say, is fenced: the broker refuses its positions, the transaction is aborted, its
//!   outputs are never seen, and the messages are handled by the new owner.
//! - **Stopping** commits what is done until the deadline. What is left is aborted by the broker and handled again.
//! - **Names.** The `transactional.id` is `mainspring.<group>.<topic>.<instance>.<n>`, with `n` counting the subscribers that one
//!   process has of that group and topic. Two members must never have the same one at once: they end each other's
//!   transactions, and soon one of them fails and says so. Processes on one host need `instance=…`. One that is killed in the
//!   middle of a transaction holds its partitions up for 15 s, unless it is started again under the same name.
//! - What the broker refuses for good (a topic that was deleted, a message over the topic's own limit, no permission) ends
//!   the route with an error that names it: nothing is skipped.

mod bodies;
mod client;
mod consumer;
mod dead_letters;
mod error;
mod holes;
mod instance;
mod metrics;
mod opener;
mod options;
mod publisher;
mod record;
mod security;
mod startup;
mod topics;
mod tracker;

use mainspring_pubsub::driver::{Capabilities, Limits};

pub use opener::{Opener, opener};

pub(crate) const SYSTEM: &str = "kafka";

/// What Kafka can do. `replay` says that a new group begins with what is there.
fn capabilities(replay: bool, limits: Limits) -> Capabilities {
    let mut can = Capabilities::default();
    can.nack = true;
    can.ordered_by_key = true;
    can.attempts = true;
    can.replay = replay;
    can.transactions = true;
    can.limits = limits;
    can
}
