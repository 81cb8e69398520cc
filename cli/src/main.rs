//! The `mainspring` command: publishes lines, shows messages, verifies brokers.

mod args;
mod exit;
mod lines;
mod publish;
mod settings;
mod show;
mod stop;
mod tail;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Args, Command};
use exit::Exit;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(told) => {
            // A reader that has left (`--help | head`) is no reason to complain.
            let _ = told.print();
            return if told.use_stderr() { exit::usage() } else { ExitCode::SUCCESS };
        }
    };
    show_logs();
    match run(args) {
        Ok(code) => code,
        Err(Exit { code, message }) => {
            exit::complain(&message);
            ExitCode::from(code)
        }
    }
}

/// With `RUST_LOG` in the environment, what the drivers have to say goes to standard error; otherwise nobody hears it.
fn show_logs() {
    if let Ok(filter) = EnvFilter::try_from_default_env() {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}

fn run(args: Args) -> Result<ExitCode, Exit> {
    let settings = settings::load(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Exit::unavailable(format!("cannot start a runtime: {error}")))?;
    let result = runtime.block_on(async {
        let (stop, at_once) = (stop::signals(1)?, stop::signals(2)?);
        let work = async {
            match args.command {
                Command::Publish(args) => publish::run(&settings, args, stop).await,
                Command::Tail(args) => tail::run(&settings, args, stop).await,
                Command::Verify(args) => verify::run(&settings, args, stop).await,
            }
        };
        tokio::select! {
            result = work => result,
            // Who asks twice does not want to wait for an orderly end.
            () = at_once => Ok(exit::interrupted()),
        }
    });
    // Threads that wait for input or for a broker must not keep a process that is done.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}
