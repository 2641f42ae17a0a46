//! The events of a world: who, what it does, and what is wrong with it.

use bytes::Bytes;
use usher_proto::{Event, EventId, Key, Source, Timestamp};

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
pub(super) fn event_number(id: &EventId) -> usize {
    number(id.as_str())
}

/// Which user has this key.
pub(super) fn user_number(key: &Key) -> usize {
    number(key.as_str())
}

/// The key of a user.
pub(super) fn key(user: u32) -> Key {
    Key::new(format!("u{user}"))
}

/// The event with this number.
pub(super) fn event(number: usize, of: &Happening, body: &Bytes) -> Event {
    Event {
        id: EventId::new(format!("e{number}")),
        kind: String::new(),
        source: Source::Clerk,
        instance: String::new(),
        key: key(of.user),
        occurred_at: Timestamp::from_millis(of.at),
        received_at: Timestamp::from_millis(of.at),
        provenance: Vec::new(),
        body: body.clone(),
    }
}
