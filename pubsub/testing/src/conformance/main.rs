//! The suite as a test binary.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::case::{Case, cases};
use super::child::{CHILD, child};
use super::report::{CaseReport, Outcome, Report};
use super::run::{Options, Scale, run};

/// What the command line of a test binary asks for.
#[derive(Debug, Default)]
struct Args {
    filters: Vec<String>,
    skips: Vec<String>,
    at_once: Option<NonZeroUsize>,
    exact: bool,
    list: bool,
    ignored_only: bool,
}

/// The `main` of a test binary with `harness = false`: runs the suite against a backend, prints what `cargo test`
/// prints, and takes its common flags (names to run, `--exact`, `--skip`, `--list`, `--test-threads` for how many cases run at once).
///
/// With the variable `CONFORMANCE=full` it is thorough: see [`Scale`]. Where the binary was started as a
/// [`child`] of the suite, it is that instead.
pub fn main<B: Backend>(backend: impl FnOnce() -> B) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(unknown) => {
            eprintln!(
                "the conformance suite does not know the flag `{unknown}`; it knows --exact, --skip NAME, --test-threads N and --list"
            );
            return ExitCode::FAILURE;
        }
    };
    if args.list {
        cases().filter(|case| args.wants(case)).for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let code = runtime.block_on(async {
        let is_child = std::env::var_os(CHILD).is_some();
        if !is_child && !cases().any(|case| args.wants(case)) {
            // A filter for other tests: no broker is needed for that.
            print_result(&Report::default(), cases().count(), Instant::now());
            return ExitCode::SUCCESS;
        }
        let backend = Arc::new(backend());
        if let Some(url) = std::env::var_os(CHILD) {
            return child(&*backend, &url.to_string_lossy()).await;
        }
        perform(backend, &args).await
    });
    // A driver whose thread does not end must not keep a finished test from ending.
    runtime.shutdown_timeout(Duration::from_secs(5));
    code
}

async fn perform(backend: Arc<dyn Backend>, args: &Args) -> ExitCode {
    let wanted: Vec<_> = cases().filter(|case| args.wants(case)).collect();
    let filtered = cases().count() - wanted.len();
    println!("\nrunning {} tests", wanted.len());
    let full = std::env::var_os("CONFORMANCE").is_some_and(|value| value == "full");
    let scale = if full { Scale::Full } else { Scale::Short };
    let started = Instant::now();
    let options = Options { only: wanted, scale, at_once: args.at_once };
    let report = match run(Arc::clone(&backend), &options, print).await {
        Ok(report) => report,
        Err(error) => {
            println!("test {} ... FAILED\n{error:?}", backend.name());
            println!("\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; {filtered} filtered out");
            return ExitCode::FAILURE;
        }
    };
    print_failures(&report);
    print_result(&report, filtered, started);
    if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_result(report: &Report, filtered: usize, started: Instant) {
    let result = if report.failed() == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {} passed; {} failed; {} ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        report.passed(),
        report.failed(),
        report.skipped(),
        started.elapsed().as_secs_f64()
    );
}

fn print(case: &CaseReport) {
    match &case.outcome {
        Outcome::Passed => println!("test {} ... ok", case.name),
        Outcome::Failed(_) => println!("test {} ... FAILED", case.name),
        Outcome::Skipped(why) => println!("test {} ... ignored, {why}", case.name),
    }
}

fn print_failures(report: &Report) {
    let failed: Vec<_> = report.cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed(_))).collect();
    if failed.is_empty() {
        return;
    }
    println!("\nfailures:\n");
    for case in failed {
        println!("---- {} ----\n{}\n", case.name, case.outcome.reason().unwrap_or_default());
    }
}

impl Args {
    fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                "--ignored" => parsed.ignored_only = true,
                "--skip" => parsed.skips.extend(args.next()),
                "--test-threads" => parsed.at_once = args.next().and_then(|count| count.parse().ok()),
                // What cargo and editors pass along, and what changes nothing here.
                "--nocapture" | "--no-capture" | "--quiet" | "-q" | "--include-ignored" | "--show-output" => {}
                "--color" | "--format" | "-Z" => drop(args.next()),
                flag if flag.starts_with("--color=") || flag.starts_with("--format=") => {}
                flag if flag.starts_with("--test-threads=") => parsed.at_once = flag[15..].parse().ok(),
                flag if flag.starts_with('-') => return Err(arg),
                _ => parsed.filters.push(arg),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, case: &Case) -> bool {
        let matches = |name: &String| if self.exact { case.name == name } else { case.name.contains(name.as_str()) };
        !self.ignored_only
            && (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(args: &[&str]) -> Vec<&'static str> {
        let args = Args::parse(args.iter().map(|arg| (*arg).to_owned())).unwrap();
        cases().filter(|case| args.wants(case)).map(|case| case.name).collect()
    }

    #[test]
    fn names_filter_as_they_do_in_libtest() {
        assert_eq!(wanted(&[]).len(), cases().count());
        assert_eq!(wanted(&["--exact", "dropped_deliveries_come_again"]), ["dropped_deliveries_come_again"]);
        assert!(wanted(&["router"]).iter().all(|name| name.contains("router")));
        assert!(!wanted(&["--skip", "router", "--test-threads=1"]).iter().any(|name| name.contains("router")));
        assert!(wanted(&["--ignored"]).is_empty());
        for one in [&["--test-threads=1"][..], &["--test-threads", "1"]] {
            let args = Args::parse(one.iter().map(|arg| (*arg).to_owned())).unwrap();
            assert_eq!(args.at_once, NonZeroUsize::new(1));
        }
        assert!(Args::parse(["--nonsense".to_owned()]).is_err());
    }

    #[test]
    fn every_case_has_a_name_of_its_own_and_says_what_it_is_about() {
        let mut names: Vec<_> = cases().map(|case| case.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(cases().all(|case| case.about.ends_with('.') && case.patience > 0));
    }
}
