//! What happens to one request between hyper and the handler.
//!
//! One service does what a tower of layers usually does: it counts the request, finds its route, gives it an id and
//! a trace, arms the timeout, catches panics, and settles all of it in one [`Record`](record::Record) when the
//! response has ended or was dropped.
//!
//! | file | noun |
//! |---|---|
//! | `dispatch.rs` | everything that requests of one listener share |
//! | `service.rs` | one request: from hyper's call to the response's head |
//! | `parting.rs` | an answer to a body that was not read |
//! | `pooled.rs` | the memory of records, used again |
//! | `record.rs` | what is remembered of a request, and settled once |
//! | `request_body.rs` | the body going in: its limit and its deadline |
//! | `response_body.rs` | the body going out: panics, timeouts, the end of event streams |
//! | `routes.rs` | the route templates, and what is known of each |
//! | `said.rs`, `request_id.rs`, `host.rs`, `codings.rs` | what headers say; `x-request-id`; the Host field; Transfer-Encoding |
//! | `wording.rs` | answers of axum's in the kit's own words |
//! | `access.rs` | the access log's line |

mod access;
mod codings;
mod dispatch;
mod host;
mod parting;
mod pooled;
mod record;
mod request_body;
mod request_id;
mod response_body;
mod routes;
mod said;
mod service;
mod wording;

pub(crate) use access::AccessLog;
pub(crate) use dispatch::{Dispatch, Settings};
pub(crate) use request_id::generate as new_request_id;
pub(crate) use routes::{Routes, templates};
pub(crate) use service::RequestService;
