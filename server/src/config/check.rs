//! Values that make no sense, or none together.

use mainspring_config::{Check, Duration, Report};

use super::Config;

/// Paths of the admin listener that the metrics page cannot have ...
const ADMIN_PAGES: [&str; 4] = ["/", "/livez", "/readyz", "/startupz"];
/// ... nor any below these, where daemons put up theirs.
const ADMIN_FOLDERS: [&str; 2] = ["/-/", "/debug/"];

impl Config {
    /// Whether a shutdown leaves a request the time that it may take.
    fn check_shutdown(&self, report: &mut Report) {
        let (budget, request) = (self.shutdown.budget, self.http.request_timeout);
        let lame_duck = Duration::from(self.shutdown.lame_duck.get());
        let Some(left) = budget.checked_sub(*lame_duck).map(Duration::from) else {
            // A budget of nothing is a fault by itself.
            if budget > Duration::ZERO {
                report.conflict(
                    &["shutdown.lame_duck", "shutdown.budget"],
                    format!("{lame_duck} is longer than shutdown.budget, {budget}"),
                    "raise shutdown.budget or shorten the lame duck",
                );
            }
            return;
        };
        if request <= left || budget == Duration::ZERO {
            return;
        }
        let keys = ["http.request_timeout", "shutdown.budget", "shutdown.lame_duck"];
        let what = format!(
            "a request may take {request}, but a shutdown leaves only {left} (shutdown.budget − shutdown.lame_duck) and would cut it off"
        );
        let raise = "raise shutdown.budget (and Kubernetes' terminationGracePeriodSeconds with it)";
        let hint =
            if left == Duration::ZERO { raise.to_owned() } else { format!("set it to {left} or less, or {raise}") };
        report.conflict(&keys, what, hint);
    }
}

impl Check for Config {
    fn check(&self, report: &mut Report) {
        self.check_shutdown(report);
        for (key, timeout) in [
            ("http.first_byte_timeout", self.http.first_byte_timeout),
            ("http.header_timeout", self.http.header_timeout),
            ("http.body_timeout", self.http.body_timeout),
            ("http.request_timeout", self.http.request_timeout),
            ("http.idle_timeout", self.http.idle_timeout),
            ("shutdown.budget", self.shutdown.budget),
            ("health.esx.interval", self.health.esx.interval),
        ] {
            if timeout.get().is_zero() {
                report.fault(key, "would be over at once", "use a duration above 0s");
            }
        }
        if self.http.max_header_bytes.get() < 8 * 1024 {
            report.fault("http.max_header_bytes", "is less than ordinary requests need", "use 8KiB or more");
        }
        if self.health.path.as_deref().is_some_and(|path| !is_plain(path)) {
            report.fault("health.path", "is not a plain path", "use a path such as /healthz");
        }
        let metrics = &*self.metrics.path;
        if !is_plain(metrics) {
            report.fault("metrics.path", "is not a plain path", "use a path such as /metrics");
        } else if ADMIN_PAGES.contains(&metrics) || ADMIN_FOLDERS.iter().any(|folder| metrics.starts_with(folder)) {
            let what = format!("the admin listener has {metrics} for something else");
            report.fault("metrics.path", what, "use a path such as /metrics");
        }
        for (key, part) in
            [("metrics.namespace", &self.metrics.namespace), ("metrics.subsystem", &self.metrics.subsystem)]
        {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !part.chars().all(word) || part.starts_with(|c: char| c.is_ascii_digit()) {
                report.fault(
                    key,
                    "is no part of a metric's name",
                    "use letters, digits and _, and begin with no digit",
                );
            }
        }
        if let Some(admin) = self.admin.addr.0
            && admin.port() != 0
            && admin == self.http.addr
        {
            report.fault("admin.addr", "is the same address as http.addr", "use another port, or `off`");
        }
    }
}

/// Whether a router takes `path` for itself and not for a pattern.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(['{', '}', '?', '#'])
        && !path.contains(|c: char| c.is_whitespace() || c.is_control())
        && !path.contains("/:")
        && !path.contains("/*")
}

#[cfg(test)]
mod tests {
    use super::super::LameDuck;
    use super::*;
    use mainspring_config::ByteSize;

    fn faults(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        config.shutdown.lame_duck = LameDuck(Some(Duration::from_secs(5)));
        change(&mut config);
        Report::of(&config).into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_defaults_go_together() {
        assert!(faults(|_| {}).is_empty());
    }

    #[test]
    fn a_request_that_a_shutdown_would_cut_off_is_refused() {
        assert_eq!(faults(|config| config.http.request_timeout = Duration::from_secs(24)), ["http.request_timeout"]);
        assert!(faults(|config| config.http.request_timeout = Duration::from_secs(23)).is_empty());
        assert_eq!(
            faults(|config| config.shutdown.lame_duck = LameDuck(Some(Duration::from_secs(29)))),
            ["shutdown.lame_duck"]
        );
    }

    #[test]
    fn senseless_limits_are_refused() {
        assert_eq!(faults(|config| config.http.idle_timeout = Duration::from_secs(0)), ["http.idle_timeout"]);
        assert_eq!(faults(|config| config.http.max_header_bytes = ByteSize::kib(1)), ["http.max_header_bytes"]);
        assert_eq!(faults(|config| config.health.path = Some("healthz".to_owned())), ["health.path"]);
    }

    #[test]
    fn the_metrics_page_has_a_path_that_is_plain_and_free() {
        for path in [
            "metrics",
            "",
            "/{name}",
            "/a b",
            "/:name",
            "/*",
            "/",
            "/livez",
            "/readyz",
            "/startupz",
            "/-/log",
            "/debug/pubsub",
        ] {
            assert_eq!(faults(|config| config.metrics.path = path.to_owned()), ["metrics.path"], "{path}");
        }
        for path in ["/metrics", "/stats/prometheus", "/debug"] {
            assert!(faults(|config| config.metrics.path = path.to_owned()).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_shutdown_without_time_is_said_to_be_one() {
        let said = |budget, lame_duck| {
            let mut config = Config::default();
            config.shutdown.budget = Duration::from_secs(budget);
            config.shutdown.lame_duck = LameDuck(Some(Duration::from_secs(lame_duck)));
            Report::of(&config).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(said(0, 0), ["shutdown.budget (-): would be over at once; use a duration above 0s"]);
        assert_eq!(said(0, 5), ["shutdown.budget (-): would be over at once; use a duration above 0s"]);
        assert_eq!(
            said(5, 5),
            ["http.request_timeout (-): a request may take 15s, but a shutdown leaves only 0s (shutdown.budget − \
                 shutdown.lame_duck) and would cut it off; raise shutdown.budget (and Kubernetes' \
                 terminationGracePeriodSeconds with it)"]
        );
    }
}
