//! The ledger of a test: the events sent and acknowledged, the runs in the store, and the requests that destinations
//! received. Contains data only; [`crate::checker`] interprets it.

use std::collections::BTreeMap;

use serde_json::Value;
use usher_lab::Entry;

/// One event as recorded by its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentWebhook {
    /// Event id.
    pub event: String,
    /// Id of the user concerned.
    pub key: String,
    /// Event type.
    pub kind: String,
    /// Position among the key's events, from 1.
    pub seq: u64,
    /// Number of times it was posted.
    pub posts: u64,
    /// True if a post of it was answered 204.
    pub acknowledged: bool,
}

/// One run in the store. Times are in ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// Flow of the run.
    pub flow: String,
    /// Id of its event.
    pub event: String,
    /// Id of the user concerned.
    pub key: String,
    /// State of the run as stored, for example `done`.
    pub state: String,
    /// Reason, if the run is dead.
    pub reason: Option<String>,
    /// Time of admission.
    pub admitted_at: i64,
    /// Time of its end. `None` while it is unfinished.
    pub ended_at: Option<i64>,
}

/// One request that reached a destination, or one effect at it. The request itself carries the flow, step and event
/// that caused it. Lists of marks are in the destination's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Flow that caused it.
    pub flow: String,
    /// Step that caused it.
    pub step: String,
    /// Event that caused it.
    pub event: String,
    /// Time of arrival or of the effect, in ms.
    pub at: i64,
    /// Status of the answer. `None` if no answer was sent.
    pub status: Option<u16>,
    /// True if the answer was replayed for a known idempotency key: there was no second effect.
    pub replayed: bool,
}

impl Mark {
    /// Reads a mark from a mail's tags or an object's metadata. Returns `None` if they are missing.
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

/// All records of a test.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Events in the order in which they were first posted.
    pub sent: Vec<SentWebhook>,
    /// Runs in the store.
    pub runs: Vec<RunRow>,
    /// Requests that reached the destinations.
    pub attempts: Vec<Mark>,
    /// Effects at the destinations.
    pub effects: Vec<Mark>,
    /// The users table: the `seq` in each user's row.
    pub rows: BTreeMap<String, u64>,
}

/// Returns the `seq` in a row's `extra`, the JSON of all fields without a column.
pub fn seq_of_row(extra: &str) -> Option<u64> {
    let extra: Value = serde_json::from_str(extra).ok()?;
    extra["public_metadata"]["seq"].as_u64()
}
