//! The load balancers that poll our health, for the strategy `esx`.
//!
//! Gizmo remembers for ever whoever has asked once, by a header that anyone can set: one stray `curl` delayed every stop
//! for three minutes. Here a poller is an address that has connected, and it is forgotten when it stays away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Esx;

/// Who polls. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Pollers {
    config: Esx,
    known: Arc<Mutex<HashMap<IpAddr, Poller>>>,
}

#[derive(Clone, Copy, Debug)]
struct Poller {
    last: Instant,
    interval: Duration,
    /// When it was first told that we are not ready.
    told: Option<Instant>,
}

/// More addresses than any fleet of load balancers has.
const MOST: usize = 1024;
/// What is less than this between two probes is no interval.
const SHORTEST: Duration = Duration::from_millis(100);
/// How often to look whether all have been told.
const LOOK: Duration = Duration::from_millis(20);

impl Pollers {
    pub(crate) fn new(config: &Esx) -> Self {
        Self { config: config.clone(), known: Arc::default() }
    }

    /// Somebody has asked and was told whether we are `ready`. Whoever asks with `?deployer` is no load balancer.
    pub(crate) fn asked(&self, peer: IpAddr, query: &str, ready: bool) {
        if query.split('&').any(|pair| pair.split('=').next() == Some("deployer")) {
            return;
        }
        let now = Instant::now();
        let mut known = self.lock();
        if known.len() >= MOST && !known.contains_key(&peer) {
            known.retain(|_, poller| !self.is_gone(poller, now));
            if known.len() >= MOST {
                return;
            }
        }
        let interval = self.config.interval.get();
        let poller = known.entry(peer).or_insert(Poller { last: now, interval, told: None });
        let since = now - poller.last;
        // Probes of one load balancer may come in pairs, so a short pause alone does not make a short interval.
        if !self.is_gone(poller, now) {
            poller.interval = since.max(poller.interval / 2).max(SHORTEST);
        }
        poller.last = now;
        poller.told = if ready { None } else { poller.told.or(Some(now)) };
    }

    /// Waits until every load balancer that still polls was told long enough ago that we are not ready.
    pub(crate) async fn all_told(&self) {
        while !self.are_all_told(Instant::now()) {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn are_all_told(&self, now: Instant) -> bool {
        let settle = self.config.settle.get();
        let known = self.lock();
        known.values().all(|poller| {
            self.is_gone(poller, now) || poller.told.is_some_and(|told| now.duration_since(told) >= settle)
        })
    }

    fn is_gone(&self, poller: &Poller, now: Instant) -> bool {
        now.duration_since(poller.last) > poller.interval * self.config.missed
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Poller>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// How long the stop waits for `pollers` when each of `polling` goes on polling every two seconds.
    async fn wait(pollers: &Pollers, polling: &[IpAddr]) -> Duration {
        let start = Instant::now();
        let goes_on = async {
            loop {
                tokio::time::sleep(Duration::from_secs(2)).await;
                polling.iter().for_each(|peer| pollers.asked(*peer, "", false));
            }
        };
        tokio::select! {
            () = pollers.all_told() => {}
            () = goes_on => {}
        }
        start.elapsed()
    }

    async fn after_polls(peers: &[IpAddr]) -> Pollers {
        let pollers = Pollers::new(&Esx::default());
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            peers.iter().for_each(|peer| pollers.asked(*peer, "", true));
        }
        pollers
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_until_each_was_told_and_had_time_to_act() {
        let took = wait(&after_polls(&[A, B]).await, &[A, B]).await;
        assert!((12_000..12_100).contains(&took.as_millis()), "told after 2 s, settled 10 s later: {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_away_is_forgotten_after_three_intervals() {
        let took = wait(&after_polls(&[A]).await, &[]).await;
        assert!((6_000..6_100).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stray_request_and_a_deployer_delay_nothing_for_long() {
        let pollers = after_polls(&[]).await;
        pollers.asked(A, "x=1&deployer", true);
        assert!(wait(&pollers, &[]).await < Duration::from_millis(100));
        pollers.asked(B, "", true);
        tokio::time::sleep(Duration::from_secs(16)).await;
        assert!(wait(&pollers, &[]).await < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_is_bounded() {
        let pollers = Pollers::new(&Esx::default());
        for address in 0..10_000_u32 {
            pollers.asked(IpAddr::from(address.to_be_bytes()), "", true);
        }
        assert_eq!(pollers.lock().len(), MOST);
        tokio::time::sleep(Duration::from_secs(60)).await;
        pollers.asked(A, "", true);
        assert_eq!(pollers.lock().len(), 1);
    }
}
