//! The page for people.

use std::fmt::{self, Write};
use std::time::Duration;

use super::view::{HeldView, MessageView, RouteView, Time};
use crate::driver::PartitionProgress;
use crate::router::route_state::RouteState;

/// Runs of open messages that are listed for a partition.
const LISTED_GAPS: usize = 8;

pub(super) fn routes(routes: &[RouteView]) -> String {
    let mut out = String::new();
    for route in routes {
        line(&mut out, format_args!("{}", Head(route)));
        if let Some(held) = &route.held {
            render(&mut out, held);
        }
    }
    out
}

fn render(out: &mut String, held: &HeldView) {
    let HeldView { running, ready, behind, delayed, bytes, .. } = held;
    line(
        out,
        format_args!(
            "  {running} running, {ready} ready, {behind} behind their key, {delayed} waiting for a retry, {bytes} bytes"
        ),
    );
    for partition in &held.partitions {
        line(out, format_args!("  {}", Partition(partition)));
    }
    for message in &held.messages {
        line(out, format_args!("  {}", Line(message)));
    }
}

/// A route, what it receives from, and its state unless it simply runs.
struct Head<'a>(&'a RouteView);

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RouteView { name, source, state, was_drained, held } = self.0;
        write!(f, "route {name}")?;
        if let Some(source) = source {
            write!(f, ": {source}")?;
            if let Some(group) = &source.group {
                write!(f, "?group={group}")?;
            }
        }
        match state {
            RouteState::Ended if *was_drained => f.write_str(", ended (drained); start the process anew"),
            RouteState::Ended => f.write_str(", ended"),
            RouteState::Paused => f.write_str(", paused"),
            RouteState::Draining => f.write_str(", draining"),
            RouteState::Running if source.is_none() => f.write_str(", not begun"),
            RouteState::Running if held.as_ref().is_some_and(|held| held.stopping) => f.write_str(", stopping"),
            RouteState::Running => Ok(()),
        }
    }
}

/// A message on one line.
struct Line<'a>(&'a MessageView);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MessageView { attempt, lane, doing, time, age, lease, position, .. } = self.0;
        write!(f, "{} attempt {attempt}", self.0.id())?;
        if let Some(lane) = lane {
            write!(f, " lane {lane}")?;
        }
        write!(f, " {doing}")?;
        match time {
            Some(Time::For(time)) => write!(f, " for {time:.1?}")?,
            Some(Time::In(time)) => write!(f, " in {time:.1?}")?,
            None => {}
        }
        write!(f, ", age {age:.1?}")?;
        match lease {
            None => {}
            Some(Duration::ZERO) => f.write_str(", lease is over")?,
            Some(left) => write!(f, ", lease left {left:.1?}")?,
        }
        if let Some(position) = position {
            write!(f, ", position {position}")?;
        }
        match self.0.key() {
            // Quoted and escaped: a key may hold anything, and an operator's terminal is to show this.
            Some((key, more)) => write!(f, ", key {key:?}{}", if more { "…" } else { "" }),
            None => Ok(()),
        }
    }
}

/// A partition on one line.
struct Partition<'a>(&'a PartitionProgress);

impl fmt::Display for Partition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PartitionProgress { partition, committed, low, high, gaps, waits } = self.0;
        write!(f, "partition {partition}:")?;
        for (name, offset) in [("committed", committed), ("low", low), ("high", high)] {
            match offset {
                Some(offset) => write!(f, " {name} {offset},")?,
                None => write!(f, " {name} -,")?,
            }
        }
        if gaps.is_empty() {
            return f.write_str(" nothing open");
        }
        f.write_str(" open")?;
        for (at, (first, last)) in gaps.iter().take(LISTED_GAPS).enumerate() {
            f.write_str(if at == 0 { " " } else { ", " })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        if gaps.len() > LISTED_GAPS {
            f.write_str(", …")?;
        }
        // The one line of the page that says why a partition stands still.
        match (waits, low) {
            (true, Some(low)) => write!(f, "; waits: nothing more is received until {low} is done"),
            _ => Ok(()),
        }
    }
}

fn line(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}
