//! Admission: a batch of events becomes runs, all of it or nothing. The number of statements that create runs is fixed,
//! for any batch size.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};
use usher_engine::arrival::{Admission, Arrival, Batch};
use usher_engine::field_diff::PreviousFields;
use usher_engine::{AttemptState, Run};
use usher_proto::{EventRef, Offset, Reason, Snapshot, Source, SubjectId, Timestamp};
use usher_service::clock;
use usher_sql::{Database, Dialect};

use super::command::{self, CommandResult, end_what_is_not_under_way};
use super::prune::horizon;
use super::rows::{RUN_COLUMNS, runs};
use super::{StoreError, addresses, known, lanes, remember, suppression};

const ARRIVAL: [(&str, &str); 18] = [
    ("event_ref", "text"),
    ("subject", "text"),
    ("digest", "text"),
    ("event", "text"),
    ("key", "text"),
    ("origin", "bigint"),
    ("source", "text"),
    ("type", "text"),
    ("instance", "text"),
    ("occurred_at", "bigint"),
    ("received_at", "bigint"),
    ("provenance", "text"),
    ("body", "text"),
    ("reason", "text"),
    ("error", "text"),
    ("destination", "text"),
    ("expires_at", "bigint"),
    ("before_event", "text"),
];

const SNAPSHOT: [(&str, &str); 7] = [
    ("subject", "text"),
    ("updated_at", "bigint"),
    ("occurred_at", "bigint"),
    ("event", "text"),
    ("snapshot", "text"),
    ("deleted_at", "bigint"),
    ("address", "text"),
];

pub(super) async fn admit(database: &Database, flow: &str, batch: &Batch) -> Result<Admission, StoreError> {
    let dialect = database.dialect;
    let mut writing = database.write().await?;
    let connection = writing.connection();
    move_frontier(connection, flow, batch).await?;

    let mut admission = Admission::default();
    let known::Sorted { new, repeated, conflicts } = known::sort(connection, dialect, flow, batch).await?;
    admission.repeated = repeated;
    admission.refused = known::refuse(connection, batch, &conflicts).await?;
    let previous_fields = remember::compare(connection, dialect, flow, &new).await?;
    let starting = starting(connection, flow, &new, previous_fields).await?;
    let made = insert(connection, dialect, flow, batch, &starting).await?;
    known::keep(connection, dialect, flow, &new).await?;
    let begun = starting.iter().filter(|start| made.contains(start.arrival.event.reference().as_str()));
    let heads: Vec<Run> = begun.map(|start| new_run(batch, start)).collect();

    let subjects = newest(&new);
    let mut woken = Vec::new();
    if !subjects.is_empty() {
        apply(connection, dialect, &subjects).await?;
        woken = wake(connection, dialect, flow, &subjects).await?;
    }
    suppression::apply(connection, &new).await?;
    for arrival in new {
        if arrival.cancels {
            admission.cancelled.extend(cancel(connection, flow, arrival).await?);
        }
        if let Some(order) = &arrival.command {
            match command::carry_out(connection, flow, batch, arrival, order).await? {
                CommandResult::Queued(run) => woken.push(*run),
                CommandResult::Cancelled(event) => admission.cancelled.push((arrival.event.subject.clone(), event)),
                CommandResult::Nothing => {}
            }
        }
    }
    let ended: BTreeSet<&EventRef> = admission.cancelled.iter().map(|(_, event)| event).collect();
    let is_live = |run: &Run| !ended.contains(&run.event.reference());
    let live = |runs: Vec<Run>| runs.into_iter().filter(is_live).collect::<Vec<_>>();
    let heads = live(heads);
    let woken = live(woken);
    let behind = lanes::behind(connection, dialect, flow, heads.iter().chain(&woken)).await?;
    writing.commit().await?;

    let goes_first = |run: &Run| !behind.contains(run.event.reference().as_str());
    let others = heads.iter().chain(&woken).filter(|run| !goes_first(run));
    admission.behind = others.map(|run| run.event.subject.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    admission.heads = heads.into_iter().filter(goes_first).collect();
    admission.woken = woken.into_iter().filter(goes_first).collect();
    Ok(admission)
}

/// An arrival that starts a run, and the reason if that run is given up at once.
struct Start<'a> {
    arrival: &'a Arrival,
    before: Option<PreviousFields>,
    verdict: Option<(Reason, String)>,
}

/// Returns the arrivals that start runs. An event received before the retention horizon may have been executed already,
/// so it is not taken for new. The receive time is that of ingest's clock, and ingest takes no webhook that its own
/// clock does not agree with. The time of the event by the sender's clock does not matter for retention.
async fn starting<'a>(
    connection: &mut AnyConnection,
    flow: &str,
    new: &[&'a Arrival],
    mut previous_fields: BTreeMap<Offset, PreviousFields>,
) -> Result<Vec<Start<'a>>, StoreError> {
    let starting: Vec<&Arrival> = new.iter().copied().filter(|arrival| arrival.starts).collect();
    if starting.is_empty() {
        return Ok(Vec::new());
    }
    let horizon = horizon(connection, flow).await?;
    let mut start = |arrival: &'a Arrival| {
        let too_old =
            (arrival.event.received_at < horizon).then(|| (Reason::TooOld, format!("received before {horizon}")));
        let before = previous_fields.remove(&arrival.offset);
        Start { arrival, before, verdict: arrival.verdict.clone().or(too_old) }
    };
    Ok(starting.into_iter().map(&mut start).collect())
}

/// Moves the frontier. This is also the fence: it fails if another replica owns the partition. Also records the receive
/// time of the newest webhook that the flow has seen, which bounds what may be deleted. Usher's own events do not
/// count, because they may carry the time of any machine.
async fn move_frontier(connection: &mut AnyConnection, flow: &str, batch: &Batch) -> Result<(), StoreError> {
    let sent = batch.arrivals.iter().filter(|arrival| arrival.event.source != Source::Usher);
    let newest = sent.map(|arrival| arrival.event.received_at.millis()).max();
    let sql = "UPDATE usher_ownership SET frontier = $1, sought = NULL, \
                 newest_at = CASE WHEN COALESCE(newest_at, 0) < $5 THEN $5 ELSE newest_at END \
               WHERE flow = $2 AND partition = $3 AND epoch = $4";
    let moved = sqlx::query(sql)
        .bind(batch.frontier.0)
        .bind(flow)
        .bind(i64::from(batch.partition.0))
        .bind(batch.epoch.0)
        .bind(newest.unwrap_or(0))
        .execute(connection)
        .await?;
    if moved.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Fenced(batch.partition)) }
}

/// Inserts the runs and returns the references of those inserted. A run that another partition has inserted meanwhile,
/// which a foreign producer can cause, is left unchanged.
async fn insert(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    batch: &Batch,
    starting: &[Start<'_>],
) -> Result<BTreeSet<String>, StoreError> {
    if starting.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows: Vec<serde_json::Value> = starting
        .iter()
        .map(|Start { arrival: arrival @ Arrival { offset, event, expires_at, .. }, before, verdict }| {
            json!({
                "event_ref": event.reference().as_str(),
                "subject": event.subject.as_str(),
                // An event that is stored without its body is recognised by its id alone.
                "digest": (!matches!(verdict, Some((Reason::Unstorable, _)))).then(|| known::digest(arrival)),
                "event": event.id.as_str(),
                "key": event.subject.key(),
                "origin": offset,
                "source": event.source.label(),
                "type": event.kind,
                "instance": event.instance(),
                "occurred_at": event.occurred_at.millis(),
                "received_at": event.received_at.millis(),
                "provenance": serde_json::to_string(&event.provenance).unwrap_or_default(),
                "body": String::from_utf8_lossy(&event.body),
                "reason": verdict.as_ref().map(|(reason, _)| reason.label()),
                "error": verdict.as_ref().map(|(_, error)| error),
                "destination": batch.destination(event),
                "expires_at": expires_at.map(Timestamp::millis),
                "before_event": before.as_ref().map(|before| json!(before).to_string()),
            })
        })
        .collect();
    let sql = format!(
        "INSERT INTO usher_run (flow, event_ref, subject, digest, event, key, partition, position, origin, source, type, instance, occurred_at, \
                                received_at, provenance, body, reason, error, expires_at, before_event, \
                                flow_version, state, admitted_at, destination) \
         SELECT $2, r.event_ref, r.subject, r.digest, r.event, r.key, $3, r.origin, r.origin, r.source, r.type, r.instance, r.occurred_at, \
                r.received_at, r.provenance, r.body, r.reason, r.error, r.expires_at, r.before_event, $4, 'queued', $5, \
                r.destination \
         FROM {} WHERE true ON CONFLICT (flow, event_ref) DO NOTHING RETURNING event_ref",
        dialect.rows(&ARRIVAL)
    );
    let inserted = sqlx::query(AssertSqlSafe(sql))
        .bind(serde_json::Value::Array(rows).to_string())
        .bind(flow)
        .bind(i64::from(batch.partition.0))
        .bind(&batch.flow_version)
        .bind(clock::now().millis())
        .fetch_all(connection)
        .await?;
    Ok(inserted.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// The newest snapshot of each subject. They are ordered by subject, because flows that write the same subjects at the
/// same time would otherwise deadlock.
type News<'a> = BTreeMap<&'a SubjectId, (EventRef, &'a Snapshot)>;

fn newest<'a>(arrivals: &[&'a Arrival]) -> News<'a> {
    let mut newest = News::new();
    for arrival in arrivals {
        let Some(snapshot) = &arrival.snapshot else { continue };
        let entry = newest.entry(&arrival.event.subject).or_insert((arrival.event.reference(), snapshot));
        if snapshot.replaces(entry.1) {
            *entry = (arrival.event.reference(), snapshot);
        }
    }
    newest
}

async fn apply(connection: &mut AnyConnection, dialect: Dialect, subjects: &News<'_>) -> Result<(), StoreError> {
    let rows: Vec<serde_json::Value> = subjects
        .iter()
        .map(|(key, (event, snapshot))| {
            json!({
                "subject": key.as_str(),
                "updated_at": snapshot.updated_at,
                "occurred_at": snapshot.occurred_at,
                "event": event.as_str(),
                "snapshot": snapshot.data,
                "deleted_at": snapshot.data.is_none().then_some(snapshot.occurred_at),
                "address": addresses::of(key, snapshot.data.as_deref()),
            })
        })
        .collect();
    // Every flow applies every snapshot; the same event a second time changes nothing.
    let sql = format!(
        "INSERT INTO usher_subject (subject, updated_at, occurred_at, event, snapshot, deleted_at, address, revision) \
         SELECT r.subject, r.updated_at, r.occurred_at, r.event, r.snapshot, r.deleted_at, r.address, 1 FROM {} WHERE true \
         ON CONFLICT (subject) DO UPDATE SET \
           updated_at = excluded.updated_at, occurred_at = excluded.occurred_at, event = excluded.event, \
           snapshot = excluded.snapshot, deleted_at = excluded.deleted_at, address = excluded.address, \
           revision = usher_subject.revision + 1 \
         WHERE usher_subject.deleted_at IS NULL AND usher_subject.event <> excluded.event AND ( \
           excluded.deleted_at IS NOT NULL OR \
           (usher_subject.updated_at, usher_subject.occurred_at) <= (excluded.updated_at, excluded.occurred_at))",
        dialect.rows(&SNAPSHOT)
    );
    sqlx::query(AssertSqlSafe(sql)).bind(serde_json::Value::Array(rows).to_string()).execute(connection).await?;
    Ok(())
}

/// Ends the waits for news of these subjects.
async fn wake(
    connection: &mut AnyConnection,
    dialect: Dialect,
    flow: &str,
    subjects: &News<'_>,
) -> Result<Vec<Run>, StoreError> {
    let keys: Vec<&str> = subjects.keys().map(|key| key.as_str()).collect();
    let sql = format!(
        "UPDATE usher_run SET state = 'queued' WHERE flow = $1 AND state = 'waiting' AND awaits_news = 1 \
         AND subject IN ({}) RETURNING {RUN_COLUMNS}",
        dialect.texts()
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(flow).bind(json!(keys).to_string()).fetch_all(connection).await?;
    runs(&rows)
}

/// Ends the earlier runs of the key. A run with an attempt in flight finishes the attempt and ends then.
async fn cancel(
    connection: &mut AnyConnection,
    flow: &str,
    arrival: &Arrival,
) -> Result<Vec<(SubjectId, EventRef)>, StoreError> {
    let sql = format!("{} AND subject = $3 AND position < $4 RETURNING event_ref", end_what_is_not_under_way());
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(clock::now().millis())
        .bind(flow)
        .bind(arrival.event.subject.as_str())
        .bind(arrival.offset.0)
        .fetch_all(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE usher_run SET cancel_asked = 1 WHERE flow = $1 AND subject = $2 AND position < $3 AND ended_at IS NULL",
    )
    .bind(flow)
    .bind(arrival.event.subject.as_str())
    .bind(arrival.offset.0)
    .execute(connection)
    .await?;
    let ended = |row: &AnyRow| {
        let event = row.try_get::<String, _>(0)?.parse().map_err(|_| StoreError::Unreadable("event_ref".into()))?;
        Ok((arrival.event.subject.clone(), event))
    };
    rows.iter().map(ended).collect()
}

fn new_run(batch: &Batch, Start { arrival, before, verdict }: &Start<'_>) -> Run {
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
        before: before.clone(),
        verdict: verdict.clone(),
        quarantined: false,
    }
}
