//! Working on a run's present step: look at its subject, render, claim, ask the destination.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use sha2::{Digest as _, Sha256};
use usher_proto::{Reason, Timestamp};
use usher_service::clock;

use super::scribe::{Scribe, Stopped};
use super::versions::Versions;
use crate::connectors::{ATTEMPT_DEADLINE, Connectors, Inputs};
use crate::engine::{Cause, Outcome, Report, Run};
use crate::flows::{self, Action, Call, Context, Flow, FlowStep};
use crate::metrics::Metrics;
use crate::store::{Change, ChangeKind, Changed, Store, Subject};

/// Destinations take keys of at least this many characters.
const MAX_IDEMPOTENCY_KEY: usize = 200;

/// What all attempts of a flow share.
pub(super) struct Workshop {
    pub(super) versions: Versions,
    pub(super) store: Arc<dyn Store>,
    pub(super) connectors: Arc<Connectors>,
    pub(super) scribe: Scribe,
    pub(super) metrics: Metrics,
}

/// The run is somebody else's now, or the process stops: there is nothing to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

impl From<Stopped> for Gone {
    fn from(Stopped: Stopped) -> Self {
        Self
    }
}

/// How work ends early: with a report, or with nothing.
enum Early {
    Report(Report),
    Gone,
}

impl Workshop {
    /// Works on the present step of `run`. A panic on the way is a retry and harms nobody else.
    pub(super) async fn work(&self, run: &Run, epoch: i64) -> Result<Report, Gone> {
        let worked = AssertUnwindSafe(self.step(run, epoch)).catch_unwind().await;
        match worked {
            Ok(Ok(report) | Err(Early::Report(report))) => Ok(report),
            Ok(Err(Early::Gone)) => Err(Gone),
            Err(_) => {
                tracing::error!(flow = self.versions.name(), event = %run.event.id, "a step panicked");
                // Whether anything was sent is not known; what was claimed before is what must be repeated.
                let request = run.request.clone().unwrap_or_default();
                Ok(attempted(Outcome::retry(Cause::Panicked), request, false))
            }
        }
    }

    async fn step(&self, run: &Run, epoch: i64) -> Result<Report, Early> {
        let reject =
            |reason, error: String| Early::Report(attempted(Outcome::reject(reason, error), Vec::new(), false));
        let away = |error: &dyn std::fmt::Display| {
            tracing::warn!(flow = self.versions.name(), %error, "the store does not answer");
            Early::Report(attempted(Outcome::retry(Cause::Store), Vec::new(), false))
        };
        let version = self.versions.get(&run.flow_version).await.map_err(|error| away(&error))?;
        let Some(flow) = version else {
            return Err(reject(Reason::FlowChanged, "its version of the flow cannot be read any more".into()));
        };
        let Some(step) = flow.steps.get(run.step) else { return Ok(Report::Skipped { last: true }) };
        let last = run.step + 1 == flow.steps.len();

        let subject = self.store.subject(&run.event.key).await.map_err(|error| away(&error))?;
        let about_deletion = run.event.kind == "user.deleted";
        if subject.as_ref().is_some_and(|subject| subject.deleted) && !about_deletion {
            return Ok(Report::Superseded);
        }
        let context = Context::new(&flow, run, subject.as_ref())
            .map_err(|_| reject(Reason::Malformed, "the body cannot be read".into()))?;
        let template = |error: flows::Unrenderable| reject(Reason::Template, error.to_string());
        if run.request.is_none()
            && let Some(report) =
                not_yet(run, step, last, &context, subject.as_ref(), clock::now()).map_err(template)?
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
        Ok(attempted(outcome, request, last))
    }

    fn prepare(&self, flow: &Flow, call: &Call, run: &Run, context: &Context) -> Result<Vec<u8>, Early> {
        let reject =
            |error: String| Early::Report(attempted(Outcome::reject(Reason::Template, error), Vec::new(), false));
        let params = flows::render(flow, call, context).map_err(|error| reject(error.to_string()))?;
        let connector = self.connectors.get(&call.connector);
        let connector = connector.ok_or_else(|| reject(format!("there is no connector {}", call.connector)))?;
        let inputs =
            Inputs { operation: &call.operation, params: &params, event: &run.event, data: context.event_data() };
        connector.prepare(&inputs).map_err(|error| reject(error.to_string()))
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
            Ok(Changed::Fenced) | Err(Stopped) => Err(Early::Gone),
        }
    }

    async fn attempt(&self, call: &Call, step: &FlowStep, run: &Run, request: &[u8]) -> Outcome {
        let key = idempotency_key(self.versions.name(), &step.name, run);
        let Some(connector) = self.connectors.get(&call.connector) else {
            return Outcome::reject(Reason::Configuration, "the connector is gone");
        };
        let begun = Instant::now();
        let outcome = tokio::time::timeout(ATTEMPT_DEADLINE, connector.attempt(request, &key)).await;
        let outcome = outcome.unwrap_or(Outcome::retry(Cause::Timeout));

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

const fn attempted(outcome: Outcome, request: Vec<u8>, last: bool) -> Report {
    Report::Attempted { outcome, request, last }
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
