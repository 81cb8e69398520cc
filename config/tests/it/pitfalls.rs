//! What goes wrong with plain config-rs, P1 to P15, and must not reach those who use this crate.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use mainspring_config::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kit::{App, Bench};

#[test]
fn p1_a_bad_secret_is_not_repeated() {
    let line = Bench::new().file("c.toml", "[db]\npin = \"hunter2-secret\"\n").fault();
    assert_eq!(line, "db.pin (c.toml:2): the value (not shown) is text; expected a whole number from 0 to 4294967295");
}

#[test]
fn p2_every_problem_is_reported_not_just_the_first() {
    let lines = Bench::new().file("c.toml", "quantity = \"a\"\nratio = \"b\"\nports = 1\n").faults::<App>();
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

#[test]
fn p3_ranges_and_unknown_keys_have_an_origin() {
    let lines = Bench::new()
        .file("c.toml", "ports = [80,\n 99999]\nhtpp = 1\n[server.http]\nmax_connections = 99999999999999999999\n")
        .faults::<App>();
    assert_eq!(
        lines,
        [
            "htpp (c.toml:3): unknown key",
            "ports[1] (c.toml:2): 99999 is out of range; expected a whole number from 0 to 65535",
            "server.http.max_connections (c.toml:5): 99999999999999999999 is out of range; expected a whole number from 1 \
             to 4294967295",
        ]
    );
}

#[test]
fn p4_one_underscore_after_the_prefix_two_between_levels() {
    let app = Bench::new().env("ORDERS_SERVER__HTTP__MAX_CONNECTIONS", "9").app();
    assert_eq!(app.server.http.max_connections, 9);
}

#[test]
fn p5_a_single_underscore_does_not_part_a_name_and_is_explained() {
    let line = Bench::new().env("ORDERS_SERVER_HTTP_MAX_CONNECTIONS", "9").fault();
    assert_eq!(
        line,
        "- (env ORDERS_SERVER_HTTP_MAX_CONNECTIONS): unknown variable; did you mean ORDERS_SERVER__HTTP__MAX_CONNECTIONS?"
    );
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
struct Camel {
    max_body: u32,
    teams: HashMap<String, u32>,
    #[serde(rename = "kebab-case")]
    kebab: bool,
}

#[test]
fn p6_case_of_map_keys_is_kept_and_fields_of_any_case_can_be_set() {
    let config: Camel = Bench::new()
        .file("c.toml", "teams.Team = 1")
        .env("ORDERS_MAX_BODY", "7")
        .env("ORDERS_TEAMS__team", "2")
        .env("ORDERS_TEAMS__a__b", "3")
        .env("ORDERS_KEBAB_CASE", "true")
        .good();
    assert_eq!(config.max_body, 7);
    assert!(config.kebab);
    let teams = [("Team", 1), ("team", 2), ("a__b", 3)].map(|(name, value)| (name.to_owned(), value));
    assert_eq!(config.teams, HashMap::from(teams));
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Shapes {
    #[serde(flatten)]
    flat: Flat,
    auth: Auth,
    size: Size,
    retry: Retry,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Flat {
    depth: u8,
    even: bool,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Auth {
    #[default]
    None,
    Basic {
        user: String,
        tries: u8,
    },
    Bearer {
        lifetime: u32,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Size {
    Count(u32),
    Name(String),
}

impl Default for Size {
    fn default() -> Self {
        Self::Count(1)
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Retry {
    #[default]
    Never,
    Times(u8),
    Spread {
        base: u32,
    },
}

#[test]
fn p7_flattened_untagged_and_tagged_parts_are_typed_from_the_environment() {
    let config: Shapes = Bench::new()
        .env("ORDERS_DEPTH", "3")
        .env("ORDERS_EVEN", "true")
        .env("ORDERS_AUTH__KIND", "basic")
        .env("ORDERS_AUTH__USER", "12")
        .env("ORDERS_AUTH__TRIES", "12")
        .env("ORDERS_SIZE", "44")
        .env("ORDERS_RETRY__TIMES", "5")
        .good();
    assert_eq!((config.flat.depth, config.flat.even), (3, true));
    assert_eq!(config.auth, Auth::Basic { user: "12".to_owned(), tries: 12 });
    assert_eq!(config.size, Size::Count(44));
    assert_eq!(config.retry, Retry::Times(5));
}

#[test]
fn p7_the_key_that_is_wrong_in_such_a_part_is_named() {
    let lines = Bench::new()
        .env("ORDERS_DEPTH", "300")
        .file(
            "c.toml",
            "size = true\n[auth]\nkind = \"basic\"\nuser = \"u\"\ntries = 1\nlifetime = 1\n[retry]\ntimes = 999\n",
        )
        .faults::<Shapes>();
    assert_eq!(
        lines,
        [
            "auth.lifetime (c.toml:6): unknown key for kind = \"basic\"",
            "depth (env ORDERS_DEPTH): \"300\" is out of range; expected a whole number from 0 to 255",
            "retry.times (c.toml:8): 999 is out of range; expected a whole number from 0 to 255",
            "size (c.toml:1): true is true or false; expected a whole number from 0 to 4294967295, or text",
        ]
    );
}

#[test]
fn p8_text_stays_as_it_was_written() {
    for text in ["0012345", "1e5", "no", "true", "1.10", " x ", "a,b", "[1]", "{\"a\":1}", "null", "~"] {
        let app = Bench::new().env("ORDERS_TOPIC", text).set(&format!("db.password={text}")).app();
        assert_eq!(app.topic, text);
        assert_eq!(app.db.password.as_ref().map(Secret::expose).unwrap(), text);
    }
}

#[test]
fn p8_a_list_of_one_number_is_a_list() {
    assert_eq!(Bench::new().env("ORDERS_PORTS", "80").app().ports, [80]);
    assert_eq!(Bench::new().env("ORDERS_PORTS", "80, 81").app().ports, [80, 81]);
    assert_eq!(Bench::new().env("ORDERS_PORTS", "[80,81]").app().ports, [80, 81]);
    assert_eq!(Bench::new().env("ORDERS_BROKERS", "[::1]:1,[::2]:2").app().brokers, ["[::1]:1", "[::2]:2"]);
    let line = Bench::new().env("ORDERS_BROKERS", "a,,b").fault();
    assert_eq!(line, "brokers[1] (env ORDERS_BROKERS): is empty; take the extra comma away");
}

#[test]
fn p9_numbers_are_not_rounded_and_nothing_becomes_another_type() {
    let cases = [
        ("quantity = 80.7", "80.7 is not a whole number"),
        ("quantity = 80.0", "80.0 is not a whole number"),
        ("quantity = true", "true is true or false"),
        ("quantity = \"80\"", "\"80\" is text"),
        ("topic = true", "true is true or false"),
        ("topic = 12345", "12345 is a number"),
        ("ratio = \"0.5\"", "\"0.5\" is text"),
        ("ratio = nan", "nan is a number"),
        ("ratio = inf", "inf is a number"),
    ];
    for (text, what) in cases {
        let line = Bench::new().file("c.toml", text).fault();
        assert!(line.contains(&format!("(c.toml:1): {what}; expected ")), "{text}: {line}");
    }
    for text in ["80.7", "true", "080", "+80", " 80", "0x50", "8_0", "80\n"] {
        let line = Bench::new().env("ORDERS_QUANTITY", text).fault();
        assert!(line.contains("expected a whole number"), "{text}: {line}");
    }
}

#[test]
fn p10_an_empty_variable_is_one_that_is_not_set() {
    let app = Bench::new()
        .file("c.toml", "quantity = 3")
        .env("ORDERS_QUANTITY", "")
        .env("ORDERS_NOTE", "")
        .env("PORT", "")
        .env("ORDERS_NO_SUCH_KEY", "")
        .app();
    assert_eq!((app.quantity, app.note), (3, None));
}

#[test]
fn p11_a_scalar_over_a_table_names_its_source() {
    let lines = Bench::new()
        .file("a.toml", "[server.http]\ngzip = true\n")
        .file("b.toml", "server = 1\ntopic = {}\n")
        .env("ORDERS_DB", "hunter2")
        .faults::<App>();
    assert_eq!(
        lines,
        [
            "db (env ORDERS_DB): the value (not shown) does not fit; expected a table, written as JSON",
            "server (b.toml:1): 1 is a number; expected a table",
            "topic (b.toml:2): is a table; expected text",
        ]
    );
}

#[test]
fn p12_a_leading_zero_is_neither_octal_nor_cut() {
    let line = Bench::new().file("c.yaml", "quantity: 0777\n").fault();
    assert_eq!(
        line,
        "quantity (c.yaml:1): \"0777\" does not fit; expected a whole number from 0 to 4294967295; a leading zero means \
         octal to some; write 777"
    );
    assert_eq!(Bench::new().file("c.yaml", "topic: 0777\n").app().topic, "0777");
}

#[test]
fn p13_a_file_that_was_asked_for_must_be_there_and_none_is_guessed() {
    let bench = Bench::new();
    bench.beside("app.toml", "topic = 'guessed'");
    let line = bench.arg("--config").arg("/nonexistent/app.toml").fault();
    assert_eq!(line, "- (/nonexistent/app.toml): cannot be read: No such file or directory (os error 2)");
    let line = Bench::new().file("app", "topic = 'x'").fault();
    assert!(line.contains("cannot tell the format"), "{line}");
}

#[test]
fn p14_debug_shows_no_secret() {
    let bench = Bench::new().env("ORDERS_DB__PASSWORD", "hunter2").set("db.tokens=hunter3,hunter4");
    let loader = format!("{:?}", bench.loader());
    let loaded = bench.load::<App>().unwrap();
    let shown = format!("{loader}{loaded:#?}{:#?}", loaded.config());
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn p15_a_variable_that_is_not_utf8_is_one_problem_among_others() {
    let broken = || OsString::from_vec(b"a\xff".to_vec());
    let lines = Bench::new()
        .env("ORDERS_TOPIC", broken())
        .env(OsString::from_vec(b"ORDERS_\xff".to_vec()), "x")
        .env(OsString::from_vec(b"OTHER_\xff".to_vec()), broken())
        .env("OTHER", broken())
        .env("ORDERS_QUANTITY", "x")
        .faults::<App>();
    assert_eq!(
        lines,
        [
            "- (env ORDERS_\u{fffd}): the name is not UTF-8 text",
            "quantity (env ORDERS_QUANTITY): \"x\" does not fit; expected a whole number from 0 to 4294967295",
            "topic (env ORDERS_TOPIC): the value is not UTF-8 text",
        ]
    );
}

#[test]
fn a_flag_goes_no_deeper_into_a_map_than_the_map_goes() {
    let line = Bench::new().set("labels.a.b=1").fault();
    assert_eq!(
        line,
        "labels.a.b (flag --set labels.a.b): unknown key; labels has no tables in it; a key with a dot is written in \
         quotes: labels.\"a.b\""
    );
    let app = Bench::new().set("labels.\"a.b\"=1").set("labels.c__d=2").env("ORDERS_LABELS__e__f", "3").app();
    let labels: Vec<_> = app.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("a.b", "1"), ("c__d", "2"), ("e__f", "3")]);
}
