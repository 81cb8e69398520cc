//! The command line, as far as it may be shown.

/// Hides what may be secret on a command line: any value of `--set`, which `/-/config` shows as far as it may be seen,
/// the values of flags whose name sounds secret, and passwords in URLs.
pub(super) fn masked(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut hide_next = false;
    let mask = |arg: String| {
        if std::mem::take(&mut hide_next) {
            return match arg.split_once('=') {
                Some((key, _)) => format!("{key}=***"),
                None => "***".to_owned(),
            };
        }
        let Some(flag) = arg.strip_prefix('-') else { return without_password(arg) };
        let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
        if name != "set" && !sounds_secret(name) {
            return without_password(arg);
        }
        match arg.match_indices('=').nth(usize::from(name == "set")).or_else(|| arg.match_indices('=').next()) {
            Some((at, _)) => format!("{}=***", &arg[..at]),
            None => {
                hide_next = true;
                arg
            }
        }
    };
    args.map(mask).collect()
}

fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "key", "credential", "auth"].iter().any(|word| name.contains(word))
}

/// `scheme://user:password@host` without the password.
fn without_password(arg: String) -> String {
    let Some((scheme, rest)) = arg.split_once("://") else { return arg };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else { return arg };
    let name = user.split(':').next().unwrap_or_default();
    format!("{scheme}://{name}:***{}", &rest[user.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown_of_a_command_line() {
        let args = [
            "/app",
            "--config",
            "a.toml",
            "--set",
            "db.password=hunter2",
            "--set=db.password=hunter2",
            "--set",
            "hunter2",
            "--api-token",
            "hunter2",
            "--api_key=hunter2",
            "--verbose",
            "kafka://u:hunter2@host/t?x=1",
            "http://host/a@b",
            "--to=http://u:hunter2@host",
        ];
        let shown = masked(args.iter().map(|arg| (*arg).to_owned()));
        let expected = [
            "/app",
            "--config",
            "a.toml",
            "--set",
            "db.password=***",
            "--set=db.password=***",
            "--set",
            "***",
            "--api-token",
            "***",
            "--api_key=***",
            "--verbose",
            "kafka://u:***@host/t?x=1",
            "http://host/a@b",
            "--to=http://u:***@host",
        ];
        assert_eq!(shown, expected);
    }
}
