//! The counters and histograms of publishing and handling. Families are process-wide, as the registry is; each
//! publisher, subscriber and route resolves its handles once, when it is made.

use std::sync::LazyLock;
use std::time::Duration;

use mainspring_observe::metrics::{DURATION_BUCKETS, registry};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::RouteState;
use crate::driver::Endpoint;

static FAMILIES: LazyLock<Families> = LazyLock::new(Families::register);

struct Families {
    sent: Family<SentLabels, Counter>,
    consumed: Family<SourceLabels, Counter>,
    process: Family<ProcessLabels, Histogram, fn() -> Histogram>,
    inflight: Family<RouteLabels, Gauge>,
    outcome: Family<OutcomeLabels, Counter>,
    redelivered: Family<RouteLabels, Counter>,
    state: Family<StateLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SentLabels {
    messaging_system: &'static str,
    messaging_destination_name: String,
    error_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SourceLabels {
    messaging_system: &'static str,
    messaging_destination_name: String,
    messaging_consumer_group_name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProcessLabels {
    messaging_system: &'static str,
    messaging_destination_name: String,
    messaging_consumer_group_name: String,
    error_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    route: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    route: &'static str,
    state: &'static str,
}

/// What a publisher counts.
#[derive(Debug)]
pub(crate) struct Sent {
    endpoint: Endpoint,
    sent: Counter,
}

/// How handling a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Ok,
    Error,
    Reject,
    Decode,
    Panic,
    Timeout,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acked,
    Retried,
    DeadLettered,
    Rejected,
    Returned,
    Lost,
    /// Given up, and no dead letter could be made: it is held.
    Stuck,
}

/// What a route counts.
#[derive(Debug)]
pub(crate) struct Handled {
    process: [Histogram; 6],
    fates: [Counter; 7],
    pub(crate) inflight: Gauge,
    pub(crate) redelivered: Counter,
}

/// Says which state a route is in: 1 for that, 0 for the others.
#[derive(Debug)]
pub(crate) struct StateGauges([(RouteState, Gauge); 4]);

impl StateGauges {
    pub(crate) fn new(route: &'static str) -> Self {
        Self(
            RouteState::ALL.map(|state| {
                (state, FAMILIES.state.get_or_create(&StateLabels { route, state: state.as_str() }).clone())
            }),
        )
    }

    pub(crate) fn set(&self, now: RouteState) {
        for (state, gauge) in &self.0 {
            gauge.set((*state == now).into());
        }
    }

    /// Says nothing more about a route that there is no more.
    pub(crate) fn forget(route: &'static str) {
        for state in RouteState::ALL {
            FAMILIES.state.remove(&StateLabels { route, state: state.as_str() });
        }
    }
}

impl Sent {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        let sent = FAMILIES.sent.get_or_create(&SentLabels::new(&endpoint, "")).clone();
        Self { endpoint, sent }
    }

    pub(crate) fn count(&self, result: Result<(), &crate::Error>) {
        match result {
            Ok(()) => self.sent.inc(),
            Err(error) => FAMILIES.sent.get_or_create(&SentLabels::new(&self.endpoint, error.kind().as_str())).inc(),
        };
    }
}

/// The counter of what a subscriber receives.
pub(crate) fn consumed(endpoint: &Endpoint) -> Counter {
    let labels = SourceLabels {
        messaging_system: endpoint.system,
        messaging_destination_name: endpoint.destination.clone(),
        messaging_consumer_group_name: endpoint.group.clone().unwrap_or_default(),
    };
    FAMILIES.consumed.get_or_create(&labels).clone()
}

impl Handled {
    pub(crate) fn new(route: &'static str, endpoint: &Endpoint) -> Self {
        let process = Class::ALL.map(|class| {
            let labels = ProcessLabels {
                messaging_system: endpoint.system,
                messaging_destination_name: endpoint.destination.clone(),
                messaging_consumer_group_name: endpoint.group.clone().unwrap_or_default(),
                error_type: class.error_type(),
            };
            FAMILIES.process.get_or_create(&labels).clone()
        });
        let fates = Fate::ALL
            .map(|fate| FAMILIES.outcome.get_or_create(&OutcomeLabels { route, outcome: fate.as_str() }).clone());
        let labels = RouteLabels { route };
        let inflight = FAMILIES.inflight.get_or_create(&labels).clone();
        let redelivered = FAMILIES.redelivered.get_or_create(&labels).clone();
        Self { process, fates, inflight, redelivered }
    }

    pub(crate) fn processed(&self, class: Class, took: Duration) {
        self.process[class as usize].observe(took.as_secs_f64());
    }

    pub(crate) fn fate(&self, fate: Fate) {
        self.fates[fate as usize].inc();
    }
}

impl SentLabels {
    fn new(endpoint: &Endpoint, error_type: &'static str) -> Self {
        Self { messaging_system: endpoint.system, messaging_destination_name: endpoint.destination.clone(), error_type }
    }
}

impl Class {
    const ALL: [Self; 6] = [Self::Ok, Self::Error, Self::Reject, Self::Decode, Self::Panic, Self::Timeout];

    /// The label of metrics; empty for success.
    pub(crate) fn error_type(self) -> &'static str {
        match self {
            Self::Ok => "",
            Self::Error => "error",
            Self::Reject => "reject",
            Self::Decode => "decode",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
        }
    }
}

impl Fate {
    const ALL: [Self; 7] =
        [Self::Acked, Self::Retried, Self::DeadLettered, Self::Rejected, Self::Returned, Self::Lost, Self::Stuck];

    fn as_str(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Retried => "retried",
            Self::DeadLettered => "dead_lettered",
            Self::Rejected => "rejected",
            Self::Returned => "returned",
            Self::Lost => "lost",
            Self::Stuck => "stuck",
        }
    }
}

impl Families {
    fn register() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(DURATION_BUCKETS);
        let families = Self {
            sent: Family::default(),
            consumed: Family::default(),
            process: Family::new_with_constructor(histogram),
            inflight: Family::default(),
            outcome: Family::default(),
            redelivered: Family::default(),
            state: Family::default(),
        };
        let all = registry();
        all.register("messaging_client_sent_messages", "Messages published, by result", families.sent.clone());
        all.register("messaging_client_consumed_messages", "Messages received", families.consumed.clone());
        all.register(
            "messaging_process_duration_seconds",
            "Time spent handling a message, by result",
            families.process.clone(),
        );
        all.register("pubsub_inflight", "Messages received and not yet settled", families.inflight.clone());
        all.register("pubsub_outcome", "What became of received messages", families.outcome.clone());
        all.register("pubsub_redelivered", "Messages received for another attempt", families.redelivered.clone());
        all.register(
            "pubsub_route_state",
            "What a route does: 1 for its state, 0 for the others",
            families.state.clone(),
        );
        families
    }
}
