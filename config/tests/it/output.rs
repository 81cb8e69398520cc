//! What the flags print, and what a refused configuration looks like.

use crate::kit::{App, Bench};
use mainspring_config::{Error, Exit};

#[test]
fn five_faults_in_three_sources_are_five_lines() {
    let exit = Bench::new()
        .file(
            "config.toml",
            "[server.http]\naddr = \"localhost\"\nreqest_timeout = \"10s\"\n[server.shutdown]\nbudget = 28\n",
        )
        .env("ORDERS_SERVER__HTTP__MAX_CONNECTIONS", "80.7")
        .env("ORDERS_SERVICE_HOST", "10.0.0.1")
        .set("server.log.format=jsn");
    assert_eq!(
        exit.faults::<App>(),
        [
            "server.http.addr (config.toml:2): \"localhost\" is no address; expected an address such as \"127.0.0.1:8080\"",
            "server.http.max_connections (env ORDERS_SERVER__HTTP__MAX_CONNECTIONS): \"80.7\" does not fit; expected a whole \
             number from 1 to 4294967295",
            "server.http.reqest_timeout (config.toml:3): unknown key; did you mean \"server.http.request_timeout\"?",
            "server.log.format (flag --set server.log.format): \"jsn\" is not known; expected one of json, pretty, auto; did \
             you mean \"json\"?",
            "server.shutdown.budget (config.toml:5): 28 is a number; expected a duration such as \"10s\" or \"1m30s\"; did you \
             mean \"28s\"?",
        ]
    );
}

#[test]
fn print_shows_every_key_its_value_and_its_origin() {
    let printed = Bench::new()
        .file("config.toml", "note = 'a \"b\"'\n\n[labels]\n\"a.b\" = \"1\"\n")
        .env("PORT", "9999")
        .env("HTTP_ADDR", "127.0.0.1")
        .set("ports=1,2")
        .arg("--print-config")
        .text::<App>();
    let expected = r#"
brokers = []   # default
# db.password is not set   # default
# db.pin is not set   # default
db.tokens = []   # default
db.user = ""   # default
labels."a.b" = "1"   # config.toml:4
note = "a \"b\""   # config.toml:1
ports = [1, 2]   # flag --set ports
quantity = 0   # default
ratio = 0.0   # default
server.http.addr = "127.0.0.1:9999"   # env HTTP_ADDR + PORT
server.http.body_timeout = "15s"   # default
server.http.gzip = false   # default
server.http.header_timeout = "10s"   # default
server.http.max_connections = 10000   # default
server.http.max_header_bytes = "64KiB"   # default
server.http.request_timeout = "15s"   # default
server.log.filter = "info"   # default
server.log.format = "auto"   # default
server.shutdown.budget = "28s"   # default
server.shutdown.lame_duck = "auto"   # default
topic = ""   # default
"#;
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_by_key(|line| line.trim_start_matches("# "));
    assert_eq!(lines, expected.trim().lines().collect::<Vec<_>>());
}

#[test]
fn what_is_printed_can_be_read_again() {
    let bench = || {
        Bench::new()
            .env("ORDERS_NOTE", "tab\t, quote \", delete \u{7f}, line\nbreak, #")
            .env("ORDERS_LABELS", r##"{"a.b": "x", "": "y", "ü \" z": "#"}"##)
            .env("ORDERS_RATIO", "1e300")
            .env("ORDERS_BROKERS", "a,b")
    };
    let printed = bench().arg("--print-config").text::<App>();
    let again = Bench::new().file("c.toml", &printed).arg("--print-config").text::<App>();
    let values =
        |text: &str| text.lines().map(|line| line.rsplit_once("   # ").unwrap().0.to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&printed), values(&again));
}

#[test]
fn loading_keeps_what_print_would_show() {
    let printed = Bench::new().arg("--print-config").text::<App>();
    assert_eq!(Bench::new().load::<App>().unwrap().printed(), printed);
}

#[test]
fn check_says_valid_or_shows_the_faults() {
    assert_eq!(Bench::new().arg("--check-config").text::<App>(), "configuration is valid\n");
    assert_eq!(Bench::new().arg("--check-config").set("quantity=x").faults::<App>().len(), 1);
    let noted = Bench::new().env("GIZMO_ROUTER_TYPE", "gorilla").arg("--check-config").text::<App>();
    assert_eq!(
        noted,
        "notice: GIZMO_ROUTER_TYPE is accepted and has no effect: there is one router\nconfiguration is valid\n"
    );
    assert_eq!(Bench::new().arg("--print-config").set("quantity=x").faults::<App>().len(), 1);
}

#[test]
fn the_schema_is_printed_even_for_a_broken_configuration() {
    let text = Bench::new().arg("--config-schema").set("quantity=x").text::<App>();
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["$defs"]["Http"]["properties"]["header_timeout"]["type"], "string");
}

#[test]
fn help_and_version_are_texts() {
    let help = Bench::new().arg("--help").text::<App>();
    for part in [
        "--config",
        "--profile",
        "--set",
        "--check-config",
        "--print-config",
        "--config-schema",
        "ORDERS_SERVER__HTTP__ADDR",
    ] {
        assert!(help.contains(part), "{help}");
    }
    assert_eq!(Bench::new().arg("--version").text::<App>(), "orders 0.1.0\n");
}

#[test]
fn a_mistake_on_the_command_line_ends_with_78_and_says_what() {
    let exit = Bench::new().arg("--chek-config").load::<App>().unwrap_err();
    assert!(matches!(exit, Exit::Usage(_)) && exit.code() == 78);
    assert!(exit.stderr().contains("'--chek-config'") && exit.stderr().contains("--check-config"), "{}", exit.stderr());
    let exit = Bench::new().arg("--set").load::<App>().unwrap_err();
    assert!(exit.stderr().contains("--set <KEY=VALUE>"), "{}", exit.stderr());
}

#[test]
fn set_takes_any_key_and_says_when_it_knows_none() {
    let app =
        Bench::new().set("labels.\"a.b\"=x=y").set("server.http.max-connections=4").set("ports=[]").set("note=").app();
    assert_eq!(app.labels["a.b"], "x=y");
    assert_eq!(app.server.http.max_connections, 4);
    assert_eq!(app.note.as_deref(), Some(""));
    let lines = Bench::new().set("server.http.adr=x").set("a..b=x").faults::<App>();
    assert_eq!(
        lines,
        [
            "- (flag --set a..b): is no key; expected names with dots between them",
            "server.http.adr (flag --set server.http.adr): unknown key; did you mean \"server.http.addr\"?",
        ]
    );
}

#[test]
fn an_error_can_be_made_by_others() {
    let error = Error::one("topic", "env ORDERS_TOPIC", "scheme \"kafak\" is not known", "did you mean \"kafka\"?");
    assert_eq!(error.to_string(), "topic (env ORDERS_TOPIC): scheme \"kafak\" is not known; did you mean \"kafka\"?");
    assert_eq!(error.problems().len(), 1);
    let boxed: Box<dyn std::error::Error + Send + Sync> = error.into();
    assert!(boxed.downcast_ref::<Error>().is_some());
}

#[test]
fn flags_that_each_ask_for_something_are_all_answered_or_refused() {
    let printed = Bench::new().arg("--print-config").text::<App>();
    let both = Bench::new().arg("--check-config").arg("--print-config");
    assert_eq!(both.text::<App>(), format!("{printed}# configuration is valid\n"));
    for other in ["--check-config", "--print-config"] {
        let exit = Bench::new().arg("--config-schema").arg(other).load::<App>().err().unwrap();
        assert_eq!(exit.code(), 78);
        assert!(exit.stderr().contains(other) && exit.stderr().contains("--config-schema"), "{}", exit.stderr());
    }
}

#[test]
fn passwords_in_urls_are_not_shown() {
    let url = "redis://bob:hunter2@host/0?token=hunter2";
    let printed = Bench::new().env("ORDERS_TOPIC", url).env("ORDERS_BROKERS", url).arg("--print-config").text::<App>();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("topic = \"redis://***@host/0?token=***\""), "{printed}");
    let line = Bench::new().env("ORDERS_QUANTITY", url).fault();
    assert!(line.contains("\"redis://***@host/0?token=***\" does not fit"), "{line}");
    assert_eq!(Bench::new().env("ORDERS_TOPIC", url).app().topic, url);
}
