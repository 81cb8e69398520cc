//! Messages, publishers, subscribers, deliveries, a router, and the in-memory broker.
//!
//! Applications hold concrete types: a [`Publisher`], a [`Subscriber`], or, most of them, a [`Router`] that calls
//! handlers and settles for them. [`Brokers`] opens them by URL. Brokers implement the small traits in [`driver`];
//! none of their clients is linked here, and neither is any HTTP.
//!
//! ```
//! use mainspring_daemon::Context;
//! use mainspring_pubsub::{Brokers, BrokersConfig, Failure, Json, Message, Router};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Order { id: String, quantity: u32 }
//!
//! async fn ship(Json(order): Json<Order>) -> Result<(), Failure> {
//!     if order.quantity > 1000 {
//!         return Err(Failure::reject("more than we have"));   // a dead letter
//!     }
//!     let _boxes: u32 = order.id[1..].parse()?;               // `?` means: try again later
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let brokers = Brokers::new(&BrokersConfig::default())?;
//! let orders = brokers.publisher("memory://orders").await?;
//! let inbox = brokers.subscriber("memory://orders?group=ship").await?;
//!
//! let (stop, cx) = Context::test("ship");                     // the server hands out a real one
//! let running = Router::new().route("ship", inbox, ship).concurrency(64).run(cx);
//!
//! orders.publish(Message::json(&Order { id: "A1".into(), quantity: 2 })?.with_key("A1")).await?;
//! # drop(stop);
//! running.await?;
//! # Ok(()) }
//! ```

mod base64;
mod batch;
mod broker_url;
mod brokers;
mod cloud_event;
mod codec;
mod config;
mod confirmation;
mod delivery;
pub mod driver;
mod error;
mod extract;
mod failure;
mod handler;
mod kafka_config;
pub mod layers;
pub mod memory;
mod message;
mod metrics;
mod outbox;
mod policy;
mod proto;
mod publish;
mod publisher;
mod request;
mod router;
mod subscriber;
mod url;
mod window;
mod within;

pub use batch::{Answer, BatchHandler, Batching};
pub use broker_url::BrokerUrl;
pub use brokers::Brokers;
pub use bytes::Bytes;
pub use cloud_event::CloudEvent;
pub use codec::DecodeError;
pub use config::{AwsConfig, BrokersConfig, GcpConfig, PublishConfig};
pub use confirmation::Confirmation;
pub use delivery::{Delivery, Position};
pub use error::{Error, ErrorKind};
pub use extract::{Attempt, Attributes, FromMessage, Json, Key, State, Text};
pub use failure::{Failure, HandlerError};
pub use handler::{Handler, HandlerService, Handling};
pub use kafka_config::{KafkaConfig, KafkaMechanism, KafkaSaslConfig, KafkaSecurity, KafkaTlsConfig};
pub use message::{Message, MessageId};
pub use outbox::Outbox;
pub use policy::{Backoff, Policy, Undecodable};
pub use proto::Proto;
pub use publisher::{Publisher, Receipt};
pub use request::Request;
pub use router::{DeadLetter, RouteService, RouteState, Router, RouterHandle};
pub use subscriber::Subscriber;
