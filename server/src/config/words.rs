//! Values that are either of a format or a word.

use std::net::SocketAddr;

use mainspring_config::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The admin listener's address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdminAddr(pub Option<SocketAddr>);

/// A duration, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LameDuck(pub Option<Duration>);

impl LameDuck {
    /// The time to wait; `auto` looks whether the process runs under Kubernetes.
    pub fn get(self) -> std::time::Duration {
        match self.0 {
            Some(duration) => duration.get(),
            None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => std::time::Duration::from_secs(5),
            None => std::time::Duration::ZERO,
        }
    }
}

impl TryFrom<String> for AdminAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "off" {
            return Ok(Self(None));
        }
        let addr = text.parse().map_err(|_| "expected `off` or an address such as `127.0.0.1:9901`".to_owned())?;
        Ok(Self(Some(addr)))
    }
}

impl From<AdminAddr> for String {
    fn from(addr: AdminAddr) -> Self {
        addr.0.map_or_else(|| "off".to_owned(), |addr| addr.to_string())
    }
}

impl TryFrom<String> for LameDuck {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "auto" {
            return Ok(Self(None));
        }
        let duration = text.parse().map_err(|_| "expected `auto` or a duration such as `5s`".to_owned())?;
        Ok(Self(Some(duration)))
    }
}

impl From<LameDuck> for String {
    fn from(lame_duck: LameDuck) -> Self {
        lame_duck.0.map_or_else(|| "auto".to_owned(), |duration| duration.to_string())
    }
}

/// Both are strings in a schema: one of a format, or a word.
macro_rules! string_schema {
    ($type:ty, $name:literal, $format:literal or $word:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "x-format": $format, "x-words": [$word] })
            }
        }
    };
}

string_schema!(AdminAddr, "AdminAddr", "socket-addr" or "off");
string_schema!(LameDuck, "LameDuck", "duration" or "auto");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_and_auto_are_read_and_written() {
        for text in ["off", "127.0.0.1:9901"] {
            assert_eq!(String::from(AdminAddr::try_from(text.to_owned()).unwrap()), text);
        }
        for text in ["auto", "5s"] {
            assert_eq!(String::from(LameDuck::try_from(text.to_owned()).unwrap()), text);
        }
        assert!(AdminAddr::try_from("of".to_owned()).is_err());
        assert!(LameDuck::try_from("5".to_owned()).is_err());
    }
}
