//! Serves one double. Defines the order in which a request meets faults, authentication, rate limit, validation,
//! idempotency keys and execution, and what is recorded. Independent of any provider.
//!
//! A fault with a status is answered first, before any other check, as a gateway would. The exception is a status
//! that this provider's idempotency keys would store: it counts as the outcome of an execution and takes the place
//! of the execution.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;
use usher_service::clock;

use crate::answer::{FakeResponse, cut_off};
use crate::double::{Circumstances, Double, DoubleCall, DoubleRefusal};
use crate::faults::{Fault, Faults, MatchedFault};
use crate::ledger::{Entry, RequestLedger};
use crate::limits::{ProviderLimits, RateWindow};
use crate::memory::{Claim, Fingerprint, IdempotencyKeys, KeyClaim};
use crate::request::Request;

/// A double with its faults, rate limit and idempotency keys.
pub(crate) struct FakeServer {
    pub(crate) double: Box<dyn Double>,
    pub(crate) faults: Faults,
    pub(crate) limits: ProviderLimits,
    pub(crate) memory: Arc<IdempotencyKeys>,
    ledger: Arc<RequestLedger>,
    under_way: Arc<AtomicUsize>,
    stop: CancellationToken,
}

/// Guard that counts a request while it is in flight.
struct RequestInFlight(Arc<AtomicUsize>);

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The decision about a request before it is executed.
enum Verdict {
    Refused(FakeResponse),
    /// The idempotency key has a stored response. `changes` is as in [`DoubleCall`].
    Again {
        answer: FakeResponse,
        changes: bool,
    },
    /// The request runs, under an idempotency key if `key_claim` is given. `override_answer` either takes the place of the
    /// execution or only of its response.
    Run {
        call: DoubleCall,
        key_claim: Option<KeyClaim>,
        override_answer: Option<Override>,
    },
}

/// The response that a fault prescribes.
#[derive(Clone)]
struct Override {
    answer: FakeResponse,
    /// True if the request is executed all the same, and only its response is replaced.
    after_effect: bool,
}

impl FakeServer {
    /// Creates a server that remembers up to `keys` idempotency keys.
    pub(crate) fn new(
        double: Box<dyn Double>,
        ledger: Arc<RequestLedger>,
        keys: usize,
        stop: CancellationToken,
    ) -> Self {
        let faults = Faults::default();
        let limits = ProviderLimits::default();
        let memory = Arc::new(IdempotencyKeys::of(keys));
        Self { double, faults, limits, memory, ledger, under_way: Arc::default(), stop }
    }

    /// Returns the number of requests in flight.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Answers a request. If the client disconnects, this future is dropped: a request that still hangs has no effect;
    /// a request that has started is completed, as on a real server.
    pub(crate) async fn answer(self: Arc<Self>, request: Request) -> Response {
        self.decide(request).await.map_or_else(cut_off, IntoResponse::into_response)
    }

    /// Returns the response to a request. Returns `None` if the connection is to be closed without a response.
    pub(crate) async fn decide(self: Arc<Self>, request: Request) -> Option<FakeResponse> {
        let entry = self.entry(&request);
        let seq = self.ledger.arrived(entry.clone());
        let others = self.under_way.fetch_add(1, Ordering::SeqCst);
        let under_way = RequestInFlight(self.under_way.clone());
        let matched = self.faults.take_match(&request, others, Instant::now());
        if let Some(matched) = matched.as_ref().filter(|matched| matched.fault.hang) {
            tokio::select! {
                served = matched.hung() => if !served { return None },
                () = self.stop.cancelled() => return None,
            }
        }
        let silent = matched.as_ref().is_some_and(|matched| matched.fault.drop_after_effect);
        let server = self.clone();
        let carried_out = tokio::spawn(async move {
            // A separate task, so that a disconnect of the client does not cancel a request that has started.
            let _under_way = under_way;
            server.carry_out(request, matched, entry).await
        })
        .await;
        match carried_out {
            Ok((answer, replayed)) if !silent => {
                self.ledger.answered(seq, answer.status.as_u16(), replayed);
                Some(answer)
            }
            // The connection is dropped on purpose, or the double panicked. The client sees no difference.
            Ok(_) | Err(_) => None,
        }
    }

    fn entry(&self, request: &Request) -> Entry {
        let subject = self.double.describe(request);
        Entry {
            seq: 0,
            at: clock::now(),
            provider: self.double.name(),
            operation: subject
                .operation
                .map_or_else(|| format!("{} {}", request.method, request.path).into(), Into::into),
            idempotency_key: request.idempotency_key().map(Into::into),
            replayed: false,
            status: None,
            user: subject.user,
            to: subject.to,
            body: request.body.clone(),
            result: None,
        }
    }

    async fn carry_out(&self, request: Request, matched: Option<MatchedFault>, entry: Entry) -> (FakeResponse, bool) {
        let mut quota = None;
        let verdict = self.judge(&request, matched.as_ref(), &mut quota).unwrap_or_else(Verdict::Refused);
        if let Some(matched) = matched {
            // The key is claimed before the wait, so that a duplicate that arrives meanwhile meets a request in flight.
            // Stopping the lab ends the wait early.
            self.stop.run_until_cancelled(tokio::time::sleep(matched.latency())).await;
        }
        let (mut answer, replayed) = self.conclude(verdict, entry);
        self.double.finish(&mut answer, Circumstances { replayed, quota });
        (answer, replayed)
    }

    /// Runs all checks up to the execution. An error is a refusal: nothing was executed and nothing is stored.
    fn judge(
        &self,
        request: &Request,
        matched: Option<&MatchedFault>,
        quota: &mut Option<RateWindow>,
    ) -> Result<Verdict, FakeResponse> {
        let override_answer = matched.and_then(|matched| self.fault(matched));
        if let Some(refused) = override_answer
            .as_ref()
            .filter(|override_answer| !override_answer.after_effect && !override_answer.answer.kept)
        {
            return Err(refused.answer.clone());
        }
        self.double.authenticate(&request.headers)?;
        if let Some(taken) = self.limits.take(Instant::now()) {
            let (Ok(left) | Err(left)) = taken;
            *quota = Some(left);
            taken.map_err(|left| self.double.refuse(DoubleRefusal::Limited(left)))?;
        }
        let now = clock::now();
        let mut call = self.double.read(request, now)?;
        let Some(key) = call.key.take() else { return Ok(Verdict::Run { call, key_claim: None, override_answer }) };
        let text = key.text.clone();
        match self.memory.claim(key, Fingerprint::from(request), now) {
            Claim::First(key_claim) => Ok(Verdict::Run { call, key_claim: Some(key_claim), override_answer }),
            Claim::Again(answer) => Ok(Verdict::Again { answer, changes: call.changes }),
            Claim::Reused => Err(self.double.refuse(DoubleRefusal::KeyReused(&text))),
            Claim::InUse => Err(self.double.refuse(DoubleRefusal::KeyInUse(&text))),
        }
    }

    /// Returns the response that a fault prescribes. Returns `None` if the fault has no status.
    fn fault(&self, matched: &MatchedFault) -> Option<Override> {
        let Fault { name, retry_after, after_effect, .. } = &matched.fault;
        let status = matched.status()?;
        let answer =
            self.double.refuse(DoubleRefusal::Fault { status, name: name.as_deref(), retry_after: *retry_after });
        Some(Override { answer, after_effect: *after_effect })
    }

    /// Executes the request if it is to run, and records its effect. It is synchronous: see [`DoubleCall::run`]. The flag is
    /// true if the response is a replay.
    fn conclude(&self, verdict: Verdict, entry: Entry) -> (FakeResponse, bool) {
        let mut told = None;
        let (answer, replayed, changes, key_claim) = match verdict {
            Verdict::Refused(answer) => (answer, false, false, None),
            Verdict::Again { answer, changes } => (answer, true, changes, None),
            Verdict::Run { call, key_claim, override_answer: Some(Override { answer, after_effect: false }) } => {
                (answer, false, call.changes, key_claim)
            }
            Verdict::Run { call, key_claim, override_answer } => {
                told = override_answer.map(|override_answer| override_answer.answer);
                ((call.run)(clock::now()), false, call.changes, key_claim)
            }
        };
        if changes && answer.status.is_success() {
            self.ledger.effect(Entry {
                at: clock::now(),
                replayed,
                status: Some(answer.status.as_u16()),
                result: Some(answer.body.clone()),
                ..entry
            });
        }
        // Settled after the effect is recorded; otherwise a replay to a duplicate request could be recorded first. The
        // key stores the response that was sent if that is an outcome itself. A response of a gateway is not stored.
        if let Some(key_claim) = key_claim {
            key_claim.settle(told.as_ref().filter(|told| told.kept).unwrap_or(&answer));
        }
        (told.unwrap_or(answer), replayed)
    }
}
