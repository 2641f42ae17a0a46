//! The events of a world: who, what it does, and what is wrong with it.

use bytes::Bytes;
use usher_proto::{Event, EventId, EventRef, Instance, Key, Source, SubjectId, Timestamp};

/// What befalls the run of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing of its own.
    Fine,
    /// Its attempts at this step always fail.
    Fails(usize),
    /// Its attempts fail until then.
    FailsUntil(i64),
    /// Its destination refuses this step.
    Rejected(usize),
    /// Its destination holds something newer at this step.
    Overtaken(usize),
    /// Its subject is gone when this step is looked at.
    Superseded(usize),
    /// It cannot be read.
    Malformed,
    /// The store will never take it.
    Unstorable,
    /// The store takes it, and will never take what becomes of it at this step.
    Unwritable(usize),
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happening {
    pub(super) user: u32,
    pub(super) starts: bool,
    pub(super) cancels: bool,
    pub(super) snapshot: bool,
    /// A user who is not to be written to from now on, mostly of another partition.
    pub(super) suppresses: Option<u32>,
    pub(super) fate: Fate,
    /// Steps that do not apply to it, a bit for each.
    pub(super) skips: u8,
    /// The subject's revision that steps need which need one.
    pub(super) needs: i64,
    pub(super) at: i64,
}

/// The number in a name: names are a letter and a number.
fn number(name: &str) -> usize {
    name[1..].bytes().fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

/// Which event has this id.
pub(super) fn event_number(event: &EventRef) -> usize {
    number(event.id())
}

const INSTANCES: [&str; 2] = [Instance::DEFAULT, "staging"];

/// Which user a subject is. Two users have each key, one at each instance.
pub(super) fn user_number(subject: &SubjectId) -> usize {
    user_of_key(subject) + usize::from(subject.instance() != INSTANCES[0])
}

/// The user of the default instance that has the subject's key.
pub(super) fn user_of_key(subject: &SubjectId) -> usize {
    2 * number(subject.key())
}

/// Whom a user's events concern.
pub(super) fn key(user: u32) -> SubjectId {
    let instance = INSTANCES[user as usize % 2].parse().expect("a name");
    SubjectId::new(Source::Clerk, &instance, &Key::new(format!("u{}", user / 2)))
}

/// The reference of the event with this number, of a user.
pub(super) fn reference(number: u32, user: u32) -> EventRef {
    let instance = INSTANCES[user as usize % 2].parse().expect("a name");
    EventRef::new(Source::Clerk, &instance, &EventId::new(format!("e{number}")))
}

/// The event with this number.
pub(super) fn event(number: usize, of: &Happening, body: &Bytes) -> Event {
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
