//! Broker URLs: `<scheme>://<name>[?option=value…]`.

use std::fmt;

use mainspring_config::redact_url;

use crate::Error;

/// Schemes whose name is itself a web address: nothing in it is an option of ours.
const WEB: [&str; 2] = ["http", "https"];

/// Schemes that may do without a name, because the configuration can give one.
const NAMED_BY_CONFIGURATION: [&str; 4] = ["gcp", "kafka", "sns", "sqs"];

/// What a fault of a URL has for its key: whoever opens it does not know where it was configured.
pub(crate) const KEY: &str = "broker URL";

/// A broker URL, parsed.
///
/// The name is the broker's own and no hostname: its case is kept, and it may hold `:` and `/` as ARNs and paths do.
/// Percent-escapes are decoded in names and options. For `http` and `https` the name is the rest of the address as
/// it stands, and there are no options.
///
/// `Display` and `Debug` hide passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    name: String,
    options: Vec<(String, String)>,
    shown: String,
}

impl Url {
    /// Parses `text`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fault = |what: &str, hint: &str| fault(&redact_url(text), what.to_owned(), hint.to_owned());
        let grammar = "write it as `scheme://name?option=value`, for example `memory://orders?group=ship`";
        if text.is_empty() {
            return Err(fault("the URL is empty", grammar));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(fault("not a broker URL: `://` is missing", grammar));
        };
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return Err(fault("the scheme may only have letters, digits, `+`, `-` and `.`", grammar));
        }
        let scheme = scheme.to_ascii_lowercase();
        let web = WEB.contains(&scheme.as_str());
        let (name, query) = match rest.split_once('?') {
            Some((name, query)) if !web => (name, Some(query)),
            _ => (rest, None),
        };
        let name = if web { Some(rest.to_owned()) } else { decode(name) };
        let Some(name) = name else {
            return Err(fault("a percent-escape in the name is broken", "write `%` itself as `%25`"));
        };
        if name.is_empty() && !NAMED_BY_CONFIGURATION.contains(&scheme.as_str()) {
            return Err(fault("the name is missing", grammar));
        }
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(fault("the name has a space or a control character", "names of brokers have neither"));
        }
        let mut options = Vec::new();
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            let (option, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(option), Some(value)) = (decode(option), decode(value)) else {
                return Err(fault("a percent-escape in an option is broken", "write `%` itself as `%25`"));
            };
            if option.contains('@') {
                let what = "there is a `?` in what stands before the `@`";
                return Err(fault(what, "write `?`, `/` and `@` in a password as `%3F`, `%2F` and `%40`"));
            }
            if option.is_empty() || value.is_empty() {
                return Err(fault(&format!("the option `{option}` has no value"), "write it as `option=value`"));
            }
            if options.iter().any(|(known, _)| *known == option) {
                return Err(fault(&format!("the option `{option}` is given twice"), "give it once"));
            }
            options.push((option, value));
        }
        Ok(Self { scheme, name, options, shown: redact_url(text) })
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What stands between `://` and `?`. It may be empty where the broker's configuration has a default name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Fails unless every option is one of `known`; the error lists them.
    pub fn expect_options(&self, known: &[&str]) -> Result<(), Error> {
        let Some((unknown, _)) = self.options.iter().find(|(option, _)| !known.contains(&option.as_str())) else {
            return Ok(());
        };
        let listed = match known {
            [] => format!("`{}` URLs have no options", self.scheme),
            known => format!("known options: {}", known.join(", ")),
        };
        let hint = match nearest(unknown, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? {listed}"),
            None => listed,
        };
        Err(self.fault(format!("unknown option `{unknown}`"), hint))
    }

    /// A configuration error about this URL.
    pub fn fault(&self, what: impl Into<String>, hint: impl Into<String>) -> Error {
        fault(&self.shown, what.into(), hint.into())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({})", self.shown)
    }
}

/// The candidate that `text` was probably meant to be.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|name| (strsim::damerau_levenshtein(text, name), name));
    // A third of the letters may be wrong, or `sns` would be taken for `sqs` and `a` for anything.
    scored.filter(|(distance, name)| distance * 3 <= name.len().max(3)).min().map(|(_, name)| name)
}

fn fault(shown: &str, what: String, hint: String) -> Error {
    Error::config("open", mainspring_config::Error::one(KEY, shown, what, hint))
}

pub(crate) fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digits = bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            decoded.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use mainspring_daemon::Chain;

    fn said(error: &Error) -> String {
        assert_eq!(error.kind(), ErrorKind::Config);
        Chain(error).to_string()
    }

    #[test]
    fn names_are_the_brokers_own() {
        for (text, scheme, name) in [
            ("memory://Orders?group=ship", "memory", "Orders"),
            ("kafka://host:9092,host:9093/orders?group=ship", "kafka", "host:9092,host:9093/orders"),
            ("SNS://arn:aws:sns:eu-west-1:123456789012:orders", "sns", "arn:aws:sns:eu-west-1:123456789012:orders"),
            ("sqs://https://host/1/orders", "sqs", "https://host/1/orders"),
            ("gcp://projects/p/topics/t", "gcp", "projects/p/topics/t"),
            ("https://host/hook?a=1&a=2#x", "https", "host/hook?a=1&a=2#x"),
            ("memory://50%25", "memory", "50%"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.scheme(), url.name()), (scheme, name), "{text}");
        }
        assert_eq!(Url::parse("memory://o?group=a%20b").unwrap().option("group"), Some("a b"));
    }

    #[test]
    fn malformed_urls_say_what_is_wrong() {
        for (text, what) in [
            ("orders", "`://` is missing"),
            ("://orders", "the scheme may only have"),
            ("memory://", "the name is missing"),
            ("memory://a b", "a space"),
            ("memory://a%2", "percent-escape"),
            ("memory://a?group", "`group` has no value"),
            ("memory://a?", "has no value"),
            ("memory://a?group=1&group=2", "given twice"),
        ] {
            let said = said(&Url::parse(text).unwrap_err());
            assert!(said.contains(what) && said.contains(text), "{text}: {said}");
        }
    }

    #[test]
    fn unknown_options_list_the_known_ones() {
        let url = Url::parse("memory://orders?grup=ship").unwrap();
        let said = said(&url.expect_options(&["group", "start"]).unwrap_err());
        assert!(said.contains("unknown option `grup`"), "{said}");
        assert!(said.contains("did you mean `group`? known options: group, start"), "{said}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = Url::parse("kafka://bob:hunter2@host/orders?password=hunter2&group=g").unwrap();
        assert_eq!(url.to_string(), "kafka://***@host/orders?password=***&group=g");
        let unknown = said(&url.expect_options(&["group"]).unwrap_err());
        let torn = said(&Url::parse("kafka://bob:hunter2?hunter2@host/orders").unwrap_err());
        assert!(torn.contains("`?` in what stands before the `@`"), "{torn}");
        assert!(!(unknown + &torn).contains("hunter2"));
    }
}
