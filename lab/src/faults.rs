//! The faults of one double, set by a test: validation, the choice of the fault that matches a request, and
//! expiry. The effect of a fault on a request is implemented in [`crate::fake_server`] and, for mail
//! commands, in `smtp/session.rs`.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::locked::Locked;
use crate::request::Request;

/// Seed of the first fault's random numbers; each further fault takes the next number. A repeated experiment with
/// shares therefore hits the same requests, and no two faults draw the same numbers.
const SEED: u64 = 1;
const LONGEST_SECONDS: f64 = 366.0 * 24.0 * 60.0 * 60.0;
const LONGEST_LATENCY_MS: u64 = 24 * 60 * 60 * 1000;

/// A fault, as `PUT /faults/<provider>` takes it. Every field is optional, but the fault must have some effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Answer with this status (400 to 599) and the provider's error body for it. The request has no effect.
    pub status: Option<u16>,
    /// The name (Resend) or code (Stripe) of the provider's error if a status has several, for instance
    /// `daily_quota_exceeded` or `lock_timeout`. Requires `status`.
    pub name: Option<String>,
    /// Delay in milliseconds (up to a day) before the request continues normally. A disconnect of the client does not
    /// stop a request that has started.
    pub latency_ms: u64,
    /// The share of matching requests that the fault hits, above 0 and up to 1.
    pub share: f64,
    /// Seconds after which the fault ends by itself, up to a year. Without it the fault lasts until it is deleted.
    pub for_seconds: Option<f64>,
    /// The `Retry-After` header of the response, in seconds. Requires `status`.
    pub retry_after: Option<u64>,
    /// Do not answer until the fault is over or the client disconnects. Waiting requests are then served; a request
    /// whose client has disconnected has no effect.
    pub hang: bool,
    /// Hang for at most this many seconds, then close the connection without effect, as an intermediate proxy
    /// does. Requires `hang`.
    pub hang_seconds: Option<f64>,
    /// Execute the request, then close the connection instead of answering.
    pub drop_after_effect: bool,
    /// Execute the request, then answer with `status` all the same, as a gateway does after its
    /// timeout. Requires `status`.
    pub after_effect: bool,
    /// Match only requests that arrive while at least this many others are in flight. With status 429 this simulates a
    /// limit of simultaneous connections.
    pub beyond: Option<usize>,
    /// Match only requests whose body contains this text.
    #[serde(rename = "match")]
    pub containing: Option<String>,
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            status: None,
            name: None,
            latency_ms: 0,
            share: 1.0,
            for_seconds: None,
            retry_after: None,
            hang: false,
            hang_seconds: None,
            drop_after_effect: false,
            after_effect: false,
            beyond: None,
            containing: None,
        }
    }
}

/// The error of an invalid fault.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidFault {
    /// `status` is not an error status, 400 to 599.
    #[error("status is {0}: it may be 400 to 599")]
    Status(u16),
    /// `share` is not above 0 and up to 1.
    #[error("share is {0}: it may be above 0 and up to 1")]
    Share(f64),
    /// `for_seconds` is not above 0 and up to a year.
    #[error("for_seconds is {0}: it may be above 0 and up to a year; leave it out for a fault that lasts until DELETE")]
    ForSeconds(f64),
    /// `hang_seconds` is not above 0 and up to a year, or `hang` is not set.
    #[error("hang_seconds is {0}: it may be above 0 and up to a year, and goes with hang")]
    HangSeconds(f64),
    /// `latency_ms` is more than a day.
    #[error("latency_ms is {0}: it may be up to a day, 86400000")]
    Latency(u64),
    /// More than one of `status`, `hang` and `drop_after_effect` is set.
    #[error("status, hang and drop_after_effect exclude each other: give one of them")]
    Contradiction,
    /// `name`, `retry_after` or `after_effect` is set without `status`.
    #[error("name, retry_after and after_effect say what the answer with status is like: give a status, too")]
    WithoutStatus,
    /// `match` is empty.
    #[error(
        "match is empty: give the text that a request's body must contain, or leave it out to strike every request"
    )]
    EmptyMatch,
    /// The fault would have no effect.
    #[error("the fault would do nothing: give status, latency_ms, hang or drop_after_effect")]
    Nothing,
}

impl Fault {
    /// Validates the fault.
    ///
    /// # Errors
    ///
    /// If a field is out of range, or the fields contradict each other or have no effect. See [`InvalidFault`].
    pub fn check(&self) -> Result<(), InvalidFault> {
        let answers = [self.status.is_some(), self.hang, self.drop_after_effect];
        match self.status {
            Some(status) if !(400..=599).contains(&status) => return Err(InvalidFault::Status(status)),
            None if self.name.is_some() || self.retry_after.is_some() || self.after_effect => {
                return Err(InvalidFault::WithoutStatus);
            }
            Some(_) | None => {}
        }
        match self.for_seconds {
            Some(time) if !(time > 0.0 && time <= LONGEST_SECONDS) => return Err(InvalidFault::ForSeconds(time)),
            Some(_) | None => {}
        }
        match self.hang_seconds {
            Some(time) if !(self.hang && time > 0.0 && time <= LONGEST_SECONDS) => {
                return Err(InvalidFault::HangSeconds(time));
            }
            Some(_) | None => {}
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            Err(InvalidFault::Share(self.share))
        } else if self.latency_ms > LONGEST_LATENCY_MS {
            Err(InvalidFault::Latency(self.latency_ms))
        } else if self.containing.as_ref().is_some_and(String::is_empty) {
            Err(InvalidFault::EmptyMatch)
        } else if answers.iter().filter(|set| **set).count() > 1 {
            Err(InvalidFault::Contradiction)
        } else if answers == [false; 3] && self.latency_ms == 0 {
            Err(InvalidFault::Nothing)
        } else {
            Ok(())
        }
    }
}

/// A fault in force, as `GET /faults/<provider>` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultInForce {
    /// The fault as it was set.
    #[serde(flatten)]
    pub fault: Fault,
    /// Number of requests that the fault has hit.
    pub struck: u64,
    /// Seconds until the fault ends by itself. `None` if it lasts until it is deleted.
    pub seconds_left: Option<f64>,
}

struct Active {
    fault: Fault,
    until: Option<Instant>,
    over: CancellationToken,
    lots: StdRng,
    struck: u64,
}

/// The faults of one double, initially none. For each request they are tried in order; the first that matches applies.
#[derive(Default)]
pub(crate) struct Faults {
    active: Locked<Vec<Active>>,
}

/// The fault that applies to a request.
#[derive(Debug, Clone)]
pub(crate) struct MatchedFault {
    pub(crate) fault: Fault,
    until: Option<Instant>,
    over: CancellationToken,
}

impl MatchedFault {
    /// Waits as long as a hanging request hangs. Returns true if the request is served afterwards, false if its hang
    /// time ran out.
    pub(crate) async fn hung(&self) -> bool {
        let longest = Duration::from_secs_f64(self.fault.hang_seconds.unwrap_or(LONGEST_SECONDS));
        tokio::time::timeout(longest, self.over()).await.is_ok()
    }

    /// Waits until the fault is over.
    async fn over(&self) {
        match self.until {
            None => self.over.cancelled().await,
            Some(until) => {
                // On timeout and on cancellation alike the fault is over.
                let _ = tokio::time::timeout_at(until.into(), self.over.cancelled()).await;
            }
        }
    }

    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.fault.latency_ms)
    }

    pub(crate) fn status(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.fault.status?).ok()
    }
}

impl Faults {
    /// Puts these faults in force and ends all earlier ones.
    pub(crate) fn set(&self, faults: Vec<Fault>, now: Instant) -> Result<(), InvalidFault> {
        faults.iter().try_for_each(Fault::check)?;
        let active = |(fault, seed): (Fault, u64)| Active {
            until: fault.for_seconds.map(|time| now + Duration::from_secs_f64(time)),
            over: CancellationToken::new(),
            lots: StdRng::seed_from_u64(seed),
            struck: 0,
            fault,
        };
        self.replace(faults.into_iter().zip(SEED..).map(active).collect());
        Ok(())
    }

    pub(crate) fn end(&self) {
        self.replace(Vec::new());
    }

    fn replace(&self, next: Vec<Active>) {
        for ended in self.active.with(|active| std::mem::replace(active, next)) {
            ended.over.cancel();
        }
    }

    pub(crate) fn in_force(&self, now: Instant) -> Vec<FaultInForce> {
        self.active.with(|active| {
            let left = |until: Instant| until.saturating_duration_since(now).as_secs_f64();
            let shown = |active: &Active| FaultInForce {
                fault: active.fault.clone(),
                struck: active.struck,
                seconds_left: active.until.map(left),
            };
            active.iter().filter(|active| !active.is_over(now)).map(shown).collect()
        })
    }

    /// Returns the fault that applies to this request, if any. `others` is the number of other requests in flight.
    pub(crate) fn take_match(&self, request: &Request, others: usize, now: Instant) -> Option<MatchedFault> {
        self.active.with(|active| active.iter_mut().find_map(|active| active.take_match(request, others, now)))
    }
}

impl Active {
    /// Returns the fault if it applies to the request. A request that does not match draws no random number, so that it
    /// does not shift the draws of those that do.
    fn take_match(&mut self, request: &Request, others: usize, now: Instant) -> Option<MatchedFault> {
        if self.is_over(now) || self.fault.containing.as_ref().is_some_and(|text| !request.mentions(text)) {
            return None;
        }
        if self.fault.beyond.is_some_and(|most| others < most) {
            return None;
        }
        if self.lots.random::<f64>() >= self.fault.share {
            return None;
        }
        self.struck += 1;
        Some(MatchedFault { fault: self.fault.clone(), until: self.until, over: self.over.clone() })
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests;
