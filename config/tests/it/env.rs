//! Variables: names, aliases, and what a cluster puts beside them.

use crate::kit::{App, Bench, Format};
use mainspring_config::{ByteSize, Duration};

fn addr(vars: &[(&str, &str)]) -> String {
    let bench = vars.iter().fold(Bench::new(), |bench, (name, value)| bench.env(*name, *value));
    bench.app().server.http.addr.to_string()
}

#[test]
fn host_and_port_come_together_in_one_address() {
    assert_eq!(addr(&[("PORT", "9000")]), "0.0.0.0:9000");
    assert_eq!(addr(&[("HTTP_PORT", "0")]), "0.0.0.0:0");
    assert_eq!(addr(&[("HTTP_ADDR", "127.0.0.1")]), "127.0.0.1:8080");
    assert_eq!(addr(&[("HTTP_ADDR", "127.0.0.1"), ("PORT", "9000")]), "127.0.0.1:9000");
    assert_eq!(addr(&[("HTTP_ADDR", "::1"), ("HTTP_PORT", "9000"), ("PORT", "9000")]), "[::1]:9000");
}

#[test]
fn a_port_alone_keeps_the_host_of_the_file() {
    let bench = || Bench::new().file("c.toml", "server.http.addr = '10.0.0.1:80'");
    assert_eq!(bench().env("PORT", "9000").app().server.http.addr.to_string(), "10.0.0.1:9000");
    assert_eq!(bench().env("HTTP_ADDR", "127.0.0.1").app().server.http.addr.to_string(), "127.0.0.1:80");
}

#[test]
fn names_of_one_key_must_agree() {
    assert_eq!(addr(&[("PORT", "9000"), ("ORDERS_SERVER__HTTP__ADDR", "127.0.0.1:9000")]), "127.0.0.1:9000");
    let line = Bench::new().env("HTTP_PORT", "9000").env("PORT", "9001").fault();
    assert_eq!(
        line,
        "server.http.addr (env PORT): HTTP_PORT and PORT are both set and differ; unset PORT, or make them equal"
    );
    let line = Bench::new().env("PORT", "9001").env("ORDERS_SERVER__HTTP__ADDR", "127.0.0.1:9000").fault();
    assert_eq!(
        line,
        "server.http.addr (env PORT): ORDERS_SERVER__HTTP__ADDR and PORT are both set and differ; unset PORT, or make them equal"
    );
}

#[test]
fn names_of_one_key_agree_when_they_mean_the_same() {
    let app = Bench::new().env("ORDERS_SERVER__SHUTDOWN__BUDGET", "1m30s").env("SHUTDOWN_SECONDS", "90").app();
    assert_eq!(app.server.shutdown.budget, Duration::from_secs(90));
    let app =
        Bench::new().env("ORDERS_SERVER__HTTP__MAX_HEADER_BYTES", "1KiB").env("GIZMO_MAX_HEADER_BYTES", "1024").app();
    assert_eq!(app.server.http.max_header_bytes, ByteSize::kib(1));
}

#[test]
fn a_name_is_only_suggested_for_one_that_looks_like_it_without_the_prefix() {
    for name in ["ORDERS_FOO", "ORDERS_HOST", "ORDERS_NOBODY", "ORDERS_WORK"] {
        assert_eq!(Bench::new().env(name, "x").fault(), format!("- (env {name}): unknown variable"));
    }
    for (name, meant) in
        [("ORDERS_TPOIC", "ORDERS_TOPIC"), ("ORDERS_NOET", "ORDERS_NOTE"), ("ORDERS_RATIOO", "ORDERS_RATIO")]
    {
        let line = Bench::new().env(name, "x").fault();
        assert_eq!(line, format!("- (env {name}): unknown variable; did you mean {meant}?"));
    }
}

#[test]
fn parts_of_an_address_are_checked_by_themselves() {
    let lines = Bench::new().env("HTTP_PORT", "99999").env("HTTP_ADDR", "127.0.0.1:80").faults::<App>();
    assert_eq!(
        lines,
        [
            "server.http.addr (env HTTP_ADDR): \"127.0.0.1:80\" is no host; expected a host without a port, such as \
             \"127.0.0.1\"",
            "server.http.addr (env HTTP_PORT): \"99999\" is no port; expected a port from 0 to 65535",
        ]
    );
    let line = Bench::new().env("HTTP_ADDR", "localhost").fault();
    assert_eq!(
        line,
        "server.http.addr (env HTTP_ADDR): \"localhost:8080\" is no address; expected an address such as \
         \"127.0.0.1:8080\"; did you mean \"127.0.0.1:8080\"?"
    );
}

#[test]
fn one_alias_may_set_several_keys_and_templates_and_maps_translate() {
    let app = Bench::new()
        .env("GIZMO_READ_TIMEOUT", "1h2m3.5s")
        .env("SHUTDOWN_SECONDS", "90")
        .env("APP_LOG_JSON_FMT", "T")
        .app();
    let read = Duration::from_millis(3_723_500);
    assert_eq!((app.server.http.header_timeout, app.server.http.body_timeout), (read, read));
    assert_eq!(app.server.shutdown.budget, Duration::from_secs(90));
    assert_eq!(app.server.log.format, Format::Json);
    assert_eq!(Bench::new().env("APP_LOG_JSON_FMT", "0").app().server.log.format, Format::Pretty);
    let line = Bench::new().env("APP_LOG_JSON_FMT", "yes").fault();
    assert_eq!(line, "server.log.format (env APP_LOG_JSON_FMT): \"yes\" is not known; expected one of false, true");
}

#[test]
fn an_overriding_alias_wins_with_a_notice() {
    let bench =
        Bench::new().env("RUST_LOG", "debug").env("ORDERS_SERVER__LOG__FILTER", "warn").env("APP_LOG_LEVEL", "error");
    let line = Bench::new().env("ORDERS_SERVER__LOG__FILTER", "warn").env("APP_LOG_LEVEL", "error").fault();
    assert!(line.contains("are both set and differ"), "{line}");
    let loaded = bench.load::<App>().unwrap();
    assert_eq!(loaded.config().server.log.filter, "debug");
    assert_eq!(loaded.notices(), ["RUST_LOG overrides ORDERS_SERVER__LOG__FILTER"]);
}

#[test]
fn names_that_do_nothing_are_accepted_with_a_notice() {
    let loaded = Bench::new().env("GIZMO_ROUTER_TYPE", "gorilla").load::<App>().unwrap();
    assert_eq!(loaded.notices(), ["GIZMO_ROUTER_TYPE is accepted and has no effect: there is one router"]);
}

#[test]
fn an_unknown_name_of_a_known_family_is_worth_a_notice() {
    let loaded = Bench::new().env("GIZMO_READ_TIMEOT", "1s").load::<App>().unwrap();
    assert_eq!(
        loaded.notices(),
        ["GIZMO_READ_TIMEOT is not known and has no effect; did you mean GIZMO_READ_TIMEOUT?"]
    );
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default)]
struct Ported {
    port: u16,
    server: crate::kit::Server,
}

#[test]
fn an_alias_that_is_the_name_of_a_key_means_that_key() {
    use mainspring_config::Loader;
    let env = [("HTTP_PORT".into(), "81".into())];
    let config = Loader::new("http", "1").directory("/nonexistent").env(env).load::<Ported>().unwrap().into_config();
    assert_eq!((config.port, config.server.http.addr.port()), (81, 8080));
}

#[test]
fn what_kubernetes_injects_is_nobodys_mistake() {
    let app = Bench::new()
        .env("ORDERS_SERVICE_HOST", "10.0.0.1")
        .env("ORDERS_SERVICE_PORT", "80")
        .env("ORDERS_SERVICE_PORT_HTTP", "80")
        .env("ORDERS_PORT", "tcp://10.0.0.1:80")
        .env("ORDERS_PORT_80_TCP", "tcp://10.0.0.1:80")
        .env("ORDERS_PORT_80_TCP_ADDR", "10.0.0.1")
        .env("ORDERS_CANARY_SERVICE_HOST", "10.0.0.2")
        .env("ORDERS_CANARY_PORT", "tcp://10.0.0.2:80")
        .env("HTTP_PORT", "tcp://10.0.0.3:80")
        .app();
    assert_eq!(app.server.http.addr.port(), 8080);
}

#[test]
fn a_prefixed_variable_that_means_nothing_is_a_fault() {
    let lines = Bench::new()
        .env("ORDERS_SERVER__HTPP__GZIP", "true")
        .env("ORDERS_COLOUR", "hunter2")
        .env("ORDERSX", "1")
        .env("ORDERS_BROKERS__0", "a")
        .env("ORDERS_TOPIC_FILE", "/x")
        .faults::<App>();
    assert_eq!(
        lines,
        [
            "- (env ORDERS_BROKERS__0): unknown variable; did you mean ORDERS_BROKERS?",
            "- (env ORDERS_COLOUR): unknown variable",
            "- (env ORDERS_SERVER__HTPP__GZIP): unknown variable; did you mean ORDERS_SERVER__HTTP__GZIP?",
            "- (env ORDERS_TOPIC_FILE): unknown variable; only secrets are read from files; set ORDERS_TOPIC itself",
        ]
    );
}

#[test]
fn a_service_called_app_keeps_the_common_names() {
    use mainspring_config::Loader;
    let env = [("APP_PROFILE", "prod"), ("APP_LOG_LEVEL", "warn"), ("APP_LOG_JSON_FMT", "1")];
    let loader = Loader::new("app", "1").directory("/nonexistent").env(env.map(|(k, v)| (k.into(), v.into())));
    assert_eq!(loader.load::<App>().unwrap().config().server.log.filter, "warn");
}

#[test]
fn go_words_for_true_and_false_are_read() {
    for (text, flag) in [("1", true), ("t", true), ("TRUE", true), ("True", true), ("0", false), ("F", false)] {
        assert_eq!(Bench::new().env("ORDERS_SERVER__HTTP__GZIP", text).app().server.http.gzip, flag);
    }
    let line = Bench::new().env("ORDERS_SERVER__HTTP__GZIP", "yes").fault();
    assert_eq!(line, "server.http.gzip (env ORDERS_SERVER__HTTP__GZIP): \"yes\" does not fit; expected true or false");
}

#[test]
fn two_spellings_of_one_name_must_agree() {
    let line = Bench::new().env("ORDERS_QUANTITY", "1").env("ORDERS_Quantity", "2").fault();
    assert_eq!(
        line,
        "quantity (env ORDERS_Quantity): ORDERS_QUANTITY and ORDERS_Quantity are both set and differ; unset one of them"
    );
}
