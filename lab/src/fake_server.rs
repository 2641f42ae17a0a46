//! One double at work: the order in which a request meets fault, authentication, limit, validation, idempotency memory
//! and execution, and what of it is recorded. Knows no provider.
//!
//! A fault's status comes from the edge, before anything else is looked at, unless it is one that this provider's
//! idempotency keys would keep: then it is the outcome of an execution, and comes where the execution would have been.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::response::{IntoResponse, Response};
use tokio_util::sync::CancellationToken;
use usher_service::clock;

use crate::answer::{Answer, cut_off};
use crate::double::{Call, Circumstances, Double, Refusal};
use crate::faults::{Fault, Faults, MatchedFault};
use crate::ledger::{Entry, Ledger};
use crate::limits::{Limits, Quota};
use crate::memory::{Claim, Fingerprint, Memory, Ticket};
use crate::request::Request;

/// A double and what is ordered for it.
pub(crate) struct FakeServer {
    pub(crate) double: Box<dyn Double>,
    pub(crate) faults: Faults,
    pub(crate) limits: Limits,
    pub(crate) memory: Arc<Memory>,
    ledger: Arc<Ledger>,
    under_way: Arc<AtomicUsize>,
    stop: CancellationToken,
}

/// Counts a request for as long as it is under way.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What becomes of a request.
enum Verdict {
    Refused(Answer),
    /// The key was answered before. `changes` as in [`Call`].
    Again {
        answer: Answer,
        changes: bool,
    },
    /// It runs, under a key if there is one; or a fault's answer stands for its outcome, or is given in its place.
    Run {
        call: Call,
        ticket: Option<Ticket>,
        override_answer: Option<Override>,
    },
}

/// A fault's answer.
#[derive(Clone)]
struct Override {
    answer: Answer,
    /// Whether everything is done all the same.
    after_effect: bool,
}

impl FakeServer {
    /// A server that remembers up to `keys` idempotency keys.
    pub(crate) fn new(double: Box<dyn Double>, ledger: Arc<Ledger>, keys: usize, stop: CancellationToken) -> Self {
        let (faults, limits, memory) = (Faults::default(), Limits::default(), Arc::new(Memory::of(keys)));
        Self { double, faults, limits, memory, ledger, under_way: Arc::default(), stop }
    }

    /// Requests that have come and are not answered yet.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Answers a request. When the client leaves, this future is dropped: a hanging request then never happened, one
    /// that has got further is carried out all the same, as a real server would.
    pub(crate) async fn answer(self: Arc<Self>, request: Request) -> Response {
        self.decide(request).await.map_or_else(cut_off, IntoResponse::into_response)
    }

    /// The answer to a request; none where the connection is to be cut off override_answer.
    pub(crate) async fn decide(self: Arc<Self>, request: Request) -> Option<Answer> {
        let entry = self.entry(&request);
        let seq = self.ledger.arrived(entry.clone());
        let others = self.under_way.fetch_add(1, Ordering::SeqCst);
        let under_way = UnderWay(self.under_way.clone());
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
            // A client that leaves ends nothing that has begun.
            let _under_way = under_way;
            server.carry_out(request, matched, entry).await
        })
        .await;
        match carried_out {
            Ok((answer, replayed)) if !silent => {
                self.ledger.answered(seq, answer.status.as_u16(), replayed);
                Some(answer)
            }
            // Dropped on purpose, or the double panicked, which to the client is the same.
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

    async fn carry_out(&self, request: Request, matched: Option<MatchedFault>, entry: Entry) -> (Answer, bool) {
        let mut quota = None;
        let verdict = self.judge(&request, matched.as_ref(), &mut quota).unwrap_or_else(Verdict::Refused);
        if let Some(matched) = matched {
            // The key is claimed by now, so a twin that comes during the wait meets a running request. A stop of the
            // lab cuts the wait short.
            self.stop.run_until_cancelled(tokio::time::sleep(matched.latency())).await;
        }
        let (mut answer, replayed) = self.conclude(verdict, entry);
        self.double.finish(&mut answer, Circumstances { replayed, quota });
        (answer, replayed)
    }

    /// An error is a refusal: nothing was executed, nothing is kept.
    fn judge(
        &self,
        request: &Request,
        matched: Option<&MatchedFault>,
        quota: &mut Option<Quota>,
    ) -> Result<Verdict, Answer> {
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
            taken.map_err(|left| self.double.refuse(Refusal::Limited(left)))?;
        }
        let now = clock::now();
        let mut call = self.double.read(request, now)?;
        let Some(key) = call.key.take() else { return Ok(Verdict::Run { call, ticket: None, override_answer }) };
        let text = key.text.clone();
        match self.memory.claim(key, Fingerprint::from(request), now) {
            Claim::First(ticket) => Ok(Verdict::Run { call, ticket: Some(ticket), override_answer }),
            Claim::Again(answer) => Ok(Verdict::Again { answer, changes: call.changes }),
            Claim::Reused => Err(self.double.refuse(Refusal::KeyReused(&text))),
            Claim::InUse => Err(self.double.refuse(Refusal::KeyInUse(&text))),
        }
    }

    /// The answer that a fault with a status gives.
    fn fault(&self, matched: &MatchedFault) -> Option<Override> {
        let Fault { name, retry_after, after_effect, .. } = &matched.fault;
        let status = matched.status()?;
        let answer = self.double.refuse(Refusal::Fault { status, name: name.as_deref(), retry_after: *retry_after });
        Some(Override { answer, after_effect: *after_effect })
    }

    /// Runs what is to run, and records what has changed. Never waits: see [`Call::run`].
    fn conclude(&self, verdict: Verdict, entry: Entry) -> (Answer, bool) {
        let mut told = None;
        let (answer, replayed, changes, ticket) = match verdict {
            Verdict::Refused(answer) => (answer, false, false, None),
            Verdict::Again { answer, changes } => (answer, true, changes, None),
            Verdict::Run { call, ticket, override_answer: Some(Override { answer, after_effect: false }) } => {
                (answer, false, call.changes, ticket)
            }
            Verdict::Run { call, ticket, override_answer } => {
                told = override_answer.map(|override_answer| override_answer.answer);
                ((call.run)(clock::now()), false, call.changes, ticket)
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
        // After the record, so that no twin's replay can stand in it before the first. What the key remembers is what was
        // told where that is an outcome itself; what a gateway tells, the key knows nothing of.
        if let Some(ticket) = ticket {
            ticket.settle(told.as_ref().filter(|told| told.kept).unwrap_or(&answer));
        }
        (told.unwrap_or(answer), replayed)
    }
}
