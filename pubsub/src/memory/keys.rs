//! Message keys, as what order is kept by.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};

/// A key, hashed once. Two keys that collide are handled as one: that costs them concurrency, never order.
pub(crate) type KeyHash = u64;

/// A map by hashed key. The hash is not hashed again.
pub(crate) type KeyMap<T> = HashMap<KeyHash, T, BuildHasherDefault<Ready>>;

/// Passes a [`KeyHash`] through.
#[derive(Default)]
pub(crate) struct Ready(u64);

pub(crate) fn hash_key(key: &str) -> KeyHash {
    let mut hasher = DefaultHasher::new();
    hasher.write(key.as_bytes());
    hasher.finish()
}

impl Hasher for Ready {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
