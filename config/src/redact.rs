/// Hides what may be a password in a URL: all that stands before an `@`, and the values of options that sound like one.
///
/// ```
/// let shown = mainspring_config::redact_url("kafka://bob:hunter2@host/orders?token=abc&group=ship");
/// assert_eq!(shown, "kafka://***@host/orders?token=***&group=ship");
/// ```
pub fn redact_url(url: &str) -> String {
    let (mut shown, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    // A password may hold any sign that would end it in a well-formed URL: the last `@` counts, wherever it stands.
    let rest = match rest.rsplit_once('@') {
        Some((_, host)) => {
            shown.push_str("***@");
            host
        }
        None => rest,
    };
    let options = rest.find(['?', '&']).unwrap_or(rest.len());
    shown.push_str(&rest[..options]);
    for pair in rest[options..].split_inclusive(['?', '&']) {
        let (pair, mark) = match pair.strip_suffix(['?', '&']) {
            Some(bare) => (bare, &pair[bare.len()..]),
            None => (pair, ""),
        };
        match pair.split_once('=') {
            Some((option, value)) if !value.is_empty() && is_secret(option) => shown.extend([option, "=***"]),
            _ => shown.push_str(pair),
        }
        shown.push_str(mark);
    }
    shown
}

/// The same for a text that may be anything: what is no URL stays as it is.
pub(crate) fn redact_text(text: &str) -> String {
    if text.contains("://") { redact_url(text) } else { text.to_owned() }
}

fn is_secret(option: &str) -> bool {
    let option = option.to_ascii_lowercase();
    ["pass", "secret", "token", "key", "sig", "auth"].iter().any(|word| option.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_whatever_they_hold() {
        for (url, shown) in [
            ("kafka://bob:hunter2@host:9092/orders?group=g", "kafka://***@host:9092/orders?group=g"),
            ("kafka://bob:hun?ter2@host/orders?group=g", "kafka://***@host/orders?group=g"),
            ("kafka://bob:hun@ter/2@host/orders", "kafka://***@host/orders"),
            ("bob:hunter2@host/orders", "***@host/orders"),
            ("https://host/hook?mail=a@b.c&token=hunter2", "https://***@b.c&token=***"),
            ("https://host/hook?a=1&X-Signature=hunter2&b=?c", "https://host/hook?a=1&X-Signature=***&b=?c"),
            ("memory://orders?group=ship&", "memory://orders?group=ship&"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }

    #[test]
    fn what_is_no_url_stays_as_it_is() {
        assert_eq!(redact_text("bob@example.com"), "bob@example.com");
    }
}
