//! The labels of the dispatcher's metrics, with their values.

use usher_engine::{Cause, RunState, SkipReason};
use usher_proto::Reason;
use usher_service::metric::{LabelSpec, LabelValues};

/// Resolutions of an attempt whose predecessor's outcome is unknown.
pub(crate) const RESOLUTIONS: [&str; 5] = ["found", "absent", "later", "sent", "dead_letter"];
/// Kinds of records that the store may refuse.
pub(crate) const KINDS: [&str; 3] = ["admission", "change", "news"];
/// Priorities of calls that wait for a permit.
pub(crate) const PRIORITIES: [&str; 2] = ["urgent", "normal"];

/// A time of a schedule at which the flow fired.
pub(crate) const MADE: &str = "made";
/// A time of a schedule that was missed and skipped.
pub(crate) const SKIPPED_FIRING: &str = "skipped";

pub(super) const FLOW: LabelSpec =
    configured("flow", "the flows' names; for `runs_without_flow`, of the flows without a file");
pub(super) const CONNECTOR: LabelSpec = configured("connector", "the names of the connectors that the flow uses");
pub(super) const ACCOUNT: LabelSpec = configured(
    "account",
    "a connector, with `@` and the sender's instance if that is not the default one, and with `/` and the part of an account \
     that has a quota of its own",
);
pub(super) const OUTCOME: LabelSpec = words("outcome", run_outcomes);
pub(super) const ATTEMPT: LabelSpec = words("outcome", attempt_outcomes);
pub(super) const REASON: LabelSpec = words("reason", reasons);
pub(super) const STATE: LabelSpec = words("state", stored_states);
pub(super) const SKIPPED: LabelSpec = words("reason", skip_reasons);
pub(super) const RESOLUTION: LabelSpec = words("resolution", || RESOLUTIONS.to_vec());
pub(super) const KIND: LabelSpec = words("kind", || KINDS.to_vec());
pub(super) const PRIORITY: LabelSpec = words("priority", || PRIORITIES.to_vec());

pub(super) const FIRING: LabelSpec = words("state", || FIRINGS.to_vec());
/// The two ends of a time of a schedule.
pub(super) const FIRINGS: [&str; 2] = [MADE, SKIPPED_FIRING];

const fn configured(name: &'static str, which: &'static str) -> LabelSpec {
    LabelSpec { name, values: LabelValues::Configured(which) }
}

const fn words(name: &'static str, words: fn() -> Vec<&'static str>) -> LabelSpec {
    LabelSpec { name, values: LabelValues::Words(words) }
}

/// Returns true if runs in this state are counted in the store: all but those that ended well.
pub(crate) fn is_counted(state: RunState) -> bool {
    !state.is_terminal() || state == RunState::Dead
}

pub(super) fn run_outcomes() -> Vec<&'static str> {
    RunState::ALL.into_iter().filter(|state| state.is_terminal()).map(RunState::label).collect()
}

pub(super) fn stored_states() -> Vec<&'static str> {
    RunState::ALL.into_iter().filter(|state| is_counted(*state)).map(RunState::label).collect()
}

pub(super) fn reasons() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.label()).collect()
}

pub(super) fn skip_reasons() -> Vec<&'static str> {
    SkipReason::ALL.into_iter().map(SkipReason::label).collect()
}

pub(super) fn attempt_outcomes() -> Vec<&'static str> {
    let causes = Cause::ALL.into_iter().map(Cause::label);
    ["done", "overtaken"].into_iter().chain(causes).chain(reasons()).collect()
}
