//! A step that calls a destination.

use sha2::{Digest as _, Sha256};
use usher_connectors::{Connector, Idempotency, Operation};
use usher_engine::{NextStep, Run};
use usher_flows::{Call, FlowStep};
use usher_proto::{Instance, Source, Timestamp};

use super::claim::LEASE;

/// Longest idempotency key, in characters. Every destination accepts keys of at least this length.
const MAX_IDEMPOTENCY_KEY: usize = 200;

/// A step that calls a destination, with everything that the call needs.
pub(super) struct StepCall<'a> {
    pub(super) run: &'a Run,
    pub(super) call: &'a Call,
    pub(super) step: &'a FlowStep,
    pub(super) next: NextStep,
    pub(super) connector: &'a dyn Connector,
    /// `None` if this version of Usher does not have the operation any more; the connector then reports it.
    pub(super) operation: Option<&'static Operation>,
    /// The account that is called.
    pub(super) account: String,
    pub(super) urgent: bool,
    pub(super) key: String,
}

impl StepCall<'_> {
    /// Returns the time until which an attempt that is claimed now, with this request in its stored form, may be in flight. A
    /// destination that recognises a repeated request may receive it from two owners at once, so nobody has to wait.
    pub(super) fn claimed_until(&self, kept: &[u8], now: Timestamp) -> Option<Timestamp> {
        let (_, request) = usher_suppression::kept(kept);
        match self.connector.idempotency_of(request) {
            Idempotency::Natural | Idempotency::KeyFor(_) => None,
            Idempotency::None => Some(now.plus(LEASE + self.call.timeout)),
        }
    }

    /// Returns the names of the parameters that are addresses of people.
    pub(super) fn writes_to(&self) -> &'static [&'static str] {
        self.operation.map_or(&[], |operation| operation.writes_to)
    }
}

/// Returns the idempotency key: it is the same for all attempts of one step of one run that must have one effect
/// between them. It holds no personal data: an event's id is the sender's random one.
pub(super) fn idempotency_key(flow: &str, step: &str, run: &Run) -> String {
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
