//! The ledger of requests and effects: two lists of the newest entries, and counts of all. The lists are locked only
//! while pointers are copied, so that reading a long list never blocks a request.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use usher_proto::Timestamp;

use crate::locked::Locked;

/// Average memory budget of an entry, in bytes. It is several times the common size of a body.
const ENTRY: usize = 16 * 1024;

/// An entry of the ledger: one request, or one effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Sequence number within the list, ascending from 1. A `DELETE` does not reset it.
    pub seq: u64,
    /// Time at which the request arrived, or the effect was executed.
    pub at: Timestamp,
    /// Name of the double.
    pub provider: &'static str,
    /// The operation, such as `emails.send` or `customers.create`. Method and path if the provider has
    /// no such operation.
    pub operation: Cow<'static, str>,
    /// The `Idempotency-Key` header; `webhook-id` of a webhook, Message-ID of a mail.
    pub idempotency_key: Option<String>,
    /// True if the response was a replay of a stored one, and nothing was executed again.
    pub replayed: bool,
    /// Status of the response. For a request: absent until a response is sent, and for ever if none is. For an effect:
    /// the status of the response that was made, even if it was not sent.
    pub status: Option<u16>,
    /// Id of the Clerk user that the request concerns, if known.
    pub user: Option<String>,
    /// The recipients' addresses, or the provider's equivalent of them.
    pub to: Option<String>,
    /// The parameters of the request as JSON.
    #[serde(serialize_with = "inner")]
    pub body: Arc<Value>,
    /// The body of the response. Present on effects only.
    #[serde(serialize_with = "inner_if_any", skip_serializing_if = "Option::is_none")]
    pub result: Option<Arc<Value>>,
}

fn inner<S: Serializer>(value: &Arc<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}

fn inner_if_any<S: Serializer>(value: &Option<Arc<Value>>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_deref().serialize(serializer)
}

/// Selects entries of a list. The default selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Name of the double.
    pub provider: Option<String>,
    /// The idempotency key.
    pub key: Option<String>,
    /// Only entries with a `seq` above this one.
    pub since: Option<u64>,
    /// Maximum number of entries, oldest first. For the next page, set `since` to the `seq` of the last entry.
    pub limit: Option<usize>,
}

/// Numbers of requests and effects of a double since the start or the last `DELETE /effects`. They include entries that
/// are no longer stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LedgerCounts {
    /// Requests that arrived.
    pub requests: u64,
    /// Effects that were executed, without replays.
    pub effects: u64,
    /// Requests with an effect that were answered with the stored response of an idempotency key.
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
    /// Maximum number of entries.
    keep: usize,
    /// Maximum size of the bodies of all entries, in bytes. The newest entry is stored even if it is larger.
    most_bytes: usize,
    /// The `seq` of the first entry, or of the next one if the list is empty.
    first: u64,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl List {
    fn keeping(keep: usize) -> Self {
        Self { keep, most_bytes: keep.saturating_mul(ENTRY), first: 1, entries: VecDeque::new(), bytes: 0 }
    }

    /// Adds an entry. Returns its `seq` and the entries that were dropped to make space.
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

/// Estimates the memory of a body, in bytes.
fn size(body: &Value) -> usize {
    /// Bytes of a value and its slot in a list or a map.
    const VALUE: usize = 64;
    VALUE
        + match body {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(fields) => fields.iter().map(|(name, field)| name.len() + size(field)).sum(),
        }
}

/// The two lists, and the counts by double.
#[derive(Debug)]
pub(crate) struct RequestLedger {
    requests: Locked<List>,
    effects: Locked<List>,
    counts: Locked<BTreeMap<&'static str, LedgerCounts>>,
}

impl RequestLedger {
    /// Creates a ledger that stores the newest `keep` requests and the newest `keep` effects.
    pub(crate) fn keeping(keep: usize) -> Self {
        let list = || Locked::new(List::keeping(keep));
        Self { requests: list(), effects: list(), counts: Locked::default() }
    }

    fn count(&self, provider: &'static str, add: impl FnOnce(&mut LedgerCounts)) {
        self.counts.with(|counts| add(counts.entry(provider).or_default()));
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, LedgerCounts> {
        self.counts.with(|counts| counts.clone())
    }

    /// Records the arrival of a request. Returns its `seq`.
    pub(crate) fn arrived(&self, entry: Entry) -> u64 {
        self.count(entry.provider, |counts| counts.requests += 1);
        let (seq, forgotten) = self.requests.with(|list| list.push(entry));
        drop(forgotten);
        seq
    }

    /// Records the response to a request. Does nothing if the request is no longer stored.
    pub(crate) fn answered(&self, seq: u64, status: u16, replayed: bool) {
        self.requests.with(|list| {
            if let Some(entry) = list.get_mut(seq) {
                entry.status = Some(status);
                entry.replayed = replayed;
            }
        });
    }

    /// Records an effect.
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

    /// Clears both lists and the counts. The entries are freed after the locks are released.
    pub(crate) fn forget(&self) {
        self.counts.with(BTreeMap::clear);
        let requests = self.requests.with(List::forget);
        let effects = self.effects.with(List::forget);
        drop((requests, effects));
    }
}

#[cfg(test)]
mod tests;
