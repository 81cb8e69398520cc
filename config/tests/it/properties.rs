//! What holds for every text and every file.

use mainspring_config::Loader;
use proptest::prelude::*;

use crate::kit::{App, Bench};

/// Any text that the environment can carry: no NUL, and not empty, which means "not set".
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^\0]{1,40}",
        r#"[0-9eE+.,:\[\]{}"'\\ \n\t~#!&*-]{1,20}"#,
        Just("true".to_owned()),
        Just("***x".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_from_the_environment_comes_out_byte_for_byte(text in any_text()) {
        let vars = ["ORDERS_TOPIC", "ORDERS_NOTE", "ORDERS_LABELS__k", "ORDERS_DB__USER", "ORDERS_DB__PASSWORD"];
        let env = vars.map(|name| (name.into(), text.clone().into()));
        let loader = Loader::new("orders", "1").directory("/nonexistent").env(env);
        let app = loader.load::<App>().unwrap().into_config();
        prop_assert_eq!(&app.topic, &text);
        prop_assert_eq!(app.note.as_ref(), Some(&text));
        prop_assert_eq!(&app.labels["k"], &text);
        prop_assert_eq!(&app.db.user, &text);
        let password = app.db.password.unwrap();
        prop_assert_eq!(password.expose(), &text);
    }

    #[test]
    fn any_bytes_as_a_file_load_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for name in ["c.toml", "c.yaml", "c.json"] {
            let _ = Bench::new().file(name, &bytes).load::<App>();
        }
    }

    #[test]
    fn any_text_as_a_file_loads_or_is_refused(text in r#"([a-z_]{1,6}|server|http|db|ports|[ \n\t=:,.\[\]{}"'&*!|>#?-]|[0-9]{1,3}|\PC){0,60}"#) {
        for name in ["c.toml", "c.yaml", "c.json"] {
            let _ = Bench::new().file(name, &text).load::<App>();
        }
    }

    #[test]
    fn any_variable_and_flag_loads_or_is_refused(name in "ORDERS_[A-Z_]{0,12}", text in any_text(), key in any_text()) {
        let _ = Bench::new().env(name, text.clone()).set(&format!("{key}={text}")).load::<App>();
    }
}
