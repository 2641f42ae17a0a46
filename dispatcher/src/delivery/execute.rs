//! Executes the current step of a run: reads its subject, prepares the request, claims the attempt and calls the
//! destination, in this order, each in its own file.

mod attempt;
mod claim;
mod prepare;

use std::borrow::Borrow;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field};
use usher_connectors::{CallGate, Connector, Connectors, Operation};
use usher_engine::clock::ClockState;
use usher_engine::{Cause, NextStep, Outcome, Run, StepReport, account};
use usher_flows::{Action, Call, Context, Flow, FlowStep};
use usher_proto::{Epoch, Instance, Reason, Source, Subject, Timestamp};
use usher_service::retry::{Backoff, Jitter, RetryLimit, retry};
use usher_service::{clock, trace};
use usher_sql::Outage;
use usher_store::{StoreError, SubjectStore};
use usher_suppression::SuppressionPolicy;

use super::quotas::{self, QuotaError, Quotas};
use super::store_actor::StoreHandle;
use super::subject_reader::SubjectReader;
use super::versions::Versions;
use crate::metrics::DispatcherMetrics;

/// Longest idempotency key, in characters. Every destination accepts keys of at least this length.
const MAX_IDEMPOTENCY_KEY: usize = 200;
/// Longest first pause before the store is retried.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// State shared by all attempts of a flow.
pub(super) struct StepExecutor {
    pub(super) versions: Versions,
    pub(super) people: Arc<dyn SubjectStore>,
    pub(super) subjects: SubjectReader,
    pub(super) connectors: Arc<Connectors>,
    pub(super) quotas: Arc<Quotas>,
    pub(super) suppression: Arc<SuppressionPolicy>,
    pub(super) store_handle: StoreHandle,
    pub(super) metrics: DispatcherMetrics,
    pub(super) clock: watch::Receiver<ClockState>,
    pub(super) outage: Outage,
    pub(super) stop: CancellationToken,
}

/// Early end of a step, with the report to return.
pub(super) struct StepExit(Box<StepReport>);

impl From<StepReport> for StepExit {
    fn from(report: StepReport) -> Self {
        Self(Box::new(report))
    }
}

/// A step that calls a destination, with everything that the call needs.
pub(super) struct StepCall<'a> {
    pub(super) run: &'a Run,
    pub(super) call: &'a Call,
    pub(super) step: &'a FlowStep,
    pub(super) next: &'a NextStep,
    pub(super) connector: &'a dyn Connector,
    /// `None` if this version of Usher does not have the operation any more; the connector then reports it.
    pub(super) operation: Option<&'static Operation>,
    urgent: bool,
    key: String,
}

impl StepCall<'_> {
    /// Returns the names of the parameters that are addresses of people.
    pub(super) fn writes_to(&self) -> &'static [&'static str] {
        self.operation.map_or(&[], |operation| operation.writes_to)
    }
}

impl StepExecutor {
    /// Executes the current step of `run`, within a span that names it in every log line. A panic in the step becomes a
    /// retry and affects no other run.
    pub(super) async fn work(&self, run: &Run, epoch: Epoch) -> StepReport {
        self.step_or_panic(run, epoch).instrument(self.span(run)).await
    }

    /// Returns the span of an execution. It names no person: an event's id is the sender's random one. Its level is
    /// error, because a filter such as `warn` would take a lower span away from the lines that need it. The step's name
    /// is recorded when the version of the flow is known.
    fn span(&self, run: &Run) -> Span {
        let flow = self.versions.name();
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
                StepReport::Attempted { outcome, request: None, step: String::new(), next: NextStep::End }
            }
        }
    }

    async fn step(&self, run: &Run, epoch: Epoch) -> Result<StepReport, StepExit> {
        let version = self.ask(|| self.versions.get(&run.flow_version)).await?;
        let Some(flow) = version else {
            return Err(reject(Reason::FlowChanged, "its version of the flow cannot be read any more"));
        };
        let Some(step) = flow.steps.get(run.step) else { return Ok(StepReport::Skipped(NextStep::End)) };
        Span::current().record("step", &step.name);
        let next = if run.step + 1 == flow.steps.len() {
            NextStep::End
        } else {
            NextStep::Step(destination(&flow, run.step + 1, run))
        };

        let subject = self.ask(|| self.subjects.read(run.event.subject.clone())).await?;
        let about_deletion = run.event.kind == "user.deleted";
        if subject.as_ref().is_some_and(|subject| subject.deleted) && !about_deletion && !step.for_deleted() {
            let rest = flow.goes_on_deleted(run.step);
            return Ok(if rest { StepReport::Skipped(next) } else { StepReport::Superseded });
        }
        let mut context = Context::new(&flow, run, subject.as_ref())
            .map_err(|_| reject(Reason::Malformed, "the body cannot be read"))?;
        if let Some(former) = run.left_address()
            && self.ask(|| self.people.is_used(&run.event.subject, former)).await?
        {
            context.set_address_still_used();
        }
        let now = clock::now();
        // A wait ends only by a clock that is proven right.
        let is_over = *self.clock.borrow() == ClockState::Right && run.wait_until.is_some_and(|until| now >= until);
        if run.request.is_none()
            && let Some(report) = early_report(&flow, run, &next, &context, subject.as_ref(), now, is_over)
                .map_err(|error| reject(Reason::Template, of_step(step, &error)))?
        {
            return Ok(report);
        }
        let Action::Call(call) = &step.action else { return Ok(StepReport::Skipped(next)) };
        let account = account(&call.connector, run.event.instance());
        let Some(connector) = self.connectors.get(&account) else {
            return Err(reject(Reason::Configuration, "its connector is not open"));
        };
        let key = idempotency_key(self.versions.name(), &step.name, run);
        let operation = usher_connectors::operation(&call.connector, &call.operation);
        let connector = &**connector;
        let account = account.as_str();
        let urgent = flow.urgent;
        let step_call = StepCall { run, call, step, next: &next, connector, operation, urgent, key };
        let kept = self.request(&flow, &step_call, context).await?;
        let (_, request) = usher_suppression::kept(&kept);
        let part = connector.sub_account(request).map(|part| quotas::part(account, &part));
        let quota = part.as_deref().unwrap_or(account);
        self.quotas.take(quota, urgent, &self.stop).await.map_err(|not_now| match not_now {
            QuotaError::Exhausted(until) => StepReport::QuotaExhausted { until, whole: part.is_none() },
            QuotaError::Stopped => StepReport::Stopped,
        })?;
        // It is certain that nothing was sent. A report without a request does not count for the destination's health.
        let outcome = Outcome::retry(Cause::Throttled);
        let not_asked = StepReport::Attempted { outcome, request: None, step: step.name.clone(), next: next.clone() };
        let outcome = match self.claim_and_wait(&step_call, epoch, &kept, quota).await? {
            None => return Ok(not_asked),
            // The run expired while it waited for its permit; nothing was sent.
            Some(_) if run.expires_at.is_some_and(|expires| clock::now() > expires) => {
                if *self.clock.borrow() == ClockState::Right {
                    return Err(reject(Reason::Expired, ""));
                }
                return Ok(not_asked);
            }
            Some(_permit) => {
                let gate = CallGate::new(self.quotas.extra_requests(quota, self.versions.name(), urgent));
                let outcome = self.attempt(&step_call, request, &gate).await;
                if let Some(headers) = gate.into_observed() {
                    self.quotas.observe_headers(quota, &headers);
                }
                outcome
            }
        };
        Ok(StepReport::Attempted { outcome, request: Some(kept), step: step.name.clone(), next })
    }

    /// Retries `ask` until the store answers. An outage of the store is not the run's fault and uses up none of its
    /// attempts.
    pub(super) async fn ask<T, E: Borrow<StoreError>, F: Future<Output = Result<T, E>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, StepExit> {
        let attempt = || async {
            match ask().await {
                Ok(answer) => ControlFlow::Break(answer),
                Err(error) => {
                    let error: &StoreError = error.borrow();
                    self.outage.record_failure(error.fault(), &error.to_string()).await;
                    ControlFlow::Continue(())
                }
            }
        };
        let backoff = Backoff { first: ASK_AGAIN, max: 4 * ASK_AGAIN, jitter: Jitter::Equal };
        retry(backoff, RetryLimit::Stop(&self.stop), attempt).await.map_err(|()| StepReport::Stopped.into())
    }
}

/// Returns the account that a step of this run calls; `None` if the step calls no destination.
fn destination(flow: &Flow, step: usize, run: &Run) -> Option<String> {
    flow.connector(step).map(|connector| account(connector, run.event.instance()))
}

/// Returns the report that rejects a run before its destination was called.
pub(super) fn reject(reason: Reason, error: impl AsRef<str>) -> StepExit {
    let outcome = Outcome::reject(reason, error);
    StepReport::Attempted { outcome, request: None, step: String::new(), next: NextStep::End }.into()
}

/// Returns the error of a step, prefixed with the step's name.
pub(super) fn of_step(step: &FlowStep, error: &dyn std::fmt::Display) -> String {
    format!("step {}: {error}", step.name)
}

/// Returns the report of a step that is not to be called now, because it does not apply or has to wait. `is_over` is
/// true if the run's wait has ended.
fn early_report(
    flow: &Flow,
    run: &Run,
    next: &NextStep,
    context: &Context,
    subject: Option<&Subject>,
    now: Timestamp,
    is_over: bool,
) -> Result<Option<StepReport>, usher_flows::Unrenderable> {
    let Some(step) = flow.steps.get(run.step) else { return Ok(None) };
    if run.step == 0 && !flow.wants(context)? {
        // The filter could not be evaluated when the event arrived, or the operator who redrives the run has changed
        // it.
        return Ok(Some(StepReport::NothingToDo));
    }
    if let Some(when) = &step.when
        && !usher_flows::evaluate(when, context)?.is_some_and(|value| value.is_true())
    {
        return Ok(Some(StepReport::Skipped(next.clone())));
    }
    match &step.action {
        Action::Wait(_) if is_over => Ok(Some(StepReport::Skipped(next.clone()))),
        Action::Wait(pause) => {
            let until = run.wait_until.unwrap_or_else(|| now.plus(*pause));
            Ok(Some(StepReport::Wait { until, news_after: None }))
        }
        Action::Call(Call { needs: Some(needs), .. }) => {
            if usher_flows::evaluate(&needs.value, context)?.is_some() {
                return Ok(None);
            }
            if is_over {
                return Ok(Some(StepReport::NothingToDo));
            }
            let until = run.wait_until.unwrap_or_else(|| now.plus(needs.within));
            let news_after = Some(subject.map_or(0, |subject| subject.revision));
            Ok(Some(StepReport::Wait { until, news_after }))
        }
        Action::Call(Call { needs: None, .. }) => Ok(None),
    }
}

/// Returns the idempotency key: it is the same for all attempts of one step of one run that must have one effect
/// between them. It holds no personal data: an event's id is the sender's random one.
fn idempotency_key(flow: &str, step: &str, run: &Run) -> String {
    let again = if run.rerun == 0 { String::new() } else { format!("{}.", run.rerun) };
    // Two events may share an id, at two senders or at two instances of one sender, and both may use the same account
    // of a destination. A key that is unique by itself keeps its original form.
    let plain = run.event.source == Source::Clerk && run.event.instance() == Instance::DEFAULT;
    let event = if plain { run.event.id.to_string() } else { run.event.reference().to_string() };
    let key = format!("usher/{flow}/{step}/{event}/{again}{}", run.tries.generation);
    if key.len() <= MAX_IDEMPOTENCY_KEY && key.is_ascii() {
        return key;
    }
    format!("usher/{}", hex::encode(Sha256::digest(key.as_bytes())))
}

#[cfg(test)]
mod tests;
