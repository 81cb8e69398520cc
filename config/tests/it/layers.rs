//! Which source wins, and how values of several sources come together.

use crate::kit::{App, Bench};
use mainspring_config::{Duration, Secret};

#[test]
fn nothing_given_is_the_defaults() {
    let app = Bench::new().app();
    assert_eq!(app.server.http.addr.to_string(), "0.0.0.0:8080");
    assert_eq!(app.server.http.header_timeout, Duration::from_secs(10));
    assert_eq!(app.note, None);
}

#[test]
fn each_source_wins_over_those_before_it() {
    let text = |source: &str| format!("topic = \"{source}\"\n");
    let bench = Bench::new();
    bench.beside("one.prod.toml", text("profile"));
    let bench = bench.file("one.toml", text("one"));
    let topic = |bench: &Bench| bench.loader().load::<App>().unwrap().into_config().topic;
    assert_eq!(topic(&bench), "one");
    let bench = bench.file("two.toml", text("two"));
    assert_eq!(topic(&bench), "two");
    let bench = bench.env("APP_PROFILE", "prod");
    assert_eq!(topic(&bench), "profile");
    let bench = bench.env("ORDERS_TOPIC", "env");
    assert_eq!(topic(&bench), "env");
    let bench = bench.set("topic=flag");
    assert_eq!(topic(&bench), "flag");
    let bench = bench.set("topic=last flag");
    assert_eq!(topic(&bench), "last flag");
}

#[test]
fn secret_files_stand_between_files_and_the_environment() {
    let bench = Bench::new().file("c.toml", "[db]\npassword = \"file\"\ntokens = [\"a\"]");
    let path = bench.beside("secret", "from secret file\n");
    let bench = bench.env("ORDERS_DB__PASSWORD_FILE", path);
    let app: App = bench.loader().load().unwrap().into_config();
    assert_eq!(app.db.password.as_ref().map(Secret::expose).unwrap(), "from secret file");
    let app = bench.set("db.password=flag").app();
    assert_eq!(app.db.password.as_ref().map(Secret::expose).unwrap(), "flag");
}

#[test]
fn tables_merge_and_lists_replace() {
    let app = Bench::new()
        .file("a.toml", "brokers = [\"a\", \"b\"]\n[labels]\nx = \"1\"\ny = \"2\"\n[server.http]\ngzip = true\n")
        .file("b.yaml", "brokers: [c]\nlabels:\n  y: '3'\n  z: '4'\nserver:\n  http:\n    max_connections: 7\n")
        .app();
    assert_eq!(app.brokers, ["c"]);
    let labels: Vec<_> = app.labels.iter().map(|(key, value)| format!("{key}{value}")).collect();
    assert_eq!(labels, ["x1", "y3", "z4"]);
    assert!(app.server.http.gzip);
    assert_eq!(app.server.http.max_connections, 7);
}

#[test]
fn a_profile_stands_beside_each_file() {
    let bench = Bench::new();
    bench.beside("a.prod.toml", "topic = \"a.prod\"");
    bench.beside("b.prod.yaml", "note: b.prod");
    let app = bench.file("a.toml", "topic = \"a\"").file("b.yaml", "note: b").arg("--profile").arg("prod").app();
    assert_eq!((app.topic.as_str(), app.note.as_deref()), ("a.prod", Some("b.prod")));
}

#[test]
fn the_flag_names_the_profile_before_the_variable_does() {
    let bench = Bench::new();
    bench.beside("a.prod.toml", "topic = \"prod\"");
    bench.beside("a.dev.toml", "topic = \"dev\"");
    let app = bench.file("a.toml", "").env("APP_PROFILE", "prod").arg("--profile").arg("dev").app();
    assert_eq!(app.topic, "dev");
}

#[test]
fn a_profile_without_a_file_is_a_fault_by_flag_and_a_notice_by_variable() {
    let line = Bench::new().file("a.toml", "").arg("--profile").arg("prdo").fault();
    assert_eq!(line, "- (flag --profile): profile \"prdo\" has no file; expected a.prdo.toml");
    let loaded = Bench::new().file("a.toml", "").env("APP_PROFILE", "prdo").load::<App>().unwrap();
    assert!(loaded.notices()[0].starts_with("env APP_PROFILE: profile \"prdo\" has no file"), "{:?}", loaded.notices());
}

#[test]
fn a_profile_is_a_name_and_no_path() {
    let line = Bench::new().file("a.toml", "").arg("--profile").arg("../x").fault();
    assert!(line.starts_with("- (flag --profile): \"../x\" is no profile"), "{line}");
}

#[test]
fn without_a_flag_the_service_directory_is_looked_at() {
    let bench = Bench::new();
    assert_eq!(bench.loader().load::<App>().unwrap().config().topic, "");
    bench.beside("config.yaml", "topic: found");
    assert_eq!(bench.loader().load::<App>().unwrap().config().topic, "found");
    bench.beside("config.toml", "topic = 'also found'");
    let line = bench.fault();
    assert_eq!(
        line,
        "- (config.toml): config.yaml is there too, and neither comes first; keep one, or name them with --config"
    );
}

#[test]
fn null_takes_a_value_back() {
    let app = Bench::new().file("a.toml", "note = \"x\"").file("b.json", r#"{"note": null}"#).app();
    assert_eq!(app.note, None);
}

#[test]
fn a_table_and_its_keys_may_both_come_from_the_environment() {
    let app = Bench::new()
        .env("ORDERS_SERVER", r#"{"http": {"gzip": true, "max_connections": 5}}"#)
        .env("ORDERS_SERVER__HTTP__MAX_CONNECTIONS", "6")
        .app();
    assert!(app.server.http.gzip);
    assert_eq!(app.server.http.max_connections, 6);
}
