//! Executes the current step of a run: reads its subject, prepares the request, claims the attempt and calls the
//! destination, in this order, each in its own file. A run that was admitted with its first claim is only called.

mod attempt;
mod call_slots;
mod claim;
mod prepare;
mod request_maker;
mod step_call;
mod wait_time;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

pub(super) use call_slots::CallSlots;
use claim::LEASE;
use futures::FutureExt as _;
pub(super) use request_maker::RequestMaker;
use request_maker::next_step;
use step_call::StepCall;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field};
use usher_connectors::{CallGate, Observed};
use usher_engine::clock::ClockState;
use usher_engine::{AttemptSeen, Cause, NextStep, NotCalled, Outcome, Run, StepReport};
use usher_flows::FlowStep;
use usher_proto::{Epoch, Reason};
use usher_service::{clock, trace};

use super::gathered_read::SubjectReader;
use super::quotas::{self, QuotaError, Quotas};
use super::store_actor::StoreHandle;
use crate::metrics::DispatcherMetrics;

/// State shared by all attempts of a flow.
pub(super) struct StepExecutor {
    pub(super) requests: Arc<RequestMaker>,
    pub(super) subjects: SubjectReader,
    pub(super) quotas: Arc<Quotas>,
    pub(super) slots: CallSlots,
    pub(super) store_handle: StoreHandle,
    pub(super) metrics: DispatcherMetrics,
    pub(super) stop: CancellationToken,
}

/// Early end of a step, with the report to return.
pub(super) struct StepExit(Box<StepReport>);

impl From<StepReport> for StepExit {
    fn from(report: StepReport) -> Self {
        Self(Box::new(report))
    }
}

impl StepExecutor {
    /// Executes the current step of `run`, within a span that names it in every log line. A panic in the step becomes a
    /// retry and affects no other run.
    pub(super) async fn work(&self, run: &Run, epoch: Epoch) -> StepReport {
        let step = async {
            let report = self.step_or_panic(run, epoch).await;
            if let StepReport::HeldBack { held, .. } = &report {
                let flow = self.requests.versions.name();
                self.metrics.steps_skipped.with_label_values(&[flow, held.label()]).inc();
                tracing::info!(why = held.label(), "step skipped: recipient is suppressed or not allowed");
            }
            report
        };
        step.instrument(self.span(run)).await
    }

    /// Returns the span of an execution. It names no person: an event's id is the sender's random one. Its level is
    /// error, because a filter such as `warn` would take a lower span away from the lines that need it. The step's name
    /// is recorded when the version of the flow is known.
    fn span(&self, run: &Run) -> Span {
        let flow = self.requests.versions.name();
        // Signed, because an exporter writes unsigned numbers as text.
        let attempt = i64::from(run.tries.attempts);
        let span = tracing::error_span!("run", flow, event = %run.event.id, step = field::Empty, attempt);
        trace::continue_from(&span, run.event.trace_parent());
        span
    }

    async fn step_or_panic(&self, run: &Run, epoch: Epoch) -> StepReport {
        match AssertUnwindSafe(self.step(run, epoch)).catch_unwind().await {
            Ok(Ok(report)) => report,
            Ok(Err(StepExit(report))) => *report,
            Err(_) => {
                tracing::error!("step panicked");
                let outcome = Outcome::retry(Cause::Panicked);
                StepReport::Attempted { outcome, request: None, step: String::new(), next: NextStep::End, seen: None }
            }
        }
    }

    async fn step(&self, run: &Run, epoch: Epoch) -> Result<StepReport, StepExit> {
        let requests = &*self.requests;
        let flow = requests.flow(run).await?;
        let Some(step) = flow.steps.get(run.step) else {
            return Ok(StepReport::Skipped { step: String::new(), why: NotCalled::NoStep, next: NextStep::End });
        };
        Span::current().record("step", &step.name);
        let attempted = |outcome, request, seen| {
            let (step, next) = (step.name.clone(), next_step(&flow, run));
            StepReport::Attempted { outcome, request, step, next, seen }
        };
        // It is certain that nothing was sent. A report without a request does not count for the destination's health.
        let not_asked = || attempted(Outcome::retry(Cause::Throttled), None, None);
        // First of all, so that nothing that is read and decided grows old while the run waits.
        let _slot = match &run.destination {
            None => None,
            Some(account) => match self.stop.run_until_cancelled(self.slots.take(account)).await {
                Some(slot) => Some(slot),
                None if run.claimed.is_some() => return Ok(not_asked()),
                None => return Err(StepReport::Stopped.into()),
            },
        };
        let (step_call, kept) = match (&run.request, run.claimed) {
            // It was made a moment ago, when the run was admitted.
            (Some(request), Some(claimed)) if clock::since_boot() - claimed < LEASE => {
                (requests.call(&flow, step, run)?, request.clone())
            }
            _ => {
                let subject = requests.ask(|| self.subjects.read(run.event.subject.clone())).await?;
                requests.make(&flow, step, run, subject.as_ref()).await?
            }
        };
        let (_, request) = usher_suppression::kept(&kept);
        let StepCall { account, urgent, .. } = &step_call;
        let part = step_call.connector.sub_account(request).map(|part| quotas::part(account, &part));
        let quota = part.as_deref().unwrap_or(account);
        self.quotas.take(quota, *urgent, &self.stop).await.map_err(|not_now| match not_now {
            QuotaError::Exhausted(until) => StepReport::QuotaExhausted { until, whole: part.is_none() },
            QuotaError::Stopped => StepReport::Stopped,
        })?;
        let (outcome, seen) = match self.claim_and_wait(&step_call, epoch, &kept, quota).await? {
            None => return Ok(not_asked()),
            // The run expired while it waited for its permit; nothing was sent.
            Some(_) if run.expires_at.is_some_and(|expires| clock::now() > expires) => {
                if *requests.clock.borrow() == ClockState::Right {
                    return Err(reject(Reason::Expired, ""));
                }
                return Ok(not_asked());
            }
            Some(_permit) => {
                let gate = CallGate::new(self.quotas.extra_requests(quota, requests.versions.name(), *urgent));
                let (at, begun) = (clock::now(), Instant::now());
                let outcome = self.attempt(&step_call, request, &gate).await;
                let took = begun.elapsed();
                let Observed { headers, answer } = gate.into_observed();
                if let Some(headers) = headers {
                    self.quotas.observe_headers(quota, &headers);
                }
                (outcome, AttemptSeen { at, took, answer })
            }
        };
        Ok(attempted(outcome, Some(kept), Some(seen)))
    }
}

/// Returns the report that rejects a run before its destination was called.
pub(super) fn reject(reason: Reason, error: impl AsRef<str>) -> StepExit {
    let outcome = Outcome::reject(reason, error);
    StepReport::Attempted { outcome, request: None, step: String::new(), next: NextStep::End, seen: None }.into()
}

/// Returns the error of a step, prefixed with the step's name.
pub(super) fn of_step(step: &FlowStep, error: &dyn std::fmt::Display) -> String {
    format!("step {}: {error}", step.name)
}

#[cfg(test)]
mod tests;
