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
    let telling = Admitting::read(database, flow, batch).await?;
    let mut statements = Statements::default();
    statements.push(Purpose::Frontier, telling.told());
    telling.write_news(&mut statements);
    telling.order_woken(&mut statements);
    telling.result(&statements.transact(database).await?, Vec::new())
}

/// The newest snapshot of each subject. They are ordered by subject, because flows that write the same subjects at the
/// same time would otherwise deadlock.
pub(super) type News<'a> = BTreeMap<&'a SubjectId, (&'a EventRef, &'a Snapshot)>;

impl Admitting<'_> {
    pub(super) fn news(&self) -> News<'_> {
        let mut newest = News::new();
        for Identified { arrival, event, .. } in &self.new {
            let Some(snapshot) = &arrival.snapshot else { continue };
            let entry = newest.entry(&arrival.event.subject).or_insert((event, snapshot));
            if snapshot.replaces(entry.1) {
                *entry = (event, snapshot);
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
        if let Some(changes) = suppression::apply(self.dialect, self.flow, self.batch, &self.new) {
            statements.push(Purpose::Write, changes);
        }
    }

    /// Moves the offset below which everything is told. This is also the fence.
    fn told(&self) -> SqlQuery {
        let sql = "UPDATE usher_ownership SET told = $1, told_version = $2 \
                   WHERE flow = $3 AND partition = $4 AND epoch = $5";
        query(sql)
            .prepared()
            .bind(self.batch.frontier.0)
            .bind(&self.batch.flow_version)
            .bind(self.flow)
            .bind(self.batch.partition.0)
            .bind(self.batch.epoch.0)
    }

    /// Applies the snapshots. Every flow does so; the same event a second time changes nothing.
    fn subjects(&self, news: &[(&SubjectId, (&EventRef, &Snapshot))]) -> SqlQuery {
        let rows = fenced(news, self.batch)
            .text("subject", |(subject, _)| subject.as_str())
            .int("updated_at", |(_, (_, snapshot))| snapshot.updated_at)
            .int("occurred_at", |(_, (_, snapshot))| snapshot.occurred_at)
            .text("event", |(_, (event, _))| event.as_str())
            .text("snapshot", |(_, (_, snapshot))| snapshot.data.as_deref())
            .int("deleted_at", |(_, (_, snapshot))| snapshot.data.is_none().then_some(snapshot.occurred_at))
            .text("address", |(subject, (_, snapshot))| addresses::of(subject, snapshot.data.as_deref()));
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
    fn wake(&self, news: &[(&SubjectId, (&EventRef, &Snapshot))]) -> SqlQuery {
        let rows = fenced(news, self.batch).text("of", |(subject, _)| subject.as_str());
        rows.query(self.dialect, vec![self.flow.into()], |rows| {
            format!(
                "UPDATE usher_open_run AS o SET state = 'queued' FROM {rows} \
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
