//! B1: publish → handle → ack in one process.

use std::collections::VecDeque;
use std::io;

use mainspring_pubsub::layers::CorrelationId;
use mainspring_pubsub::{Message, Router, memory};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{Handled, Rows, Running, sample};
use crate::rounds::Comparison;

const MESSAGES: usize = 200_000;
/// Messages that a sender leaves unanswered, where answers are waited for.
const WINDOW: usize = 512;

/// How much of what goes how.
#[derive(Clone, Copy)]
struct Shape {
    bytes: usize,
    senders: usize,
    /// 0 for one thread that does everything.
    threads: usize,
}

pub(super) fn run(rounds: usize) -> io::Result<Rows> {
    let shapes = [
        ("B1 16 B, 1 to 1", Shape { bytes: 16, senders: 1, threads: 0 }),
        ("B1 1 KiB, 1 to 1", Shape { bytes: 1024, senders: 1, threads: 0 }),
        ("B1 16 B, 4 to 4", Shape { bytes: 16, senders: 4, threads: 4 }),
    ];
    shapes
        .into_iter()
        .map(|(name, shape)| {
            let rows = Comparison::new(format!("{name}: publish, handle, ack"))
                .arm("mpsc + oneshot ack", move || sample(shape.threads, async move { Ok(acked_channel(shape).await) }))
                .arm("mpsc, no ack", move || sample(shape.threads, async move { Ok(channel(shape).await) }))
                .arm("kit", move || sample(shape.threads, kit(shape, |router| router)))
                .arm("kit with a layer", move || {
                    sample(shape.threads, kit(shape, |router| router.layer(CorrelationId::new())))
                })
                .run(rounds)?;
            Ok((name, rows))
        })
        .collect()
}

impl Shape {
    fn message(self) -> Message {
        // Static, as a body that was made once and is sent often.
        static BODY: [u8; 1024] = [b'x'; 1024];
        Message::new(&BODY[..self.bytes])
    }

    fn each(self) -> usize {
        MESSAGES / self.senders
    }
}

async fn channel(shape: Shape) -> usize {
    let (sender, mut receiver) = mpsc::channel(1024);
    let mut senders = JoinSet::new();
    for _ in 0..shape.senders {
        let sender = sender.clone();
        senders.spawn(async move {
            for _ in 0..shape.each() {
                sender.send(shape.message()).await.expect("somebody receives");
            }
        });
    }
    drop(sender);
    let mut received = 0;
    while let Some(message) = receiver.recv().await {
        drop(message);
        received += 1;
    }
    received
}

async fn acked_channel(shape: Shape) -> usize {
    let (sender, mut receiver) = mpsc::channel::<(Message, oneshot::Sender<()>)>(1024);
    let mut senders = JoinSet::new();
    for _ in 0..shape.senders {
        let sender = sender.clone();
        senders.spawn(async move {
            let mut unanswered: VecDeque<oneshot::Receiver<()>> = VecDeque::with_capacity(WINDOW);
            for _ in 0..shape.each() {
                if unanswered.len() == WINDOW
                    && let Some(oldest) = unanswered.pop_front()
                {
                    oldest.await.expect("whoever receives answers");
                }
                let (ack, acked) = oneshot::channel();
                sender.send((shape.message(), ack)).await.expect("somebody receives");
                unanswered.push_back(acked);
            }
            for acked in unanswered {
                acked.await.expect("whoever receives answers");
            }
        });
    }
    drop(sender);
    let mut received = 0;
    while let Some((message, ack)) = receiver.recv().await {
        drop(message);
        let _ = ack.send(());
        received += 1;
    }
    while senders.join_next().await.is_some() {}
    received
}

async fn kit(shape: Shape, with: impl FnOnce(Router) -> Router) -> io::Result<usize> {
    let broker = memory::Broker::new(memory::Config::default());
    let (publisher, from) = (broker.publisher("bench"), broker.subscriber("bench", "bench"));
    let (handled, total) = (Handled::default(), shape.each() * shape.senders);
    let router = Running::start(from, |from| with(Router::new().route("bench", from, handled.handler(total))));
    let mut senders = JoinSet::new();
    for _ in 0..shape.senders {
        let publisher = publisher.clone();
        senders.spawn(async move {
            for _ in 0..shape.each() {
                publisher.publish(shape.message()).await.expect("the broker has room");
            }
        });
    }
    handled.all().await;
    router.stop().await?;
    Ok(total)
}
