//! The `log.*` keys.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use mainspring_config::{Check, Duration, Report};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::filter::Filter;

/// What is logged, how, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-section" = "log"))]
pub struct Config {
    /// Which events are logged: a level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or levels by target as in `info,orders=debug,hyper=warn`.
    #[schemars(extend("x-env" = [{ "name": "RUST_LOG", "overrides": true }, "APP_LOG_LEVEL"]))]
    pub filter: String,
    /// How events look: `pretty` to read, `json` to process, `auto` = pretty on a terminal, else JSON.
    #[schemars(extend("x-env" = [{ "name": "APP_LOG_JSON_FMT", "map": {
        "1": "json", "t": "json", "T": "json", "true": "json", "TRUE": "json", "True": "json",
        "0": "pretty", "f": "pretty", "F": "pretty", "false": "pretty", "FALSE": "pretty", "False": "pretty",
    } }]))]
    pub format: Format,
    /// Where events go: `stdout`, `stderr`, or the path of a file that is appended to and reopened on SIGHUP.
    #[schemars(extend("x-env" = ["APP_LOG"]))]
    pub output: Output,
    /// Where a line for each request goes: `off`, `stdout`, `stderr`, or the path of a file that is appended to and reopened on SIGHUP.
    #[schemars(extend("x-env" = ["HTTP_ACCESS_LOG"]))]
    pub access: Access,
    /// How access lines look: `json`, or `combined`, Apache's format. `format` is for events: where both go to one output,
    /// access lines stand as they are between pretty events.
    pub access_format: AccessFormat,
    /// Of how many ordinary requests one is logged. Statuses of 400 and above, requests that were not answered to the end,
    /// and slow ones are logged always.
    #[schemars(range(min = 1))]
    pub access_sample: u32,
    /// From when on a request is slow.
    pub access_slow: Duration,
    /// Lines a second from one place in the code, and twice as many at once: warnings and errors, and `info` lines that
    /// say the same again. What is left out is counted on the next line of the place, as `suppressed`. 0 is no limit.
    pub limit: u32,
    /// Fields whose values are never shown, by name or by the last words of it; case, `-` and `_` make no difference.
    pub redact: Vec<String>,
}

/// How access lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// One JSON object a line, of the same schema as events.
    #[default]
    Json,
    /// Apache's `combined`: what many tools have read for decades. It does not say how a request ended, nor its route or
    /// its id.
    Combined,
}

/// What is secret wherever it is logged.
const REDACTED: [&str; 11] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
];

/// How events look. Either way an event is one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Pretty on a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Output {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to. Its directory must exist.
    File(PathBuf),
}

/// Where the access log goes, if anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Access {
    /// Requests are not logged.
    #[default]
    Off,
    /// Requests are logged there.
    To(Output),
}

/// Finds a filter that cannot be read. Whether an output can be opened is for [`init`](super::init) to find out.
impl Check for Config {
    fn check(&self, report: &mut Report) {
        if let Err(error) = Filter::parse(&self.filter) {
            report.fault("filter", error.to_string(), "");
        }
        if self.access_sample == 0 {
            report.fault(
                "access_sample",
                "would log no request; it is one of how many is logged",
                "use 1 for every request, or set access to `off`",
            );
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: Format::Auto,
            output: Output::Stdout,
            access: Access::Off,
            access_format: AccessFormat::Json,
            access_sample: 1,
            access_slow: Duration::from_secs(1),
            limit: 100,
            redact: REDACTED.map(str::to_owned).to_vec(),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl TryFrom<String> for Output {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            "" => Err("is empty; expected `stdout`, `stderr` or a path"),
            _ => Ok(Self::File(text.into())),
        }
    }
}

impl From<Output> for String {
    fn from(output: Output) -> Self {
        output.to_string()
    }
}

impl TryFrom<String> for Access {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "off" => Ok(Self::Off),
            "" => Err("is empty; expected `off`, `stdout`, `stderr` or a path"),
            _ => Output::try_from(text).map(Self::To),
        }
    }
}

impl From<Access> for String {
    fn from(access: Access) -> Self {
        match access {
            Access::Off => "off".to_owned(),
            Access::To(output) => output.into(),
        }
    }
}

impl JsonSchema for Output {
    fn schema_name() -> Cow<'static, str> {
        "LogOutput".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

impl JsonSchema for Access {
    fn schema_name() -> Cow<'static, str> {
        "LogAccess".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Output::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_contracts_and_are_written_as_they_are_read() {
        let written = serde_json::to_value(Config::default()).unwrap();
        assert_eq!(
            written,
            serde_json::json!({
                "filter": "info", "format": "auto", "output": "stdout", "access": "off", "access_format": "json",
                "access_sample": 1, "access_slow": "1s", "limit": 100, "redact": REDACTED,
            })
        );
        assert_eq!(serde_json::from_value::<Config>(written).unwrap(), Config::default());
    }

    #[test]
    fn outputs_are_words_or_paths() {
        let read = |access: &str| serde_json::from_value::<Access>(access.into()).map_err(|error| error.to_string());
        assert_eq!(read("off").unwrap(), Access::Off);
        assert_eq!(read("stdout").unwrap(), Access::To(Output::Stdout));
        assert_eq!(read("/var/log/access").unwrap(), Access::To(Output::File("/var/log/access".into())));
        assert_eq!(read("").unwrap_err(), "is empty; expected `off`, `stdout`, `stderr` or a path");
    }

    #[test]
    fn the_schema_names_the_variables_that_are_also_read() {
        let schema = schemars::schema_for!(Config);
        let aliases = |key: &str| schema.pointer(&format!("/properties/{key}/x-env")).cloned().unwrap();
        assert_eq!(aliases("filter"), serde_json::json!([{"name": "RUST_LOG", "overrides": true}, "APP_LOG_LEVEL"]));
        assert_eq!(aliases("access"), serde_json::json!(["HTTP_ACCESS_LOG"]));
    }
}
