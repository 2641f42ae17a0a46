//! Working on a run's present step: look at its subject, render, claim, ask the destination.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use usher_proto::{Reason, Timestamp};
use usher_service::clock;

use super::scribe::{Scribe, Stopped};
use super::versions::Versions;
use crate::connectors::{ATTEMPT_DEADLINE, Connectors, Inputs};
use crate::engine::{Cause, Outcome, Report, Run};
use crate::flows::{self, Action, Call, Context, Flow, FlowStep};
use crate::metrics::Metrics;
use crate::store::{Change, ChangeKind, Changed, Store, StoreError};
use crate::subject::Subject;

/// Destinations take keys of at least this many characters.
const MAX_IDEMPOTENCY_KEY: usize = 200;
/// The pause before the store is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What all attempts of a flow share.
pub(super) struct Workshop {
    pub(super) versions: Versions,
    pub(super) store: Arc<dyn Store>,
    pub(super) connectors: Arc<Connectors>,
    pub(super) scribe: Scribe,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
}

/// There is nothing to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// Somebody else has taken the run's partition over.
    Fenced,
    /// The process stops.
    Stopped,
}

/// How work ends early: with a report, or with nothing.
enum Early {
    Report(Report),
    Gone(Gone),
}

impl From<Gone> for Early {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl Workshop {
    /// Works on the present step of `run`. A panic on the way is a retry and harms nobody else.
    pub(super) async fn work(&self, run: &Run, epoch: i64) -> Result<Report, Gone> {
        match AssertUnwindSafe(self.step(run, epoch)).catch_unwind().await {
            Ok(Ok(report) | Err(Early::Report(report))) => Ok(report),
            Ok(Err(Early::Gone(gone))) => Err(gone),
            Err(_) => {
                tracing::error!(flow = self.versions.name(), event = %run.event.id, "a step panicked");
                Ok(attempted(Outcome::retry(Cause::Panicked), run.request.clone(), false))
            }
        }
    }

    async fn step(&self, run: &Run, epoch: i64) -> Result<Report, Early> {
        let version = self.ask(|| self.versions.get(&run.flow_version)).await?;
        let Some(flow) = version else {
            return Err(reject(Reason::FlowChanged, "its version of the flow cannot be read any more"));
        };
        let Some(step) = flow.steps.get(run.step) else { return Ok(Report::Skipped { last: true }) };
        let last = run.step + 1 == flow.steps.len();

        let subject = self.ask(|| self.store.subject(&run.event.key)).await?;
        let about_deletion = run.event.kind == "user.deleted";
        if subject.as_ref().is_some_and(|subject| subject.deleted) && !about_deletion {
            return Ok(Report::Superseded);
        }
        let context = Context::new(&flow, run, subject.as_ref())
            .map_err(|_| reject(Reason::Malformed, "the body cannot be read"))?;
        if run.request.is_none()
            && let Some(report) = not_yet(run, step, last, &context, subject.as_ref(), clock::now())
                .map_err(|error| reject(Reason::Template, error.to_string()))?
        {
            return Ok(report);
        }
        let Action::Call(call) = &step.action else { return Ok(Report::Skipped { last }) };
        let request = match &run.request {
            // Its outcome is not known, so it is this request and no other.
            Some(request) => request.clone(),
            None => self.prepare(&flow, call, run, &context)?,
        };
        self.claim(run, epoch, &request).await?;
        let outcome = self.attempt(call, step, run, &request).await;
        Ok(attempted(outcome, Some(request), last))
    }

    /// Asks the store until it answers: its absence is no fault of a run and spends none of its attempts.
    pub(super) async fn ask<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, Gone> {
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::warn!(flow = self.versions.name(), %error, "the store does not answer; asking again")
                }
            }
            if self.stop.run_until_cancelled(tokio::time::sleep(ASK_AGAIN)).await.is_none() {
                return Err(Gone::Stopped);
            }
        }
    }

    fn prepare(&self, flow: &Flow, call: &Call, run: &Run, context: &Context) -> Result<Vec<u8>, Early> {
        let cannot = |error: &dyn std::fmt::Display| reject(Reason::Template, error.to_string());
        let params = flows::render(flow, call, context).map_err(|error| cannot(&error))?;
        let connector = self.connectors.get(&call.connector).ok_or_else(|| cannot(&"its connector is not open"))?;
        let inputs =
            Inputs { operation: &call.operation, params: &params, event: &run.event, data: context.event_data() };
        connector.prepare(&inputs).map_err(|error| cannot(&error))
    }

    async fn claim(&self, run: &Run, epoch: i64, request: &[u8]) -> Result<(), Early> {
        let kind = ChangeKind::Claim {
            attempts: run.attempts,
            generation: run.generation,
            request: request.to_vec(),
            until: clock::now().plus(ATTEMPT_DEADLINE),
        };
        let change = Change { event: run.event.id.clone(), partition: run.partition, epoch, kind };
        match self.scribe.change(change).await {
            Ok(Changed::Written | Changed::Awake) => Ok(()),
            Ok(Changed::Ended) => Err(Early::Report(Report::Ended)),
            Ok(Changed::Fenced) => Err(Gone::Fenced.into()),
            Err(Stopped) => Err(Gone::Stopped.into()),
        }
    }

    async fn attempt(&self, call: &Call, step: &FlowStep, run: &Run, request: &[u8]) -> Outcome {
        let key = idempotency_key(self.versions.name(), &step.name, run);
        let Some(connector) = self.connectors.get(&call.connector) else {
            return Outcome::reject(Reason::Configuration, "the connector is gone");
        };
        let begun = Instant::now();
        let attempt = AssertUnwindSafe(connector.attempt(request, &key)).catch_unwind();
        let outcome = match tokio::time::timeout(ATTEMPT_DEADLINE, attempt).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::retry(Cause::Panicked),
            Err(_) => Outcome::retry(Cause::Timeout),
        };

        let (flow, connector) = (self.versions.name(), call.connector.as_str());
        let label = match &outcome {
            Outcome::Done(_) => "done",
            Outcome::Overtaken => "overtaken",
            Outcome::Retry { cause, .. } => cause.label(),
            Outcome::Reject { reason, .. } => reason.label(),
        };
        self.metrics.attempts.with_label_values(&[flow, connector, label]).inc();
        self.metrics.attempt_seconds.with_label_values(&[flow, connector]).observe(begun.elapsed().as_secs_f64());
        if matches!(outcome, Outcome::Done(_)) {
            let seconds = clock::now().since(run.event.received_at).as_secs_f64();
            self.metrics.effect_seconds.with_label_values(&[flow]).observe(seconds);
        } else {
            tracing::info!(flow, connector, event = %run.event.id, attempts = run.attempts, outcome = label, "attempt");
        }
        outcome
    }
}

const fn attempted(outcome: Outcome, request: Option<Vec<u8>>, last: bool) -> Report {
    Report::Attempted { outcome, request, last }
}

fn reject(reason: Reason, error: impl Into<String>) -> Early {
    Early::Report(attempted(Outcome::reject(reason, error), None, false))
}

/// Whether something comes before the step's call: it does not apply, or it has to wait.
fn not_yet(
    run: &Run,
    step: &FlowStep,
    last: bool,
    context: &Context,
    subject: Option<&Subject>,
    now: Timestamp,
) -> Result<Option<Report>, flows::Unrenderable> {
    if let Some(when) = &step.when
        && !flows::evaluate(when, context)?.is_some_and(|value| value.is_true())
    {
        return Ok(Some(Report::Skipped { last }));
    }
    let over = run.wait_until.is_some_and(|until| now >= until);
    match &step.action {
        Action::Wait(_) if over => Ok(Some(Report::Skipped { last })),
        Action::Wait(pause) => {
            let until = run.wait_until.unwrap_or_else(|| now.plus(*pause));
            Ok(Some(Report::Wait { until, news_after: None }))
        }
        Action::Call(Call { needs: Some(needs), .. }) => {
            if flows::evaluate(&needs.value, context)?.is_some() {
                return Ok(None);
            }
            if over {
                return Ok(Some(Report::NothingToDo));
            }
            let until = run.wait_until.unwrap_or_else(|| now.plus(needs.within));
            let news_after = Some(subject.map_or(0, |subject| subject.revision));
            Ok(Some(Report::Wait { until, news_after }))
        }
        Action::Call(Call { needs: None, .. }) => Ok(None),
    }
}

/// The same for every attempt of one step of one run that must have one effect between them. Holds no personal data: an
/// event's id is the sender's random one.
fn idempotency_key(flow: &str, step: &str, run: &Run) -> String {
    let key = format!("usher/{flow}/{step}/{}/{}", run.event.id, run.generation);
    if key.len() <= MAX_IDEMPOTENCY_KEY && key.is_ascii() {
        return key;
    }
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().fold(String::from("usher/"), |text, byte| format!("{text}{byte:02x}"))
}
