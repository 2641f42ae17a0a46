//! Changes of runs: all of one kind in one statement, and all of a batch in one transaction and one round trip.
//!
//! Long, because the statements of all kinds stand together: they share rows, condition and fence.

use std::collections::BTreeMap;

use serde_json::json;
use usher_engine::isolate::storable;
use usher_engine::{AttemptState, Change, ChangeKind, Changed, RunState, StepEffect};
use usher_proto::{Epoch, EventRef, Partition, Timestamp};
use usher_service::clock;
use usher_sql::{Answer, Database, Dialect, Rows, SqlParam, SqlQuery, query};

use super::StoreError;
use super::rows::{LASTING_COLUMNS, Named};
use super::story::{self, set_story, with_story};
use super::transitions::{self, ENDED_COLUMNS};

pub(super) async fn change(database: &Database, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
    let mut changed = vec![Changed::Written; changes.len()];
    for round in rounds(changes) {
        write(database, flow, &round, &mut changed).await?;
    }
    Ok(changed)
}

/// A change, with its place among those that were asked for.
type Placed<'a> = (usize, &'a Change);

/// Splits changes so that no run is in a part twice: within a statement nothing has an order.
fn rounds(changes: &[Change]) -> Vec<Vec<Placed<'_>>> {
    let mut rounds: Vec<Vec<Placed<'_>>> = vec![Vec::new()];
    let mut last: BTreeMap<&EventRef, usize> = BTreeMap::new();
    for (place, change) in changes.iter().enumerate() {
        let round = last.get(&change.event).map_or(0, |round| round + 1);
        if round == rounds.len() {
            rounds.push(Vec::new());
        }
        last.insert(&change.event, round);
        rounds[round].push((place, change));
    }
    rounds
}

async fn write(
    database: &Database,
    flow: &str,
    changes: &[Placed<'_>],
    changed: &mut [Changed],
) -> Result<(), StoreError> {
    let dialect = database.dialect;
    let now = clock::now();
    let epochs: BTreeMap<Partition, Epoch> =
        changes.iter().map(|(_, change)| (change.partition, change.epoch)).collect();
    let mut queries = vec![lock(dialect, flow, &epochs)];
    let by_kind = ByKind::of(changes);
    queries.extend(by_kind.queries(dialect, flow, now));
    let mut answers = database.transact(queries).await?.into_iter();
    let current = owned(&answers.next().unwrap_or_default())?;
    let mut found: BTreeMap<EventRef, Changed> = BTreeMap::new();
    for answer in answers {
        for row in &answer.rows {
            let row = Named(row);
            let is_awake = row.get::<Option<String>>("woken_state")?.is_some_and(|s| s == RunState::Running.label());
            found.insert(row.parsed("event_ref")?, if is_awake { Changed::Awake } else { Changed::Written });
        }
    }
    let mut over = Vec::new();
    for (place, change) in changes {
        let is_end = matches!(change.kind, ChangeKind::End { .. });
        changed[*place] = match found.get(&change.event) {
            _ if current.get(&change.partition) != Some(&change.epoch) => Changed::Fenced,
            Some(changed) => *changed,
            None if is_end => Changed::Written,
            None => {
                over.push((*place, *change));
                Changed::Ended
            }
        };
    }
    if over.is_empty() { Ok(()) } else { cancel_as_asked(database, flow, &over, &epochs, now, changed).await }
}

/// Returns the statement that locks the partitions, in one order everywhere, and returns their epochs.
pub(super) fn lock(dialect: Dialect, flow: &str, epochs: &BTreeMap<Partition, Epoch>) -> SqlQuery {
    let partitions: Vec<i64> = epochs.keys().map(|partition| i64::from(partition.0)).collect();
    Rows::of(&partitions).int("partition", |partition| *partition).query(dialect, vec![flow.into()], |rows| {
        format!(
            "SELECT o.partition, o.epoch FROM usher_ownership o JOIN {rows} ON o.partition = r.partition WHERE o.flow = $1 \
             ORDER BY o.partition{}",
            dialect.for_share_of("o")
        )
    })
}

/// Reads the answer to [`lock`].
pub(super) fn owned(answer: &Answer) -> Result<BTreeMap<Partition, Epoch>, StoreError> {
    let row = |row| Ok((Partition(Named(row).get("partition")?), Epoch(Named(row).get("epoch")?)));
    answer.rows.iter().map(row).collect()
}

/// The condition that a row `r` of a statement has the present epoch of its partition.
pub(super) const FENCE: &str = "EXISTS (SELECT 1 FROM usher_ownership f WHERE f.flow = $1 AND f.partition = r.own_partition AND f.epoch = r.own_epoch)";

/// A run whose end was requested by an operator or an event does not continue.
const GOES_ON: &str = "o.cancel_asked = 0";

/// Changes of each kind, with what the kind holds.
#[derive(Default)]
struct ByKind<'a> {
    claims: Vec<(&'a Change, &'a AttemptState, &'a [u8])>,
    advances: Vec<(&'a Change, Advance<'a>)>,
    waits: Vec<(&'a Change, Timestamp, Option<i64>)>,
    retries: Vec<(&'a Change, &'a AttemptState, Option<&'a [u8]>)>,
    parks: Vec<(&'a Change, Timestamp, &'a AttemptState, Option<&'a [u8]>)>,
    ends: Vec<(&'a Change, End<'a>)>,
}

struct Advance<'a> {
    to: usize,
    destination: Option<&'a str>,
    effect: Option<&'a StepEffect>,
    results: String,
}

struct End<'a> {
    state: RunState,
    effect: Option<&'a StepEffect>,
    note: Option<&'static str>,
    reason: Option<&'static str>,
    error: Option<String>,
    in_doubt: bool,
}

impl End<'_> {
    /// A dead run keeps what it may be redriven with. An expired run would only expire again, so its content, such as a
    /// one-time code, is deleted.
    fn keeps(&self) -> bool {
        self.state == RunState::Dead && !self.is_expired()
    }

    fn keeps_request(&self) -> bool {
        self.in_doubt && !self.is_expired()
    }

    fn is_expired(&self) -> bool {
        self.reason == Some(usher_proto::Reason::Expired.label())
    }
}

impl<'a> ByKind<'a> {
    fn of(changes: &[Placed<'a>]) -> Self {
        let mut by_kind = Self::default();
        for (_, change) in changes {
            match &change.kind {
                ChangeKind::Claim { tries, request } => by_kind.claims.push((change, tries, request)),
                ChangeKind::Advance { to, destination, effect, results } => {
                    // A map of numbers to JSON values is always JSON.
                    let results = serde_json::to_string(results).unwrap_or_default();
                    let advance =
                        Advance { to: *to, destination: destination.as_deref(), effect: effect.as_ref(), results };
                    by_kind.advances.push((change, advance));
                }
                ChangeKind::Wait { until, news_after } => by_kind.waits.push((change, *until, *news_after)),
                ChangeKind::Retry { at: _, tries, request } => {
                    by_kind.retries.push((change, tries, request.as_deref()));
                }
                ChangeKind::Park { until, tries, request } => {
                    by_kind.parks.push((change, *until, tries, request.as_deref()));
                }
                ChangeKind::End { state, effect, note, verdict, in_doubt } => {
                    let reason = verdict.as_ref().map(|(reason, _)| reason.label());
                    let error = verdict.as_ref().map(|(_, error)| storable(error));
                    let effect = effect.as_ref();
                    by_kind
                        .ends
                        .push((change, End { state: *state, effect, note: *note, reason, error, in_doubt: *in_doubt }));
                }
            }
        }
        by_kind
    }

    fn queries(self, dialect: Dialect, flow: &str, now: Timestamp) -> Vec<SqlQuery> {
        let shared = || vec![SqlParam::from(flow), now.millis().into()];
        let mut queries = Vec::new();
        if !self.claims.is_empty() {
            queries.push(claim(dialect, shared(), &self.claims));
        }
        if !self.advances.is_empty() {
            queries.push(advance(dialect, shared(), &self.advances, now));
        }
        if !self.waits.is_empty() {
            queries.push(wait(dialect, shared(), &self.waits));
        }
        if !self.retries.is_empty() {
            queries.push(again(dialect, shared(), &self.retries));
        }
        if !self.parks.is_empty() {
            queries.push(park(dialect, shared(), &self.parks));
        }
        if !self.ends.is_empty() {
            queries.extend(end(dialect, shared(), &self.ends, now));
        }
        queries
    }
}

/// Returns rows with the columns by which each statement finds its runs.
fn of_runs<'a, T>(items: &'a [T], change: impl Fn(&'a T) -> &'a Change) -> Rows<'a, T> {
    Rows::of(items)
        .text("run", |item| change(item).event.as_str())
        .int("own_partition", |item| i64::from(change(item).partition.0))
        .int("own_epoch", |item| change(item).epoch.0)
}

/// Returns the condition of an update of the open runs of the rows.
fn which() -> String {
    format!("o.event_ref = r.run AND o.flow = $1 AND {FENCE} AND {GOES_ON}")
}

/// The columns of [`AttemptState`], but for `claimed_until`, from the rows' columns of the same names.
const TRIES: &str = "attempts = r.attempts, spent = r.spent, unanswered = r.unanswered, generation = r.generation, \
                     tried_since = r.tried_since, asked_at = r.asked_at, failed_at = r.failed_at, \
                     claimed_until = r.claimed_until";

fn with_tries<'a, T>(rows: Rows<'a, T>, tries: impl Fn(&'a T) -> &'a AttemptState) -> Rows<'a, T> {
    let time = |time: Option<Timestamp>| time.map(Timestamp::millis);
    rows.int("attempts", |item| i64::from(tries(item).attempts))
        .int("spent", |item| i64::from(tries(item).counted))
        .int("unanswered", |item| i64::from(tries(item).unanswered))
        .int("generation", |item| i64::from(tries(item).generation))
        .int("tried_since", |item| time(tries(item).first_at))
        .int("asked_at", |item| time(tries(item).first_sent_at))
        .int("failed_at", |item| time(tries(item).failed_at))
        .int("claimed_until", |item| time(tries(item).claimed_until))
}

fn bytes(of: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(of)
}

fn claim(dialect: Dialect, shared: Vec<SqlParam>, claims: &[(&Change, &AttemptState, &[u8])]) -> SqlQuery {
    let rows = with_tries(of_runs(claims, |(change, ..)| change), |(_, tries, _)| tries)
        .bytes("request", |(.., request)| Some(bytes(request)));
    rows.query(dialect, shared, |rows| {
        format!(
            "UPDATE usher_open_run AS o SET state = 'running', claimed_at = $2, changed_at = $2, request = r.request, {TRIES} \
             FROM {rows} WHERE {} RETURNING event_ref, NULL AS woken_state",
            which()
        )
    })
}

/// Returns an effect as an item of the column `effects`; the pass is added there.
fn item(effect: &StepEffect, now: Timestamp) -> String {
    let StepEffect { step, name, connector, attempt, took, effect } = effect;
    // The destination chooses the id. It was made storable with the outcome, because an effect must be recorded however
    // its id is spelt.
    let mut item = json!({ "step": step, "name": name, "connector": connector, "id": effect.id, "at": now.millis() });
    if let Some(took) = took {
        item["ms"] = json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        item["attempt"] = json!(attempt);
    }
    item.to_string()
}

/// Returns the SQL that adds the effect of row `r`, if it has one, to those of run `o`.
fn effects() -> &'static str {
    "CASE WHEN r.effect IS NULL THEN o.effects \
          ELSE COALESCE(substr(o.effects, 1, length(o.effects) - 1) || ',', '[') \
               || '{\"pass\":' || CAST(o.pass AS TEXT) || ',' || substr(r.effect, 2) || ']' END"
}

fn advance(dialect: Dialect, shared: Vec<SqlParam>, advances: &[(&Change, Advance<'_>)], now: Timestamp) -> SqlQuery {
    let rows = of_runs(advances, |(change, _)| change)
        .int("step", |(_, advance)| i64::try_from(advance.to).unwrap_or(i64::MAX))
        .text("destination", |(_, advance)| advance.destination)
        .text("results", |(_, advance)| advance.results.as_str())
        .text("effect", |(_, advance)| advance.effect.map(|effect| item(effect, now)));
    with_story(rows, |(change, _)| change).query(dialect, shared, |rows| {
        // Written a second time, after a lost answer, it finds the step that it leads to and adds no effect.
        format!(
            "UPDATE usher_open_run AS o SET state = 'running', step = r.step, destination = r.destination, \
               results = r.results, effects = CASE WHEN o.step < r.step THEN {} ELSE o.effects END, {}, {} \
             FROM {rows} WHERE {} RETURNING event_ref, NULL AS woken_state",
            effects(),
            set_story(dialect),
            transitions::fresh_step(),
            which()
        )
    })
}

fn wait(dialect: Dialect, shared: Vec<SqlParam>, waits: &[(&Change, Timestamp, Option<i64>)]) -> SqlQuery {
    let rows = of_runs(waits, |(change, ..)| change)
        .int("due_at", |(_, until, _)| until.millis())
        .int("news_after", |(.., news_after)| *news_after);
    let come = "r.news_after IS NOT NULL AND EXISTS ( \
                  SELECT 1 FROM usher_subject s WHERE s.subject = o.subject AND s.revision > r.news_after)";
    rows.query(dialect, shared, |rows| {
        // News that were applied after the run was found to lack them would otherwise be missed for good.
        format!(
            "UPDATE usher_open_run AS o SET due_at = r.due_at, changed_at = $2, claimed_at = NULL, \
               awaits_news = CASE WHEN r.news_after IS NULL THEN 0 ELSE 1 END, \
               state = CASE WHEN {come} THEN 'running' ELSE 'waiting' END, \
               wakes_at = CASE WHEN {come} THEN NULL ELSE r.due_at END \
             FROM {rows} WHERE {} RETURNING event_ref, state AS woken_state",
            which()
        )
    })
}

/// Records an attempt that failed. The run stays in its process, which makes the next one.
fn again(dialect: Dialect, shared: Vec<SqlParam>, retries: &[(&Change, &AttemptState, Option<&[u8]>)]) -> SqlQuery {
    let rows = with_tries(of_runs(retries, |(change, ..)| change), |(_, tries, _)| tries)
        .bytes("request", |(.., request)| request.map(bytes));
    with_story(rows, |(change, ..)| change).query(dialect, shared, |rows| {
        format!(
            "UPDATE usher_open_run AS o SET state = 'running', request = r.request, claimed_at = NULL, changed_at = $2, {TRIES}, {} \
             FROM {rows} WHERE {} RETURNING event_ref, NULL AS woken_state",
            set_story(dialect),
            which()
        )
    })
}

fn park(
    dialect: Dialect,
    shared: Vec<SqlParam>,
    parks: &[(&Change, Timestamp, &AttemptState, Option<&[u8]>)],
) -> SqlQuery {
    let rows = with_tries(of_runs(parks, |(change, ..)| change), |(_, _, tries, _)| tries)
        .int("due_at", |(_, until, ..)| until.millis())
        .bytes("request", |(.., request)| request.map(bytes));
    with_story(rows, |(change, ..)| change).query(dialect, shared, |rows| {
        format!(
            "UPDATE usher_open_run AS o SET state = 'parked', due_at = r.due_at, wakes_at = r.due_at, request = r.request, claimed_at = NULL, \
               changed_at = $2, {TRIES}, {} FROM {rows} WHERE {} RETURNING event_ref, NULL AS woken_state",
            set_story(dialect),
            which()
        )
    })
}

/// Moves runs to those that have ended.
fn end(dialect: Dialect, shared: Vec<SqlParam>, ends: &[(&Change, End<'_>)], now: Timestamp) -> Vec<SqlQuery> {
    let flag = |flag: bool| i64::from(flag);
    let rows = of_runs(ends, |(change, _)| change)
        .text("state", |(_, end)| end.state.label())
        .text("note", |(_, end)| end.note)
        .text("reason", |(_, end)| end.reason)
        .text("error", |(_, end)| end.error.as_deref())
        .int("keeps", |(_, end)| flag(end.keeps()))
        .int("keeps_request", |(_, end)| flag(end.keeps_request()))
        .int("is_dead", |(_, end)| flag(end.state == RunState::Dead))
        .text("effect", |(_, end)| end.effect.map(|effect| item(effect, now)));
    let rows = with_story(rows, |(change, _)| change);
    let lasting: Vec<String> = LASTING_COLUMNS
        .split(", ")
        .map(|column| match column {
            "effects" => effects().to_owned(),
            "story" => story::added(dialect, "story"),
            _ => format!("o.{column}"),
        })
        .collect();
    let lasting = lasting.join(", ");
    let kept = |column: &str, when: &str| format!("CASE WHEN r.{when} = 1 THEN o.{column} END");
    let ended = [
        "$2".to_owned(),
        "r.state".to_owned(),
        "r.note".to_owned(),
        "r.reason".to_owned(),
        "r.error".to_owned(),
        kept("body", "keeps"),
        kept("before_event", "keeps"),
        kept("results", "keeps"),
        kept("request", "keeps_request"),
        "o.deaths + r.is_dead".to_owned(),
        "CASE WHEN r.is_dead = 1 THEN 1 ELSE o.letter END".to_owned(),
        format!("CASE WHEN r.keeps = 1 THEN {} END", story::added(dialect, "answers")),
        "CASE WHEN r.keeps = 1 THEN COALESCE(r.sent, o.sent) END".to_owned(),
    ]
    .join(", ");
    let into = format!("INSERT INTO usher_ended_run ({LASTING_COLUMNS}, {ENDED_COLUMNS})");
    match dialect {
        Dialect::Postgres => vec![rows.query(dialect, shared, |rows| {
            format!(
                "WITH gone AS (DELETE FROM usher_open_run AS o USING {rows} \
                   WHERE o.event_ref = r.run AND o.flow = $1 AND {FENCE} RETURNING {lasting}, {ended}) \
                 {into} SELECT * FROM gone"
            )
        })],
        Dialect::Sqlite => {
            let deleted = of_runs(ends, |(change, _)| change).query(dialect, shared.clone(), |rows| {
                format!(
                    "DELETE FROM usher_open_run WHERE flow = $1 AND event_ref = (SELECT run FROM {rows} WHERE {FENCE})"
                )
            });
            let moved = rows.query(dialect, shared, |rows| {
                format!(
                    "{into} SELECT {lasting}, {ended} FROM {rows} JOIN usher_open_run o ON o.event_ref = r.run \
                     WHERE o.flow = $1 AND {FENCE}"
                )
            });
            vec![moved, deleted]
        }
    }
}

/// Ends runs whose end was requested while an attempt was in flight, now that the attempt is over. The runs' changes were
/// not written; only their effects are. Whoever has lost the partition meanwhile writes nothing.
async fn cancel_as_asked(
    database: &Database,
    flow: &str,
    over: &[Placed<'_>],
    epochs: &BTreeMap<Partition, Epoch>,
    now: Timestamp,
    changed: &mut [Changed],
) -> Result<(), StoreError> {
    let dialect = database.dialect;
    let mut writing = database.write().await?;
    let connection = writing.connection();
    let locked = connection.run_all(vec![lock(dialect, flow, epochs)]).await?;
    let current = locked.first().map(owned).transpose()?.unwrap_or_default();
    for (place, change) in over {
        if current.get(&change.partition) != Some(&change.epoch) {
            changed[*place] = Changed::Fenced;
            continue;
        }
        let effect = match &change.kind {
            ChangeKind::Advance { effect, .. } => effect.as_ref(),
            _ => None,
        };
        let story = story::story(&change.story);
        if effect.is_some() || story.is_some() {
            let sql = format!(
                "UPDATE usher_open_run AS o SET effects = {}, story = {} \
                 FROM (SELECT CAST($1 AS TEXT) AS effect, CAST($4 AS TEXT) AS story) AS r \
                 WHERE o.event_ref = $2 AND o.flow = $3 AND o.cancel_asked = 1",
                effects(),
                story::added(dialect, "story")
            );
            let effect = effect.map(|effect| item(effect, now));
            let kept = query(sql).bind(effect).bind(change.event.as_str()).bind(flow).bind(story);
            kept.execute(&mut *connection).await?;
        }
        let which = "o.event_ref = $3 AND o.cancel_asked = 1";
        let cancelled = transitions::cancel(dialect, flow, now, which, &[change.event.as_str().into()], None);
        connection.run_all(cancelled).await?;
    }
    Ok(writing.commit().await?)
}
