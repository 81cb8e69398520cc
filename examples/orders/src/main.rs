//! Takes orders over HTTP, publishes each as a message, and ships it from a message handler.
//!
//! `memory://` by default, so it runs without any broker: `make run`.

mod book;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use mainspring::observe::log;
use mainspring::pubsub::{self, ErrorKind, Failure, Message, Policy, Publisher};
use mainspring::server::{self, Service, SimpleServer};
use mainspring::web::{Json, Path, Problem};
use mainspring::{BrokerUrl, BrokersConfig, config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::book::{Book, Entry, Order, Status};

/// What can be configured, beside everything the kit brings.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-section" = "orders"))]
struct Config {
    server: server::Config,
    brokers: BrokersConfig,
    /// Where orders are published, and read from.
    topic: BrokerUrl,
    /// Where orders are published, if not to `topic`.
    publish: Option<BrokerUrl>,
    /// Where orders are read from, if not from `topic`.
    subscribe: Option<BrokerUrl>,
    /// How long it takes to ship an order.
    work: config::Duration,
}

struct Orders {
    book: Arc<Book>,
    events: Publisher,
}

impl Service for Orders {
    const NAME: &'static str = "orders";

    fn routes(self: Arc<Self>) -> Router {
        Router::new().route("/orders", get(newest).post(create)).route("/orders/{id}", get(show)).with_state(self)
    }
}

/// Accepts an order once the broker has it: from then on it will be shipped, whatever happens to this process.
async fn create(
    State(orders): State<Arc<Orders>>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Entry>), Problem> {
    order.check()?;
    let message = Message::json(&order).map_err(|_| Problem::internal())?.with_key(&order.id);
    orders.events.publish(message).await.map_err(not_published)?;
    Ok((StatusCode::ACCEPTED, Json(orders.book.accept(order))))
}

/// What is too large today will be tomorrow; for everything else the customer may come again.
fn not_published(error: pubsub::Error) -> Problem {
    if error.kind() == ErrorKind::TooLarge {
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE).detail(error.to_string());
    }
    tracing::error!(%error, "order not accepted: it could not be published");
    Problem::unavailable("the order could not be published", Duration::from_secs(5))
}

async fn show(State(orders): State<Arc<Orders>>, Path(id): Path<String>) -> Result<Json<Entry>, Problem> {
    let entry = orders.book.get(&id).ok_or_else(|| Problem::not_found(format!("there is no order {id:?}")))?;
    Ok(Json(entry))
}

async fn newest(State(orders): State<Arc<Orders>>) -> Json<Vec<Entry>> {
    Json(orders.book.newest(100))
}

/// When to try again to write down what was shipped.
const WITHOUT_LOG: Duration = Duration::from_secs(1);
/// How much longer than the work an order may take: an output of the log that stands still must not have it shipped twice.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the message handler needs.
#[derive(Clone)]
struct Shipping {
    book: Arc<Book>,
    work: Duration,
}

/// Ships one order. `Ok` acks the message, an error has it delivered again, a rejection makes it a dead letter.
async fn ship(
    pubsub::State(shipping): pubsub::State<Shipping>,
    pubsub::Json(order): pubsub::Json<Order>,
) -> Result<(), Failure> {
    if order.quantity > 1000 {
        let failure = Failure::reject(format!("{} pieces are more than we have", order.quantity));
        shipping.book.set(order, Status::Rejected);
        return Err(failure);
    }
    tokio::time::sleep(shipping.work).await;
    let id = order.id.clone();
    shipping.book.set(order, Status::Shipped);
    // The log is the record of what was shipped: it has the line before the broker forgets the order.
    while log::record(|| info!(order = id, "shipped")).await.is_err() {
        tokio::time::sleep(WITHOUT_LOG).await;
    }
    Ok(())
}

fn main() -> ExitCode {
    mainspring::app!().section::<Config>("orders").launch(run)
}

async fn run(config: Config) -> server::Result {
    let brokers = mainspring::brokers(&config.brokers)?;
    let events = brokers.publisher(config.publish.as_ref().unwrap_or(&config.topic)).await?;
    let inbox = brokers.subscriber(config.source().1).await?;

    let book = Arc::new(Book::default());
    let shipping = Shipping { book: Arc::clone(&book), work: config.work.get() };
    let policy = Policy::default().timeout(config.work.get().saturating_add(PATIENCE));
    let router = pubsub::Router::new().route("ship", inbox, ship).concurrency(64).policy(policy).with_state(shipping);

    SimpleServer::new(config.server).register(Orders { book, events }).daemon("ship", |cx| router.run(cx)).run().await
}

impl Config {
    /// Where orders are read from, and which key says so.
    fn source(&self) -> (&'static str, &BrokerUrl) {
        self.subscribe.as_ref().map_or(("topic", &self.topic), |url| ("subscribe", url))
    }
}

impl config::Check for Config {
    fn check(&self, report: &mut config::Report) {
        let (key, url) = self.source();
        mainspring::check_subscriber_url(key, url, &self.brokers, report);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: server::Config::default(),
            brokers: BrokersConfig::default(),
            topic: "memory://orders?group=ship".into(),
            publish: None,
            subscribe: None,
            work: config::Duration::from_secs(0),
        }
    }
}
