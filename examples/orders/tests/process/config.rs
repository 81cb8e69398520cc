//! What a configuration says, and what a faulty one gets.

use std::io::Write;
use std::net::TcpListener;

use crate::daemon::{Daemon, output};
use crate::http;

#[test]
fn five_faults_in_three_sources_are_five_lines_and_nothing_is_bound() {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    writeln!(file, "wrok = \"1s\"\n[server.http]\nmax_connections = 0\nrequest_timeout = \"28\"").unwrap();
    let env = [("ORDERS_SERVER__LOG__FORMAT", "jsn")];
    let path = file.path().to_str().unwrap();
    let output = output(&env, &["--config", path, "--set", "server.shutdown.budget=soon"]);
    assert_eq!(output.code, Some(78), "{}", output.stderr);
    let lines: Vec<_> = output.stderr.lines().filter(|line| line.contains(" (")).collect();
    assert_eq!(lines.len(), 5, "{}", output.stderr);
    for (key, source, hint) in [
        ("server.http.max_connections", &format!("{path}:3")[..], "1"),
        ("server.http.request_timeout", &format!("{path}:4"), "28s"),
        ("server.log.format", "env ORDERS_SERVER__LOG__FORMAT", "json"),
        ("server.shutdown.budget", "--set server.shutdown.budget", "10s"),
        ("wrok", &format!("{path}:1"), "work"),
    ] {
        let line =
            lines.iter().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {}", output.stderr));
        assert!(line.contains(source) && line.contains(hint), "{line}");
    }
    assert_eq!(output.stdout, "");
}

#[test]
fn a_request_timeout_that_a_shutdown_would_cut_off_is_refused() {
    let output = output(&[("ORDERS_SERVER__HTTP__REQUEST_TIMEOUT", "29s")], &["--check-config"]);
    assert_eq!(output.code, Some(78));
    assert!(output.stderr.starts_with("server.http.request_timeout"), "{}", output.stderr);
}

#[test]
fn a_log_level_that_is_none_is_a_fault_and_not_a_silent_daemon() {
    for level in ["verbose", "bogus", "none", "notice", "critical", "all"] {
        let output = output(&[("APP_LOG_LEVEL", level)], &["--check-config"]);
        assert_eq!(output.code, Some(78), "{level}: {}", output.stderr);
        let fault = &output.stderr;
        assert!(fault.starts_with("server.log.filter (env APP_LOG_LEVEL)"), "{fault}");
        assert!(fault.contains("off, error, warn, info") && fault.contains(&format!("`{level}=debug`")), "{fault}");
    }
    for level in ["panic", "fatal", "error", "warning", "warn", "info", "debug", "trace"] {
        let output = output(&[("APP_LOG_LEVEL", level)], &["--check-config"]);
        assert_eq!(output.code, Some(0), "{level}: {}", output.stderr);
    }
}

#[test]
fn why_a_process_ends_is_said_although_the_filter_hides_errors() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for (filter, place) in [("off", "stderr"), ("orders=debug", "stderr"), ("error", "stdout")] {
        let output = output(&[("ORDERS_SERVER__HTTP__ADDR", &addr), ("RUST_LOG", filter)], &[]);
        assert_eq!(output.code, Some(69));
        let said = [("stdout", &output.stdout), ("stderr", &output.stderr)];
        let said: Vec<_> = said.iter().filter(|(_, text)| text.contains("cannot listen")).map(|(at, _)| *at).collect();
        assert_eq!(said, [place], "{filter}: {}{}", output.stdout, output.stderr);
    }
}

#[test]
fn what_would_panic_or_abort_at_the_start_is_a_fault() {
    for (variable, value, key) in [
        ("METRICS_PATH", "/livez", "server.metrics.path"),
        ("METRICS_PATH", "/", "server.metrics.path"),
        ("METRICS_PATH", "/-/log", "server.metrics.path"),
        ("METRICS_PATH", "/debug/pubsub", "server.metrics.path"),
        ("METRICS_PATH", "metrics", "server.metrics.path"),
        ("METRICS_PATH", "/{metrics}", "server.metrics.path"),
        ("METRICS_PATH", "/:metrics", "server.metrics.path"),
        ("GIZMO_GOMAXPROCS", "4294967295", "server.runtime.worker_threads"),
        ("GIZMO_GOMAXPROCS", "0", "server.runtime.worker_threads"),
    ] {
        let output = output(&[(variable, value)], &["--check-config"]);
        assert_eq!(output.code, Some(78), "{variable}={value}: {}", output.stderr);
        let fault = &output.stderr;
        assert!(fault.starts_with(&format!("{key} (env {variable}): ")) && fault.lines().count() == 1, "{fault}");
    }
}

#[test]
fn what_has_no_effect_is_announced() {
    let env = [("TLS_CERT", "/tls/cert.pem"), ("TLS_KEY", "/tls/key.pem"), ("RPC_PORT", "8081")];
    let daemon = Daemon::start(&env);
    for (name, _) in env {
        daemon.event(|event| {
            let notice = event["msg"].as_str().unwrap();
            event["level"] == "WARN" && notice.starts_with(name) && notice.contains("no effect")
        });
    }
    daemon.signal("TERM");
    assert_eq!(daemon.end().code, Some(0));
}

#[test]
fn the_configuration_can_be_checked_and_printed_without_a_socket() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let env = [("ORDERS_SERVER__HTTP__ADDR", addr.as_str())];
    let check = output(&env, &["--check-config"]);
    assert_eq!((check.code, check.stderr.as_str()), (Some(0), ""));
    let print = output(&env, &["--print-config"]);
    assert_eq!(print.code, Some(0));
    let line = format!("server.http.addr = \"{addr}\"   # env ORDERS_SERVER__HTTP__ADDR");
    assert!(print.stdout.lines().any(|printed| printed == line), "{}", print.stdout);
    let schema: serde_json::Value = serde_json::from_str(&output(&env, &["--config-schema"]).stdout).unwrap();
    assert!(schema["properties"]["topic"].is_object());
    assert!(output(&env, &["--help"]).stdout.contains("--print-config"));
    assert!(output(&env, &["--version"]).stdout.starts_with("orders 0.1.0"));
    assert_eq!(output(&env, &["--no-such-flag"]).code, Some(78));
}

#[test]
fn gizmos_names_are_understood() {
    let env =
        [("HTTP_PORT", "8099"), ("HTTP_ADDR", "127.0.0.2"), ("GIZMO_IDLE_TIMEOUT", "120s"), ("APP_LOG_LEVEL", "debug")];
    let mut command = crate::daemon::command(&env, &["--print-config"]);
    command.env_remove("ORDERS_SERVER__HTTP__ADDR");
    let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    for expected in [
        "server.http.addr = \"127.0.0.2:8099\"",
        "server.http.idle_timeout = \"120s\"",
        "server.log.filter = \"debug\"",
    ] {
        assert!(printed.contains(expected), "{expected} is not in {printed}");
    }
}

/// What a daemon made with Gizmo may have in its environment, all of it.
const GIZMO: [(&str, &str); 29] = [
    ("HTTP_ADDR", "127.0.0.1"),
    ("HTTP_PORT", "0"),
    ("RPC_PORT", "8081"),
    ("HTTP_ACCESS_LOG", "stdout"),
    ("RPC_ACCESS_LOG", "stdout"),
    ("APP_LOG", "stdout"),
    ("APP_LOG_LEVEL", "info"),
    ("APP_LOG_JSON_FMT", "true"),
    ("ENABLE_PPROF", "true"),
    ("METRICS_PATH", "/stats"),
    ("METRICS_NAMESPACE", "shop"),
    ("METRICS_SUBSYSTEM", "orders"),
    ("GIZMO_HEALTH_CHECK_TYPE", "simple"),
    ("GIZMO_HEALTH_CHECK_PATH", "/status.txt"),
    ("GIZMO_JSON_CONTENT_TYPE", "application/json; charset=UTF-8"),
    ("GIZMO_MAX_HEADER_BYTES", "1000000"),
    ("GIZMO_READ_TIMEOUT", "10s"),
    ("GIZMO_WRITE_TIMEOUT", "10s"),
    ("GIZMO_IDLE_TIMEOUT", "120s"),
    ("GIZMO_SHUTDOWN_TIMEOUT", "20s"),
    ("GIZMO_SERVER_GOMAXPROCS", "2"),
    ("GIZMO_GOMAXPROCS", "2"),
    ("GIZMO_ROUTER_TYPE", "gorilla"),
    ("GIZMO_SKIP_OBSERVE", "true"),
    ("KAFKA_BROKER_HOSTS", "localhost:9092"),
    ("KAFKA_TOPIC", "orders"),
    ("KAFKA_PARTITION", "0"),
    ("KAFKA_MAX_RETRY", "3"),
    ("AWS_REGION", "eu-west-1"),
];

#[test]
fn a_gizmo_environment_boots_the_daemon_and_no_name_of_it_is_unknown() {
    let mut env = GIZMO.to_vec();
    env.push(("ORDERS_SERVER__HTTP__ADDR", ""));
    let daemon = Daemon::start(&env);
    assert_eq!(http::get(daemon.http, "/status.txt").status, 200);
    assert_eq!(http::get(daemon.admin, "/stats").status, 200);
    daemon.signal("TERM");
    let end = daemon.end();
    assert_eq!(end.code, Some(0));
    let unknown = end.events.iter().find(|event| event["msg"].as_str().unwrap().contains("is not known"));
    assert_eq!(unknown, None);
}

#[test]
fn urls_that_nobody_can_open_are_faults_with_key_source_and_hint_beside_all_others() {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    writeln!(file, "subscribe = \"memory://orders?gruop=ship\"\nwrok = \"1s\"").unwrap();
    let path = file.path().to_str().unwrap();
    for args in [&["--config", path][..], &["--config", path, "--check-config"]] {
        let output = output(&[("ORDERS_TOPIC", "memroy://orders"), ("ORDERS_PUBLISH", "nats://orders")], args);
        assert_eq!((output.code, output.stdout.as_str()), (Some(78), ""));
        // Which drivers there are depends on what else is built with this program.
        let fault = |line: &str| line.split("this program knows: ").next().unwrap().trim_end().to_owned();
        let faults: Vec<_> = output.stderr.lines().map(fault).collect();
        assert_eq!(
            faults,
            [
                "publish (env ORDERS_PUBLISH): `nats://orders`: unknown scheme `nats`;",
                &format!(
                    "subscribe ({path}:1): `memory://orders?gruop=ship`: unknown option `gruop`; did you mean `group`? \
                     known options: group"
                ),
                "topic (env ORDERS_TOPIC): `memroy://orders`: unknown scheme `memroy`; did you mean `memory`?",
                &format!("wrok ({path}:2): unknown key; did you mean \"work\"?"),
            ]
        );
    }
}

#[test]
fn urls_without_a_name_or_a_driver_are_found_by_the_check() {
    for (url, said) in [
        ("memory://", "the name is missing"),
        ("orders", "`://` is missing"),
        ("sqs://orders", "this version has no driver for `sqs`"),
        // Whether the driver is there depends on what else is built with this program; either way something is missing.
        ("kafka://orders", "afka"),
    ] {
        let output = output(&[("ORDERS_TOPIC", url)], &["--check-config"]);
        assert_eq!(output.code, Some(78), "{url}");
        let fault = &output.stderr;
        assert!(fault.starts_with("topic (env ORDERS_TOPIC): ") && fault.contains(said), "{fault}");
    }
    let output = output(&[("ORDERS_TOPIC", "memory://other?group=a"), ("ORDERS_PUBLISH", "")], &["--check-config"]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
}

#[test]
fn what_only_a_subscriber_needs_is_missed_where_orders_are_read_from() {
    let check = |env: &[(&str, &str)]| {
        let env = [&[("KAFKA_BROKER_HOSTS", "localhost:9092")], env].concat();
        output(&env, &["--check-config"])
    };
    let (without, with) = ("kafka://orders", "kafka://orders?group=ship");
    for (env, key) in [(vec![("ORDERS_TOPIC", without)], "topic"), (vec![("ORDERS_SUBSCRIBE", without)], "subscribe")] {
        let output = check(&env);
        let expected = format!("{key} (env ORDERS_{}): `{without}`: ", key.to_uppercase());
        assert_eq!(output.code, Some(78));
        // Whether the driver is there depends on what else is built with this program.
        let said = ["the option `group` is missing;", "the driver of `kafka` is not in this program;"];
        assert!(said.iter().any(|said| output.stderr.starts_with(&format!("{expected}{said}"))), "{}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    }
    let apart = check(&[("ORDERS_PUBLISH", without), ("ORDERS_SUBSCRIBE", with)]);
    assert!(apart.code == Some(0) || apart.stderr.contains("is not in this program"), "{}", apart.stderr);
}

#[test]
fn a_password_in_a_url_is_shown_by_no_fault_and_not_by_the_printed_configuration() {
    for url in ["kfka://bob:hunter2@host/orders", "kafka://bob:hunter2@host/orders?grup=x", "bob:hunter2@host"] {
        let output = output(&[("ORDERS_TOPIC", url)], &["--check-config"]);
        assert_eq!(output.code, Some(78));
        assert!(output.stderr.contains("***@host") && !output.stderr.contains("hunter2"), "{}", output.stderr);
    }
    let print = output(&[("ORDERS_TOPIC", "memory://bob:hunter2@orders")], &["--print-config"]);
    assert!(print.stdout.contains("topic = \"memory://***@orders\""), "{}", print.stdout);
}

#[test]
fn taken_ports_are_named_and_no_other_is_kept() {
    let (http, admin) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (http, admin) =
        (http.local_addr().unwrap().to_string(), (admin.local_addr().unwrap().to_string(), http, admin));
    let env = [("ORDERS_SERVER__HTTP__ADDR", http.as_str()), ("ORDERS_SERVER__ADMIN__ADDR", admin.0.as_str())];
    let output = output(&env, &[]);
    assert_eq!(output.code, Some(69));
    let log = output.stdout;
    assert!(log.contains(&http) && log.contains(&admin.0), "{log}");
    assert!(!log.contains("\"ready\""), "{log}");
}

#[test]
fn secrets_and_the_environment_are_not_shown() {
    let daemon = Daemon::start(&[("SOME_TOKEN", "hunter2")]);
    for path in ["/", "/-/config", "/metrics", "/readyz?verbose", "/debug/pubsub"] {
        let answer = http::get(daemon.admin, path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.contains("hunter2"), "{path}");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.end().code, Some(0));
}
