//! News: what the events of a batch tell of subjects and addresses. It is written when they are admitted, or told before.

use std::collections::BTreeMap;

use usher_engine::arrival::{Admission, Batch};
use usher_proto::{EventRef, Snapshot, SubjectId};
use usher_sql::{Database, Rows, SqlQuery, query};

use super::{Admitting, Purpose, Statements, behind, fenced};
use crate::change::FENCE;
use crate::known::Identified;
use crate::rows::RUN_COLUMNS;
use crate::{StoreError, addresses, suppression};

/// Takes the news of a batch that is admitted later.
pub(crate) async fn tell(database: &Database, flow: &str, batch: &Batch) -> Result<Admission, StoreError> {
    let telling = Admitting::read(database, flow, std::slice::from_ref(batch)).await?;
    let mut statements = Statements::default();
    statements.push(Purpose::Frontier(batch.partition), told(flow, batch));
    telling.write_news(&mut statements);
    telling.order_woken(&mut statements);
    let mut admitted = telling.result(&statements.transact(database).await?, Vec::new())?;
    admitted.pop().flatten().ok_or(StoreError::Fenced(batch.partition))
}

/// Moves the offset below which everything is told. This is also the fence.
fn told(flow: &str, batch: &Batch) -> SqlQuery {
    let sql = "UPDATE usher_ownership SET told = $1, told_version = $2 \
               WHERE flow = $3 AND partition = $4 AND epoch = $5";
    query(sql)
        .prepared()
        .bind(batch.frontier.0)
        .bind(&batch.flow_version)
        .bind(flow)
        .bind(batch.partition.0)
        .bind(batch.epoch.0)
}

/// The newest snapshot of each subject. They are ordered by subject, because flows that write the same subjects at the
/// same time would otherwise deadlock.
pub(super) type News<'a> = BTreeMap<&'a SubjectId, Newest<'a>>;

/// The newest snapshot of a subject, with its event and batch.
#[derive(Clone, Copy)]
pub(super) struct Newest<'a> {
    pub(super) event: &'a EventRef,
    pub(super) snapshot: &'a Snapshot,
    batch: &'a Batch,
}

impl Admitting<'_> {
    pub(super) fn news(&self) -> News<'_> {
        let mut newest = News::new();
        for Identified { arrival, event, batch, .. } in &self.new {
            let Some(snapshot) = &arrival.snapshot else { continue };
            let next = Newest { event, snapshot, batch };
            let entry = newest.entry(&arrival.event.subject).or_insert(next);
            if snapshot.replaces(entry.snapshot) {
                *entry = next;
            }
        }
        newest
    }

    /// Adds the statements that write what the batch tells of subjects and addresses.
    pub(super) fn write_news(&self, statements: &mut Statements) {
        let news: Vec<_> = self.news().into_iter().collect();
        if !news.is_empty() {
            statements.push(Purpose::Write, self.subjects(&news));
            statements.push(Purpose::Woken, self.wake(&news));
        }
        if let Some(changes) = suppression::apply(self.dialect, self.flow, &self.new) {
            statements.push(Purpose::Write, changes);
        }
    }

    /// Applies the snapshots. Every flow does so; the same event a second time changes nothing.
    fn subjects(&self, news: &[(&SubjectId, Newest<'_>)]) -> SqlQuery {
        let rows = fenced(news, |(_, newest)| newest.batch)
            .text("subject", |(subject, _)| subject.as_str())
            .int("updated_at", |(_, newest)| newest.snapshot.updated_at)
            .int("occurred_at", |(_, newest)| newest.snapshot.occurred_at)
            .text("event", |(_, newest)| newest.event.as_str())
            .text("snapshot", |(_, newest)| newest.snapshot.data.as_deref())
            .int("deleted_at", |(_, newest)| newest.snapshot.data.is_none().then_some(newest.snapshot.occurred_at))
            .text("address", |(subject, newest)| addresses::of(subject, newest.snapshot.data.as_deref()));
        rows.query(self.dialect, vec![self.flow.into()], |rows| {
            format!(
                "INSERT INTO usher_subject (subject, updated_at, occurred_at, event, snapshot, deleted_at, address, revision) \
                 SELECT r.subject, r.updated_at, r.occurred_at, r.event, r.snapshot, r.deleted_at, r.address, 1 FROM {rows} \
                 WHERE {} \
                 ON CONFLICT (subject) DO UPDATE SET \
                   updated_at = excluded.updated_at, occurred_at = excluded.occurred_at, event = excluded.event, \
                   snapshot = excluded.snapshot, deleted_at = excluded.deleted_at, address = excluded.address, \
                   revision = usher_subject.revision + 1 \
                 WHERE usher_subject.deleted_at IS NULL AND usher_subject.event <> excluded.event AND ( \
                   excluded.deleted_at IS NOT NULL OR \
                   (usher_subject.updated_at, usher_subject.occurred_at) <= (excluded.updated_at, excluded.occurred_at))",
                FENCE
            )
        })
    }

    /// Ends the waits for news of these subjects.
    fn wake(&self, news: &[(&SubjectId, Newest<'_>)]) -> SqlQuery {
        let rows = fenced(news, |(_, newest)| newest.batch).text("of", |(subject, _)| subject.as_str());
        rows.query(self.dialect, vec![self.flow.into()], |rows| {
            format!(
                "UPDATE usher_open_run AS o SET state = 'queued', wakes_at = NULL FROM {rows} \
                 WHERE o.subject = r.of AND o.flow = $1 AND o.state = 'waiting' AND o.awaits_news = 1 AND {} \
                 RETURNING {RUN_COLUMNS}",
                FENCE
            )
        })
    }

    /// Adds the statement that finds which of the woken runs another one of their key precedes.
    pub(super) fn order_woken(&self, statements: &mut Statements) {
        let news: Vec<&SubjectId> = self.news().into_keys().collect();
        if !news.is_empty() {
            let rows = Rows::of(&news).text("event", |subject| subject.as_str());
            let woken = "o.subject = r.event AND o.state = 'queued' AND o.awaits_news = 1";
            statements.push(Purpose::Behind, behind(self.dialect, self.flow, rows, woken));
        }
    }
}
