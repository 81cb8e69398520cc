//! The `server` section of a configuration. `CONTRACT`-stable: keys are never renamed.

mod check;
mod words;

use std::net::SocketAddr;
use std::num::NonZeroU32;

use mainspring_config::{ByteSize, Duration, Secret};
use mainspring_observe::{log, metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use words::{AdminAddr, LameDuck};

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
    /// Connections open at the same time. One more is answered 503 and closed. Where the limit of file descriptors
    /// (the hard one, `ulimit -Hn`: the soft one is raised) leaves room for fewer, there are fewer, with a warning.
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

impl Metrics {
    /// Names the service's own metrics. Only what a process has one of, so the last server of a process decides.
    pub(crate) fn install(&self) {
        let parts = [&*self.namespace, &*self.subsystem];
        let prefix = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
        metrics::service().set_prefix(&prefix);
        metrics::set_max_series(self.max_series as usize);
    }
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
