//! Replay: events of a time are read again from the log and given to one flow that has not had them.
//!
//! Each is carried to the flow by a command in the log ([`crate::orders::replay`]). So no other flow sees it, the flow's position
//! stays where it is, and an event that the flow has had changes nothing, as ever. The selection leaves out what the flow could
//! not know any more: an event that it may have had and forgotten, and one that a later event of its subject has cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::Serialize;
use usher_eventlog::{AppendError, ScanRange};
use usher_flows::{Flow, FlowSource};
use usher_proto::{Event, EventRef, Offset, Partition, Record, SubjectId, Timestamp};
use usher_service::clock;
use usher_store::{BoundedCount, FlowStore as _, SqlStore};

use super::sending::{HasSubject, send_in_order};
use super::{BulkOptions, BulkProgress, LOOK_EVERY, MOST_SELECTED, OperatorCommands, OperatorError, PATIENCE};
use crate::orders;

/// A span of time in the log: from `since`, and before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LogSpan {
    /// Its beginning.
    pub since: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

/// Reasons for which a replay leaves out an event on which the flow starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotReplayed {
    /// The flow has had it.
    Had,
    /// A later event of its subject cancels the runs of the flow.
    CancelledSince,
    /// It was received before the retention of what the flow has had: the flow may have had it.
    TooOld,
}

/// An event that is to be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayTarget {
    /// The event.
    pub reference: EventRef,
    /// Its subject.
    pub subject: SubjectId,
    /// Its type.
    pub kind: String,
    /// The time of its receipt.
    pub received_at: Timestamp,
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
}

impl HasSubject for ReplayTarget {
    fn subject(&self) -> &SubjectId {
        &self.subject
    }
}

/// The events that a replay takes, and those that it leaves out.
#[derive(Debug)]
pub struct ReplayPlan {
    /// The flow.
    pub flow: String,
    /// The span of time.
    pub span: LogSpan,
    /// Number of the events in the span on which the flow starts.
    pub matching: BoundedCount,
    /// The events that are replayed, in the order of their partitions and offsets.
    pub targets: Vec<ReplayTarget>,
    /// Numbers of those that are left out.
    pub left_out: BTreeMap<NotReplayed, usize>,
}

/// The result of a replay.
#[derive(Debug)]
pub struct ReplayOutcome {
    /// Number of events that were given to the flow.
    pub given: usize,
    /// Number of those that the flow has admitted so far.
    pub admitted: usize,
    /// Number of events that cannot be given: the log does not hold them any more, or they are too large for a command.
    pub impossible: usize,
    /// Number of events that were not given, because the replay was stopped or has failed.
    pub left: usize,
    /// The failure that ended the replay early.
    pub failure: Option<OperatorError>,
    /// True if a process works on the flow.
    pub is_worked: bool,
}

/// The events of a span as they are found in the log.
#[derive(Default)]
struct Found {
    targets: Vec<ReplayTarget>,
    seen: BTreeSet<EventRef>,
    /// The last event of each subject that cancels runs.
    cancels: BTreeMap<SubjectId, Offset>,
    more: bool,
}

impl Found {
    fn add(&mut self, flows: &[Flow], (partition, offset): (Partition, Offset), record: &Record, is_in_span: bool) {
        let Ok(event) = Event::from_record(record) else { return };
        if flows.iter().any(|flow| flow.cancels_on(&event)) {
            self.cancels.insert(event.subject.clone(), offset);
        }
        let starts = is_in_span && flows.iter().any(|flow| flow.starts(&event));
        if !starts || !self.seen.insert(event.reference()) {
            return;
        }
        if self.targets.len() == MOST_SELECTED {
            self.more = true;
            return;
        }
        self.targets.push(ReplayTarget {
            reference: event.reference(),
            subject: event.subject,
            kind: event.kind,
            received_at: event.received_at,
            partition,
            offset,
        });
    }

    /// Sorts the targets into those that are replayed and those that are left out.
    fn plan(self, flow: &str, span: LogSpan, had: &BTreeSet<EventRef>, horizon: Timestamp) -> ReplayPlan {
        let Self { mut targets, cancels, more, .. } = self;
        let matching = BoundedCount { count: targets.len() as u64, more };
        let mut left_out = BTreeMap::new();
        targets.retain(|target| {
            let why = if had.contains(&target.reference) {
                Some(NotReplayed::Had)
            } else if target.received_at < horizon {
                Some(NotReplayed::TooOld)
            } else if cancels.get(&target.subject).is_some_and(|last| *last > target.offset) {
                Some(NotReplayed::CancelledSince)
            } else {
                None
            };
            why.is_none_or(|why| {
                *left_out.entry(why).or_default() += 1;
                false
            })
        });
        targets.sort_by_key(|target| (target.partition, target.offset));
        ReplayPlan { flow: flow.to_owned(), span, matching, targets, left_out }
    }
}

/// Returns the stored versions of a flow that this Usher can read.
async fn versions(store: &SqlStore, flow: &str) -> Result<Vec<Flow>, OperatorError> {
    let mut flows = Vec::new();
    for version in store.flow_versions(flow).await? {
        let source = store.flow(flow, &version.version).await?;
        let source = source.and_then(|source| serde_json::from_str::<FlowSource>(&source).ok());
        flows.extend(source.and_then(|source| Flow::read(source).ok()));
    }
    Ok(flows)
}

impl OperatorCommands {
    /// Reads the log from the beginning of a span to its end, and plans the replay of the events in the span to a flow. An event
    /// counts if any stored version of the flow starts on it: the flow itself decides again. Reports the share that is read.
    ///
    /// # Errors
    ///
    /// The log or the store does not answer.
    pub async fn plan_replay(
        &self,
        flow: &str,
        span: LogSpan,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<ReplayPlan, OperatorError> {
        let topic = self.layout.topics.events();
        let flows = versions(&self.store, flow).await?;
        let first = self.log.offsets_at(&topic, span.since).await?;
        let until = self.log.offsets_at(&topic, span.until).await?;
        let watermarks = self.log.watermarks(&topic).await?;
        let mut ranges: Vec<ScanRange> = watermarks
            .iter()
            .map(|(partition, marks)| {
                let from = first.get(partition).copied().unwrap_or(marks.low).max(marks.low);
                ScanRange { partition: *partition, from, end: marks.high }
            })
            .filter(|range| range.from < range.end)
            .collect();
        let length = |ranges: &[ScanRange]| ranges.iter().map(|range| range.end.0 - range.from.0).sum::<i64>();
        let all = length(&ranges);
        let mut found = Found::default();
        let mut scanner = self.log.scan(&topic)?;
        while !ranges.is_empty() {
            let page = scanner.page(&ranges).await?;
            for (offset, record) in &page.records {
                let is_in_span = until.get(&page.partition).is_none_or(|until| offset < until);
                found.add(&flows, (page.partition, *offset), record, is_in_span);
            }
            for range in &mut ranges {
                if range.partition == page.partition {
                    range.from = page.next;
                }
            }
            ranges.retain(|range| range.from < range.end);
            progress(1.0 - length(&ranges) as f64 / all.max(1) as f64);
        }
        let events: Vec<EventRef> = found.targets.iter().map(|target| target.reference.clone()).collect();
        let had = self.store.had(flow, &events).await?;
        Ok(found.plan(flow, span, &had, self.store.horizon(flow).await?))
    }

    /// Gives the events of a plan to its flow, and waits until it has admitted them.
    ///
    /// # Errors
    ///
    /// The store does not answer. The commands may be sent.
    pub async fn replay(
        &self,
        plan: &ReplayPlan,
        options: &BulkOptions,
        progress: &(dyn Fn(BulkProgress) + Sync),
    ) -> Result<ReplayOutcome, OperatorError> {
        let span = format!("events from {} to {}", plan.span.since, plan.span.until);
        self.store.record_replay(&plan.flow, &options.by, &span, clock::now()).await?;
        let mut given: Vec<EventRef> = Vec::with_capacity(plan.targets.len());
        let mut impossible = 0;
        let send = async |target: &ReplayTarget| self.give(&plan.flow, target, &options.by).await;
        let failure = send_in_order(&plan.targets, options, send, |target: &ReplayTarget, is_given| {
            match is_given {
                true => given.push(target.reference.clone()),
                false => impossible += 1,
            }
            progress(BulkProgress { commanded: given.len() + impossible, executed: 0 });
        })
        .await;
        let admitted = self.admitted(&plan.flow, &given, progress).await?;
        let left = plan.targets.len() - given.len() - impossible;
        let is_worked = self.store.worked_flows().await?.contains(&plan.flow);
        Ok(ReplayOutcome { given: given.len(), admitted, impossible, left, failure, is_worked })
    }

    /// Appends the command for one event. Returns false if it cannot be given.
    async fn give(&self, flow: &str, target: &ReplayTarget, by: &str) -> Result<bool, OperatorError> {
        let record = self.log.read(&self.layout.topics.events(), target.partition, target.offset).await?;
        let event = record.as_ref().and_then(|record| Event::from_record(record).ok());
        let (Some(record), Some(event)) = (record, event) else { return Ok(false) };
        let Some(command) = orders::replay(flow, &event, &record, by, clock::now()) else { return Ok(false) };
        match self.log.append(&self.layout.events(), command.into_record()).await {
            Ok(_) => Ok(true),
            Err(AppendError::TooLarge) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the flow has admitted these events, or has admitted none for five seconds. Returns the number of those that it has.
    async fn admitted(
        &self,
        flow: &str,
        given: &[EventRef],
        progress: &(dyn Fn(BulkProgress) + Sync),
    ) -> Result<usize, OperatorError> {
        let mut open = given.to_vec();
        let mut until = Instant::now() + PATIENCE;
        loop {
            let begun = Instant::now();
            let had = self.store.had(flow, &open).await?;
            open.retain(|event| !had.contains(event));
            let admitted = given.len() - open.len();
            if !had.is_empty() {
                until = Instant::now() + PATIENCE;
                progress(BulkProgress { commanded: given.len(), executed: admitted });
            }
            if open.is_empty() || Instant::now() >= until {
                return Ok(admitted);
            }
            tokio::time::sleep(begun.elapsed().max(LOOK_EVERY)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use usher_proto::{EventId, Instance, Key, Source};

    use super::*;

    const FLOW: &str = "on = [\"clerk/user.created\"]\ncancel_on = [\"clerk/user.deleted\"]\n[[step]]\n\
                        use = \"database.sync_user\"\n";

    fn record(id: &str, kind: &str, user: &str, received: i64) -> Record {
        let instance = Instance::default();
        let event = Event {
            id: EventId::new(id),
            kind: kind.into(),
            source: Source::Clerk,
            subject: SubjectId::new(Source::Clerk, &instance, &Key::new(user)),
            occurred_at: Timestamp::from_seconds(received),
            received_at: Timestamp::from_seconds(received),
            provenance: Vec::new(),
            body: Bytes::from(format!("{{\"data\":{{\"id\":\"{user}\"}}}}")),
        };
        event.into_record()
    }

    #[test]
    fn a_replay_leaves_out_what_the_flow_has_had_has_forgotten_or_must_not_begin_any_more() {
        let source = FlowSource {
            name: "email".into(),
            file: "email.toml".into(),
            toml: FLOW.into(),
            templates: BTreeMap::new(),
        };
        let flows = [Flow::read(source).expect("a good flow")];
        let mut found = Found::default();
        for (offset, id, kind, user, is_in_span) in [
            (0, "old", "user.created", "a", true),
            (10, "had", "user.created", "b", true),
            (11, "gone", "user.created", "c", true),
            (12, "good", "user.created", "d", true),
            (13, "good", "user.created", "d", true),
            (14, "other", "user.updated", "d", true),
            (15, "later", "user.created", "e", false),
            (16, "end", "user.deleted", "c", false),
        ] {
            found.add(&flows, (Partition(0), Offset(offset)), &record(id, kind, user, offset), is_in_span);
        }
        let had = BTreeSet::from([EventRef::new(Source::Clerk, &Instance::default(), &EventId::new("had"))]);
        let span = LogSpan { since: Timestamp::from_seconds(0), until: Timestamp::from_seconds(15) };
        let plan = found.plan("email", span, &had, Timestamp::from_seconds(5));
        let ids: Vec<&str> = plan.targets.iter().map(|target| target.reference.id()).collect();
        assert_eq!((ids, plan.matching.count), (vec!["good"], 4));
        let each = [(NotReplayed::Had, 1), (NotReplayed::CancelledSince, 1), (NotReplayed::TooOld, 1)];
        assert_eq!(plan.left_out, BTreeMap::from(each));
    }
}
