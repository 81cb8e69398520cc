//! What the author of an HTTP handler touches.
//!
//! [`Problem`] is an error answer (RFC 9457), [`Error`] is what a handler returns when it uses `?`, and
//! [`Json`], [`Path`], [`Query`] and [`Form`] are axum's extractors with rejections that say which field or
//! which limit was wrong. [`Cors`] and [`NoCache`] are layers; [`TrustedProxies`] finds a client's address;
//! [`parse`] and [`DateRange`] read what query strings carry. [`body`] names the ways in which reading a
//! request's body fails.
//!
//! Nothing here listens, spawns or reads configuration: it works in any axum router, also without the
//! rest of the kit.
//!
//! ```
//! use mainspring_web::{Json, Problem, Result};
//!
//! #[derive(serde::Deserialize, serde::Serialize)]
//! struct Order { id: String, quantity: u32 }
//!
//! async fn create(Json(order): Json<Order>) -> Result<Json<Order>> {
//!     if order.quantity < 1 {
//!         return Err(Problem::invalid_field("quantity", "must be at least 1").into());
//!     }
//!     std::fs::metadata("/")?; // any error: 500 for the client, the cause for the log
//!     Ok(Json(order))
//! }
//! # let _: axum::Router = axum::Router::new().route("/orders", axum::routing::post(create));
//! ```

pub mod body;
mod client;
mod cors;
mod date;
mod error;
mod form;
mod json;
mod no_cache;
pub mod parse;
mod path;
mod problem;
mod reject;

pub use client::{InvalidNetwork, TrustedProxies};
pub use cors::{Cors, InvalidOrigin};
pub use date::DateRange;
pub use error::{BoxError, Error, Result};
pub use form::{Form, Query};
pub use json::Json;
pub use no_cache::NoCache;
pub use path::Path;
pub use problem::Problem;
