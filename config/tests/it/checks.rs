//! Checks across keys, wherever their section stands.

use std::collections::BTreeMap;

use mainspring_config::{Check, Report};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kit::{App, Bench, Server};

#[test]
fn values_that_cannot_work_together_are_a_fault_at_their_source() {
    let line = Bench::new().env("ORDERS_SERVER__HTTP__REQUEST_TIMEOUT", "1m").fault();
    assert_eq!(
        line,
        "server.http.request_timeout (env ORDERS_SERVER__HTTP__REQUEST_TIMEOUT): 1m is more than shutdown.budget (28s); raise \
         shutdown.budget"
    );
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Deep {
    /// A field's own words beside the reference to its type.
    #[schemars(extend("x-anything" = 1))]
    one: Wrapper,
    maybe: Option<Server>,
    many: BTreeMap<String, Server>,
    list: Vec<Server>,
    kind: Kind,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Wrapper {
    #[schemars(description = "beside", extend("x-other" = true))]
    web: Box<Server>,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Kind {
    #[default]
    Off,
    On(Server),
}

#[test]
fn a_section_is_checked_under_any_field() {
    let bad = "http.request_timeout = '1h'";
    let text = format!(
        "[one.web]\n{bad}\n[maybe]\n{bad}\n[many.'a.b']\n{bad}\n[[list]]\n[[list]]\n{bad}\n[kind]\nkind = 'on'\n{bad}\n"
    );
    let lines = Bench::new().file("c.toml", text).faults::<Deep>();
    let keys: Vec<&str> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "kind.http.request_timeout (c.toml:12)",
            "list[1].http.request_timeout (c.toml:9)",
            "many.\"a.b\".http.request_timeout (c.toml:6)",
            "maybe.http.request_timeout (c.toml:4)",
            "one.web.http.request_timeout (c.toml:2)",
        ]
    );
}

#[test]
fn a_check_says_nothing_about_a_key_that_is_faulty_by_itself() {
    let lines =
        Bench::new().file("c.toml", "[server]\nhttp.request_timeout = '1m'\nshutdown.budget = 5\n").faults::<App>();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("server.shutdown.budget (c.toml:3): 5 is a number"), "{lines:#?}");
}

#[test]
fn a_check_speaks_beside_faults_elsewhere() {
    let lines = Bench::new().file("c.toml", "quantity = -1\n[server]\nhttp.request_timeout = '1m'\n").faults::<App>();
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Range {
    low: u32,
    high: u32,
}

impl Check for Range {
    fn check(&self, report: &mut Report) {
        if self.low > self.high {
            report.fault("low", format!("{} is above high ({})", self.low, self.high), "");
        }
    }
}

#[test]
fn the_whole_can_have_a_check_of_its_own() {
    let bench = Bench::new().set("low=2").set("high=1");
    let exit = bench.loader().check::<Range>().load::<Range>().err().unwrap();
    assert_eq!(exit.stderr(), "low (flag --set low): 2 is above high (1)\n");
    assert_eq!(Report::of(&Range { low: 1, high: 1 }), []);
    assert_eq!(Report::of(&Range { low: 1, high: 0 })[0].to_string(), "low (-): 1 is above high (0)");
}

/// A value that has to be one of those in another section.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-section" = "color", "minLength" = 1, "examples" = ["red"]))]
struct Color(String);

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-section" = "paint"))]
struct Paint {
    has: Vec<String>,
}

impl Default for Paint {
    fn default() -> Self {
        Self { has: vec!["red".to_owned()] }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct House {
    door: Color,
    roof: Option<Color>,
    walls: Vec<Color>,
    paint: Paint,
}

fn painted(color: &Color, paint: &Paint, report: &mut Report) {
    if !paint.has.contains(&color.0) {
        report.fault("", format!("there is no {:?}", color.0), format!("use one of {}", paint.has.join(", ")));
    }
}

#[test]
fn a_single_value_can_be_checked_against_another_section() {
    let faults = |bench: Bench| match bench.loader().section_with("color", "paint", painted).load::<House>() {
        Ok(_) => Vec::new(),
        Err(exit) => exit.stderr().lines().map(str::to_owned).collect(),
    };
    let bench = || Bench::new().set("door=blue").set("roof=red").set("walls=red,green");
    assert_eq!(
        faults(bench()),
        [
            "door (flag --set door): there is no \"blue\"; use one of red",
            "walls[1] (flag --set walls): there is no \"green\"; use one of red",
        ]
    );
    assert_eq!(faults(bench().env("ORDERS_PAINT__HAS", "red,blue,green")), Vec::<String>::new());
    assert_eq!(
        faults(Bench::new().set("roof=blue")),
        [
            "door (not set): is not set; expected text such as \"red\"; set ORDERS_DOOR, or the \
             key in a file",
            "roof (flag --set roof): there is no \"blue\"; use one of red",
        ]
    );
}

#[test]
fn sections_can_be_taken_out_with_their_secrets() {
    let loaded = Bench::new().env("ORDERS_ONE__WEB__HTTP__GZIP", "true").load::<Deep>().unwrap();
    assert_eq!(loaded.path_of("server").as_deref(), Some("one.web"));
    assert!(loaded.get::<Server>("server").unwrap().http.gzip);
    assert!(loaded.get::<Server>("brokers").is_none());
    assert_eq!(loaded.origin("one.web.http.gzip"), "env ORDERS_ONE__WEB__HTTP__GZIP");
    assert_eq!(loaded.origin("one.web.http.addr"), "default");
}
