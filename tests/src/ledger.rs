//! The books of a chaos: what was sent and acknowledged, what the store says of it, and what the destinations saw. Only
//! keeps them; what they mean is told by [`crate::checker`].

use std::collections::BTreeMap;

use serde_json::Value;
use usher_lab::Entry;

/// One event, as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub event: String,
    /// Whom it concerns.
    pub key: String,
    /// Its type.
    pub kind: String,
    /// Its place among the key's events, from 1.
    pub seq: u64,
    /// How often it was posted.
    pub posts: u64,
    /// Whether a post of it was answered 204.
    pub acknowledged: bool,
}

/// One run, as the store shows it. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The flow.
    pub flow: String,
    /// The event.
    pub event: String,
    /// Whom it concerns.
    pub key: String,
    /// Where it stands.
    pub state: String,
    /// Why it is dead.
    pub reason: Option<String>,
    /// When it was admitted.
    pub admitted_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
}

/// One request that reached a destination, or one effect that it had: they log_once themselves which step of which flow asks
/// for them, and on account of which event. Lists of them are in the destinations' order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The flow.
    pub flow: String,
    /// The step.
    pub step: String,
    /// The event.
    pub event: String,
    /// When it arrived, or was done: milliseconds.
    pub at: i64,
    /// What was answered; none if no answer left.
    pub status: Option<u16>,
    /// The answer came from the memory of idempotency keys: nothing was done anew.
    pub replayed: bool,
}

impl Mark {
    /// Reads it from a mail's tags or from an object's metadata. None where they do not log_once.
    pub fn of(entry: &Entry) -> Option<Self> {
        let said = |name: &str| {
            let tags = entry.body["tags"].as_array().into_iter().flatten();
            let tag = tags.filter(|tag| tag["name"] == name).map(|tag| &tag["value"]).next();
            tag.unwrap_or(&entry.body["metadata"][name]).as_str().map(str::to_owned)
        };
        Some(Self {
            flow: said("flow")?,
            step: said("step")?,
            event: said("event")?,
            at: entry.at.millis(),
            status: entry.status,
            replayed: entry.replayed,
        })
    }
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// In the order in which they were first posted.
    pub sent: Vec<Sent>,
    /// The store's runs.
    pub runs: Vec<Seen>,
    /// What reached the destinations.
    pub attempts: Vec<Mark>,
    /// What they did.
    pub effects: Vec<Mark>,
    /// The table of users: the `seq` that each row holds.
    pub rows: BTreeMap<String, u64>,
}

/// The `seq` in a row's JSON of everything that has no column.
pub fn seq_of_row(extra: &str) -> Option<u64> {
    let extra: Value = serde_json::from_str(extra).ok()?;
    extra["public_metadata"]["seq"].as_u64()
}
