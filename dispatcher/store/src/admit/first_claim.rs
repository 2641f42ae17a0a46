//! First claims, which are written with the admission of their runs. What their requests are made from is read together with
//! what is known of the events. Only the owner of a partition writes its runs, so a run that nobody precedes is still the head
//! of its lane when it is written.

use std::collections::{BTreeMap, HashMap};

use futures::future::join_all;
use usher_engine::Run;
use usher_engine::arrival::{Arrival, FirstClaim};
use usher_proto::unsubscribe::address_of_key;
use usher_proto::{Subject, SubjectId, Timestamp};
use usher_sql::{Answer, Dialect, Rows, SqlQuery};

use super::news::Newest;
use super::{Admitting, Start, new_run};
use crate::known::{Identified, LogPlace};
use crate::rows::Named;
use crate::{FirstClaims, StoreError};

/// A subject as the store has it, with what decides about the next snapshot of it.
pub(super) struct StoredSubject {
    subject: Subject,
    event: String,
    times: (i64, i64),
}

/// Subjects without an open run of the flow; `None` for a subject that is unknown.
pub(super) type Alone = HashMap<SubjectId, Option<StoredSubject>>;

/// Returns the statement that reads the subjects of the runs that may begin, unless another run of them is open.
pub(super) fn look(dialect: Dialect, flow: &str, events: &[Identified<'_>]) -> Option<SqlQuery> {
    let begins = events.iter().filter(|event| event.batch.begins.contains(&event.arrival.offset));
    // Whose address a subject is, is read when its run is executed: here only rows of the subjects themselves are.
    let begins = begins.filter(|event| address_of_key(event.arrival.event.subject.key()).is_none());
    let subjects: Vec<&SubjectId> = begins.map(|event| &event.arrival.event.subject).collect();
    if subjects.is_empty() {
        return None;
    }
    let rows = Rows::of(&subjects).text("of", |subject| subject.as_str());
    Some(rows.query(dialect, vec![flow.into()], |rows| {
        format!(
            "SELECT r.of AS subject, s.snapshot, s.deleted_at, s.revision, s.event, s.updated_at, s.occurred_at \
             FROM {rows} LEFT JOIN usher_subject s ON s.subject = r.of \
             WHERE (SELECT 1 FROM usher_open_run o WHERE o.subject = r.of AND o.flow = $1 LIMIT 1) IS NULL"
        )
    }))
}

/// Reads the answer to [`look`].
pub(super) fn alone(answer: &Answer) -> Result<Alone, StoreError> {
    let read = |row| {
        let row = Named(row);
        let stored = match row.get::<Option<i64>>("revision")? {
            None => None,
            Some(revision) => Some(StoredSubject {
                subject: Subject {
                    snapshot: row.get("snapshot")?,
                    deleted: row.get::<Option<i64>>("deleted_at")?.is_some(),
                    revision,
                },
                event: row.get("event")?,
                times: (row.get("updated_at")?, row.get("occurred_at")?),
            }),
        };
        Ok((row.parsed("subject")?, stored))
    };
    answer.rows.iter().map(read).collect()
}

/// Returns a subject as it is after the newest snapshot of a batch, by the rules of the statement that applies it.
fn after(stored: Option<&StoredSubject>, newest: Option<&Newest<'_>>) -> Option<Subject> {
    let Some(Newest { event, snapshot, .. }) = newest else { return stored.map(|stored| stored.subject.clone()) };
    let applies = |stored: &StoredSubject| {
        let newer = snapshot.data.is_none() || stored.times <= (snapshot.updated_at, snapshot.occurred_at);
        !stored.subject.deleted && stored.event != event.as_str() && newer
    };
    match stored {
        Some(stored) if !applies(stored) => Some(stored.subject.clone()),
        stored => Some(Subject {
            snapshot: snapshot.data.clone(),
            deleted: snapshot.data.is_none(),
            revision: stored.map_or(0, |stored| stored.subject.revision) + 1,
        }),
    }
}

impl Admitting<'_> {
    /// Makes the first claims of the runs that may begin and that no other run of their key precedes.
    pub(super) async fn first_claims(&self, claims: &dyn FirstClaims) -> BTreeMap<LogPlace, FirstClaim> {
        if self.alone.is_empty() {
            return BTreeMap::new();
        }
        let starting = self.starting();
        let news = self.news();
        let begins = |start: &&Start<'_>| {
            let Identified { batch, arrival: Arrival { offset, event, .. }, .. } = start.event;
            batch.begins.contains(offset) && start.verdict.is_none() && self.alone.contains_key(&event.subject)
        };
        let claim = async |start: &Start<'_>| {
            let of = &start.event.arrival.event.subject;
            let stored = self.alone.get(of).and_then(Option::as_ref);
            let subject = after(stored, news.get(of));
            let claim = claims.first_claim(&new_run(start), subject.as_ref()).await?;
            Some((start.event.place(), claim))
        };
        let made = join_all(starting.iter().filter(begins).map(claim)).await;
        made.into_iter().flatten().collect()
    }

    /// Adds the columns of the first claims to the rows of new runs.
    pub(super) fn with_claims<'b>(&'b self, rows: Rows<'b, Start<'b>>) -> Rows<'b, Start<'b>> {
        let claim = |start: &Start<'_>| self.claims.get(&start.event.place());
        rows.text("state", |start| if claim(start).is_some() { "running" } else { "queued" })
            .bytes("request", |start| claim(start).map(|claim| claim.request.clone().into()))
            .int("attempts", |start| claim(start).map_or(0, |claim| i64::from(claim.tries().attempts)))
            .int("tried_at", |start| claim(start).map(|claim| claim.at.millis()))
            .int("claimed_until", |start| claim(start).and_then(|claim| claim.until).map(Timestamp::millis))
            .int("claimed_at", |start| claim(start).map(|_| self.now.millis()))
    }

    /// Returns a new run as it is admitted.
    pub(super) fn admitted(&self, start: &Start<'_>) -> Run {
        let run = new_run(start);
        match self.claims.get(&start.event.place()) {
            Some(claim) => claim.clone().begin(run),
            None => run,
        }
    }
}
