//! The three formats: lines, duplicates, and what each of them is known to get wrong.

use crate::kit::{App, Bench};

#[test]
fn the_three_formats_say_the_same() {
    let toml = "topic = 'x'\nports = [1, 2]\nratio = 0.5\n[server.http]\naddr = '127.0.0.1:1'\nheader_timeout = '1m'\ngzip = true\n";
    let yaml = "topic: x\nports: [1, 2]\nratio: 0.5\nserver:\n  http:\n    addr: 127.0.0.1:1\n    header_timeout: 1m\n    gzip: true\n";
    let json = r#"{"topic": "x", "ports": [1, 2], "ratio": 0.5,
        "server": {"http": {"addr": "127.0.0.1:1", "header_timeout": "1m", "gzip": true}}}"#;
    let values = |name: &str, text: &str| {
        let printed = Bench::new().file(name, text).arg("--print-config").text::<App>();
        printed.lines().map(|line| line.split("   # ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let expected = values("c.toml", toml);
    assert!(expected.contains(&"server.http.header_timeout = \"1m\"".to_owned()), "{expected:#?}");
    assert_eq!(values("c.yaml", yaml), expected);
    assert_eq!(values("c.yml", yaml), expected);
    assert_eq!(values("c.json", json), expected);
}

#[test]
fn each_format_knows_the_line() {
    let lines = |name: &str, text: &str| Bench::new().file(name, text).faults::<App>();
    assert_eq!(
        lines("c.toml", "\n[server.http]\n\ngzip = 1\n[server.htpp]\nx = 1\n"),
        [
            "server.htpp (c.toml:5): unknown key; did you mean \"server.http\"?",
            "server.http.gzip (c.toml:4): 1 is a number; expected true or false",
        ]
    );
    assert_eq!(
        lines("c.yaml", "# comment\nserver:\n  http:\n    gzip: 1\nports:\n  - 1\n  - x\n"),
        [
            "ports[1] (c.yaml:7): \"x\" does not fit; expected a whole number from 0 to 65535",
            "server.http.gzip (c.yaml:4): \"1\" does not fit; expected true or false",
        ]
    );
    assert_eq!(
        lines("c.json", "{\n \"server\": {\n  \"http\": {\n   \"gzip\": 1}},\n \"ports\": [1,\n  \"x\"]}"),
        [
            "ports[1] (c.json:6): \"x\" is text; expected a whole number from 0 to 65535",
            "server.http.gzip (c.json:4): 1 is a number; expected true or false",
        ]
    );
}

#[test]
fn a_key_given_twice_is_refused_in_every_format() {
    let line = Bench::new().file("c.json", "{\"topic\": \"a\",\n\"topic\": \"b\"}").fault();
    assert_eq!(line, "- (c.json:2): the key \"topic\" is given twice; remove one of them");
    let line = Bench::new().file("c.json", "{\"server\": {\"http\": {\"gzip\": true,\n\n\"gzip\": false}}}").fault();
    assert_eq!(line, "- (c.json:3): the key \"gzip\" is given twice; remove one of them");
    let line = Bench::new().file("c.yaml", "topic: a\ntopic: b\n").fault();
    assert_eq!(line, "- (c.yaml:2): the key \"topic\" is given twice; remove one of them");
    let line = Bench::new().file("c.toml", "topic = 'a'\ntopic = 'b'\n").fault();
    assert_eq!(line, "- (c.toml:2): not valid TOML: duplicate key");
}

#[test]
fn several_mistakes_in_the_grammar_of_toml_are_all_found() {
    let lines = Bench::new().file("c.toml", "topic = \nratio = 0.5\nports = [1,\nquantity == 3\n").faults::<App>();
    assert!(lines.len() >= 2 && lines.iter().all(|line| line.contains("not valid TOML")), "{lines:#?}");
}

#[test]
fn what_a_broken_file_would_have_set_is_not_reported_as_missing() {
    #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct Strict {
        #[schemars(length(min = 1))]
        topic: String,
    }
    let lines = Bench::new().file("c.toml", "topic = 'a\n").faults::<Strict>();
    assert!(lines.len() == 1 && lines[0].starts_with("- (c.toml:1): not valid TOML"), "{lines:#?}");
}

#[test]
fn yaml_scalars_are_what_the_schema_says() {
    let text = "topic: 1.10\nnote: no\nlabels: {a: 0012, b: 22:22, c: 2024-01-01, d: on, e: 1e5, f: 0x1F}\nbrokers: [8080, true]\n";
    let app = Bench::new().file("c.yaml", text).app();
    assert_eq!((app.topic.as_str(), app.note.as_deref()), ("1.10", Some("no")));
    let labels: Vec<&str> = app.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["0012", "22:22", "2024-01-01", "on", "1e5", "0x1F"]);
    assert_eq!(app.brokers, ["8080", "true"]);
}

#[test]
fn yaml_traps_are_faults_with_a_hint() {
    let cases = [
        ("server: {http: {gzip: yes}}", "\"yes\" does not fit; expected true or false; write true"),
        ("quantity: '3'", "\"3\" is text; expected a whole number from 0 to 4294967295; take the quotes away"),
        ("quantity: 1_000", "\"1_000\" does not fit"),
        ("topic:", "has no value; expected text"),
        ("topic: ~", "has no value"),
        ("topic: !env HOME", "this tag (!) is not supported"),
        ("a: &x 1\n<<: *x", "merge keys (<<) are not supported"),
        ("? [a]\n: b", "a key must be plain text"),
        ("topic: a\n---\ntopic: b", "a second document begins here"),
        ("topic: [a", "not valid YAML"),
        ("a: &a [*a]", ""),
        ("server:\n\thttp: 1", "not valid YAML"),
        ("- a", "is a list; expected a table"),
        ("just text", "(c.yaml:1): the value (not shown) does not fit; expected a table"),
    ];
    for (text, what) in cases {
        let lines = Bench::new().file("c.yaml", text).faults::<App>();
        assert!(lines.iter().any(|line| line.contains(what)), "{text}: {lines:#?}");
    }
}

#[test]
fn yaml_anchors_work_and_cannot_explode() {
    let app = Bench::new().file("c.yaml", "brokers: &b [x, y]\nlabels: {}\nnote: &n hi\ntopic: *n\n").app();
    assert_eq!((app.topic.as_str(), app.brokers.len()), ("hi", 2));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let line = Bench::new().file("c.yaml", bomb).fault();
    assert!(line.contains("more than 100000 values, aliases counted"), "{line}");
}

#[test]
fn a_section_with_nothing_below_it_is_an_empty_table() {
    let app =
        Bench::new().file("c.yaml", "server:\n  http:\nlabels:\n").file("d.yaml", "").file("e.yaml", "# nothing").app();
    assert_eq!(app.server.http.addr.port(), 8080);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_text() {
    for (name, text) in [("c.toml", "topic = 'x'"), ("c.yaml", "topic: x"), ("c.json", "{\"topic\": \"x\"}")] {
        assert_eq!(Bench::new().file(name, format!("\u{feff}{text}")).app().topic, "x");
    }
}

#[test]
fn depth_is_bounded() {
    for (name, open) in [
        ("c.json", "[".repeat(100_000)),
        ("c.yaml", "[".repeat(20_000)),
        ("c.toml", format!("a = {}", "[".repeat(100_000))),
    ] {
        let lines = Bench::new().file(name, open).faults::<App>();
        assert!(!lines.is_empty());
    }
    let nested = format!("{}1{}", "[".repeat(80), "]".repeat(80));
    let line = Bench::new().file("c.json", format!("{{\"ports\": {nested}}}")).fault();
    assert_eq!(line, "- (c.json:1): nested deeper than 64 levels");
    let line = Bench::new().file("c.yaml", format!("ports: {nested}")).fault();
    assert_eq!(line, "- (c.yaml:1): nested deeper than 64 levels");
}

#[test]
fn json_escapes_are_read() {
    assert_eq!(Bench::new().file("c.json", r#"{"topic": "\ud83d\ude00\u0041\n"}"#).app().topic, "\u{1f600}A\n");
    let line = Bench::new().file("c.json", "{\"note\": null,\n\"topic\": \"\\ud83d\"}").fault();
    assert!(line.starts_with("- (c.json:2): not valid JSON"), "{line}");
}

#[test]
fn what_is_no_text_or_no_file_is_refused() {
    let line = Bench::new().file("c.toml", b"topic = 'x'\nnote = '\xff'").fault();
    assert_eq!(line, "- (c.toml): is not UTF-8 text (line 2)");
    let line = Bench::new().arg("--config").arg("/proc").fault();
    assert!(line.contains("cannot tell the format"), "{line}");
    let bench = Bench::new();
    let pipe = bench.beside("x.toml", "");
    std::fs::remove_file(&pipe).unwrap();
    std::fs::create_dir(&pipe).unwrap();
    let line = bench.arg("--config").arg(pipe).fault();
    assert_eq!(line, "- (x.toml): cannot be read: it is not a regular file");
    let line = Bench::new().file("c.toml", vec![b'#'; 5 << 20]).fault();
    assert_eq!(line, "- (c.toml): is larger than 4MiB");
}

#[test]
fn a_key_in_the_wrong_table_is_pointed_at() {
    let line = Bench::new().file("c.toml", "http.addr = '127.0.0.1:1'").fault();
    assert_eq!(line, "http (c.toml:1): unknown key; did you mean \"server.http\"?");
}
