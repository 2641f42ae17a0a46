//! The gate at which the requests of one call wait for their permits, and where the rate limits of their answers are
//! collected.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use usher_engine::DestinationAnswer;
use usher_quota::RateLimitHeaders;
use usher_service::clock;

/// Rate limiter for the further requests of a call. The first request has the permit of the call itself.
#[async_trait]
pub trait RequestGate: Send + Sync {
    /// Waits for a permit to make one more request now.
    async fn pass(&self);
}

/// One call in progress, as its account's rate limiter sees it. A connector passes it on to every request that it sends.
pub struct CallGate {
    /// Limits the further requests. `None` if nothing does.
    further: Option<Arc<dyn RequestGate>>,
    begun: AtomicBool,
    observed: Mutex<Observed>,
}

/// The facts about a destination that a call has shown.
#[derive(Debug, Default)]
pub struct Observed {
    /// The rate limit headers of the last answer; `None` if there was none.
    pub headers: Option<RateLimitHeaders>,
    /// The last answer that was no success, or the failure to get one; `None` if every request had success.
    pub answer: Option<DestinationAnswer>,
}

impl CallGate {
    /// Returns the gate of a call whose further requests wait at `further`.
    pub fn new(further: Arc<dyn RequestGate>) -> Self {
        Self { further: Some(further), ..Self::open() }
    }

    /// Returns a gate at which nothing waits, for requests outside a call.
    pub fn open() -> Self {
        Self { further: None, begun: AtomicBool::new(false), observed: Mutex::default() }
    }

    /// Waits for a permit, except before the first request.
    pub(crate) async fn pass(&self) {
        if self.begun.swap(true, Ordering::SeqCst)
            && let Some(further) = &self.further
        {
            further.pass().await;
        }
    }

    /// Records the rate limit headers of an answer.
    pub(crate) fn observe(&self, headers: &HeaderMap) {
        let headers = RateLimitHeaders::read(headers, clock::wall());
        self.observed.lock().unwrap_or_else(PoisonError::into_inner).headers = Some(headers);
    }

    /// Records an answer that is no success, for operators.
    pub(crate) fn refused(&self, answer: DestinationAnswer) {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner).answer = Some(answer);
    }

    /// Returns what the call has shown.
    pub fn into_observed(self) -> Observed {
        self.observed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::testing::answer;

    #[derive(Default)]
    struct CountingGate(AtomicUsize);

    #[async_trait]
    impl RequestGate for CountingGate {
        async fn pass(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn every_request_of_a_call_but_the_first_waits_for_a_permit_of_its_own() {
        let passed = Arc::new(CountingGate::default());
        let gate = CallGate::new(passed.clone());
        for _ in 0..3 {
            gate.pass().await;
        }
        CallGate::open().pass().await;
        assert_eq!(passed.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn the_last_answer_of_a_call_is_heard() {
        let gate = CallGate::open();
        for remaining in ["7", "3"] {
            gate.observe(&answer(200, "").with("ratelimit-remaining", remaining).headers);
        }
        gate.refused(DestinationAnswer::new(Some(429), None, None));
        let observed = gate.into_observed();
        assert_eq!(observed.headers.and_then(|headers| headers.remaining), Some(3));
        assert_eq!(observed.answer.and_then(|answer| answer.status), Some(429));
        let nothing = CallGate::open().into_observed();
        assert!(nothing.headers.is_none() && nothing.answer.is_none());
    }
}
