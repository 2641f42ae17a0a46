//! The faults of one double, ordered by a test: what they may be, which of them strikes a request, when they are over.
//! What a struck request then meets is done elsewhere.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::locked::Locked;
use crate::request::Request;

/// The first fault draws by this, the next by its successor: an experiment with shares strikes the same requests when it
/// is repeated, and no fault's lots are those of another.
const SEED: u64 = 1;
const LONGEST_SECONDS: f64 = 366.0 * 24.0 * 60.0 * 60.0;
const LONGEST_LATENCY_MS: u64 = 24 * 60 * 60 * 1000;

/// A fault, as `PUT /faults/<provider>` takes it. Every field may be left out; together they must do something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Answer with this status and the provider's error body for it, without effect.
    pub status: Option<u16>,
    /// The provider's error of this name (Resend) or code (Stripe), where a status has several; for instance
    /// `daily_quota_exceeded` or `lock_timeout`. Goes with `status`.
    pub name: Option<String>,
    /// Take this long, then go on as otherwise. The client's leaving does not stop what has begun.
    pub latency_ms: u64,
    /// The share of requests that are struck, above 0 and up to 1.
    pub share: f64,
    /// End by itself after this time.
    pub for_seconds: Option<f64>,
    /// The `Retry-After` of the answer. Goes with `status`.
    pub retry_after: Option<u64>,
    /// Do not answer until the fault is over or the client leaves; whoever has waited is then served, and whoever has left
    /// is forgotten without effect.
    pub hang: bool,
    /// Hang no longer than this, then close the connection without effect, as a proxy in between does. Goes with `hang`.
    pub hang_seconds: Option<f64>,
    /// Do everything as it should be done, then close the connection instead of answering.
    pub drop_after_effect: bool,
    /// Do everything as it should be done, then answer with `status` all the same, as a gateway does that has lost
    /// patience. Goes with `status`.
    pub after_effect: bool,
    /// MatchedFault only requests that find so many others under way: with status 429, a limit of simultaneous connections.
    pub beyond: Option<usize>,
    /// MatchedFault only requests whose body contains this text.
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

/// The fault makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidFault {
    /// No error status.
    #[error("status is {0}: it may be 400 to 599")]
    Status(u16),
    /// No share.
    #[error("share is {0}: it may be above 0 and up to 1")]
    Share(f64),
    /// No time.
    #[error("for_seconds is {0}: it may be above 0 and up to a year; leave it out for a fault that lasts until DELETE")]
    ForSeconds(f64),
    /// No time to hang.
    #[error("hang_seconds is {0}: it may be above 0 and up to a year, and goes with hang")]
    HangSeconds(f64),
    /// Beyond a day.
    #[error("latency_ms is {0}: it may be up to a day, 86400000")]
    Latency(u64),
    /// Two ways to answer.
    #[error("status, hang and drop_after_effect exclude each other: give one of them")]
    Contradiction,
    /// No way to answer.
    #[error("name, retry_after and after_effect say what the answer with status is like: give a status, too")]
    WithoutStatus,
    /// The match is empty.
    #[error(
        "match is empty: give the text that a request's body must contain, or leave it out to strike every request"
    )]
    EmptyMatch,
    /// Nothing at all.
    #[error("the fault would do nothing: give status, latency_ms, hang or drop_after_effect")]
    Nothing,
}

impl Fault {
    /// Whether it makes sense.
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

/// A fault that is in force, as `GET /faults/<provider>` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultInForce {
    /// As it was ordered.
    #[serde(flatten)]
    pub fault: Fault,
    /// How many requests it has struck.
    pub struck: u64,
    /// When it ends by itself.
    pub seconds_left: Option<f64>,
}

struct Active {
    fault: Fault,
    until: Option<Instant>,
    over: CancellationToken,
    lots: StdRng,
    struck: u64,
}

/// The faults of one double, none at first. For each request they are asked in order; the first that strikes counts.
#[derive(Default)]
pub(crate) struct Faults {
    active: Locked<Vec<Active>>,
}

/// A request is struck.
#[derive(Debug, Clone)]
pub(crate) struct MatchedFault {
    pub(crate) fault: Fault,
    until: Option<Instant>,
    over: CancellationToken,
}

impl MatchedFault {
    /// Waits as long as a hanging request hangs: whether it is served then.
    pub(crate) async fn hung(&self) -> bool {
        let longest = Duration::from_secs_f64(self.fault.hang_seconds.unwrap_or(LONGEST_SECONDS));
        tokio::time::timeout(longest, self.over()).await.is_ok()
    }

    /// Waits until the fault is over.
    async fn over(&self) {
        match self.until {
            None => self.over.cancelled().await,
            Some(until) => {
                // Timed out or cancelled, it is over.
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
    /// Puts these in force, in place of earlier ones, which are over.
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

    /// The fault that strikes this request, if one does. `others` are under way.
    pub(crate) fn take_match(&self, request: &Request, others: usize, now: Instant) -> Option<MatchedFault> {
        self.active.with(|active| active.iter_mut().find_map(|active| active.take_match(request, others, now)))
    }
}

impl Active {
    /// Requests that do not match draw no lot.
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
