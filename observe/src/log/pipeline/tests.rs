use super::*;
use crate::correlation::{self, Correlation};
use crate::trace::TraceContext;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn identity() -> Identity {
    Identity::new("orders \"east\"", "1.0\n")
}

fn config(directory: &Path) -> Config {
    let output = Output::File(directory.join("log"));
    Config { filter: "debug".to_owned(), format: Format::Json, output, ..Config::default() }
}

/// What is logged while `work` runs, as the lines that come out.
fn logged(config: &Config, work: impl FnOnce(&Pipeline)) -> Vec<String> {
    let (subscriber, pipeline) = Pipeline::build(config, &identity()).unwrap();
    tracing::subscriber::with_default(subscriber, || work(&pipeline));
    assert!(pipeline.flush(Instant::now() + Duration::from_secs(20)));
    let Output::File(path) = &config.output else { panic!("not a file") };
    lines(path)
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.split_terminator('\n').map(str::to_owned).collect()
}

fn json_lines(config: &Config, work: impl FnOnce(&Pipeline)) -> Vec<Json> {
    logged(config, work)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn json_logged(work: impl FnOnce(&Pipeline)) -> Vec<Json> {
    let directory = tempfile::tempdir().unwrap();
    json_lines(&config(directory.path()), work)
}

#[test]
fn an_event_has_the_keys_of_the_contract() {
    let trace = TraceContext::new();
    let correlation = Correlation { trace: Some(trace), request_id: Some(Bytes::from_static(b"r-1\xff")) };
    let all = json_logged(|_| {
        correlation::with(&correlation, || tracing::info!(target: "orders::ship", order = "A1", n = 2, "shipped"));
        tracing::warn!("bare");
    });
    let time = all[0]["ts"].as_str().unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.len() == 27 && time.ends_with('Z'), "{time}");
    let text = |ascii: &[u8]| String::from_utf8(ascii.to_vec()).unwrap();
    let mut expected = json!({
        "ts": time, "level": "INFO", "target": "orders::ship", "msg": "shipped", "service": "orders \"east\"",
        "version": "1.0\n", "trace_id": text(&trace.trace_id_hex()), "span_id": text(&trace.span_id_hex()),
        "request_id": "r-1\u{fffd}", "fields": {"order": "A1", "n": 2},
    });
    assert_eq!(all[0], expected);
    expected = json!({
        "ts": all[1]["ts"], "level": "WARN", "target": module_path!(), "msg": "bare", "service": "orders \"east\"",
        "version": "1.0\n", "fields": {},
    });
    assert_eq!(all[1], expected);
}

#[test]
fn fields_of_the_spans_around_are_shown_and_the_innermost_wins() {
    let all = json_logged(|_| {
        let outer = tracing::info_span!("outer", order = "A1", attempt = 1, state = tracing::field::Empty);
        outer.record("state", "new");
        let _outer = outer.enter();
        let _inner = tracing::info_span!("inner", attempt = 2, broker = "memory").entered();
        outer.record("state", "old");
        tracing::info!(broker = "kafka", broker = "sns", "in both");
    });
    assert_eq!(all[0]["fields"], json!({"broker": "kafka", "attempt": 2, "order": "A1", "state": "old"}));
}

#[test]
fn events_of_the_log_crate_come_with_their_own_target() {
    let all = json_logged(|_| {
        let mut record = tracing_log::log::Record::builder();
        record.target("rdkafka").level(tracing_log::log::Level::Warn);
        let record = record.args(format_args!("broker\ndown")).build();
        tracing_log::format_trace(&record).unwrap();
    });
    assert_eq!(
        (&all[0]["target"], &all[0]["msg"], &all[0]["fields"]),
        (&json!("rdkafka"), &json!("broker\ndown"), &json!({}))
    );
}

#[test]
fn a_field_whose_formatting_fails_costs_no_line() {
    struct Broken;
    impl fmt::Debug for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half \"")?;
            Err(fmt::Error)
        }
    }
    let all = json_logged(|_| {
        let span = tracing::info_span!("span", inside = ?Broken);
        span.in_scope(|| tracing::info!(field = ?Broken, "{Broken:?}"));
    });
    let failed = "half \"(formatting failed)";
    assert_eq!((&all[0]["msg"], &all[0]["fields"]), (&json!(failed), &json!({"field": failed, "inside": failed})));
}

#[test]
fn a_filter_is_changed_at_run_time_and_a_bad_one_changes_nothing() {
    let all = json_logged(|pipeline| {
        tracing::debug!("one");
        pipeline.set_filter("warn").unwrap();
        tracing::info!("two");
        tracing::warn!("three");
        let error = pipeline.set_filter("info,orders=loud").unwrap_err();
        assert!(error.to_string().contains("\"orders=loud\""), "{error}");
        assert_eq!(pipeline.filter(), "warn");
        tracing::info!("four");
        pipeline.set_filter(" off , mainspring_observe = trace").unwrap_err();
        pipeline.set_filter("off,mainspring_observe=trace").unwrap();
        tracing::trace!("five");
        assert_eq!(pipeline.filter(), "off,mainspring_observe=trace");
    });
    let said: Vec<_> = all.iter().map(|line| line["msg"].as_str().unwrap()).collect();
    assert_eq!(said, ["one", "three", "five"]);
}

#[test]
fn secrets_are_masked_wherever_they_stand() {
    let all = json_logged(|_| {
        let span = tracing::info_span!("span", db.password = "hunter2", late.token = tracing::field::Empty);
        span.record("late.token", "hunter2");
        span.in_scope(|| tracing::info!(authorization = "hunter2", api_key = ?"hunter2", user = "ann", "logged in"));
    });
    let expected = json!({
        "authorization": "***", "api_key": "***", "user": "ann", "db.password": "***", "late.token": "***",
    });
    assert_eq!(all[0]["fields"], expected);
}

#[test]
fn what_repeats_is_limited_and_the_next_line_says_how_many_were_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { limit: 2, ..config(directory.path()) };
    let all = json_lines(&config, |_| {
        let broker_down = |n: u64| tracing::error!(n, "broker down");
        (0..100).for_each(broker_down);
        std::thread::sleep(Duration::from_millis(600));
        broker_down(100);
        (0..100).for_each(|n| tracing::info!(n, "shipped"));
        (0..100).for_each(|_| tracing::debug!("asked for"));
    });
    let said = |message: &str| all.iter().filter(|line| line["msg"] == message).collect::<Vec<_>>();
    let down = said("broker down");
    // Four at once; on a slow machine time passes meanwhile, and lets some more through.
    assert!((5..20).contains(&down.len()), "{}", down.len());
    let left_out: u64 = down.iter().map(|line| line["fields"]["suppressed"].as_u64().unwrap_or(0)).sum();
    assert_eq!(down.len() as u64 + left_out, 101);
    assert_eq!((said("shipped").len(), said("asked for").len()), (100, 100));
}

#[test]
fn access_lines_go_to_their_own_file_in_the_same_schema() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("access");
    let config = Config { access: Access::To(Output::File(path.clone())), ..config(directory.path()) };
    let events = json_lines(&config, |pipeline| {
        let access = pipeline.access().unwrap().clone();
        let correlation = Correlation { trace: None, request_id: Some(Bytes::from_static(b"r-1")) };
        access.write(Level::INFO, "GET /a 200", &correlation, |fields| {
            fields.put("path", "/a\n\"b\"");
            fields.put("status", 200_u64);
        });
        access.write_line(|line| {
            access.write_line(|line| line.extend_from_slice(b"{\"inner\":\n1}"));
            line.extend_from_slice(b"{\"outer\":2}");
        });
        access.write_line(|_| ());
    });
    assert!(events.is_empty());
    let written: Vec<Json> = lines(&path).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&written[0]["target"], &written[0]["request_id"]), (&json!("access"), &json!("r-1")));
    assert_eq!(written[0]["fields"], json!({"path": "/a\n\"b\"", "status": 200}));
    assert_eq!(written[1..], [json!({"inner": 1}), json!({"outer": 2})]);
}

#[test]
fn access_lines_share_the_queue_of_events_when_they_share_the_output() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.access = Access::To(config.output.clone());
    let all = json_lines(&config, |pipeline| {
        assert!(pipeline.own_access.is_none());
        pipeline.access().unwrap().write(Level::INFO, "GET / 200", &Correlation::default(), |_| ());
    });
    assert_eq!(all[0]["target"], "access");
}

#[test]
fn a_file_that_was_renamed_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let rotated = directory.path().join("log.1");
    let config = config(directory.path());
    let after = json_lines(&config, |pipeline| {
        tracing::info!("before");
        assert!(pipeline.flush(Instant::now() + Duration::from_secs(20)));
        fs::rename(directory.path().join("log"), &rotated).unwrap();
        tracing::info!("between");
        assert!(pipeline.flush(Instant::now() + Duration::from_secs(20)));
        pipeline.reopen().unwrap();
        tracing::info!("after");
    });
    assert_eq!(after.iter().map(|line| &line["msg"]).collect::<Vec<_>>(), ["after"]);
    assert_eq!(lines(&rotated).len(), 2);
}

#[test]
fn an_output_that_cannot_be_opened_is_named() {
    let config = config(Path::new("/nowhere/at/all"));
    let error = Pipeline::build(&config, &identity()).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("log.output \"/nowhere/at/all/log\" cannot be opened: "), "{error}");
}

proptest! {
    #[test]
    fn any_event_is_one_json_line_that_reads_back(
        message: String, text: String, wild in "[\\x00-\\x{a0}\\x{2020}-\\x{2030}\"{}\\\\]{0,24}", bytes: Vec<u8>, signed: i64,
        unsigned: u64, big: u128, flag: bool, float: f64, request_id: Vec<u8>,
    ) {
        let correlation = Correlation { trace: None, request_id: Some(request_id.clone().into()) };
        let all = json_logged(|_| correlation::with(&correlation, || {
            let span = tracing::info_span!("span", outer = %wild, debug = ?text);
            span.in_scope(|| tracing::info!(
                text = text.as_str(), wild = wild.as_str(), bytes = bytes.as_slice(), signed, unsigned, big, flag, float,
                "weird key\n\"" = 1, "{message}",
            ));
        }));
        prop_assert_eq!(all.len(), 1);
        prop_assert_eq!(&all[0]["msg"], &*message);
        prop_assert_eq!(&all[0]["request_id"], &*String::from_utf8_lossy(&request_id));
        let mut fields = all[0]["fields"].clone();
        let read = fields.as_object_mut().unwrap().remove("float").unwrap();
        let expected = if float.is_finite() { json!(float) } else { json!(float.to_string()) };
        prop_assert_eq!(read, expected);
        let big = u64::try_from(big).map_or_else(|_| json!(big.to_string()), |big| json!(big));
        prop_assert_eq!(fields, json!({
            "text": text, "wild": wild, "bytes": String::from_utf8_lossy(&bytes), "signed": signed, "unsigned": unsigned, "big": big,
            "flag": flag, "weird key\n\"": 1, "outer": wild, "debug": format!("{text:?}"),
        }));
    }

    #[test]
    fn any_event_is_one_pretty_line_that_cannot_steer_a_terminal(message: String, wild in "[\\x00-\\x{a0}\\x{2020}-\\x{2030}]{0,24}", bytes: Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { format: Format::Pretty, ..config(directory.path()) };
        let correlation = Correlation { trace: None, request_id: Some(bytes.clone().into()) };
        let all = logged(&config, |_| correlation::with(&correlation, || {
            tracing::info!(target: "orders", wild = wild.as_str(), bytes = bytes.as_slice(), id = 7, "{message}{wild}");
        }));
        prop_assert_eq!(all.len(), 1);
        prop_assert!(all[0].contains("  INFO orders: ") && all[0].contains(" id=7"), "{}", all[0]);
        prop_assert!(!all[0].contains(char::is_control), "{:?}", all[0]);
    }
}
