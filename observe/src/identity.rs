//! Who is speaking.

use std::sync::Arc;

/// Names this process in logs, metrics and health pages. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What the service is called, for example `orders`.
    pub service: Arc<str>,
    /// Which build of it runs, for example `1.4.2`.
    pub version: Arc<str>,
    /// This run of it: 16 random hexadecimal digits, made by [`new`](Self::new).
    pub instance: Arc<str>,
}

impl Identity {
    /// Names this process, with an instance that no other run has.
    pub fn new(service: impl Into<Arc<str>>, version: impl Into<Arc<str>>) -> Self {
        let instance = format!("{:016x}", fastrand::u64(..));
        Self { service: service.into(), version: version.into(), instance: instance.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_are_told_apart() {
        let (first, second) = (Identity::new("orders", "1.0"), Identity::new("orders", "1.0"));
        assert_ne!(first.instance, second.instance);
        assert_eq!(first.instance.len(), 16);
    }
}
