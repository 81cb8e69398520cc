//! `mainspring verify`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use mainspring::pubsub::driver::Url;
use mainspring_testing::conformance::{
    self, Backend, CHILD, Case, CaseReport, MemoryBackend, Options, Report, Scale, UrlBackend,
};
use serde_json::json;
use tokio::process::Command;

use crate::args::VerifyArgs;
use crate::exit::{self, Exit, complain};
use crate::settings::Settings;
use crate::stop::Stop;

/// Runs the suite, or lists it.
pub(crate) async fn run(settings: &Settings, args: VerifyArgs, mut stop: Stop) -> Result<ExitCode, Exit> {
    if let Some(url) = std::env::var_os(CHILD) {
        // The suite has started this program again, as a consumer to be killed.
        let url = url.to_string_lossy().into_owned();
        return Ok(conformance::child(&backend(&url, settings), &url).await);
    }
    let cases = wanted(&args.cases)?;
    let Some(url) = args.url.filter(|_| !args.list) else {
        list(&cases, args.json);
        return Ok(ExitCode::SUCCESS);
    };
    let parsed = Url::parse(&url)?;
    let (backend, remote): (Arc<dyn Backend>, _) = match parsed.scheme() {
        "memory" => {
            // A wrong URL is told as such: the suite makes others.
            settings.brokers()?.publisher(&url).await?;
            (Arc::new(MemoryBackend::new()), None)
        }
        _ => {
            let opened = tokio::select! {
                biased;
                () = &mut stop => return Ok(exit::interrupted()),
                opened = open(&url, settings) => opened?,
            };
            let remote = Arc::new(opened);
            (Arc::<UrlBackend>::clone(&remote), Some(remote))
        }
    };
    let scale = if args.full { Scale::Full } else { Scale::Short };
    let options = Options::default().only(cases).scale(scale).at_once(args.jobs);
    let mut report = Report::default();
    let mut done = Vec::new();
    let finished = tokio::select! {
        finished = conformance::run(backend, &options, |case| {
            print(case, args.json);
            done.push(case.clone());
        }) => Some(finished),
        () = &mut stop => None,
    };
    if let Some(remote) = remote
        && let Err(error) = remote.remove_topics().await
    {
        complain(&format!("topics of the suite are left behind: {error}"));
    }
    report.cases = done;
    match finished {
        Some(finished) => drop(finished?),
        None => {
            summarise(&report, args.json);
            complain("interrupted; the other cases were not run");
            return Ok(exit::interrupted());
        }
    }
    summarise(&report, args.json);
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The broker at `url`. A topic that may not be made for each case has to be there.
async fn open(url: &str, settings: &Settings) -> Result<UrlBackend, Exit> {
    let backend = backend(url, settings).with_child(child).with_own_topics().await?;
    if backend.shares_topic() {
        settings.brokers()?.publisher(url).await?;
    }
    Ok(backend)
}

fn backend(url: &str, settings: &Settings) -> UrlBackend {
    let settings = settings.clone();
    UrlBackend::new(url, move || settings.brokers())
}

/// This program again, with the same arguments; the variable that the suite sets makes it a child.
fn child() -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| "mainspring".into());
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    command
}

/// The cases of these names; all when there are none.
fn wanted(names: &[String]) -> Result<Vec<&'static Case>, Exit> {
    if names.is_empty() {
        return Ok(conformance::cases().collect());
    }
    names.iter().map(|name| conformance::find(name).ok_or_else(|| unknown(name))).collect()
}

fn unknown(name: &str) -> Exit {
    let near = conformance::names().min_by_key(|known| strsim::damerau_levenshtein(name, known));
    let near = near.filter(|known| strsim::damerau_levenshtein(name, known) * 3 <= known.len());
    let hint = near
        .map_or_else(|| "`mainspring verify --list` has them all".to_owned(), |near| format!("did you mean `{near}`?"));
    Exit::usage(format!("there is no case `{name}`; {hint}"))
}

// A reader that has left is no reason to stop: the exit code still tells.

fn list(cases: &[&Case], json: bool) {
    let mut out = std::io::stdout().lock();
    for case in cases {
        let _ = match json {
            true => writeln!(out, "{}", json!({"name": case.name, "about": case.about})),
            false => writeln!(out, "{}: {}", case.name, case.about),
        };
    }
}

fn print(case: &CaseReport, json: bool) {
    let mut out = std::io::stdout().lock();
    let _ = match json {
        true => serde_json::to_writer(&mut out, case).map_err(Into::into).and_then(|()| writeln!(out)),
        false => writeln!(out, "{case}"),
    };
    let _ = out.flush();
}

fn summarise(report: &Report, json: bool) {
    let mut out = std::io::stdout().lock();
    let (passed, failed, skipped) = (report.passed(), report.failed(), report.skipped());
    let _ = match json {
        true => writeln!(out, "{}", json!({"passed": passed, "failed": failed, "skipped": skipped})),
        false => writeln!(out, "{}", report.summary()),
    };
}
