//! Leases that end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mainspring_pubsub::{ErrorKind, Message, Router};

use crate::conformance::case::{Fault, ensure, table};
use crate::conformance::stage::{Stage, Topic, confirmed, within};

table! {
    a_lease_that_runs_out_is_lost[Lease] 4 "A message comes again when its lease ends, and the late ack says Lost.";
    an_extended_lease_holds[Lease] 4 "A lease that is extended in time keeps its message.";
    the_router_keeps_leases_alive[Lease] 4 "A handler that works four times as long as a lease has its message once.";
}

async fn a_lease_that_runs_out_is_lost(stage: Stage) -> Result<(), Fault> {
    let (topic, lease) = leased(&stage).await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    topic.send(&publisher, topic.message("slow")).await?;
    let first = inbox.next().await?;
    ensure!(first.lease().is_some(), "the delivery does not say when its lease ends");
    let second = within(lease * 4 + topic.patience, "the next delivery", inbox.next()).await??;
    let late = within(topic.patience, "settling", first.ack()).await?;
    match late {
        Err(error) if error.kind() == ErrorKind::Lost => {}
        answer => return Err(Fault::new(format!("an ack after the lease was lost answers {answer:?}"))),
    }
    confirmed(topic.patience, second.ack()).await?;
    inbox.is_quiet("the second delivery was acked").await
}

async fn an_extended_lease_holds(stage: Stage) -> Result<(), Fault> {
    let (topic, lease) = leased(&stage).await?;
    let (mut inbox, publisher) = (topic.inbox("g").await?, topic.publisher().await?);
    topic.send(&publisher, topic.message("slow")).await?;
    let delivery = inbox.next().await?;
    for _ in 0..6 {
        tokio::time::sleep(lease / 3).await;
        within(topic.patience, "extending", delivery.extend(lease)).await??;
    }
    confirmed(topic.patience, delivery.ack()).await?;
    inbox.is_quiet("the lease was extended until the ack").await
}

async fn the_router_keeps_leases_alive(stage: Stage) -> Result<(), Fault> {
    let (topic, lease) = leased(&stage).await?;
    let publisher = topic.publisher().await?;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |_message: Message| {
        let (counted, done) = (Arc::clone(&counted), done.clone());
        async move {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(lease * 4).await;
            done.send(()).ok();
            Ok(())
        }
    };
    let router = topic.start(Router::new().route("slow", topic.subscriber("g").await?, handler));
    topic.send(&publisher, topic.message("slow")).await?;
    within(lease * 8 + topic.patience, "the handler", finished.recv()).await?;
    // What came again meanwhile has begun by now, and is not acked.
    tokio::time::sleep(lease * 2).await;
    router.stop().await;
    let calls = calls.load(Ordering::Relaxed);
    ensure!(calls == 1, "the handler was called {calls} times");
    topic.inbox("g").await?.is_quiet("the handler succeeded").await
}

async fn leased(stage: &Stage) -> Result<(Topic, std::time::Duration), Fault> {
    let (backend, lease) = stage.backend.leased().map_err(Fault::new)?;
    Ok((Topic::open(&backend, stage.case).await?, lease))
}
