//! Admission: a batch of events becomes runs, all of it or nothing. What is known of the events is read in one round trip,
//! and everything is written in a second one, with a fixed number of statements. Only the owner of the partition writes its
//! runs and events, so what was read still holds if the fence does.
//!
//! Long, because the statements of one transaction stand together: each relies on those before it.

mod first_claim;
mod news;

use std::collections::{BTreeMap, BTreeSet};

use first_claim::Alone;
pub(super) use news::tell;
use serde_json::json;
use usher_engine::arrival::{Admission, Arrival, Batch, FirstClaim};
use usher_engine::field_diff::PreviousFields;
use usher_engine::{AttemptState, Run};
use usher_proto::{EventRef, Offset, Reason, Source, SubjectId, Timestamp};
use usher_service::clock;
use usher_sql::{Answer, Database, Dialect, Rows, SqlQuery, query};

use super::change::FENCE;
use super::command::{self, CommandResult};
use super::known::{self, Identified};
use super::prune::horizon;
use super::remember::{self, Learnt};
use super::rows::{Named, preceded, rank, runs};
use super::transitions::{self, NOT_UNDER_WAY};
use super::{FirstClaims, StoreError, refused};

pub(super) async fn admit(
    database: &Database,
    flow: &str,
    batch: &Batch,
    claims: &dyn FirstClaims,
) -> Result<Admission, StoreError> {
    let mut admitting = Admitting::read(database, flow, batch).await?;
    admitting.claims = admitting.first_claims(claims).await;
    let mut statements = Statements::default();
    admitting.write(&mut statements);
    let has_commands = admitting.new.iter().any(|event| event.arrival.command.is_some());
    let (answers, commanded) = if has_commands {
        admitting.with_commands(database, statements).await?
    } else {
        for event in admitting.new.iter().filter(|event| event.arrival.cancels) {
            admitting.cancel(event.arrival, &mut statements);
        }
        admitting.order(&mut statements, &[]);
        (statements.transact(database).await?, Vec::new())
    };
    admitting.result(&answers, commanded)
}

/// Purpose of a statement of an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// Moves the frontier, which is also the fence.
    Frontier,
    /// Creates runs, and returns their events.
    Runs,
    /// Stores a refused record.
    Refused,
    /// Ends the waits for news, and returns the runs.
    Woken,
    /// Cancels runs, and returns their events.
    Cancelled,
    /// Returns the events of the runs that another run of their key precedes.
    Behind,
    /// Writes something, and its answer says nothing.
    Write,
}

/// The statements of an admission, in order.
#[derive(Default)]
struct Statements {
    purposes: Vec<Purpose>,
    queries: Vec<SqlQuery>,
}

/// The answers to the statements, with their purposes.
type Answers = Vec<(Purpose, Answer)>;

impl Statements {
    fn push(&mut self, purpose: Purpose, query: SqlQuery) {
        self.purposes.push(purpose);
        self.queries.push(query);
    }

    async fn transact(self, database: &Database) -> Result<Answers, StoreError> {
        Ok(self.purposes.into_iter().zip(database.transact(self.queries).await?).collect())
    }
}

/// A batch on its way into the store.
struct Admitting<'a> {
    dialect: Dialect,
    flow: &'a str,
    batch: &'a Batch,
    /// Arrivals that come for the first time.
    new: Vec<Identified<'a>>,
    repeated: usize,
    conflicts: Vec<usher_engine::arrival::RefusedRecord>,
    learnt: Learnt<'a>,
    /// Subjects of the runs that may begin, unless another run of them is open.
    alone: Alone,
    /// First claims, by the offsets of their runs.
    claims: BTreeMap<Offset, FirstClaim>,
    horizon: Timestamp,
    now: Timestamp,
}

/// An arrival that starts a run, and the reason if that run is given up at once.
struct Start<'a> {
    event: &'a Identified<'a>,
    before: Option<&'a PreviousFields>,
    verdict: Option<(Reason, String)>,
}

impl<'a> Admitting<'a> {
    async fn read(database: &Database, flow: &'a str, batch: &'a Batch) -> Result<Self, StoreError> {
        let dialect = database.dialect;
        let events = known::identified(batch);
        let mut admitting = Self {
            dialect,
            flow,
            batch,
            new: Vec::new(),
            repeated: 0,
            conflicts: Vec::new(),
            learnt: Learnt::default(),
            alone: Alone::default(),
            claims: BTreeMap::new(),
            horizon: Timestamp::from_millis(0),
            now: clock::now(),
        };
        if events.is_empty() {
            return Ok(admitting);
        }
        let mut queries = vec![known::look(dialect, flow, &events), horizon(flow)];
        queries.extend(remember::look(dialect, flow, &events));
        let remembers = queries.len() > 2;
        queries.extend(first_claim::look(dialect, flow, batch));
        let mut answers = database.read(queries).await?.into_iter();
        let mut answer = || answers.next().unwrap_or_default();
        let known::Sorted { new, repeated, conflicts } = known::sort(events, &answer())?;
        admitting.horizon = super::prune::read_horizon(&answer())?;
        admitting.learnt = remember::compare(&new, &if remembers { answer() } else { Answer::default() })?;
        admitting.alone = first_claim::alone(&answer())?;
        Ok(Self { new, repeated, conflicts, ..admitting })
    }

    /// Returns the arrivals that start runs. An event received before the retention horizon may have been executed already,
    /// so it is not taken for new. The receive time is that of ingest's clock, and ingest takes no webhook that its own
    /// clock does not agree with. The time of the event by the sender's clock does not matter for retention.
    fn starting(&self) -> Vec<Start<'_>> {
        let horizon = self.horizon;
        let starting = self.new.iter().filter(|event| event.arrival.starts);
        starting
            .map(|event| {
                let Arrival { event: content, offset, verdict, .. } = event.arrival;
                let too_old =
                    (content.received_at < horizon).then(|| (Reason::TooOld, format!("received before {horizon}")));
                let before = self.learnt.before.get(offset);
                Start { event, before, verdict: verdict.clone().or(too_old) }
            })
            .collect()
    }

    /// Adds the statements that write the batch.
    fn write(&self, statements: &mut Statements) {
        let dialect = self.dialect;
        let flow = self.flow;
        statements.push(Purpose::Frontier, self.frontier());
        for record in self.batch.refused.iter().chain(&self.conflicts) {
            statements.push(Purpose::Refused, refused::keep(self.flow, self.batch, record, self.now));
        }
        let starting = self.starting();
        if !starting.is_empty() {
            statements.push(Purpose::Runs, self.runs(&starting));
            statements.push(Purpose::Write, self.senders(&starting));
        }
        let others: Vec<&Identified<'_>> = self.new.iter().filter(|event| !event.arrival.starts).collect();
        if !others.is_empty() {
            statements.push(Purpose::Write, known::keep(dialect, flow, self.batch, &others));
        }
        if let Some(learnt) = remember::keep(dialect, flow, self.batch, &self.learnt) {
            statements.push(Purpose::Write, learnt);
        }
        self.write_news(statements);
    }

    /// Moves the frontier. This is also the fence: it changes no row if another replica owns the partition. Also records the
    /// receive time of the newest webhook that the flow has seen, which bounds what may be deleted. Usher's own events do not
    /// count, because they may carry the time of any machine.
    fn frontier(&self) -> SqlQuery {
        let sent = self.batch.arrivals.iter().filter(|arrival| arrival.event.source != Source::Usher);
        let newest = sent.map(|arrival| arrival.event.received_at.millis()).max();
        let sql = "UPDATE usher_ownership SET frontier = $1, sought = NULL, \
                     newest_at = CASE WHEN COALESCE(newest_at, 0) < $5 THEN $5 ELSE newest_at END \
                   WHERE flow = $2 AND partition = $3 AND epoch = $4";
        query(sql)
            .prepared()
            .bind(self.batch.frontier.0)
            .bind(self.flow)
            .bind(self.batch.partition.0)
            .bind(self.batch.epoch.0)
            .bind(newest.unwrap_or(0))
    }

    /// Creates the runs. A run that another partition has created meanwhile, which a foreign producer can cause, is left
    /// unchanged.
    fn runs(&self, starting: &[Start<'_>]) -> SqlQuery {
        let batch = self.batch;
        let rows = fenced(starting, batch)
            .text("event_ref", |start| start.event.event.as_str())
            .text("subject", |start| start.event.arrival.event.subject.as_str())
            // An event that is stored without its body is recognised by its id alone.
            .text("digest", |start| {
                let stored = !matches!(start.verdict, Some((Reason::Unstorable, _)));
                stored.then_some(start.event.digest.as_str())
            })
            .int("origin", |start| start.event.arrival.offset.0)
            .text("type", |start| start.event.arrival.event.kind.as_str())
            .int("occurred_at", |start| start.event.arrival.event.occurred_at.millis())
            .int("received_at", |start| start.event.arrival.event.received_at.millis())
            .text("provenance", |start| {
                serde_json::to_string(&start.event.arrival.event.provenance).unwrap_or_default()
            })
            .text("body", |start| String::from_utf8_lossy(&start.event.arrival.event.body).into_owned())
            .text("reason", |start| start.verdict.as_ref().map(|(reason, _)| reason.label()))
            .text("error", |start| start.verdict.as_ref().map(|(_, error)| error.as_str()))
            .text("destination", |start| batch.destination(&start.event.arrival.event))
            .int("expires_at", |start| start.event.arrival.expires_at.map(Timestamp::millis))
            .text("before_event", |start| start.before.map(|before| json!(before).to_string()));
        let rows = self.with_claims(rows);
        let shared = vec![self.flow.into(), self.now.millis().into(), (&batch.flow_version).into()];
        rows.query(self.dialect, shared, |rows| {
            format!(
                "INSERT INTO usher_open_run (flow, event_ref, subject, digest, partition, position, origin, type, occurred_at, \
                   received_at, provenance, body, reason, error, destination, expires_at, before_event, flow_version, state, \
                   request, attempts, unanswered, tried_since, asked_at, claimed_at, changed_at, admitted_at) \
                 SELECT $1, r.event_ref, r.subject, r.digest, r.own_partition, r.origin, r.origin, r.type, r.occurred_at, \
                   r.received_at, r.provenance, r.body, r.reason, r.error, r.destination, r.expires_at, r.before_event, $3, \
                   r.state, r.request, r.attempts, r.attempts, r.tried_at, r.tried_at, r.claimed_at, r.claimed_at, $2 \
                 FROM {rows} WHERE {} \
                   AND (SELECT 1 FROM usher_ended_run e WHERE e.event_ref = r.event_ref AND e.flow = $1) IS NULL \
                 ON CONFLICT (event_ref, flow) DO NOTHING RETURNING event_ref",
                FENCE
            )
        })
    }

    /// Records the senders and instances of events and subjects.
    fn senders(&self, starting: &[Start<'_>]) -> SqlQuery {
        let mut senders = BTreeSet::new();
        for Start { event, .. } in starting {
            senders.insert((event.event.source(), event.event.instance()));
            let subject = &event.arrival.event.subject;
            senders.insert((subject.source(), subject.instance()));
        }
        let senders: Vec<(&str, &str)> = senders.into_iter().collect();
        let rows = Rows::of(&senders).text("source", |(source, _)| *source).text("instance", |(_, instance)| *instance);
        rows.query(self.dialect, Vec::new(), |rows| {
            format!(
                "INSERT INTO usher_sender (source, instance) SELECT r.source, r.instance FROM {rows} WHERE true \
                 ON CONFLICT (source, instance) DO NOTHING"
            )
        })
    }

    /// Ends the earlier runs of the key. A run with an attempt in flight finishes the attempt and ends then.
    fn cancel(&self, arrival: &Arrival, statements: &mut Statements) {
        let fence = "EXISTS (SELECT 1 FROM usher_ownership f WHERE f.flow = $1 AND f.partition = $5 AND f.epoch = $6)";
        let earlier = format!("o.subject = $3 AND o.position < $4 AND {fence}");
        let params = [
            arrival.event.subject.as_str().into(),
            arrival.offset.0.into(),
            self.batch.partition.0.into(),
            self.batch.epoch.0.into(),
        ];
        let which = format!("{earlier} AND {NOT_UNDER_WAY}");
        for query in transitions::cancel(self.dialect, self.flow, self.now, &which, &params) {
            statements.push(Purpose::Cancelled, query);
        }
        let asked = query(format!("UPDATE usher_open_run AS o SET cancel_asked = 1 WHERE o.flow = $1 AND {earlier}"));
        let asked = asked.bind(self.flow).bind(self.now.millis());
        statements.push(Purpose::Write, params.into_iter().fold(asked, SqlQuery::bind));
    }

    /// Adds the statements that find which runs another one of their key precedes: of the new runs, of those that were
    /// woken, and of those that commands have queued.
    fn order(&self, statements: &mut Statements, commanded: &[Run]) {
        let claimed = |event: &&Identified<'_>| self.claims.contains_key(&event.arrival.offset);
        let started = self.new.iter().filter(|event| event.arrival.starts && !claimed(event));
        let started = started.map(|event| (event.event.clone(), &event.arrival.event.subject, event.arrival.offset.0));
        let commanded = commanded.iter().map(|run| (run.event.reference(), &run.event.subject, run.position));
        let queued: Vec<(EventRef, &SubjectId, i64)> = started.chain(commanded).collect();
        if !queued.is_empty() {
            statements.push(Purpose::Behind, behind_others(self.dialect, self.flow, &queued));
        }
        self.order_woken(statements);
    }

    /// Writes a batch that has operators' commands. They are carried out one by one, in one order with the cancellations: what
    /// a command has queued, a later event may cancel.
    async fn with_commands(
        &self,
        database: &Database,
        statements: Statements,
    ) -> Result<(Answers, Vec<CommandResult>), StoreError> {
        let mut writing = database.write().await?;
        let connection = writing.connection();
        let Statements { purposes, queries } = statements;
        let mut answers: Answers = purposes.into_iter().zip(connection.run_all(queries).await?).collect();
        self.check_fence(&answers)?;
        let mut results = Vec::new();
        for Identified { arrival, .. } in &self.new {
            if arrival.cancels {
                let mut cancels = Statements::default();
                self.cancel(arrival, &mut cancels);
                answers.extend(cancels.purposes.into_iter().zip(connection.run_all(cancels.queries).await?));
            }
            if let Some(order) = &arrival.command {
                let done = command::carry_out(connection, self.dialect, self.flow, self.batch, arrival, order).await?;
                results.push(done);
            }
        }
        let queued = |result: &CommandResult| match result {
            CommandResult::Queued(run) => Some((**run).clone()),
            CommandResult::Cancelled(..) | CommandResult::Nothing => None,
        };
        let mut last = Statements::default();
        self.order(&mut last, &results.iter().filter_map(queued).collect::<Vec<_>>());
        let found = connection.run_all(last.queries).await?;
        answers.extend(last.purposes.into_iter().zip(found));
        writing.commit().await?;
        Ok((answers, results))
    }

    fn check_fence(&self, answers: &Answers) -> Result<(), StoreError> {
        let moved = answers.iter().any(|(purpose, answer)| *purpose == Purpose::Frontier && answer.changed == 1);
        if moved { Ok(()) } else { Err(StoreError::Fenced(self.batch.partition)) }
    }

    /// Makes the result of the admission from the answers.
    fn result(&self, answers: &Answers, commanded: Vec<CommandResult>) -> Result<Admission, StoreError> {
        self.check_fence(answers)?;
        let rows = |of: Purpose| {
            answers.iter().filter(move |(purpose, _)| *purpose == of).flat_map(|(_, answer)| &answer.rows)
        };
        let events = |of: Purpose| rows(of).map(|row| Named(row).parsed("event_ref")).collect::<Result<Vec<_>, _>>();
        let made: BTreeSet<EventRef> = events(Purpose::Runs)?.into_iter().collect();
        let behind: BTreeSet<EventRef> = events(Purpose::Behind)?.into_iter().collect();
        let refused = answers.iter().filter(|(purpose, _)| *purpose == Purpose::Refused);
        let mut admission = Admission {
            repeated: self.repeated,
            refused: refused.map(|(_, answer)| usize::from(answer.changed > 0)).sum(),
            ..Admission::default()
        };
        let mut woken = runs(rows(Purpose::Woken))?;
        for row in rows(Purpose::Cancelled) {
            admission.cancelled.push((Named(row).parsed("subject")?, Named(row).parsed("event_ref")?));
        }
        for result in commanded {
            match result {
                CommandResult::Queued(run) => woken.push(*run),
                CommandResult::Cancelled(subject, event) => admission.cancelled.push((subject, event)),
                CommandResult::Nothing => {}
            }
        }
        let ended: BTreeSet<&EventRef> = admission.cancelled.iter().map(|(_, event)| event).collect();
        let begun = self.starting();
        let begun = begun.iter().filter(|start| made.contains(&start.event.event));
        let begun = begun.map(|start| self.admitted(start)).filter(|run| !ended.contains(&run.event.reference()));
        let goes_first = |run: &Run| !behind.contains(&run.event.reference());
        let (heads, followers) = begun.partition(goes_first);
        woken.retain(|run| !ended.contains(&run.event.reference()));
        let (woken, behind): (Vec<Run>, Vec<Run>) = woken.into_iter().partition(goes_first);
        let keys: BTreeSet<SubjectId> = behind.into_iter().map(|run| run.event.subject).collect();
        admission.behind = keys.into_iter().collect();
        Ok(Admission { heads, followers, woken, ..admission })
    }
}

/// Returns rows that carry the partition and the epoch of a batch, for the fence.
pub(super) fn fenced<'a, T>(items: &'a [T], batch: &Batch) -> Rows<'a, T> {
    let partition = i64::from(batch.partition.0);
    let epoch = batch.epoch.0;
    Rows::of(items).int("own_partition", move |_| partition).int("own_epoch", move |_| epoch)
}

/// Returns the statement that finds, of the open runs `o` that `which` finds for the rows, those that another run precedes.
pub(super) fn behind<T>(dialect: Dialect, flow: &str, rows: Rows<'_, T>, which: &str) -> SqlQuery {
    rows.query(dialect, vec![flow.into()], |rows| {
        format!(
            "SELECT o.event_ref FROM {rows} JOIN usher_open_run o ON {which} WHERE o.flow = $1 AND {}",
            preceded("o", "o.flow", &rank("o"))
        )
    })
}

/// Returns the statement that finds which of these runs, all of them queued, another one of their key precedes.
fn behind_others(dialect: Dialect, flow: &str, queued: &[(EventRef, &SubjectId, i64)]) -> SqlQuery {
    let rows = Rows::of(queued)
        .text("event_ref", |(event, ..)| event.as_str())
        .text("subject", |(_, subject, _)| subject.as_str())
        .int("position", |(.., position)| *position);
    rows.query(dialect, vec![flow.into()], |rows| {
        format!("SELECT r.event_ref FROM {rows} WHERE {}", preceded("r", "$1", "1"))
    })
}

fn new_run(batch: &Batch, Start { event, before, verdict }: &Start<'_>) -> Run {
    let Identified { arrival, .. } = event;
    Run {
        event: arrival.event.clone(),
        partition: batch.partition,
        position: arrival.offset.0,
        flow_version: batch.flow_version.clone(),
        step: 0,
        destination: batch.destination(&arrival.event),
        begun: false,
        rerun: 0,
        tries: AttemptState::default(),
        request: None,
        results: BTreeMap::new(),
        wait_until: None,
        expires_at: arrival.expires_at,
        before: before.cloned(),
        verdict: verdict.clone(),
        quarantined: false,
        claimed: None,
    }
}
