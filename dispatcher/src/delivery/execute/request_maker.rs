//! Makes requests of steps: from the run, the newest state of its subject, and the rules about recipients. Nothing here
//! depends on a claim, so the first request of a run can be made before the run is admitted.

use std::borrow::Borrow;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use usher_connectors::Connectors;
use usher_engine::arrival::FirstClaim;
use usher_engine::clock::ClockState;
use usher_engine::{NextStep, NotCalled, Run, StepReport, account};
use usher_flows::{Action, Call, Context, Flow, FlowStep};
use usher_proto::{Reason, Subject};
use usher_service::clock;
use usher_service::retry::{Backoff, Jitter, RetryLimit, retry};
use usher_sql::Outage;
use usher_store::{FirstClaims, StoreError, SubjectStore};
use usher_suppression::SuppressionPolicy;

use super::step_call::{StepCall, idempotency_key};
use super::wait_time::WaitTime;
use super::{StepExit, of_step, reject};
use crate::delivery::gathered_read::SuppressionReader;
use crate::delivery::versions::Versions;

/// Longest first pause before the store is retried.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Makes the requests of a flow.
pub(in crate::delivery) struct RequestMaker {
    pub(in crate::delivery) versions: Versions,
    pub(in crate::delivery) people: Arc<dyn SubjectStore>,
    pub(in crate::delivery) suppressions: SuppressionReader,
    pub(in crate::delivery) connectors: Arc<Connectors>,
    pub(in crate::delivery) suppression: Arc<SuppressionPolicy>,
    pub(in crate::delivery) clock: watch::Receiver<ClockState>,
    /// The number of times as fast at which waits pass, from 1.
    pub(in crate::delivery) wait_speed: u32,
    pub(in crate::delivery) outage: Outage,
    pub(in crate::delivery) stop: CancellationToken,
}

impl RequestMaker {
    /// Returns the version of the flow with which a run began.
    pub(super) async fn flow(&self, run: &Run) -> Result<Arc<Flow>, StepExit> {
        let version = self.ask(|| self.versions.get(&run.flow_version)).await?;
        version.ok_or_else(|| reject(Reason::FlowChanged, "its version of the flow cannot be read any more"))
    }

    /// Returns the call of the run's present step with its request in its stored form, or the report of a step that calls
    /// nothing now.
    pub(super) async fn make<'a>(
        &'a self,
        flow: &'a Flow,
        step: &'a FlowStep,
        run: &'a Run,
        subject: Option<&Subject>,
    ) -> Result<(StepCall<'a>, Vec<u8>), StepExit> {
        let next = next_step(flow, run);
        let about_deletion = run.event.kind == "user.deleted";
        if subject.is_some_and(|subject| subject.deleted) && !about_deletion && !step.for_deleted() {
            let rest = flow.goes_on_deleted(run.step);
            return Err(if rest { skipped(step, NotCalled::Deleted, &next) } else { StepReport::Superseded }.into());
        }
        let mut context =
            Context::new(flow, run, subject).map_err(|_| reject(Reason::Malformed, "the body cannot be read"))?;
        if let Some(former) = run.left_address()
            && self.ask(|| self.people.is_used(&run.event.subject, former)).await?
        {
            context.set_address_still_used();
        }
        let is_right = *self.clock.borrow() == ClockState::Right;
        let time = WaitTime { now: clock::now(), is_right, speed: self.wait_speed };
        if run.request.is_none()
            && let Some(report) = early_report(flow, run, &next, &context, subject, time)
                .map_err(|error| reject(Reason::Template, of_step(step, &error)))?
        {
            return Err(report.into());
        }
        let step_call = self.call(flow, step, run)?;
        let known = subject.and_then(|subject| subject.snapshot.as_deref());
        let request = self.request(flow, &step_call, context, known).await?;
        Ok((step_call, request))
    }

    /// Returns the call of the run's present step.
    pub(super) fn call<'a>(
        &'a self,
        flow: &'a Flow,
        step: &'a FlowStep,
        run: &'a Run,
    ) -> Result<StepCall<'a>, StepExit> {
        let next = next_step(flow, run);
        let Action::Call(call) = &step.action else {
            return Err(skipped(step, NotCalled::NoStep, &next).into());
        };
        let account = account(&call.connector, run.event.instance());
        let Some(connector) = self.connectors.get(&account) else {
            // A request that may have been sent is not given up silently.
            if call.optional && run.request.is_none() {
                return Err(skipped(step, NotCalled::NotConfigured, &next).into());
            }
            return Err(reject(Reason::Configuration, "its connector is not open"));
        };
        // A flow may have been renamed since the run began. Its keys stay what they were.
        let key = idempotency_key(&flow.name, &step.name, run);
        let operation = usher_connectors::operation(&call.connector, &call.operation);
        let connector = &**connector;
        Ok(StepCall { run, call, step, next, connector, account, operation, urgent: flow.urgent, key })
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

    async fn made_first(&self, run: &Run, subject: Option<&Subject>) -> Option<FirstClaim> {
        let since_boot = clock::since_boot();
        let at = clock::now();
        let flow = self.versions.known(&run.flow_version);
        let step = flow.steps.first().filter(|_| flow.version == run.flow_version)?;
        if run.left_address().is_some() {
            // Until the event is admitted, the store believes that its subject still has that address.
            return None;
        }
        // Whatever keeps the step from being called is found again when the run has been admitted.
        let (step_call, request) = self.make(&flow, step, run, subject).await.ok()?;
        let until = step_call.claimed_until(&request, at);
        Some(FirstClaim { request, at, until, since_boot })
    }
}

#[async_trait]
impl FirstClaims for RequestMaker {
    async fn first_claim(&self, run: &Run, subject: Option<&Subject>) -> Option<FirstClaim> {
        // A step that panics does so again when it is executed, and is counted there.
        AssertUnwindSafe(self.made_first(run, subject)).catch_unwind().await.ok().flatten()
    }
}

/// Returns the continuation after the run's present step.
pub(super) fn next_step(flow: &Flow, run: &Run) -> NextStep {
    if run.step + 1 == flow.steps.len() { NextStep::End } else { NextStep::Step(destination(flow, run.step + 1, run)) }
}

/// Returns the account that a step of this run calls; `None` if the step calls no destination.
fn destination(flow: &Flow, step: usize, run: &Run) -> Option<String> {
    flow.connector(step).map(|connector| account(connector, run.event.instance()))
}

pub(super) fn skipped(step: &FlowStep, why: NotCalled, next: &NextStep) -> StepReport {
    StepReport::Skipped { step: step.name.clone(), why, next: next.clone() }
}

/// Returns the report of a step that is not to be called now, because it does not apply or has to wait.
fn early_report(
    flow: &Flow,
    run: &Run,
    next: &NextStep,
    context: &Context,
    subject: Option<&Subject>,
    time: WaitTime,
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
        return Ok(Some(skipped(step, NotCalled::Condition, next)));
    }
    let is_over = run.wait_until.is_some_and(|until| time.is_past(until));
    match &step.action {
        Action::Wait(wait) => {
            let until = match run.wait_until {
                Some(until) => until,
                None => time.end(wait, context)?,
            };
            // A wait whose end is past when its step is reached is over at once.
            Ok(Some(if time.is_past(until) {
                skipped(step, NotCalled::WaitOver, next)
            } else {
                StepReport::Wait { until, news_after: None }
            }))
        }
        Action::Call(Call { needs: Some(needs), .. }) => {
            if usher_flows::evaluate(&needs.value, context)?.is_some() {
                return Ok(None);
            }
            if is_over {
                return Ok(Some(StepReport::NothingToDo));
            }
            let until = run.wait_until.unwrap_or_else(|| time.after(needs.within));
            let news_after = Some(subject.map_or(0, |subject| subject.revision));
            Ok(Some(StepReport::Wait { until, news_after }))
        }
        Action::Call(Call { needs: None, .. }) => Ok(None),
    }
}
