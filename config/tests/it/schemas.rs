//! Types as users write them: what the schema says about them, and what only serde knows.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;

use mainspring_config::{Duration, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::kit::Bench;

/// As the simplest service writes it: no `serde(default)` anywhere.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Plain {
    #[schemars(length(min = 1))]
    topic: String,
    password: Secret,
    work: Duration,
    tls: Option<Tls>,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Tls {
    cert: String,
    key: Secret,
}

#[test]
fn what_has_no_usable_default_must_be_set() {
    let lines = Bench::new().faults::<Plain>();
    assert_eq!(
        lines,
        [
            "password (not set): is not set; expected text; set ORDERS_PASSWORD, or ORDERS_PASSWORD_FILE, or the key in a file",
            "topic (not set): is not set; expected text that is not empty; set ORDERS_TOPIC, or the key in a file",
        ]
    );
    let plain: Plain = Bench::new().env("ORDERS_TOPIC", "x").env("ORDERS_PASSWORD", "y").good();
    assert_eq!((plain.topic.as_str(), plain.password.expose().as_str()), ("x", "y"));
    assert!(plain.tls.is_none());
}

#[test]
fn half_of_an_optional_section_is_a_fault_beside_the_other_half() {
    let lines = Bench::new()
        .env("ORDERS_TOPIC", "x")
        .env("ORDERS_PASSWORD", "y")
        .env("ORDERS_TLS__CERT", "c")
        .faults::<Plain>();
    assert_eq!(
        lines,
        [
            "tls.key (env ORDERS_TLS__CERT): is not set; expected text; set ORDERS_TLS__KEY, or ORDERS_TLS__KEY_FILE, or the key in a file"
        ]
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Wide {
    ip: IpAddr,
    letter: char,
    pair: (u8, String),
    count: NonZeroU16,
    small: i8,
    big: u64,
    by_port: HashMap<u16, String>,
    tree: Tree,
    peers: Vec<Peer>,
    even: Even,
    free: serde_json::Value,
    #[serde(alias = "old")]
    #[schemars(extend("x-alias" = ["old"]))]
    new: u8,
    auth: Auth,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Tree {
    name: String,
    secret: Option<Secret>,
    below: Option<Box<Self>>,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Peer {
    host: String,
    #[serde(default)]
    weight: u8,
}

/// A type whose rule only its own `Deserialize` knows.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Even(u32);

impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if number % 2 == 1 { Err(serde::de::Error::custom("must be even")) } else { Ok(Self(number)) }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Auth {
    #[default]
    None,
    Basic {
        user: String,
        password: Secret,
    },
    Bearer {
        user: String,
        #[serde(default)]
        realm: String,
    },
}

impl Default for Wide {
    fn default() -> Self {
        Self {
            ip: [127, 0, 0, 1].into(),
            letter: 'a',
            pair: (1, "x".to_owned()),
            count: NonZeroU16::MIN,
            small: 0,
            big: 0,
            by_port: HashMap::new(),
            tree: Tree::default(),
            peers: Vec::new(),
            even: Even(0),
            free: serde_json::Value::Null,
            new: 0,
            auth: Auth::None,
        }
    }
}

#[test]
fn every_shape_can_be_set_from_the_environment() {
    let wide: Wide = Bench::new()
        .env("ORDERS_IP", "::1")
        .env("ORDERS_LETTER", "ß")
        .env("ORDERS_PAIR", "7,y")
        .env("ORDERS_COUNT", "3")
        .env("ORDERS_SMALL", "-128")
        .env("ORDERS_BIG", "18446744073709551615")
        .env("ORDERS_BY_PORT__80", "http")
        .env("ORDERS_TREE__BELOW__BELOW__NAME", "deep")
        .env("ORDERS_TREE__BELOW__SECRET", "hunter2")
        .env("ORDERS_PEERS", r#"[{"host": "a"}, {"host": "b", "weight": 2}]"#)
        .env("ORDERS_EVEN", "4")
        .env("ORDERS_FREE", r#"{"x": [1]}"#)
        .env("ORDERS_OLD", "5")
        .good();
    assert_eq!((wide.ip.to_string().as_str(), wide.letter, wide.pair.0), ("::1", 'ß', 7));
    assert_eq!((wide.count.get(), wide.small, wide.big), (3, -128, u64::MAX));
    assert_eq!(wide.by_port[&80], "http");
    let below = wide.tree.below.unwrap();
    assert_eq!(below.below.unwrap().name, "deep");
    assert_eq!(below.secret.unwrap().expose(), "hunter2");
    assert_eq!((wide.peers[1].host.as_str(), wide.peers[1].weight), ("b", 2));
    assert_eq!((wide.even.0, wide.new), (4, 5));
    assert_eq!(wide.free["x"][0], 1);
}

#[test]
fn what_only_serde_knows_is_reported_beside_all_else() {
    let lines = Bench::new()
        .file(
            "c.toml",
            "ip = 'x'\nletter = 'ab'\npair = [300, 'x']\ncount = 0\nsmall = -129\neven = 3\nold = 1\nnew = 2\n\
             [by_port]\nnone = 'x'\n[[peers]]\nweight = 1\n",
        )
        .faults::<Wide>();
    let keys: Vec<&str> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "by_port.none (c.toml",
            "count (c.toml",
            "even (c.toml",
            "ip (c.toml",
            "letter (c.toml",
            "new (c.toml",
            "pair[0] (c.toml",
            "peers[0].host (c.toml",
            "small (c.toml"
        ],
        "{lines:#?}"
    );
    assert!(lines[2].ends_with("even (c.toml:6): 3 does not fit: must be even"), "{}", lines[2]);
}

#[test]
fn a_layer_that_changes_the_kind_starts_afresh() {
    let file = "[auth]\nkind = 'basic'\nuser = 'u'\npassword = 'hunter2'\n";
    let basic: Wide = Bench::new().file("c.toml", file).env("ORDERS_AUTH__USER", "v").good();
    assert!(matches!(basic.auth, Auth::Basic { user, password } if user == "v" && password.expose() == "hunter2"));
    let none: Wide = Bench::new().file("c.toml", file).env("ORDERS_AUTH__KIND", "none").good();
    assert!(matches!(none.auth, Auth::None));
    let lines = Bench::new().file("c.toml", file).env("ORDERS_AUTH__KIND", "bearer").faults::<Wide>();
    assert_eq!(
        lines,
        ["auth.user (env ORDERS_AUTH__KIND): is not set; expected text; set ORDERS_AUTH__USER, or the key in a file"]
    );
    let lines = Bench::new().set("auth.kind=bearer").set("auth.user=x").set("auth.password=y").faults::<Wide>();
    assert_eq!(lines, ["auth.password (flag --set auth.password): unknown key for kind = \"bearer\""]);
    let lines = Bench::new().set("auth.kind=baisc").faults::<Wide>();
    assert_eq!(
        lines,
        [
            "auth.kind (flag --set auth.kind): \"baisc\" is not known; expected one of none, basic, bearer; did you mean \"basic\"?"
        ]
    );
}

#[test]
fn values_only_the_type_knows_are_printed_too() {
    let printed = Bench::new().set("auth.kind=bearer").set("auth.user=x").arg("--print-config").text::<Wide>();
    assert!(printed.contains("auth.realm = \"\"   # default\n"), "{printed}");
    assert!(printed.contains("auth.kind = \"bearer\"   # flag --set auth.kind\n"), "{printed}");
    assert!(printed.contains("pair = [1, \"x\"]   # default\n"), "{printed}");
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Bounded {
    #[schemars(length(min = 1, max = 2))]
    brokers: Vec<String>,
    #[schemars(length(min = 2, max = 3))]
    code: Option<String>,
    #[schemars(range(min = 0.0, max = 1.0))]
    ratio: f32,
}

#[test]
fn lengths_and_ranges_hold() {
    let lines = Bench::new().set("code=x").set("ratio=1.5").faults::<Bounded>();
    assert_eq!(
        lines,
        [
            "brokers (not set): is not set; expected a list of 1 to 2, each item text; set ORDERS_BROKERS, or the key in a file",
            "code (flag --set code): \"x\" is too short; expected text of 2 to 3 characters",
            "ratio (flag --set ratio): \"1.5\" is out of range; expected a number from 0 to 1",
        ]
    );
    let lines = Bench::new().env("ORDERS_BROKERS", "a,b,c").faults::<Bounded>();
    assert_eq!(lines, ["brokers (env ORDERS_BROKERS): has 3 items; expected a list of 1 to 2, each item text"]);
}

#[test]
#[should_panic(expected = "the template \"0.0.0.0\" of an x-env entry has no {}")]
fn a_malformed_declaration_is_the_programs_mistake() {
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Wrong {
        #[schemars(extend("x-env" = ["PORT=0.0.0.0"]))]
        addr: String,
    }
    let _ = Bench::new().load::<Wrong>();
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Open {
    known: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u16>,
}

#[test]
fn a_flattened_map_takes_what_no_field_does() {
    let open: Open = Bench::new().file("c.toml", "known = 1\nx = 300").env("ORDERS_y", "2").good();
    assert_eq!(open.known, 1);
    assert_eq!(open.rest, BTreeMap::from([("x".to_owned(), 300), ("y".to_owned(), 2)]));
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Flattened {
    name: String,
    #[serde(flatten)]
    mode: Mode,
    #[serde(flatten)]
    auth: Auth,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Slow,
    Fast {
        factor: u8,
    },
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Tagless {
    name: String,
    #[serde(flatten)]
    auth: Auth,
}

impl Default for Tagless {
    fn default() -> Self {
        Self { name: String::new(), auth: Auth::None }
    }
}

#[test]
fn a_key_that_is_wrong_in_a_flattened_union_is_named() {
    let lines = Bench::new().file("c.toml", "kind = 'bearer'\nuser = 1\nrealm = 'x'\nrelm = 'y'\n").faults::<Tagless>();
    assert_eq!(
        lines,
        [
            "relm (c.toml:4): unknown key for kind = \"bearer\"; did you mean \"realm\"?",
            "user (c.toml:2): 1 is a number; expected text; put it in quotes",
        ]
    );
}

#[test]
fn unknown_keys_beside_a_flattened_enum_are_still_found() {
    let lines = Bench::new().file("c.toml", "nmae = 'x'").faults::<Flattened>();
    assert_eq!(lines, ["nmae (c.toml:1): unknown key; did you mean \"name\"?"]);
    let config: Flattened =
        Bench::new().file("c.toml", "name = 'x'\nkind = 'bearer'\nuser = 'u'\n").env("ORDERS_FAST__FACTOR", "3").good();
    assert_eq!((config.name.as_str(), config.mode), ("x", Mode::Fast { factor: 3 }));
    assert!(matches!(config.auth, Auth::Bearer { user, .. } if user == "u"));
}
