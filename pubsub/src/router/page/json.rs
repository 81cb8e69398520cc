//! The page for programs.

use serde_json::{Value, json};

use super::view::{HeldView, MessageView, RouteView, Time};
use crate::driver::PartitionProgress;

/// The page with these routes.
pub(super) fn page(routes: Vec<Value>) -> String {
    format!("{}\n", json!({ "routes": routes }))
}

/// The routes of such a page.
pub(super) fn read(page: &str) -> Vec<Value> {
    let page: Value = serde_json::from_str(page).unwrap_or_default();
    page["routes"].as_array().cloned().unwrap_or_default()
}

pub(super) fn routes(routes: &[RouteView]) -> Vec<Value> {
    routes.iter().map(route).collect()
}

fn route(route: &RouteView) -> Value {
    json!({
        "route": route.name,
        "source": route.source.as_ref().map(ToString::to_string),
        "group": route.source.as_ref().and_then(|source| source.group.clone()),
        "state": route.state.as_str(),
        "drained": route.was_drained,
        "held": route.held.as_ref().map(held),
    })
}

fn held(held: &HeldView) -> Value {
    json!({
        "stopping": held.stopping,
        "running": held.running,
        "ready": held.ready,
        "behind_their_key": held.behind,
        "waiting_for_a_retry": held.delayed,
        "bytes": held.bytes,
        "partitions": held.partitions.iter().map(partition).collect::<Vec<_>>(),
        "messages": held.messages.iter().map(message).collect::<Vec<_>>(),
    })
}

fn partition(partition: &PartitionProgress) -> Value {
    let PartitionProgress { partition, committed, low, high, gaps, waits } = partition;
    json!({ "partition": partition, "committed": committed, "low": low, "high": high, "open": gaps, "waits": waits })
}

fn message(message: &MessageView) -> Value {
    let (lasts, left) = match message.time {
        Some(Time::For(time)) => (Some(time.as_secs_f64()), None),
        Some(Time::In(time)) => (None, Some(time.as_secs_f64())),
        None => (None, None),
    };
    let position = message.position;
    json!({
        "id": message.id(),
        "attempt": message.attempt,
        "partition": position.map(|position| position.partition),
        "offset": position.map(|position| position.offset),
        "key": message.key().map(|(key, more)| format!("{key}{}", if more { "…" } else { "" })),
        "lane": message.lane,
        "doing": message.doing,
        "doing_seconds": lasts,
        "retry_in_seconds": left,
        "age_seconds": message.age.as_secs_f64(),
        "lease_left_seconds": message.lease.map(|left| left.as_secs_f64()),
    })
}
