//! What can be said on the command line.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Publishes lines, shows messages, verifies brokers.
///
/// A URL is `<scheme>://<name>[?option=value…]`, for example `kafka://orders?group=ship` or `memory://orders`. How
/// brokers are reached is configured as in services: `KAFKA_BROKER_HOSTS`, `MAINSPRING_BROKERS__KAFKA__BROKERS`,
/// `--config FILE`, `--set brokers.kafka.brokers=…`. With `RUST_LOG=debug` drivers tell on standard error what they do.
///
/// Exit codes: 0 all well, 1 something failed (a line that was not published, too), 69 the broker cannot be reached, 78 the command line, a URL or the
/// configuration is wrong, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "mainspring", version, arg_required_else_help = true)]
pub(crate) struct Args {
    /// A configuration file: TOML, YAML or JSON; may be repeated.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,

    /// Sets one key of the configuration; may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<OsString>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Publish(PublishArgs),
    Tail(TailArgs),
    Verify(VerifyArgs),
}

/// Publishes one message for each line of the files, or of standard input.
///
/// Lines are published as the bytes they are, in order, without their line break. Ends with `N published, N failed`.
#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// Where to.
    pub(crate) url: String,

    /// Files to read, `-` for standard input; standard input when there are none.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// The key of every message.
    #[arg(long, conflicts_with = "key_field")]
    pub(crate) key: Option<String>,

    /// Reads each line as JSON, and takes this field of it as the key; `a.b` is field `b` of `a`.
    #[arg(long, value_name = "FIELD")]
    pub(crate) key_field: Option<String>,

    /// A header of every message; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
}

/// Prints messages as they come.
///
/// It receives in a group of its own, which takes nothing from any other and is removed at the end, unless the URL has
/// `group=`. A new group begins with the oldest message that there is; with `auto_offset_reset=latest` in a URL of Kafka,
/// with what comes from now on. Messages are acked once they are printed. Ends at an interrupt, or after N messages.
#[derive(Debug, clap::Args)]
pub(crate) struct TailArgs {
    /// Where from.
    pub(crate) url: String,

    /// Ends after this many messages.
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Prints one JSON object for each message.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the conformance suite against a live broker.
///
/// Publishes messages of its own to the topic, and receives in groups of its own: run it against a topic whose consumers
/// do not mind. Prints a line `pass|fail|skip name (reason)` for each case, and ends with `N passed, N failed, N
/// skipped`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The topic to use.
    #[arg(required_unless_present = "list")]
    pub(crate) url: Option<String>,

    /// Runs only this case; may be repeated.
    #[arg(long = "case", value_name = "NAME")]
    pub(crate) cases: Vec<String>,

    /// How many cases run at once, each with a topic of its own; one by one where topics cannot be made.
    #[arg(long, short, value_name = "N", default_value = "4")]
    pub(crate) jobs: NonZeroUsize,

    /// Prints the cases and what they are about, and runs none.
    #[arg(long)]
    pub(crate) list: bool,

    /// Prints one JSON object for each case, and one with the counts.
    #[arg(long)]
    pub(crate) json: bool,

    /// Uses as many messages as it takes to be thorough.
    #[arg(long)]
    pub(crate) full: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) => Err("the name is missing; write it as NAME=VALUE".to_owned()),
        None => Err("there is no `=`; write it as NAME=VALUE".to_owned()),
    }
}
