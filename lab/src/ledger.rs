//! The record of what arrived and of what it did: two lists of the newest entries, and counts of all. Locked for as long as
//! it takes to copy pointers, so that reading a long record never holds up a request.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use usher_proto::Timestamp;

use crate::locked::Locked;

/// Bytes that an entry may take on an average: bodies of common size fit several times.
const ENTRY: usize = 16 * 1024;

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
    /// At most so many, the oldest of them. The next page is `since` the last one's `seq`.
    pub limit: Option<usize>,
}

/// How much there was since the start, or since all was forgotten, also of what the lists do not hold any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests that arrived.
    pub requests: u64,
    /// Effects that were done, replays left out.
    pub effects: u64,
    /// Effects that were answered from the memory of idempotency keys.
    pub replays: u64,
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        self.provider.as_ref().is_none_or(|provider| entry.provider == provider)
            && self.key.as_ref().is_none_or(|key| entry.idempotency_key.as_ref() == Some(key))
    }
}

/// The newest entries in the order of their `seq`, without gaps.
#[derive(Debug)]
struct List {
    /// The most entries, and the most bytes of them.
    keep: usize,
    most_bytes: usize,
    /// The `seq` of the first entry.
    first: u64,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl List {
    fn keeping(keep: usize) -> Self {
        Self { keep, most_bytes: keep.saturating_mul(ENTRY), first: 1, entries: VecDeque::new(), bytes: 0 }
    }

    /// Adds an entry, and returns its `seq` with what is forgotten for it.
    fn push(&mut self, mut entry: Entry) -> (u64, Vec<Arc<Entry>>) {
        entry.seq = self.first + self.entries.len() as u64;
        let seq = entry.seq;
        self.bytes += size(&entry.body);
        self.entries.push_back(Arc::new(entry));
        let mut forgotten = Vec::new();
        while self.entries.len() > self.keep || (self.bytes > self.most_bytes && self.entries.len() > 1) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.first += 1;
            self.bytes -= size(&oldest.body);
            forgotten.push(oldest);
        }
        (seq, forgotten)
    }

    fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let index = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index).map(Arc::make_mut)
    }

    fn select(&self, filter: &Filter) -> Vec<Arc<Entry>> {
        let skipped = filter.since.map_or(0, |since| since.saturating_add(1).saturating_sub(self.first));
        let entries = self.entries.iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        entries.filter(|entry| filter.takes(entry)).take(filter.limit.unwrap_or(usize::MAX)).cloned().collect()
    }

    fn forget(&mut self) -> VecDeque<Arc<Entry>> {
        self.first += self.entries.len() as u64;
        self.bytes = 0;
        std::mem::take(&mut self.entries)
    }
}

/// About how many bytes a body takes in memory.
fn size(body: &Value) -> usize {
    /// A value with its place in a list or a map.
    const VALUE: usize = 64;
    VALUE
        + match body {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(fields) => fields.iter().map(|(name, field)| name.len() + size(field)).sum(),
        }
}

/// The two lists, and the counts by provider.
#[derive(Debug)]
pub(crate) struct Ledger {
    requests: Locked<List>,
    effects: Locked<List>,
    counts: Locked<BTreeMap<&'static str, Counts>>,
}

impl Ledger {
    /// A ledger of the newest `keep` requests and effects.
    pub(crate) fn keeping(keep: usize) -> Self {
        let list = || Locked::new(List::keeping(keep));
        Self { requests: list(), effects: list(), counts: Locked::default() }
    }

    fn count(&self, provider: &'static str, add: impl FnOnce(&mut Counts)) {
        self.counts.with(|counts| add(counts.entry(provider).or_default()));
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, Counts> {
        self.counts.with(|counts| counts.clone())
    }

    /// A request has arrived. Gives its `seq`.
    pub(crate) fn arrived(&self, entry: Entry) -> u64 {
        self.count(entry.provider, |counts| counts.requests += 1);
        let (seq, forgotten) = self.requests.with(|list| list.push(entry));
        drop(forgotten);
        seq
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
        self.count(entry.provider, |counts| if entry.replayed { counts.replays += 1 } else { counts.effects += 1 });
        let (_, forgotten) = self.effects.with(|list| list.push(entry));
        drop(forgotten);
    }

    pub(crate) fn requests(&self, filter: &Filter) -> Vec<Arc<Entry>> {
        self.requests.with(|list| list.select(filter))
    }

    pub(crate) fn effects(&self, filter: &Filter) -> Vec<Arc<Entry>> {
        self.effects.with(|list| list.select(filter))
    }

    /// Forgets both lists, and the counts. What was taken out is freed after the locks are open again.
    pub(crate) fn forget(&self) {
        self.counts.with(BTreeMap::clear);
        let requests = self.requests.with(List::forget);
        let effects = self.effects.with(List::forget);
        drop((requests, effects));
    }
}

#[cfg(test)]
mod tests;
