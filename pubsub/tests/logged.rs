//! What a message that is given up leaves in the log. One test only: what one thread listens to is kept for the process.

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use common::{brokers, start};
use mainspring_pubsub::{Json, Message, Router};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[test]
fn what_is_given_up_is_logged_with_where_it_stood_and_where_it_went() {
    #[derive(serde::Deserialize)]
    struct Order {
        #[allow(dead_code)]
        items: Vec<u32>,
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    for (to, went) in [(Some("memory://rejects"), "memory://rejects"), (None, "rejected")] {
        let events = Events::default();
        // It holds for one thread, and all of this runs on that.
        tracing::subscriber::with_default(events.clone(), || {
            runtime.block_on(async {
                let (publisher, inbox, mut outcomes) = common::partition::partition();
                let mut router = Router::new().route("ship", inbox, |Json(_): Json<Order>| async { Ok(()) });
                if let Some(to) = to {
                    router = router.dead_letter(brokers().publisher(to).await.unwrap());
                }
                let router = start(router);
                publisher.send(Message::new("{}").with_id("m1")).unwrap();
                outcomes.recv().await.expect("it is settled");
                router.stop().await;
            });
        });
        let event = events.one("message is given up");
        let told = ["source", "position", "dead_letter", "field", "message_id"].map(|name| event[name].as_str());
        assert_eq!(told, ["partition://log", "0/0", went, "items", "m1"], "{event:?}");
    }
}

type Fields = BTreeMap<&'static str, String>;

/// Keeps the fields of every event, `message` among them.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<Fields>>>);

struct Read(Fields);

impl Events {
    /// The only event with this message.
    fn one(&self, message: &str) -> Fields {
        let events = self.0.lock().unwrap();
        let found: Vec<_> = events.iter().filter(|event| event["message"] == message).collect();
        assert_eq!(found.len(), 1, "`{message}` among {events:?}");
        found[0].clone()
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut read = Read(Fields::new());
        event.record(&mut read);
        self.0.lock().unwrap().push(read.0);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

impl Visit for Read {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
