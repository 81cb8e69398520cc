//! A message as a topic and its groups hold it.

use std::sync::Arc;

use super::{KeyHash, hash_key};
use crate::Message;

/// A message, with what is asked of it again and again. Cheap to clone.
#[derive(Clone)]
pub(super) struct Parcel {
    pub(super) message: Arc<Message>,
    pub(super) key: Option<KeyHash>,
    pub(super) size: usize,
}

impl Parcel {
    pub(super) fn new(message: Message) -> Self {
        let (key, size) = (message.key.as_deref().map(hash_key), message.size());
        Self { message: Arc::new(message), key, size }
    }
}
