//! A configuration such as a service has, and short ways to load it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use mainspring_config::{ByteSize, Check, Duration, Exit, Loaded, Loader, Report, Secret};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// What `launch` would be given: the service's own struct, with a kit section in it.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct App {
    pub(crate) server: Server,
    pub(crate) db: Db,
    pub(crate) topic: String,
    pub(crate) note: Option<String>,
    pub(crate) brokers: Vec<String>,
    pub(crate) ports: Vec<u16>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ratio: f64,
    pub(crate) quantity: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-section" = "server", "x-env-ignored" = ["GIZMO_ROUTER_TYPE=there is one router"], "x-env-families" = ["GIZMO_"]))]
pub(crate) struct Server {
    pub(crate) http: Http,
    pub(crate) log: Log,
    pub(crate) shutdown: Shutdown,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    #[schemars(extend("x-format" = "socket-addr", "x-env-host" = ["HTTP_ADDR"], "x-env-port" = ["HTTP_PORT", "PORT"]))]
    pub(crate) addr: SocketAddr,
    #[schemars(range(min = 1))]
    pub(crate) max_connections: u32,
    #[schemars(extend("x-env" = ["GIZMO_READ_TIMEOUT"]))]
    pub(crate) header_timeout: Duration,
    #[schemars(extend("x-env" = ["GIZMO_READ_TIMEOUT"]))]
    pub(crate) body_timeout: Duration,
    pub(crate) request_timeout: Duration,
    #[schemars(extend("x-env" = ["GIZMO_MAX_HEADER_BYTES"]))]
    pub(crate) max_header_bytes: ByteSize,
    pub(crate) gzip: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    #[schemars(extend("x-env" = [{"name": "RUST_LOG", "overrides": true}, "APP_LOG_LEVEL"]))]
    pub(crate) filter: String,
    #[schemars(extend("x-env" = [{"name": "APP_LOG_JSON_FMT", "map": {"true": "json", "false": "pretty"}}]))]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Pretty on a terminal.
    Auto,
    Json,
    Pretty,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Shutdown {
    #[schemars(extend("x-env" = ["SHUTDOWN_SECONDS={}s"]))]
    pub(crate) budget: Duration,
    #[schemars(extend("x-format" = "duration", "x-words" = ["auto"]))]
    pub(crate) lame_duck: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Db {
    pub(crate) user: String,
    #[schemars(extend("x-env" = ["DB_PASSWORD"]))]
    pub(crate) password: Option<Secret>,
    pub(crate) pin: Option<Secret<u32>>,
    pub(crate) tokens: Vec<Secret>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            http: Http {
                addr: ([0, 0, 0, 0], 8080).into(),
                max_connections: 10_000,
                header_timeout: Duration::from_secs(10),
                body_timeout: Duration::from_secs(15),
                request_timeout: Duration::from_secs(15),
                max_header_bytes: ByteSize::kib(64),
                gzip: false,
            },
            log: Log { filter: "info".to_owned(), format: Format::Auto },
            shutdown: Shutdown { budget: Duration::from_secs(28), lame_duck: "auto".to_owned() },
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Server::default().http
    }
}

impl Default for Log {
    fn default() -> Self {
        Server::default().log
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Server::default().shutdown
    }
}

impl Check for Server {
    fn check(&self, report: &mut Report) {
        if self.http.request_timeout > self.shutdown.budget {
            let what = format!("{} is more than shutdown.budget ({})", self.http.request_timeout, self.shutdown.budget);
            report.conflict(&["http.request_timeout", "shutdown.budget"], what, "raise shutdown.budget");
        }
    }
}

/// A loader for the service `orders`, with a directory of its own for files.
pub(crate) struct Bench {
    dir: TempDir,
    env: Vec<(OsString, OsString)>,
    args: Vec<OsString>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), env: Vec::new(), args: Vec::new() }
    }

    /// Writes a file and names it with `--config`.
    pub(crate) fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.beside(name, text);
        self.arg("--config").arg(path)
    }

    /// Writes a file and does not name it.
    pub(crate) fn beside(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn set(self, pair: &str) -> Self {
        self.arg("--set").arg(pair)
    }

    pub(crate) fn loader(&self) -> Loader {
        let loader = Loader::new("orders", "0.1.0").directory(self.dir.path());
        loader.env(self.env.clone()).args(self.args.clone()).section::<Server>("server")
    }

    pub(crate) fn load<C: Serialize + DeserializeOwned + JsonSchema + Default>(self) -> Result<Loaded<C>, Exit> {
        self.loader().load::<C>()
    }

    /// The configuration, which must be valid.
    pub(crate) fn good<C: Serialize + DeserializeOwned + JsonSchema + Default>(self) -> C {
        match self.load::<C>() {
            Ok(loaded) => loaded.into_config(),
            Err(exit) => panic!("{exit:?}"),
        }
    }

    pub(crate) fn app(self) -> App {
        self.good()
    }

    /// The lines of a refused configuration, with the directory's name taken out.
    pub(crate) fn faults<C: Serialize + DeserializeOwned + JsonSchema + Default>(self) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        let exit = self.loader().load::<C>().expect_err("the configuration is refused");
        assert_eq!(exit.code(), 78);
        assert_eq!(exit.stdout(), "");
        exit.stderr().lines().map(|line| line.replace(&dir, "")).collect()
    }

    /// The one line of a refused configuration.
    pub(crate) fn fault(self) -> String {
        let lines = self.faults::<App>();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines.into_iter().next().unwrap()
    }

    /// What is printed when a flag asks for a text.
    pub(crate) fn text<C: Serialize + DeserializeOwned + JsonSchema + Default>(self) -> String {
        let dir = format!("{}/", self.dir.path().display());
        let exit = self.loader().load::<C>().expect_err("a text is printed");
        assert_eq!(exit.code(), 0, "{}", exit.stderr());
        exit.stdout().replace(&dir, "")
    }
}
