//! Logs refused requests for operators: one line per minute and cause, with the count and advice. The rate is limited
//! so that a flood of requests does not flood the process's log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use usher_proto::{Source, signature};

use crate::error::Refusal;
use crate::metrics::UNKNOWN_SOURCE;

/// Interval between two log lines about the same cause.
const EVERY: Duration = Duration::from_secs(60);
/// Interval between two log lines about events that the log cannot store. Such a problem is either over soon
/// or an outage.
const NOT_KEPT_EVERY: Duration = Duration::from_secs(1);

/// The cause of a refusal, more specific than the code in the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RefusalCause {
    /// Label of the cause in metrics.
    pub(crate) label: &'static str,
    /// Advice for an operator.
    advice: &'static str,
    /// Interval between two log lines about this cause.
    every: Duration,
    /// True if the signed timestamp explains the refusal and is logged.
    shows_clock: bool,
}

impl RefusalCause {
    /// Returns the cause of a refusal.
    pub(crate) const fn of(refusal: &Refusal) -> Self {
        let (label, advice) = match refusal {
            Refusal::NotVerified(signature::SignatureRefusal::NoMatch) => (
                "signature",
                "the signature matches no configured secret: set the signing secret of this endpoint, from its page at the \
                 sender",
            ),
            Refusal::NotVerified(signature::SignatureRefusal::TooOld) => (
                "clock_old",
                "the signed time is more than 5 minutes ago: check this machine's clock; if it is right, the request was late, \
                 or repeated by somebody else",
            ),
            Refusal::NotVerified(signature::SignatureRefusal::TooNew) => {
                ("clock_ahead", "the signed time is more than 5 minutes ahead: check this machine's clock")
            }
            Refusal::NotVerified(signature::SignatureRefusal::MalformedTimestamp) | Refusal::HeaderMalformed(_) => {
                ("header_malformed", "a header cannot be read: the sender is not the one that is configured")
            }
            Refusal::HeaderMissing(_) => {
                ("header_missing", "the signature's headers are missing: the sender is not the one that is configured")
            }
            Refusal::NoSuchInstance => (
                "no_such_instance",
                "no signing secret is configured for this instance: set it with the instance's name behind, or mend the \
                 endpoint's address at the sender",
            ),
            Refusal::NoSecretYet => (
                "no_secret_yet",
                "the endpoint only answers challenges so far: set its signing secret, which the sender has now shown",
            ),
            Refusal::NoSuchSource => {
                ("no_such_source", "no such source is configured: mend the endpoint's address at the sender")
            }
            Refusal::NoSuchPath => ("no_such_path", "mend the endpoint's address at the sender"),
            Refusal::BodyMalformed => ("body_malformed", "the body is not what the sender documents"),
            Refusal::TooLarge(_) => ("too_large", "the body is larger than what the log takes"),
            Refusal::BodyIncomplete => {
                ("body_incomplete", "the body did not arrive whole and in time: look at the network")
            }
            Refusal::Busy => ("busy", "too many requests are under way: the sender repeats them"),
            Refusal::NotKept => ("not_kept", "the log does not keep them now: the sender repeats them"),
        };
        let every = if matches!(refusal, Refusal::NotKept) { NOT_KEPT_EVERY } else { EVERY };
        let shows_clock = matches!(
            refusal,
            Refusal::NotVerified(signature::SignatureRefusal::TooOld | signature::SignatureRefusal::TooNew)
        );
        Self { label, advice, every, shows_clock }
    }
}

/// Refusals of one source for one cause since the last log line about them.
#[derive(Debug, Default)]
struct Seen {
    /// True if a log line was written within the interval.
    told: bool,
    /// Refusals that were not yet logged.
    count: u64,
    /// Seconds by which the signed timestamp of the latest refused request is ahead of our clock.
    ahead: Option<i64>,
    /// The log's error for the latest refused request.
    error: Option<String>,
}

impl Seen {
    /// Counts a refusal. Returns the number of refusals to log now; `None` within an interval.
    fn note(&mut self) -> Option<u64> {
        self.count += 1;
        if self.told {
            return None;
        }
        self.told = true;
        Some(std::mem::take(&mut self.count))
    }

    /// Ends an interval. Returns the number of refusals to log; `None` if there were none, which ends the
    /// series of intervals.
    fn over(&mut self) -> Option<u64> {
        self.told = self.count > 0;
        self.told.then(|| std::mem::take(&mut self.count))
    }
}

/// One count of refusals: those to a source, or to none that is configured, for one cause.
type Counted = (Option<Source>, RefusalCause);

/// The refusals of one `ingest`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    seen: Arc<Mutex<BTreeMap<Counted, Seen>>>,
}

impl Refusals {
    /// Records a refused request. `ahead` is the number of seconds by which its signed timestamp is ahead of our clock;
    /// `error` is the log's error. `source` is `None` for a request to no configured source.
    pub(crate) fn note(&self, source: Option<Source>, refusal: &Refusal, ahead: Option<i64>, error: Option<String>) {
        let cause = RefusalCause::of(refusal);
        let first = self.with(source, cause, |seen| {
            seen.ahead = ahead;
            seen.error = error;
            let count = seen.note()?;
            write(source, cause, count, seen);
            Some(())
        });
        if first.is_none() {
            return;
        }
        let refusals = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(cause.every).await;
                let told = refusals.with(source, cause, |seen| {
                    let count = seen.over()?;
                    write(source, cause, count, seen);
                    Some(())
                });
                if told.is_none() {
                    return;
                }
            }
        });
    }

    fn with<T>(&self, source: Option<Source>, cause: RefusalCause, use_it: impl FnOnce(&mut Seen) -> T) -> T {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(seen.entry((source, cause)).or_default())
    }
}

fn write(source: Option<Source>, cause: RefusalCause, count: u64, seen: &Seen) {
    let source = source.as_ref().map_or(UNKNOWN_SOURCE, Source::label);
    let RefusalCause { label, advice, shows_clock, .. } = cause;
    let error = seen.error.as_deref();
    let seconds_ahead = seen.ahead.filter(|_| shows_clock);
    // The line counts many requests, so it belongs to the span of none of them.
    tracing::warn!(parent: None, source, cause = label, count, seconds_ahead, error, "webhooks refused: {advice}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_once_an_interval() {
        let mut seen = Seen::default();
        assert_eq!((seen.note(), seen.note(), seen.note()), (Some(1), None, None));
        assert_eq!(seen.over(), Some(2));
        assert_eq!(seen.over(), None, "nothing was refused since");
        assert_eq!(seen.note(), Some(1), "and the next is told at once again");
    }

    #[test]
    fn a_wrong_clock_is_told_from_a_wrong_secret() {
        let label = |refusal| RefusalCause::of(&Refusal::NotVerified(refusal)).label;
        use signature::SignatureRefusal::{NoMatch, TooNew, TooOld};
        assert_eq!([label(NoMatch), label(TooOld), label(TooNew)], ["signature", "clock_old", "clock_ahead"]);
    }
}
