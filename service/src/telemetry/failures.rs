//! Failed exports, logged at a limited rate: a collector that is down must not fill the log.

use std::time::{Duration, Instant};

/// Shortest time between two log lines about failed exports.
const EVERY: Duration = Duration::from_secs(60);

/// The failed exports since the last log line about them.
#[derive(Debug, Default)]
pub(super) struct ExportFailures {
    logged_at: Option<Instant>,
    lost: usize,
}

impl ExportFailures {
    /// Counts the spans of a failed export. Returns the number of lost spans to log now; `None` within [`EVERY`] of the
    /// last line.
    pub(super) fn note(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.lost += spans;
        if self.logged_at.is_some_and(|at| now.duration_since(at) < EVERY) {
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_logged_at_once_and_the_others_together_after_a_while() {
        let mut failures = ExportFailures::default();
        let start = Instant::now();
        assert_eq!(failures.note(3, start), Some(3));
        assert_eq!(failures.note(4, start + Duration::from_secs(5)), None);
        assert_eq!(failures.note(5, start + EVERY - Duration::from_millis(1)), None);
        assert_eq!(failures.note(6, start + EVERY), Some(15));
        assert_eq!(failures.note(7, start + EVERY), None);
    }
}
