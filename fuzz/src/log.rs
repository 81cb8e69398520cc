//! Log lines: whatever the fields hold, an event is one line, in JSON that says what was given, or in Apache's format that
//! can be taken apart again; secrets are in neither.

use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::time::Duration;

use mainspring_observe::Identity;
use mainspring_observe::correlation::{self, Correlation};
use mainspring_observe::log::{self, Combined, LineWriter, Output};
use mainspring_observe::trace::TraceContext;
use serde_json::{Value as Json, json};
use tracing::field::Empty;

use crate::input::Input;
use crate::{SECRET, assert_hidden, holds_secret};

/// The log of this process, and what it wrote.
struct Log {
    _guard: log::Guard,
    access: LineWriter,
    events: File,
    requests: File,
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("mainspring-fuzz-log-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for files");
    let (events, requests) = (folder.join("events"), folder.join("requests"));
    let config = log::Config {
        filter: "trace".to_owned(),
        format: log::Format::Json,
        output: Output::File(events.clone()),
        access: log::Access::To(Output::File(requests.clone())),
        limit: 0,
        ..log::Config::default()
    };
    let guard = log::init(&config, &Identity::new("fuzz\"\n", "1\u{7f}")).expect("a log");
    let open = |path| File::options().read(true).write(true).open(path).expect("a log file");
    Log { access: log::writer().expect("an access log"), events: open(events), requests: open(requests), _guard: guard }
});

pub(crate) fn run(bytes: &[u8]) {
    if holds_secret(bytes) {
        return;
    }
    let log = &*LOG;
    event(log, Input(bytes));
    request(log, Input(bytes));
    combined(log, Input(bytes));
}

fn event(log: &Log, mut input: Input<'_>) {
    let (message, text, outer, raw) = (input.text(), input.text(), input.text(), input.part());
    let (signed, wide) = (i64::from_le_bytes(input.array()), u128::from_le_bytes(input.array()));
    let float = f64::from_le_bytes(input.array());
    let hidden = format!("{text}{SECRET}{outer}");
    let correlation = Correlation { trace: TraceContext::parse(raw), request_id: Some(raw.to_vec().into()) };
    correlation::with(&correlation, || {
        let span =
            tracing::info_span!("outer", outer = &*outer, text = "hidden by the event", token = %hidden, late = Empty);
        let _entered = span.enter();
        span.record("late", tracing::field::debug(&raw));
        tracing::error!(
            target: "fuzz",
            text = &*text, raw, signed, wide, float, debug = ?text, display = %outer, error = ?hidden.len(),
            password = &*hidden, db.password = %hidden, "X-Api-Key" = ?hidden, set_cookie = hidden.as_bytes(),
            "{message}"
        );
    });
    let line = one_line(&log.events);
    let said: Json = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(said["msg"], *message);
    assert_eq!(
        (&said["service"], &said["level"], &said["target"]),
        (&json!("fuzz\"\n"), &json!("ERROR"), &json!("fuzz"))
    );
    assert_eq!(said["request_id"], *String::from_utf8_lossy(raw));
    assert_eq!(said.get("trace_id").is_some(), correlation.trace.is_some());
    let fields = &said["fields"];
    assert_eq!(fields["text"], *text);
    assert_eq!(fields["outer"], *outer);
    assert_eq!(fields["display"], *outer);
    assert_eq!(fields["debug"], format!("{text:?}"));
    assert_eq!(fields["late"], format!("{raw:?}"));
    assert_eq!(fields["raw"], *String::from_utf8_lossy(raw));
    assert_eq!(fields["signed"], signed);
    assert_eq!(fields["wide"], u64::try_from(wide).map_or_else(|_| json!(wide.to_string()), Json::from));
    assert_eq!(fields["float"], if float.is_finite() { json!(float) } else { json!(format!("{float:?}")) });
    for secret in ["password", "db.password", "X-Api-Key", "set_cookie", "token"] {
        assert_eq!(fields[secret], "***", "{line}");
    }
    assert_eq!(line.matches("\"text\":").count(), 1, "a field twice: {line}");
}

fn request(log: &Log, mut input: Input<'_>) {
    let (path, agent, id) = (input.text(), input.part(), input.part());
    let correlation = Correlation { trace: None, request_id: Some(id.to_vec().into()) };
    let took = Duration::from_nanos(u64::from_le_bytes(input.array()));
    log.access.write(tracing::Level::INFO, &path, &correlation, |fields| {
        fields.put("path", &*path);
        fields.put("duration_ms", log::Value::Millis(took));
        fields.put("user_agent", log::Value::Bytes(agent));
    });
    let line = one_line(&log.requests);
    let said: Json = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!((&said["msg"], &said["target"]), (&json!(path), &json!("access")));
    assert_eq!(said["fields"]["path"], *path);
    assert_eq!(said["fields"]["user_agent"], *String::from_utf8_lossy(agent));
    assert!(said["fields"]["duration_ms"].is_number(), "{line}");
}

fn combined(log: &Log, mut input: Input<'_>) {
    let (path, referer, agent) = (input.text(), input.part(), input.part());
    let remote = IpAddr::from(Ipv6Addr::from(u128::from_le_bytes(input.array())));
    let bytes_out = u64::from_le_bytes(input.array());
    log.access.write_combined(&Combined {
        remote: Some(remote),
        method: "GET",
        path: &path,
        protocol: "HTTP/1.1",
        status: 200,
        bytes_out,
        referer: Some(referer),
        user_agent: Some(agent),
    });
    let line = one_line(&log.requests);
    assert!(line.is_ascii(), "{line}");
    let (host, rest) = line.split_once(" - - [").expect("a host");
    assert_eq!(host.parse(), Ok(remote.to_canonical()));
    let (time, rest) = rest.split_once("] ").expect("a time");
    assert_eq!((time.len(), &time[20..]), (26, " +0000"));
    let (asked, rest) = unquoted(rest);
    assert_eq!(asked, format!("GET {path} HTTP/1.1").as_bytes());
    let (answered, rest) = rest[1..].split_at(rest[1..].find('"').expect("a referer"));
    let length = if bytes_out == 0 { "-".to_owned() } else { bytes_out.to_string() };
    assert_eq!(answered, format!("200 {length} "));
    let (read, rest) = unquoted(rest);
    assert_eq!(read, referer);
    let (read, rest) = unquoted(&rest[1..]);
    assert_eq!((&*read, rest), (agent, ""));
}

/// Takes a quoted text off the beginning and undoes Apache's escapes.
fn unquoted(text: &str) -> (Vec<u8>, &str) {
    let mut bytes = text.bytes().enumerate().skip(1);
    let mut read = Vec::new();
    loop {
        match bytes.next().expect("a quote at the end") {
            (at, b'"') => return (read, &text[at + 1..]),
            (_, b'\\') => match bytes.next().expect("what is escaped") {
                (_, b't') => read.push(b'\t'),
                (at, b'x') => {
                    bytes.nth(1);
                    read.push(u8::from_str_radix(&text[at + 1..at + 3], 16).expect("two digits"));
                }
                (_, escaped) => read.push(escaped),
            },
            (_, plain) => read.push(plain),
        }
    }
}

/// What was written since the last time: one line, without control characters and secrets.
fn one_line(file: &File) -> String {
    assert!(log::flush(Duration::from_secs(30)), "the log is not written");
    let length = file.metadata().expect("a file that is open").len() as usize;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).expect("what was written");
    file.set_len(0).expect("a file that can be emptied");
    let text = String::from_utf8(bytes).expect("lines are UTF-8");
    let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("no end: {text:?}"));
    let hostile = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!line.contains(hostile), "more than a line, or one that shows as another: {line:?}");
    assert_hidden("a line", line);
    line.to_owned()
}
