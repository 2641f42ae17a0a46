//! The events of a world: the user, the meaning and the fault of each.

use bytes::Bytes;
use usher_proto::suppression::{SuppressionChange, SuppressionKind};
use usher_proto::{AddressDigest, Event, EventId, EventRef, Instance, Key, Source, SubjectId, Timestamp};

/// The fault that affects the run of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// No fault.
    Fine,
    /// Its attempts at this step always fail.
    Fails(usize),
    /// Its attempts fail until this time.
    FailsUntil(i64),
    /// Its destination refuses this step.
    Rejected(usize),
    /// Its destination holds something newer when this step is attempted.
    Overtaken(usize),
    /// Its subject is deleted when this step is examined.
    Superseded(usize),
    /// The event cannot be read.
    Malformed,
    /// The store will never accept the event.
    Unstorable,
    /// The store accepts the event, but never the result of its run at this step.
    Unwritable(usize),
}

/// One event of the world.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventPlan {
    pub(super) user: u32,
    pub(super) starts: bool,
    pub(super) cancels: bool,
    pub(super) snapshot: bool,
    /// The user whom the event suppresses, mostly of another partition; absent if it suppresses none.
    pub(super) suppresses: Option<u32>,
    pub(super) fate: Fate,
    /// Steps that do not apply to it, one bit each.
    pub(super) skips: u8,
    /// The subject's revision that is needed by the steps that need one.
    pub(super) needs: i64,
    pub(super) at: i64,
}

/// Returns the number in a name: names are a letter and a number.
fn number(name: &str) -> usize {
    name[1..].bytes().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

/// Returns the number of the event with this id.
pub(super) fn event_number(event: &EventRef) -> usize {
    number(event.id())
}

const INSTANCES: [&str; 2] = [Instance::DEFAULT, "staging"];

/// Returns the number of the user that is this subject. Each key belongs to two users, one at each instance.
pub(super) fn user_number(subject: &SubjectId) -> usize {
    user_of_key(subject) + usize::from(subject.instance() != INSTANCES[0])
}

/// Returns the number of the user of the default instance with the subject's key.
pub(super) fn user_of_key(subject: &SubjectId) -> usize {
    2 * number(subject.key())
}

/// Returns the subject of a user's events.
pub(super) fn key(user: u32) -> SubjectId {
    let instance = INSTANCES[user as usize % 2].parse().expect("a name");
    SubjectId::new(Source::Clerk, &instance, &Key::new(format!("u{}", user / 2)))
}

/// Returns the reference of a user's event with this number.
pub(super) fn reference(number: u32, user: u32) -> EventRef {
    let instance = INSTANCES[user as usize % 2].parse().expect("a name");
    EventRef::new(Source::Clerk, &instance, &EventId::new(format!("e{number}")))
}

/// Returns the change that suppresses a user.
pub(super) fn suppression(user: u32) -> SuppressionChange {
    SuppressionChange {
        kind: SuppressionKind::Suppressed,
        address: AddressDigest::of(&format!("u{user}@example.test")),
        scope: String::new(),
        reason: String::new(),
        by: String::new(),
        instance: None,
    }
}

/// Returns the event with this number.
pub(super) fn event(number: usize, of: &EventPlan, body: &Bytes) -> Event {
    Event {
        id: EventId::new(format!("e{number}")),
        kind: String::new(),
        source: Source::Clerk,
        subject: key(of.user),
        occurred_at: Timestamp::from_millis(of.at),
        received_at: Timestamp::from_millis(of.at),
        provenance: Vec::new(),
        body: body.clone(),
    }
}
