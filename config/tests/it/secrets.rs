//! Secrets come in by every way and go out by none.

use std::path::PathBuf;

use crate::kit::{App, Bench, Db};
use mainspring_config::{Check, Exit, Report, Secret};

const SECRET: &str = "hunter2";

fn password(bench: Bench) -> String {
    bench.app().db.password.as_ref().map(Secret::expose).unwrap().clone()
}

#[test]
fn a_secret_comes_from_a_file_less_one_line_break() {
    for (text, expected) in
        [("hunter2\n", "hunter2"), ("hunter2", "hunter2"), ("hunter2\n\n", "hunter2\n"), ("a\r\n", "a"), (" a ", " a ")]
    {
        for name in ["ORDERS_DB__PASSWORD_FILE", "DB_PASSWORD_FILE"] {
            let bench = Bench::new();
            let path = bench.beside("secret", text);
            assert_eq!(password(bench.env(name, path)), expected, "{text:?} by {name}");
        }
    }
}

#[test]
fn a_typed_secret_comes_from_a_file_too() {
    let bench = Bench::new();
    let path = bench.beside("pin", "1234\n");
    assert_eq!(bench.env("ORDERS_DB__PIN_FILE", path).app().db.pin.map(|pin| *pin.expose()), Some(1234));
}

#[test]
fn a_secret_and_its_file_are_not_both_set() {
    let bench = Bench::new();
    let path = bench.beside("secret", SECRET);
    let line = bench.env("ORDERS_DB__PASSWORD_FILE", path).env("DB_PASSWORD", SECRET).fault();
    assert_eq!(
        line,
        "db.password (env ORDERS_DB__PASSWORD_FILE): DB_PASSWORD and ORDERS_DB__PASSWORD_FILE are both set; unset one of them"
    );
}

#[test]
fn a_secret_file_must_be_there_small_text_and_not_empty() {
    let bench = Bench::new();
    let cases: [(PathBuf, &str); 5] = [
        (bench.beside("large", vec![b'x'; 64 * 1024 + 1]), "is larger than 64KiB"),
        (bench.beside("binary", b"\xff"), "is not UTF-8 text (line 1)"),
        (bench.beside("empty", "\n"), "is empty"),
        (SECRET.into(), "cannot be read: No such file or directory (os error 2)"),
        ("/".into(), "cannot be read: it is not a regular file"),
    ];
    for (path, why) in cases {
        let line = Bench::new().env("ORDERS_DB__PASSWORD_FILE", path).fault();
        assert!(
            line.starts_with(&format!("db.password (env ORDERS_DB__PASSWORD_FILE): the file that it names {why}")),
            "{line}"
        );
        assert!(!line.contains(SECRET), "{line}");
    }
    let bench = Bench::new();
    let path = bench.beside("full", vec![b'x'; 64 * 1024]);
    assert_eq!(password(bench.env("ORDERS_DB__PASSWORD_FILE", path)).len(), 64 * 1024);
}

#[test]
fn the_mask_is_not_taken_for_a_secret() {
    let line = Bench::new().file("c.toml", "[db]\npassword = \"***\"\n").fault();
    assert_eq!(line, "db.password (c.toml:2): \"***\" stands for a secret and is none; give the secret itself");
}

#[test]
fn broken_files_do_not_show_the_line_with_the_secret() {
    let broken = [
        ("c.toml", "[db]\npassword = hunter2\n"),
        ("c.toml", "[db]\npassword = \"hunter2\n"),
        ("c.toml", "[db]\npassword \"hunter2\"\n"),
        ("c.toml", "[db]\npassword = \"a\"\npassword = \"hunter2\"\n"),
        ("c.toml", "[db\npassword = \"hunter2\"\n"),
        ("c.yaml", "db:\n  password: \"hunter2\n"),
        ("c.yaml", "db:\n  password: hunter2: x\n"),
        ("c.yaml", "db:\n\tpassword: hunter2\n"),
        ("c.yaml", "db: {password: !secret hunter2}\n"),
        ("c.yaml", "db:\n  password: *hunter2\n"),
        ("c.json", "{\"db\": {\"password\": hunter2}}"),
        ("c.json", "{\"db\": {\"password\": \"hunter2}}"),
        ("c.json", "{\"db\": {\"password\": \"hunter2\" \"x\"}}"),
        ("c.json", "{\"db\": {\"password\": \"hunter2\", \"password\": \"hunter2\"}}"),
    ];
    for (name, text) in broken {
        let lines = Bench::new().file(name, text).faults::<App>().join("\n");
        assert!(!lines.contains(SECRET), "{text}: {lines}");
    }
}

#[test]
fn wrong_types_do_not_show_the_secret() {
    let wrong = [
        "db = \"hunter2\"",
        "db = [\"hunter2\"]",
        "[db]\npin = \"hunter2\"",
        "[db]\npassword = [\"hunter2\"]",
        "[db]\npassword = { x = \"hunter2\" }",
        "[db]\ntokens = \"hunter2\"",
        "[db]\ntokens = [\"a\", { x = \"hunter2\" }]",
        "[db]\npasswort = \"hunter2\"",
        "db_password = \"hunter2\"",
    ];
    for text in wrong {
        let lines = Bench::new().file("c.toml", text).faults::<App>().join("\n");
        assert!(!lines.contains(SECRET), "{text}: {lines}");
    }
    for name in [
        "ORDERS_DB",
        "ORDERS_DB__PIN",
        "ORDERS_DB__PASSWORT",
        "ORDERS_DB_PASSWORD",
        "ORDERS_DB__PIN_FILE",
        "ORDERS_PASSWORD",
    ] {
        let lines = Bench::new().env(name, SECRET).faults::<App>().join("\n");
        assert!(!lines.contains(SECRET), "{name}: {lines}");
    }
    for text in ["{\"password\": hunter2}", "{\"password\": {\"a\": \"hunter2\"}}", "{\"pasword\": \"hunter2\"}"] {
        let lines = Bench::new().env("ORDERS_DB", text).faults::<App>().join("\n");
        assert!(!lines.contains(SECRET), "{text}: {lines}");
    }
}

#[test]
fn mistakes_on_the_command_line_do_not_show_the_secret() {
    let mistakes: [&[&str]; 6] = [
        &["--set", "hunter2"],
        &["--set", "db.password", "hunter2"],
        &["--password=hunter2"],
        &["hunter2"],
        &["--set", "db.pin=hunter2"],
        &["--set", "db.passwort=hunter2"],
    ];
    for args in mistakes {
        let bench = args.iter().fold(Bench::new(), |bench, arg| bench.arg(*arg));
        let exit = bench.load::<App>().unwrap_err();
        assert_eq!(exit.code(), 78);
        assert!(!exit.stderr().contains(SECRET), "{args:?}: {}", exit.stderr());
        assert!(!format!("{exit:?}").contains(SECRET));
    }
}

#[test]
fn a_secret_on_the_command_line_is_noticed() {
    let loaded = Bench::new().set("db.password=hunter2").load::<App>().unwrap();
    assert!(loaded.notices()[0].contains("--set db.password holds a secret"), "{:?}", loaded.notices());
    assert!(!loaded.notices()[0].contains(SECRET));
}

#[test]
fn printing_shows_stars_and_the_origin() {
    let printed = Bench::new()
        .file("c.toml", "[db]\npassword = \"hunter2\"\ntokens = [\"hunter2\", \"hunter3\"]\n")
        .env("ORDERS_DB__PIN", "4711")
        .arg("--print-config")
        .text::<App>();
    assert!(!printed.contains("hunter") && !printed.contains("4711"), "{printed}");
    assert!(printed.contains("db.password = \"***\"   # c.toml:2\n"), "{printed}");
    assert!(printed.contains("db.pin = \"***\"   # env ORDERS_DB__PIN\n"), "{printed}");
    assert!(printed.contains("db.tokens = [\"***\", \"***\"]   # c.toml:3\n"), "{printed}");
}

#[test]
fn a_file_cannot_name_another_keys_secret() {
    // What stands in for a secret while files are merged cannot be guessed, so no text can ask for one.
    let text =
        "{\"topic\": \"\\u0000vault:0\", \"note\": \"\\u00000000000000000000:0\", \"db\": {\"password\": \"hunter2\"}}";
    let app = Bench::new().file("c.json", text).app();
    assert_eq!(app.topic, "\0vault:0");
    assert_eq!(app.note.as_deref(), Some("\u{0}0000000000000000:0"));
}

#[test]
fn serde_does_not_show_the_secret_when_it_refuses_what_holds_it() {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Outer {
        inner: Inner,
    }

    #[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default, try_from = "Plain")]
    #[schemars(with = "Plain")]
    struct Inner {
        password: Option<Secret>,
        pin: Option<Secret<u32>>,
    }

    #[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Plain {
        password: Option<Secret>,
        pin: Option<Secret<u32>>,
    }

    impl TryFrom<Plain> for Inner {
        type Error = String;

        fn try_from(plain: Plain) -> Result<Self, String> {
            match plain.password {
                Some(secret) => Err(format!("weak password {}", secret.expose())),
                None => match plain.pin {
                    Some(pin) => Err(format!("weak pin {}", pin.expose())),
                    None => Ok(Self { password: None, pin: None }),
                },
            }
        }
    }

    let exit = Bench::new().env("ORDERS_INNER__PASSWORD", SECRET).load::<Outer>().err().unwrap();
    assert!(matches!(exit, Exit::Faults(_)));
    assert!(!exit.stderr().contains(SECRET) && exit.stderr().contains("ORDERS_INNER__PASSWORD"), "{}", exit.stderr());
    let line = Bench::new().env("ORDERS_INNER__PIN", "4711").load::<Outer>().err().unwrap().stderr().to_owned();
    assert_eq!(line, "inner.pin (env ORDERS_INNER__PIN): does not fit (the values are not shown)\n");
}

impl Check for Db {
    fn check(&self, report: &mut Report) {
        if let Some(password) = &self.password {
            report.fault("password", format!("{} is weak", password.expose()), format!("not {}", password.expose()));
        }
    }
}

#[test]
fn a_check_that_speaks_of_a_secret_does_not_show_it() {
    let bench = Bench::new().env("ORDERS_PASSWORD", SECRET);
    let exit = bench.loader().check::<Db>().load::<Db>().unwrap_err();
    assert_eq!(exit.stderr(), "password (env ORDERS_PASSWORD): *** is weak; not ***\n");
}

#[test]
fn a_secret_with_a_default_keeps_it() {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Guest {
        password: Secret,
    }

    impl Default for Guest {
        fn default() -> Self {
            Self { password: "guest".to_owned().into() }
        }
    }

    assert_eq!(Bench::new().good::<Guest>().password.expose(), "guest");
    let printed = Bench::new().arg("--print-config").text::<Guest>();
    assert_eq!(printed, "password = \"***\"   # default\n");
}
