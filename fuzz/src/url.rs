//! Broker URLs: read or refused with a reason, and never a password in what is shown.

use std::error::Error as _;
use std::sync::LazyLock;

use mainspring_config::redact_url;
use mainspring_pubsub::driver::Url;
use mainspring_pubsub::{BrokerUrl, Brokers, BrokersConfig, Error};

use crate::{SECRET, assert_hidden, holds_secret};

static BROKERS: LazyLock<Brokers> =
    LazyLock::new(|| Brokers::new(&BrokersConfig::default()).expect("the defaults are sound"));

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if holds_secret(bytes) {
        return;
    }
    read(text);
    // The same with a password, and with a token.
    if let Some((scheme, rest)) = text.split_once("://") {
        read(&format!("{scheme}://bob:{SECRET}@{rest}"));
        read(&format!("{scheme}://bob:p@{SECRET}?/@{rest}"));
        let mark = if rest.contains('?') { '&' } else { '?' };
        read(&format!("{scheme}://{rest}{mark}token={SECRET}"));
        read(&format!("{scheme}://{rest}{mark}password={SECRET}&group=ship"));
    }
}

fn read(text: &str) {
    assert_hidden("redact_url", &redact_url(text));
    let url = BrokerUrl::from(text);
    assert_eq!(&*url, text);
    assert_hidden("BrokerUrl", &format!("{url} {url:?}"));
    match Url::parse(text) {
        Ok(parsed) => {
            assert!(text.to_ascii_lowercase().starts_with(&format!("{}://", parsed.scheme())), "{parsed:?}");
            assert!(!parsed.name().contains(|c: char| c.is_whitespace() || c.is_control()), "{parsed:?}");
            assert_hidden("Url", &format!("{parsed} {parsed:?}"));
            if let Err(error) = parsed.expect_options(&["group", "start"]) {
                explained(&error);
            }
        }
        Err(error) => explained(&error),
    }
    if let Err(error) = BROKERS.check(text) {
        explained(&error);
    }
}

/// An error says what is wrong with which URL, in one line, and shows no password.
fn explained(error: &Error) {
    let source = error.source().and_then(|source| source.downcast_ref::<mainspring_config::Error>());
    let source = source.unwrap_or_else(|| panic!("a URL's fault is a fault of the configuration: {error:?}"));
    for problem in source.problems() {
        assert!(!problem.key.is_empty() && !problem.what.is_empty() && problem.hint.is_some(), "{problem:?}");
        assert!(!problem.to_string().contains(char::is_control), "more than a line: {problem}");
    }
    assert_hidden("an error", &format!("{error} {error:?} {source}"));
}
