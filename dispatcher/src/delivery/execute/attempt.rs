//! The attempt: the call of the destination, or the look-up of what an earlier call has done.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures::FutureExt as _;
use usher_connectors::{CallGate, Idempotency, Lookup};
use usher_engine::{Cause, Outcome};
use usher_flows::OnUnknownOutcome;
use usher_proto::Reason;
use usher_service::clock;

use super::StepExecutor;
use super::step_call::StepCall;

impl StepExecutor {
    /// Makes the attempt: looks up what became of an earlier one if that is unknown, and otherwise sends the request.
    pub(super) async fn attempt(&self, step_call: &StepCall<'_>, request: &[u8], gate: &CallGate) -> Outcome {
        match self.resolve_unknown_outcome(step_call, request, gate).await {
            Some(outcome) => outcome,
            None => self.send(step_call, request, gate).await,
        }
    }

    /// Decides about an earlier attempt whose outcome is unknown and which the destination will not recognise. It is
    /// looked up if the connector can do so; otherwise the flow's `on_unknown_outcome` decides. Returns `None` if the
    /// request may be sent.
    async fn resolve_unknown_outcome(
        &self,
        step_call: &StepCall<'_>,
        request: &[u8],
        gate: &CallGate,
    ) -> Option<Outcome> {
        if step_call.run.request.is_none() || step_call.run.claimed.is_some() {
            return None;
        }
        let recognised = match step_call.connector.idempotency_of(request) {
            Idempotency::Natural => true,
            Idempotency::KeyFor(life) => {
                step_call.run.tries.first_sent_at.is_some_and(|asked| clock::now().since(asked) < life)
            }
            Idempotency::None => false,
        };
        if recognised {
            return None;
        }
        let flow = self.requests.versions.name();
        let connector = step_call.call.connector.as_str();
        let looked_up =
            tokio::time::timeout(step_call.call.timeout, step_call.connector.lookup(request, &step_call.key, gate))
                .await;
        let (outcome, word) = match looked_up {
            Ok(Lookup::Found(effect)) => (Some(Outcome::Done(effect)), "found"),
            Ok(Lookup::Absent) => (None, "absent"),
            Ok(Lookup::Later(outcome)) => (Some(outcome), "later"),
            Err(_) => (Some(Outcome::retry(Cause::Timeout)), "later"),
            Ok(Lookup::Unknown) => match step_call.call.on_unknown_outcome {
                OnUnknownOutcome::Send => (None, "sent"),
                OnUnknownOutcome::DeadLetter => {
                    let error = "an attempt may have taken effect, and the destination cannot say";
                    (Some(Outcome::reject(Reason::InDoubt, error)), "dead_letter")
                }
            },
        };
        self.metrics.unknown_outcomes.with_label_values(&[flow, connector, word]).inc();
        tracing::warn!(connector, resolution = word, "attempt with unknown outcome");
        outcome
    }

    /// Sends the request, and measures the attempt.
    async fn send(&self, step_call: &StepCall<'_>, request: &[u8], gate: &CallGate) -> Outcome {
        let StepCall { run, call, connector, key, .. } = step_call;
        let begun = Instant::now();
        let attempt = AssertUnwindSafe(connector.attempt(request, key, gate)).catch_unwind();
        let outcome = match tokio::time::timeout(call.timeout, attempt).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::retry(Cause::Panicked),
            Err(_) => Outcome::retry(Cause::Timeout),
        };

        let flow = self.requests.versions.name();
        let connector = call.connector.as_str();
        let label = outcome.label();
        self.metrics.attempts.with_label_values(&[flow, connector, label]).inc();
        self.metrics.attempt_seconds.with_label_values(&[flow, connector]).observe(begun.elapsed().as_secs_f64());
        if matches!(outcome, Outcome::Done(_)) {
            let seconds = clock::now().since(run.event.received_at).as_secs_f64();
            self.metrics.effect_seconds.with_label_values(&[flow]).observe(seconds);
        } else {
            tracing::info!(connector, outcome = label, "attempt finished");
        }
        outcome
    }
}
