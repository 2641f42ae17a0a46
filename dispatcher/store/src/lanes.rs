//! Lanes in the store: their heads, the runs that follow, and the runs that are due. Memory holds only some of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;
use usher_engine::{Run, RunState};
use usher_proto::{Epoch, EventRef, Partition, SubjectId, Timestamp};
use usher_sql::{Answer, Database, Dialect, Row, Rows, SqlQuery, query};

use super::admit::behind;
use super::change::{lock, owned};
use super::rows::{Named, RUN_COLUMNS, preceded, rank, runs};
use super::{Due, HeadsQuery, LaneQuery, LaneRuns, StoreError};

/// Largest number of waits and pauses that are ended at once in each partition.
const DUE_AT_ONCE: i64 = 256;

pub(super) async fn heads(database: &Database, flow: &str, of: &HeadsQuery) -> Result<Vec<Run>, StoreError> {
    let (position, event) = of.after.as_ref().map_or((i64::MIN, ""), |(position, event)| (*position, event.as_str()));
    let sql = format!(
        "SELECT {RUN_COLUMNS} FROM usher_open_run r \
         WHERE flow = $1 AND partition = $3 AND state IN ('queued', 'running') AND wakes_at IS NULL \
           AND (position, event_ref) > ($4, $5) AND (destination IS NULL OR destination NOT IN ({})) AND NOT {} \
         ORDER BY position, event_ref LIMIT $6",
        database.dialect.texts(),
        preceded("r", "r.flow", &rank("r"))
    );
    let rows = query(sql)
        .bind(flow)
        .bind(json!(of.without).to_string())
        .bind(of.partition.0)
        .bind(position)
        .bind(event)
        .bind(i64::try_from(of.limit).unwrap_or(i64::MAX))
        .fetch_all(database)
        .await?;
    runs(&rows)
}

pub(super) async fn lanes(database: &Database, flow: &str, of: &[LaneQuery]) -> Result<Vec<LaneRuns>, StoreError> {
    let mut wanted: BTreeMap<&SubjectId, usize> = BTreeMap::new();
    for LaneQuery { key, limit } in of {
        let known = wanted.entry(key).or_default();
        *known = (*known).max(*limit);
    }
    let wanted: Vec<(&SubjectId, usize)> = wanted.into_iter().collect();
    let limit = |(_, limit): &(&SubjectId, usize)| i64::try_from(*limit).unwrap_or(i64::MAX).saturating_add(1);
    let rows = Rows::of(&wanted).text("of", |(key, _)| key.as_str()).int("most", limit);
    let query = rows.query(database.dialect, vec![flow.into()], |rows| {
        let order = format!("ORDER BY {}, o.position, o.event_ref", rank("o"));
        let open = "SELECT o.* FROM usher_open_run o WHERE o.flow = $1 AND o.state <> 'waiting' AND o.subject =";
        let lane = match database.dialect {
            Dialect::Postgres => format!("{rows}, LATERAL ({open} r.of {order} LIMIT r.most) AS l"),
            // Run once for each row, so that the parameters of the row are those of the statement.
            Dialect::Sqlite => format!("({open} $2 {order} LIMIT $3) AS l"),
        };
        format!("SELECT {RUN_COLUMNS} FROM {lane}")
    });
    let answers = database.read(vec![query]).await?;
    let mut found: HashMap<SubjectId, Vec<&Row>> = HashMap::new();
    for row in answers.iter().flat_map(|answer| &answer.rows) {
        found.entry(Named(row).parsed("subject")?).or_default().push(row);
    }
    let lane = |query: &LaneQuery| {
        let rows = found.get(&query.key).map(Vec::as_slice).unwrap_or_default();
        let head = rows.first().map(|row| row.get::<&str>("state")).transpose()?;
        if head.is_some_and(|state| state == RunState::Parked.label()) {
            return Ok(LaneRuns::default());
        }
        let runs = runs(rows.iter().take(query.limit).copied())?;
        Ok(LaneRuns { runs, more: rows.len() > query.limit })
    };
    of.iter().map(lane).collect()
}

pub(super) async fn due(
    database: &Database,
    flow: &str,
    partitions: &[(Partition, Epoch)],
    now: Timestamp,
) -> Result<Due, StoreError> {
    let Outlook { ends, lost } = outlook(database, flow, partitions).await?;
    let is_over = |partition: &Partition| ends.get(partition).is_some_and(|at| *at <= now);
    let epochs: BTreeMap<Partition, Epoch> =
        partitions.iter().copied().filter(|(partition, _)| is_over(partition)).collect();
    if epochs.is_empty() {
        return Ok(Due { next: ends.into_values().min(), fenced: lost, ..Due::default() });
    }
    let mut queries = vec![lock(database.dialect, flow, &epochs)];
    queries.extend(epochs.iter().map(|(partition, epoch)| release(flow, *partition, *epoch, now)));
    queries.push(next_ends(database.dialect, flow, partitions));
    let mut answers = database.transact(queries).await?;
    let next = ends_of(&answers.pop().unwrap_or_default())?.into_values().min();
    let mut answers = answers.into_iter();
    let current = owned(&answers.next().unwrap_or_default())?;
    let is_fenced = |(partition, epoch): &(Partition, Epoch)| current.get(partition) != Some(epoch);
    let fenced: BTreeSet<_> = epochs.into_iter().filter(is_fenced).chain(lost).collect();
    let ended: Vec<Run> = runs(answers.collect::<Vec<_>>().iter().flat_map(|answer| &answer.rows))?;
    let events: Vec<EventRef> = ended.iter().map(|run| run.event.reference()).collect();
    let rows = Rows::of(&events).text("event", |event| event.as_str());
    let found = database.read(vec![behind(database.dialect, flow, rows, "o.event_ref = r.event")]).await?;
    let behind = events_of(&found)?;
    let (behind, heads): (Vec<Run>, Vec<Run>) =
        ended.into_iter().partition(|run| behind.contains(&run.event.reference()));
    Ok(Due {
        heads,
        behind: behind.into_iter().map(|run| run.event.subject).collect(),
        next,
        fenced: fenced.into_iter().collect(),
    })
}

/// The condition of the open runs `o` of the flow `$1` that wait or are parked, in a partition. It names the expressions of
/// their index, which no other index has.
fn waits_in(partition: &str) -> String {
    format!("(o.flow || '') = $1 AND (o.partition + 0) = {partition} AND o.wakes_at IS NOT NULL")
}

/// Returns the statement that ends the waits and pauses of a partition that are over, the first of them.
fn release(flow: &str, partition: Partition, epoch: Epoch, now: Timestamp) -> SqlQuery {
    let sql = format!(
        "UPDATE usher_open_run SET state = CASE state WHEN 'parked' THEN 'running' ELSE 'queued' END, wakes_at = NULL \
         WHERE flow = $1 AND event_ref IN ( \
           SELECT o.event_ref FROM usher_open_run o WHERE {} AND o.wakes_at <= $2 \
             AND EXISTS (SELECT 1 FROM usher_ownership f WHERE f.flow = $1 AND f.partition = $3 AND f.epoch = $5) \
           ORDER BY o.wakes_at LIMIT $4) \
         RETURNING {RUN_COLUMNS}",
        waits_in("$3")
    );
    query(sql).prepared().bind(flow).bind(now.millis()).bind(partition.0).bind(DUE_AT_ONCE).bind(epoch.0)
}

/// Returns the statement that finds the first end of a wait or pause in each of these partitions.
fn next_ends(dialect: Dialect, flow: &str, partitions: &[(Partition, Epoch)]) -> SqlQuery {
    let rows = Rows::of(partitions).int("of", |(partition, _)| i64::from(partition.0));
    rows.query(dialect, vec![flow.into()], |rows| {
        let waits = waits_in("r.of");
        format!(
            "SELECT r.of, (SELECT o.wakes_at FROM usher_open_run o WHERE {waits} ORDER BY o.wakes_at LIMIT 1) AS wakes_at \
             FROM {rows}"
        )
    })
}

/// Reads the answer to [`next_ends`]: the partitions in which a run waits or is parked.
fn ends_of(answer: &Answer) -> Result<BTreeMap<Partition, Timestamp>, StoreError> {
    let mut ends = BTreeMap::new();
    for row in &answer.rows {
        if let Some(at) = row.get::<Option<i64>>("wakes_at")? {
            ends.insert(Partition(row.get("of")?), Timestamp::from_millis(at));
        }
    }
    Ok(ends)
}

fn events_of(answers: &[Answer]) -> Result<BTreeSet<EventRef>, StoreError> {
    answers.iter().flat_map(|answer| &answer.rows).map(|row| Named(row).parsed("event_ref")).collect()
}

/// The partitions of a flow that need something done.
struct Outlook {
    /// The first end of a wait or pause in each partition that has one.
    ends: BTreeMap<Partition, Timestamp>,
    /// The partitions that another replica owns by now. A replica with nothing to write would not notice otherwise.
    lost: Vec<(Partition, Epoch)>,
}

/// Looks at the partitions, in one round trip. Mostly nothing is due, and a read costs less than a transaction that writes
/// nothing.
async fn outlook(database: &Database, flow: &str, partitions: &[(Partition, Epoch)]) -> Result<Outlook, StoreError> {
    if partitions.is_empty() {
        return Ok(Outlook { ends: BTreeMap::new(), lost: Vec::new() });
    }
    let owners = query("SELECT partition, epoch FROM usher_ownership WHERE flow = $1").prepared().bind(flow);
    let mut answers = database.read(vec![next_ends(database.dialect, flow, partitions), owners]).await?.into_iter();
    let ends = ends_of(&answers.next().unwrap_or_default())?;
    let epochs = owned(&answers.next().unwrap_or_default())?;
    let is_lost = |(partition, epoch): &&(Partition, Epoch)| epochs.get(partition) != Some(epoch);
    Ok(Outlook { ends, lost: partitions.iter().filter(is_lost).copied().collect() })
}
