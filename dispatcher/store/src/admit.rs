//! Admission: batches of events become runs, all of each or nothing. What is known of the events is read in one round trip,
//! and everything is written in a second one, with a fixed number of statements. Only the owner of the partition writes its
//! runs and events, so what was read still holds if the fence does.
//!
//! Long, because the statements of one transaction stand together: each relies on those before it.

mod first_claim;
mod news;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use first_claim::Alone;
pub(super) use news::tell;
use serde_json::json;
use usher_engine::arrival::{Admission, Arrival, Batch, FirstClaim, RefusedRecord};
use usher_engine::field_diff::PreviousFields;
use usher_engine::{AttemptState, Run};
use usher_proto::{EventRef, Partition, Reason, Source, SubjectId, Timestamp};
use usher_service::clock;
use usher_sql::{Answer, Database, Dialect, Rows, SqlQuery, query};

use super::change::FENCE;
use super::command::{self, CommandResult};
use super::known::{self, Identified, LogPlace};
use super::prune::horizon;
use super::remember::{self, Learnt};
use super::rows::{Named, preceded, rank, runs};
use super::transitions::{self, CancelEntry, NOT_UNDER_WAY};
use super::{FirstClaims, StoreError, refused};

/// Admits batches, in one transaction if each could be admitted without the others. The result of a batch is `None` if another
/// replica owns its partition.
pub(super) async fn admit(
    database: &Database,
    flow: &str,
    batches: &[Batch],
    claims: &dyn FirstClaims,
) -> Result<Vec<Option<Admission>>, StoreError> {
    if are_apart(batches) {
        return together(database, flow, batches, claims).await;
    }
    let mut admitted = Vec::with_capacity(batches.len());
    for batch in batches {
        admitted.extend(together(database, flow, std::slice::from_ref(batch), claims).await?);
    }
    Ok(admitted)
}

/// Returns true if no two batches concern the same subject or event, which only foreign producers can cause, and no operator
/// commands anything: commands are carried out one by one.
fn are_apart(batches: &[Batch]) -> bool {
    let mut of_subject: HashMap<&SubjectId, Partition> = HashMap::new();
    let mut of_event: HashMap<EventRef, Partition> = HashMap::new();
    batches.len() < 2
        || batches.iter().flat_map(|batch| batch.arrivals.iter().map(|arrival| (batch.partition, arrival))).all(
            |(partition, Arrival { event, command, .. })| {
                command.is_none()
                    && *of_subject.entry(&event.subject).or_insert(partition) == partition
                    && *of_event.entry(event.reference()).or_insert(partition) == partition
            },
        )
}

async fn together(
    database: &Database,
    flow: &str,
    batches: &[Batch],
    claims: &dyn FirstClaims,
) -> Result<Vec<Option<Admission>>, StoreError> {
    let mut admitting = Admitting::read(database, flow, batches).await?;
    admitting.claims = admitting.first_claims(claims).await;
    let mut statements = Statements::default();
    admitting.write(&mut statements);
    claims.turn().await;
    let has_commands = admitting.new.iter().any(|event| event.arrival.command.is_some());
    let (answers, commanded) = if has_commands {
        admitting.with_commands(database, statements).await?
    } else {
        for event in admitting.new.iter().filter(|event| event.arrival.cancels) {
            admitting.cancel(event, &mut statements);
        }
        admitting.order(&mut statements, &[]);
        (statements.transact(database).await?, Vec::new())
    };
    admitting.result(&answers, commanded)
}

/// Purpose of a statement of an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// Moves the frontier of a partition, which is also the fence.
    Frontier(Partition),
    /// Creates runs, and returns their events.
    Runs,
    /// Stores a refused record of a partition.
    Refused(Partition),
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

/// Batches on their way into the store.
struct Admitting<'a> {
    dialect: Dialect,
    flow: &'a str,
    batches: &'a [Batch],
    /// Arrivals that come for the first time.
    new: Vec<Identified<'a>>,
    /// The partition of each arrival that is known already.
    repeated: Vec<Partition>,
    conflicts: Vec<(&'a Batch, RefusedRecord)>,
    learnt: Learnt<'a>,
    /// Subjects of the runs that may begin, unless another run of them is open.
    alone: Alone,
    /// First claims, by the places of their runs.
    claims: BTreeMap<LogPlace, FirstClaim>,
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
    async fn read(database: &Database, flow: &'a str, batches: &'a [Batch]) -> Result<Self, StoreError> {
        let dialect = database.dialect;
        let events = known::identified(batches);
        let mut admitting = Self {
            dialect,
            flow,
            batches,
            new: Vec::new(),
            repeated: Vec::new(),
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
        queries.extend(first_claim::look(dialect, flow, &events));
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
                let Arrival { event: content, verdict, .. } = event.arrival;
                let too_old =
                    (content.received_at < horizon).then(|| (Reason::TooOld, format!("received before {horizon}")));
                let before = self.learnt.before.get(&event.place());
                Start { event, before, verdict: verdict.clone().or(too_old) }
            })
            .collect()
    }

    /// Adds the statements that write the batch.
    fn write(&self, statements: &mut Statements) {
        let dialect = self.dialect;
        let flow = self.flow;
        for batch in self.batches {
            statements.push(Purpose::Frontier(batch.partition), self.frontier(batch));
        }
        let refused = self.batches.iter().flat_map(|batch| batch.refused.iter().map(move |record| (batch, record)));
        for (batch, record) in refused.chain(self.conflicts.iter().map(|(batch, record)| (*batch, record))) {
            let keep = refused::keep(self.flow, batch, record, self.now);
            statements.push(Purpose::Refused(batch.partition), keep);
        }
        let starting = self.starting();
        if !starting.is_empty() {
            statements.push(Purpose::Runs, self.runs(&starting));
            statements.push(Purpose::Write, self.senders(&starting));
        }
        let others: Vec<&Identified<'_>> = self.new.iter().filter(|event| !event.arrival.starts).collect();
        if !others.is_empty() {
            statements.push(Purpose::Write, known::keep(dialect, flow, &others));
        }
        if let Some(learnt) = remember::keep(dialect, flow, &self.learnt) {
            statements.push(Purpose::Write, learnt);
        }
        self.write_news(statements);
    }

    /// Moves the frontier. This is also the fence: it changes no row if another replica owns the partition. Also records the
    /// receive time of the newest webhook that the flow has seen, which bounds what may be deleted. Usher's own events do not
    /// count, because they may carry the time of any machine.
    fn frontier(&self, batch: &Batch) -> SqlQuery {
        let sent = batch.arrivals.iter().filter(|arrival| arrival.event.source != Source::Usher);
        let newest = sent.map(|arrival| arrival.event.received_at.millis()).max();
        let sql = "UPDATE usher_ownership SET frontier = $1, sought = NULL, \
                     newest_at = CASE WHEN COALESCE(newest_at, 0) < $5 THEN $5 ELSE newest_at END \
                   WHERE flow = $2 AND partition = $3 AND epoch = $4";
        query(sql)
            .prepared()
            .bind(batch.frontier.0)
            .bind(self.flow)
            .bind(batch.partition.0)
            .bind(batch.epoch.0)
            .bind(newest.unwrap_or(0))
    }

    /// Creates the runs. A run that another partition has created meanwhile, which a foreign producer can cause, is left
    /// unchanged.
    fn runs(&self, starting: &[Start<'_>]) -> SqlQuery {
        let rows = fenced(starting, |start| start.event.batch)
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
            .text("destination", |start| start.event.batch.destination(&start.event.arrival.event))
            .int("expires_at", |start| start.event.arrival.expires_at.map(Timestamp::millis))
            .text("before_event", |start| start.before.map(|before| json!(before).to_string()));
        let rows = self.with_claims(rows);
        // They are batches of one process.
        let version = self.batches.first().map(|batch| batch.flow_version.as_str());
        let shared = vec![self.flow.into(), self.now.millis().into(), version.into()];
        rows.query(self.dialect, shared, |rows| {
            format!(
                "INSERT INTO usher_open_run (flow, event_ref, subject, digest, partition, position, origin, type, occurred_at, \
                   received_at, provenance, body, reason, error, destination, expires_at, before_event, flow_version, state, \
                   request, attempts, unanswered, tried_since, asked_at, claimed_until, claimed_at, changed_at, admitted_at) \
                 SELECT $1, r.event_ref, r.subject, r.digest, r.own_partition, r.origin, r.origin, r.type, r.occurred_at, \
                   r.received_at, r.provenance, r.body, r.reason, r.error, r.destination, r.expires_at, r.before_event, $3, \
                   r.state, r.request, r.attempts, r.attempts, r.tried_at, r.tried_at, r.claimed_until, r.claimed_at, r.claimed_at, $2 \
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
    fn cancel(&self, event: &Identified<'_>, statements: &mut Statements) {
        let Identified { arrival, batch, .. } = event;
        let fence = "EXISTS (SELECT 1 FROM usher_ownership f WHERE f.flow = $1 AND f.partition = $5 AND f.epoch = $6)";
        let earlier = format!("o.subject = $3 AND o.position < $4 AND {fence}");
        let params = [
            arrival.event.subject.as_str().into(),
            arrival.offset.0.into(),
            batch.partition.0.into(),
            batch.epoch.0.into(),
        ];
        let entry = CancelEntry::by_event(&event.event, &arrival.event.kind, self.now);
        let which = format!("{earlier} AND {NOT_UNDER_WAY}");
        for query in transitions::cancel(self.dialect, self.flow, self.now, &which, &params, Some(&entry)) {
            statements.push(Purpose::Cancelled, query);
        }
        let asked = transitions::ask_to_cancel(self.dialect, self.flow, self.now, &earlier, &params, &entry);
        statements.push(Purpose::Write, asked);
    }

    /// Adds the statements that find which runs another one of their key precedes: of the new runs, of those that were
    /// woken, and of those that commands have queued.
    fn order(&self, statements: &mut Statements, commanded: &[Run]) {
        let claimed = |event: &&Identified<'_>| self.claims.contains_key(&event.place());
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
        if !self.batches.iter().all(|batch| is_owned(&answers, batch.partition)) {
            // Nothing is written: the batch with the commands is alone.
            return Ok((answers, Vec::new()));
        }
        let mut results = Vec::new();
        for event in &self.new {
            let Identified { arrival, batch, .. } = event;
            if arrival.cancels {
                let mut cancels = Statements::default();
                self.cancel(event, &mut cancels);
                answers.extend(cancels.purposes.into_iter().zip(connection.run_all(cancels.queries).await?));
            }
            if let Some(order) = &arrival.command {
                let done = command::carry_out(connection, self.dialect, self.flow, batch, arrival, order).await?;
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

    /// Makes the results of the admission from the answers.
    fn result(&self, answers: &Answers, commanded: Vec<CommandResult>) -> Result<Vec<Option<Admission>>, StoreError> {
        let rows = |of: Purpose| {
            answers.iter().filter(move |(purpose, _)| *purpose == of).flat_map(|(_, answer)| &answer.rows)
        };
        let events = |of: Purpose| rows(of).map(|row| Named(row).parsed("event_ref")).collect::<Result<Vec<_>, _>>();
        let made: BTreeSet<EventRef> = events(Purpose::Runs)?.into_iter().collect();
        let behind: BTreeSet<EventRef> = events(Purpose::Behind)?.into_iter().collect();
        let mut woken = runs(rows(Purpose::Woken))?;
        let mut cancelled = Vec::new();
        for row in rows(Purpose::Cancelled) {
            cancelled.push((Named(row).parsed("subject")?, Named(row).parsed("event_ref")?));
        }
        for result in commanded {
            match result {
                CommandResult::Queued(run) => woken.push(*run),
                CommandResult::Cancelled(subject, event) => cancelled.push((subject, event)),
                CommandResult::Nothing => {}
            }
        }
        let ended: BTreeSet<EventRef> =
            cancelled.iter().map(|(_, event): &(SubjectId, EventRef)| event.clone()).collect();
        woken.retain(|run| !ended.contains(&run.event.reference()));
        let goes_first = |run: &Run| !behind.contains(&run.event.reference());
        let begun = self.starting();
        let begun = begun.iter().filter(|start| made.contains(&start.event.event));
        let mut begun: Vec<Run> = begun.map(|start| self.admitted(start)).collect();
        begun.retain(|run| !ended.contains(&run.event.reference()));

        let mut admissions: BTreeMap<Partition, Admission> = BTreeMap::new();
        self.repeated.iter().for_each(|partition| admissions.entry(*partition).or_default().repeated += 1);
        for (purpose, answer) in answers {
            if let Purpose::Refused(partition) = purpose {
                admissions.entry(*partition).or_default().refused += usize::from(answer.changed > 0);
            }
        }
        for run in begun {
            let admission = admissions.entry(run.partition).or_default();
            if goes_first(&run) { admission.heads.push(run) } else { admission.followers.push(run) }
        }
        for run in woken {
            let admission = admissions.entry(run.partition).or_default();
            if goes_first(&run) { admission.woken.push(run) } else { admission.behind.push(run.event.subject) }
        }
        for (subject, event) in cancelled {
            let by = self.new.iter().find(|event| event.arrival.event.subject == subject);
            let partition = by.or(self.new.first()).map_or(Partition(0), |event| event.batch.partition);
            admissions.entry(partition).or_default().cancelled.push((subject, event));
        }
        let result = |batch: &Batch| {
            let owned = is_owned(answers, batch.partition);
            let mut admission = owned.then(|| admissions.remove(&batch.partition).unwrap_or_default())?;
            admission.behind.sort();
            admission.behind.dedup();
            Some(admission)
        };
        Ok(self.batches.iter().map(result).collect())
    }
}

/// Returns true if the frontier of a partition was moved, and so this process owns it.
fn is_owned(answers: &Answers, partition: Partition) -> bool {
    answers.iter().any(|(purpose, answer)| *purpose == Purpose::Frontier(partition) && answer.changed == 1)
}

/// Returns rows that carry the partition and the epoch of their batches, for the fence.
pub(super) fn fenced<'a, T>(items: &'a [T], batch: impl Fn(&'a T) -> &'a Batch) -> Rows<'a, T> {
    Rows::of(items)
        .int("own_partition", |item| i64::from(batch(item).partition.0))
        .int("own_epoch", |item| batch(item).epoch.0)
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

fn new_run(Start { event, before, verdict }: &Start<'_>) -> Run {
    let Identified { arrival, batch, .. } = event;
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
        untold: Vec::new(),
        claimed: None,
    }
}
