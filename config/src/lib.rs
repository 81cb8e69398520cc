//! Layered configuration with types, origins and every problem at once.
//!
//! A service writes a struct; its JSON Schema, by `schemars`, decides which keys there are, what they take, and which
//! variables they are read from. Keys of the service and keys of the kit are treated alike. See [`Loader`] for an example.
//!
//! # Sources
//! Later wins; tables merge, everything else, lists too, is replaced:
//!
//! 1. the struct's `Default`, as it serializes. A default that its own schema refuses (an empty text with
//!    `#[schemars(length(min = 1))]`) must be set by somebody, and so must a [`Secret`] that is neither `Option` nor
//!    under `#[serde(default)]`;
//! 2. files: TOML, YAML or JSON, each named with `--config`, or `/etc/<service>/config.{toml,yaml,yml,json}` if there is one;
//! 3. profile files: with `--profile prod` or `APP_PROFILE=prod`, `config.prod.toml` beside `config.toml`;
//! 4. `*_FILE` variables: the name of a file that holds a secret. One line break at its end is not part of it;
//! 5. the environment;
//! 6. flags: `--set server.http.addr=127.0.0.1:8080`.
//!
//! # Variables
//! A key is read from `<SERVICE>_<PATH>` with `__` between levels: `ORDERS_SERVER__HTTP__ADDR`. Case, `_` and `-` within a
//! level do not matter, so that `maxBody` is `ORDERS_MAX_BODY`; keys of maps are taken as they are. An empty variable is not
//! set. A variable with the service's prefix that means nothing is a fault, but for what Kubernetes injects for Services.
//! Lists are `a,b` or JSON, tables are JSON. Text is taken as it is, byte for byte.
//!
//! A key can have other names; all that are set must agree, the canonical one included:
//!
//! | on the field, in `#[schemars(extend(…))]` | meaning |
//! |---|---|
//! | `"x-env" = ["GIZMO_READ_TIMEOUT"]` | also read from this variable |
//! | `"x-env" = ["SECONDS={}s"]` | … whose value goes into this text |
//! | `"x-env" = [{"name": "JSON_FMT", "map": {"true": "json", "false": "pretty"}}]` | … whose values stand for others; `1` and `T` are `true` |
//! | `"x-env" = [{"name": "RUST_LOG", "overrides": true}]` | … which wins over the canonical name, with a notice |
//! | `"x-env-host" = ["HTTP_ADDR"], "x-env-port" = ["HTTP_PORT", "PORT"]` | host and port of an address, each over what the layers below say |
//! | `"x-format" = "socket-addr"`, `"duration"`, `"byte-size"` | what a text must look like |
//! | `"x-words" = ["off"]` | accepted in place of the format |
//! | `"examples" = ["https://example.com"]` | the first is named where a text is expected |
//! | `"x-alias" = ["old"]` | what `#[serde(alias)]` says, which schemars does not see |
//! | `"x-env-ignored" = ["OLD=why"]` | accepted, with a notice, without effect |
//! | `"x-env-families" = ["GIZMO_"]` | unknown variables that begin like this are worth a notice |
//! | `"x-section" = "server"` (on the type) | found and checked by this name, wherever it stands: see [`Check`] and [`Loader::section_with`] |
//!
//! # Rules
//! Values keep their types: `80.7`, `"80"` and `true` are no whole numbers in a file, `28` is no duration, `0777` is refused.
//! Of a schema, `type`, ranges, lengths, `enum`, `required` and our own formats are enforced here; `pattern`, `multipleOf` and
//! `uniqueItems` only help editors, so write such a rule into a type's `Deserialize` or into a [`Check`].
//! An unknown key is a fault, also where serde would ignore it. A layer that changes the tag of an internally tagged enum
//! starts it afresh: what lower layers said about the old variant is dropped.
//!
//! All problems are reported at once, one a line: key, source, what is wrong, what is expected, a hint. Secrets are kept apart
//! from the moment a source is read, and are in no message. Passwords in URLs, `scheme://user:password@host`, are shown
//! neither in messages nor by `--print-config`.

mod check;
mod coerce;
mod duration;
mod env;
mod exit;
mod file;
mod finish;
mod flags;
mod leaf;
mod loaded;
mod loader;
mod merge;
mod path;
mod print;
mod problem;
mod raw;
mod redact;
mod schema;
mod secret;
mod settle;
mod size;
mod suggest;
mod vault;
mod work;

pub use check::{Check, Report};
pub use duration::{Duration, ParseDurationError};
pub use exit::Exit;
pub use loaded::{Loaded, Values};
pub use loader::Loader;
pub use problem::{Error, Problem};
pub use redact::redact_url;
pub use secret::Secret;
pub use size::{ByteSize, ParseByteSizeError};
