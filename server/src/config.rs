//! The `server` section of a configuration. `CONTRACT`-stable: keys are never renamed.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use mainspring_config::{ByteSize, Check, Duration, Report, Secret};
use mainspring_observe::{log, metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything that configures a server. Put it into a field of your own configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-section" = "server",
    "x-env-families" = ["GIZMO_"],
    "x-env-ignored" = [
        "GIZMO_ROUTER_TYPE=there is one router, axum's",
        "GIZMO_JSON_CONTENT_TYPE=JSON answers are application/json",
        "GIZMO_SKIP_OBSERVE=nothing is sent to a cloud by itself",
        "RPC_ACCESS_LOG=calls are in the access log of HTTP_ACCESS_LOG",
        "RPC_PORT=this program has no listener for RPC; its routes are on http.addr (HTTP_PORT)",
        "TLS_CERT=TLS is not served yet, connections are plain text: end TLS in front of this program",
        "TLS_KEY=TLS is not served yet, connections are plain text: end TLS in front of this program"
    ]
))]
pub struct Config {
    /// The public listener.
    pub http: Http,
    /// The admin listener.
    pub admin: Admin,
    /// The health answers of the public listener.
    pub health: Health,
    /// The metrics page of the admin listener.
    pub metrics: Metrics,
    /// The profiles of the admin listener.
    pub pprof: Pprof,
    /// Logs.
    pub log: log::Config,
    /// How the process stops.
    pub shutdown: Shutdown,
    /// The async runtime.
    pub runtime: Runtime,
}

/// The public listener: its address and its limits.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where to listen. Port 0 takes any free port, which the log then names.
    #[schemars(extend(
        "x-format" = "socket-addr",
        "x-env-host" = ["HTTP_ADDR"],
        "x-env-port" = ["HTTP_PORT", "PORT"]
    ))]
    pub addr: SocketAddr,
    /// Connections open at the same time. One more is answered 503 and closed.
    #[schemars(range(min = 1))]
    pub max_connections: u32,
    /// Requests in progress at the same time. One more is answered 503 with `Retry-After`.
    #[schemars(range(min = 1))]
    pub max_in_flight: u32,
    /// How long a new connection may stay silent.
    pub first_byte_timeout: Duration,
    /// How long a request's head may take, from its first byte.
    #[schemars(extend("x-env" = ["GIZMO_READ_TIMEOUT"]))]
    pub header_timeout: Duration,
    /// How long a request's body may take, from when the handler waits for it.
    #[schemars(extend("x-env" = ["GIZMO_READ_TIMEOUT"]))]
    pub body_timeout: Duration,
    /// How long a request may take from its head to the end of its response. Event streams and WebSockets are exempt,
    /// other routes one by one in code.
    #[schemars(extend("x-env" = ["GIZMO_WRITE_TIMEOUT"]))]
    pub request_timeout: Duration,
    /// How long a connection may wait between requests, and a peer may leave what we write unread.
    #[schemars(extend("x-env" = ["GIZMO_IDLE_TIMEOUT"]))]
    pub idle_timeout: Duration,
    /// The largest request head.
    #[schemars(extend("x-env" = ["GIZMO_MAX_HEADER_BYTES"]))]
    pub max_header_bytes: ByteSize,
    /// The largest request body, also for handlers that read it raw.
    pub max_body: ByteSize,
}

/// The admin listener.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where to listen, or `off`.
    #[schemars(extend("x-env" = ["ADMIN_ADDR"]))]
    pub addr: AdminAddr,
    /// What clients on other machines must show (`authorization: Bearer <token>`) to change something: the log filter, a route of messages. Without one, only clients on this machine may.
    pub token: Option<Secret>,
}

/// The health answers of the public listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// What the answer depends on: `simple` is 200 until a stop is requested; `custom` asks the program's own handler;
    /// `esx` is `simple`, and a stop waits until the load balancers that poll have heard of it.
    #[schemars(extend("x-env" = ["GIZMO_HEALTH_CHECK_TYPE"]))]
    pub kind: HealthKind,
    /// Where it is answered; both `/healthz` and `/status.txt` when not set.
    #[schemars(extend("x-env" = ["GIZMO_HEALTH_CHECK_PATH"]))]
    pub path: Option<String>,
    /// For `esx`.
    pub esx: Esx,
}

/// How long a stop waits for load balancers, with the health strategy `esx`. All of it ends with `shutdown.lame_duck`;
/// while that is `auto`, with what `shutdown.budget` leaves beside `http.request_timeout`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Esx {
    /// How long a load balancer may go on sending requests after it was first told to stop.
    pub settle: Duration,
    /// How often a load balancer is expected to poll, until it has shown its own interval.
    pub interval: Duration,
    /// After how many intervals without a poll it is forgotten.
    #[schemars(range(min = 1, max = 100))]
    pub missed: u32,
}

/// What the public health answer depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthKind {
    /// 200 until a stop is requested.
    #[default]
    Simple,
    /// What the handler given to [`SimpleServer::health`](crate::SimpleServer::health) answers, and 503 once a stop is
    /// requested.
    Custom,
    /// Like `simple`; a stop waits until every load balancer that polls has been told.
    Esx,
}

/// The metrics page of the admin listener.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where the page is.
    #[schemars(extend("x-env" = ["METRICS_PATH"]))]
    pub path: String,
    /// The first part of the names of the service's own metrics. Those of the kit keep theirs.
    #[schemars(extend("x-env" = ["METRICS_NAMESPACE"]))]
    pub namespace: String,
    /// The second part.
    #[schemars(extend("x-env" = ["METRICS_SUBSYSTEM"]))]
    pub subsystem: String,
    /// Label sets that one of the service's own metrics may have; what is more is counted under the label `_overflow`.
    #[schemars(range(min = 1))]
    pub max_series: u32,
}

/// The profiles of the admin listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pprof {
    /// Whether `/debug/pprof/` answers. With the feature `jemalloc` allocations are sampled from the start.
    #[schemars(extend("x-env" = ["ENABLE_PPROF"]))]
    pub enabled: bool,
}

/// How the process stops.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long stopping may take in all. Kubernetes kills after 30 s unless told otherwise.
    #[schemars(extend("x-env" = ["GIZMO_SHUTDOWN_TIMEOUT"]))]
    pub budget: Duration,
    /// How long to go on serving while health already says no, so that load balancers notice: `auto` is 5 s under
    /// Kubernetes, else nothing.
    pub lame_duck: LameDuck,
    /// How long an idle connection may still begin one last request once draining has begun.
    pub last_call: Duration,
}

/// The async runtime.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Threads that run handlers; as many as the cgroup grants cores when not set.
    #[schemars(range(min = 1, max = 1024), extend("x-env" = ["GIZMO_GOMAXPROCS", "GIZMO_SERVER_GOMAXPROCS"]))]
    pub worker_threads: Option<NonZeroU32>,
}

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

impl Metrics {
    /// Names the service's own metrics. Only what a process has one of, so the last server of a process decides.
    pub(crate) fn install(&self) {
        let parts = [&*self.namespace, &*self.subsystem];
        let prefix = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
        metrics::service().set_prefix(&prefix);
        metrics::set_max_series(self.max_series as usize);
    }
}

/// Paths of the admin listener that the metrics page cannot have ...
const ADMIN_PAGES: [&str; 4] = ["/", "/livez", "/readyz", "/startupz"];
/// ... nor any below these, where daemons put up theirs.
const ADMIN_FOLDERS: [&str; 2] = ["/-/", "/debug/"];

impl Config {
    /// Whether a shutdown leaves a request the time that it may take.
    fn check_shutdown(&self, report: &mut Report) {
        let (budget, request) = (self.shutdown.budget, self.http.request_timeout);
        let lame_duck = Duration::from(self.shutdown.lame_duck.get());
        let Some(left) = budget.checked_sub(*lame_duck).map(Duration::from) else {
            // A budget of nothing is a fault by itself.
            if budget > Duration::ZERO {
                report.conflict(
                    &["shutdown.lame_duck", "shutdown.budget"],
                    format!("{lame_duck} is longer than shutdown.budget, {budget}"),
                    "raise shutdown.budget or shorten the lame duck",
                );
            }
            return;
        };
        if request <= left || budget == Duration::ZERO {
            return;
        }
        let keys = ["http.request_timeout", "shutdown.budget", "shutdown.lame_duck"];
        let what = format!(
            "a request may take {request}, but a shutdown leaves only {left} (shutdown.budget − shutdown.lame_duck) and would cut it off"
        );
        let raise = "raise shutdown.budget (and Kubernetes' terminationGracePeriodSeconds with it)";
        let hint =
            if left == Duration::ZERO { raise.to_owned() } else { format!("set it to {left} or less, or {raise}") };
        report.conflict(&keys, what, hint);
    }
}

impl Check for Config {
    fn check(&self, report: &mut Report) {
        self.check_shutdown(report);
        for (key, timeout) in [
            ("http.first_byte_timeout", self.http.first_byte_timeout),
            ("http.header_timeout", self.http.header_timeout),
            ("http.body_timeout", self.http.body_timeout),
            ("http.request_timeout", self.http.request_timeout),
            ("http.idle_timeout", self.http.idle_timeout),
            ("shutdown.budget", self.shutdown.budget),
            ("health.esx.interval", self.health.esx.interval),
        ] {
            if timeout.get().is_zero() {
                report.fault(key, "would be over at once", "use a duration above 0s");
            }
        }
        if self.http.max_header_bytes.get() < 8 * 1024 {
            report.fault("http.max_header_bytes", "is less than ordinary requests need", "use 8KiB or more");
        }
        if self.health.path.as_deref().is_some_and(|path| !is_plain(path)) {
            report.fault("health.path", "is not a plain path", "use a path such as /healthz");
        }
        let metrics = &*self.metrics.path;
        if !is_plain(metrics) {
            report.fault("metrics.path", "is not a plain path", "use a path such as /metrics");
        } else if ADMIN_PAGES.contains(&metrics) || ADMIN_FOLDERS.iter().any(|folder| metrics.starts_with(folder)) {
            let what = format!("the admin listener has {metrics} for something else");
            report.fault("metrics.path", what, "use a path such as /metrics");
        }
        for (key, part) in
            [("metrics.namespace", &self.metrics.namespace), ("metrics.subsystem", &self.metrics.subsystem)]
        {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !part.chars().all(word) || part.starts_with(|c: char| c.is_ascii_digit()) {
                report.fault(
                    key,
                    "is no part of a metric's name",
                    "use letters, digits and _, and begin with no digit",
                );
            }
        }
        if let Some(admin) = self.admin.addr.0
            && admin.port() != 0
            && admin == self.http.addr
        {
            report.fault("admin.addr", "is the same address as http.addr", "use another port, or `off`");
        }
    }
}

/// Whether a router takes `path` for itself and not for a pattern.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(['{', '}', '?', '#'])
        && !path.contains(|c: char| c.is_whitespace() || c.is_control())
        && !path.contains("/:")
        && !path.contains("/*")
}

impl Default for Http {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([0, 0, 0, 0], 8080)),
            max_connections: 10_000,
            max_in_flight: 2048,
            first_byte_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            max_header_bytes: ByteSize::kib(64),
            max_body: ByteSize::mib(2),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { addr: AdminAddr(Some(SocketAddr::from(([127, 0, 0, 1], 9901)))), token: None }
    }
}

impl Default for Esx {
    fn default() -> Self {
        Self { settle: Duration::from_secs(10), interval: Duration::from_secs(5), missed: 3 }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { path: "/metrics".to_owned(), namespace: String::new(), subsystem: String::new(), max_series: 1000 }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { budget: Duration::from_secs(28), lame_duck: LameDuck(None), last_call: Duration::from_secs(1) }
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

    fn faults(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        config.shutdown.lame_duck = LameDuck(Some(Duration::from_secs(5)));
        change(&mut config);
        Report::of(&config).into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_defaults_go_together() {
        assert!(faults(|_| {}).is_empty());
    }

    #[test]
    fn a_request_that_a_shutdown_would_cut_off_is_refused() {
        assert_eq!(faults(|config| config.http.request_timeout = Duration::from_secs(24)), ["http.request_timeout"]);
        assert!(faults(|config| config.http.request_timeout = Duration::from_secs(23)).is_empty());
        assert_eq!(
            faults(|config| config.shutdown.lame_duck = LameDuck(Some(Duration::from_secs(29)))),
            ["shutdown.lame_duck"]
        );
    }

    #[test]
    fn senseless_limits_are_refused() {
        assert_eq!(faults(|config| config.http.idle_timeout = Duration::from_secs(0)), ["http.idle_timeout"]);
        assert_eq!(faults(|config| config.http.max_header_bytes = ByteSize::kib(1)), ["http.max_header_bytes"]);
        assert_eq!(faults(|config| config.health.path = Some("healthz".to_owned())), ["health.path"]);
    }

    #[test]
    fn the_metrics_page_has_a_path_that_is_plain_and_free() {
        for path in [
            "metrics",
            "",
            "/{name}",
            "/a b",
            "/:name",
            "/*",
            "/",
            "/livez",
            "/readyz",
            "/startupz",
            "/-/log",
            "/debug/pubsub",
        ] {
            assert_eq!(faults(|config| config.metrics.path = path.to_owned()), ["metrics.path"], "{path}");
        }
        for path in ["/metrics", "/stats/prometheus", "/debug"] {
            assert!(faults(|config| config.metrics.path = path.to_owned()).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_shutdown_without_time_is_said_to_be_one() {
        let said = |budget, lame_duck| {
            let mut config = Config::default();
            config.shutdown.budget = Duration::from_secs(budget);
            config.shutdown.lame_duck = LameDuck(Some(Duration::from_secs(lame_duck)));
            Report::of(&config).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(said(0, 0), ["shutdown.budget (-): would be over at once; use a duration above 0s"]);
        assert_eq!(said(0, 5), ["shutdown.budget (-): would be over at once; use a duration above 0s"]);
        assert_eq!(
            said(5, 5),
            ["http.request_timeout (-): a request may take 15s, but a shutdown leaves only 0s (shutdown.budget − \
                 shutdown.lame_duck) and would cut it off; raise shutdown.budget (and Kubernetes' \
                 terminationGracePeriodSeconds with it)"]
        );
    }

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
