//! The record of what arrived and of what it did, in two lists that only grow until they are forgotten. Locked for as
//! long as it takes to copy pointers, so that reading a long record never holds up a request.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use usher_proto::Timestamp;

use crate::locked::Locked;

/// One request, or one effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Counts up within its list, also over a `DELETE`.
    pub seq: u64,
    /// When the request arrived; when the effect was done.
    pub at: Timestamp,
    /// Whose double it was.
    pub provider: &'static str,
    /// `emails.send`, `customers.create`, …; method and path where the provider has no such operation.
    pub operation: Cow<'static, str>,
    /// The `Idempotency-Key` header.
    pub idempotency_key: Option<String>,
    /// The answer came from memory: nothing was done anew.
    pub replayed: bool,
    /// The answer's status. Of a request: none as long as no answer has left, and for ever if none does. Of an effect:
    /// the status of the answer that was made, whether or not it left.
    pub status: Option<u16>,
    /// The Clerk user whom it concerns.
    pub user: Option<String>,
    /// The addresses it goes to.
    pub to: Option<String>,
    /// What was sent.
    #[serde(serialize_with = "inner")]
    pub body: Arc<Value>,
    /// Of an effect: what was answered.
    #[serde(serialize_with = "inner_if_any", skip_serializing_if = "Option::is_none")]
    pub result: Option<Arc<Value>>,
}

fn inner<S: Serializer>(value: &Arc<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}

fn inner_if_any<S: Serializer>(value: &Option<Arc<Value>>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_deref().serialize(serializer)
}

/// Which entries are asked for. All of them by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Of this double.
    pub provider: Option<String>,
    /// With this idempotency key.
    pub key: Option<String>,
    /// After this `seq`.
    pub since: Option<u64>,
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        self.provider.as_ref().is_none_or(|provider| entry.provider == provider)
            && self.key.as_ref().is_none_or(|key| entry.idempotency_key.as_ref() == Some(key))
    }
}

/// Entries in the order of their `seq`, without gaps.
#[derive(Debug)]
struct List {
    /// The `seq` of the first entry.
    first: u64,
    entries: Vec<Arc<Entry>>,
}

impl Default for List {
    fn default() -> Self {
        Self { first: 1, entries: Vec::new() }
    }
}

impl List {
    fn push(&mut self, mut entry: Entry) -> u64 {
        entry.seq = self.first + self.entries.len() as u64;
        let seq = entry.seq;
        self.entries.push(Arc::new(entry));
        seq
    }

    fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let index = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index).map(Arc::make_mut)
    }

    fn select(&self, filter: &Filter) -> Vec<Arc<Entry>> {
        let skipped = filter.since.map_or(0, |since| since.saturating_add(1).saturating_sub(self.first));
        let entries = self.entries.iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        entries.filter(|entry| filter.takes(entry)).cloned().collect()
    }

    fn forget(&mut self) -> Vec<Arc<Entry>> {
        self.first += self.entries.len() as u64;
        std::mem::take(&mut self.entries)
    }
}

/// The two lists.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    requests: Locked<List>,
    effects: Locked<List>,
}

impl Ledger {
    /// A request has arrived. Gives its `seq`.
    pub(crate) fn arrived(&self, entry: Entry) -> u64 {
        self.requests.with(|list| list.push(entry))
    }

    /// The answer to a request leaves. Nothing happens if the request was forgotten meanwhile.
    pub(crate) fn answered(&self, seq: u64, status: u16, replayed: bool) {
        self.requests.with(|list| {
            if let Some(entry) = list.get_mut(seq) {
                entry.status = Some(status);
                entry.replayed = replayed;
            }
        });
    }

    /// A double has accepted something.
    pub(crate) fn effect(&self, entry: Entry) {
        self.effects.with(|list| list.push(entry));
    }

    pub(crate) fn requests(&self, filter: &Filter) -> Vec<Arc<Entry>> {
        self.requests.with(|list| list.select(filter))
    }

    pub(crate) fn effects(&self, filter: &Filter) -> Vec<Arc<Entry>> {
        self.effects.with(|list| list.select(filter))
    }

    /// Forgets both lists. What was taken out is freed after the locks are open again.
    pub(crate) fn forget(&self) {
        let requests = self.requests.with(List::forget);
        let effects = self.effects.with(List::forget);
        drop((requests, effects));
    }
}

#[cfg(test)]
mod tests;
