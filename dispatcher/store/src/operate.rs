//! Changes that operators make in the store directly: pausing flows. Everything about runs goes through the log.

use std::collections::BTreeMap;

use serde::Serialize;
use usher_proto::{EventRef, Timestamp};
use usher_sql::{Connection, Database, query, query_as};

use super::{SqlStore, StoreError};

/// An operator's action, as recorded.
#[derive(Debug, Clone, Serialize)]
pub struct ActionRecord {
    /// Time of the action.
    pub at: Timestamp,
    /// The operator.
    pub who: String,
    /// The action: redrive, cancel, rerun, pause, resume, seek, move or rename.
    pub what: String,
    /// Its first result: queued, cancelled, done or nothing.
    pub came: String,
}

/// A replica that owns partitions of a paused flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaPause {
    /// Name of the replica: its process id and a random number.
    pub owner: String,
    /// Number of partitions that it owns.
    pub partitions: usize,
    /// Number of steps started before the pause and still running; `None` until the replica has confirmed the pause.
    pub under_way: Option<usize>,
}

pub(super) async fn paused(database: &Database, flow: &str) -> Result<Option<Timestamp>, StoreError> {
    let row: Option<(i64,)> =
        query_as("SELECT at FROM usher_pause WHERE flow = $1").bind(flow).fetch_optional(database).await?;
    Ok(row.map(|(at,)| Timestamp::from_millis(at)))
}

pub(super) async fn pauses(database: &Database) -> Result<BTreeMap<String, Timestamp>, StoreError> {
    let rows: Vec<(String, i64)> = query_as("SELECT flow, at FROM usher_pause").fetch_all(database).await?;
    Ok(rows.into_iter().map(|(flow, at)| (flow, Timestamp::from_millis(at))).collect())
}

pub(super) async fn confirm_pause(
    database: &Database,
    flow: &str,
    owner: &str,
    since: Timestamp,
    under_way: usize,
) -> Result<(), StoreError> {
    let mut writing = database.write().await?;
    let sql = "INSERT INTO usher_pause_seen (flow, owner, paused_at, under_way) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (flow, owner) DO UPDATE SET \
                 paused_at = excluded.paused_at, under_way = excluded.under_way";
    query(sql)
        .bind(flow)
        .bind(owner)
        .bind(since.millis())
        .bind(i64::try_from(under_way).unwrap_or(i64::MAX))
        .execute(writing.connection())
        .await?;
    Ok(writing.commit().await?)
}

/// Marks the partitions of `owner` as owned by nobody until another replica takes them over.
pub(super) async fn disown(database: &Database, owner: &str) -> Result<(), StoreError> {
    let mut writing = database.write().await?;
    for sql in
        ["UPDATE usher_ownership SET owner = '' WHERE owner = $1", "DELETE FROM usher_pause_seen WHERE owner = $1"]
    {
        query(sql).bind(owner).execute(writing.connection()).await?;
    }
    Ok(writing.commit().await?)
}

impl SqlStore {
    /// Pauses or resumes a flow, with the operator's words about it, if any. Replicas check every few seconds; [`Self::pausing`] returns those that have confirmed
    /// a pause. Returns false if the flow was in this state already.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    pub async fn set_paused(
        &self,
        flow: &str,
        paused: bool,
        who: &str,
        why: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut writing = self.database.write().await?;
        let changed = if paused {
            query("INSERT INTO usher_pause (flow, who, at, why) VALUES ($1, $2, $3, $4) ON CONFLICT (flow) DO NOTHING")
                .bind(flow)
                .bind(who)
                .bind(now.millis())
                .bind(why)
                .execute(writing.connection())
                .await?
        } else {
            let seen = query("DELETE FROM usher_pause_seen WHERE flow = $1").bind(flow);
            seen.execute(writing.connection()).await?;
            query("DELETE FROM usher_pause WHERE flow = $1").bind(flow).execute(writing.connection()).await?
        };
        let what = if paused { "pause" } else { "resume" };
        if changed > 0 {
            record_action(writing.connection(), what, flow, who, why, now).await?;
        }
        writing.commit().await?;
        Ok(changed > 0)
    }

    /// Returns the replicas that own partitions of a paused flow, by name, and shows which of them have confirmed the
    /// pause.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn pausing(&self, flow: &str) -> Result<Vec<ReplicaPause>, StoreError> {
        let sql = "SELECT o.owner, COUNT(*), s.under_way FROM usher_ownership o \
                   LEFT JOIN usher_pause p ON p.flow = o.flow \
                   LEFT JOIN usher_pause_seen s ON s.flow = o.flow AND s.owner = o.owner AND s.paused_at = p.at \
                   WHERE o.flow = $1 AND o.owner <> '' GROUP BY o.owner, s.under_way ORDER BY o.owner";
        let rows: Vec<(String, i64, Option<i64>)> = query_as(sql).bind(flow).fetch_all(&self.database).await?;
        let count = |count: i64| usize::try_from(count).unwrap_or(0);
        let replica = |(owner, partitions, under_way): (String, i64, Option<i64>)| ReplicaPause {
            owner,
            partitions: count(partitions),
            under_way: under_way.map(count),
        };
        Ok(rows.into_iter().map(replica).collect())
    }

    /// Returns the commands that operators have given for a run, oldest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn actions(&self, flow: &str, run: &EventRef) -> Result<Vec<ActionRecord>, StoreError> {
        let sql = "SELECT at, who, what, came FROM usher_action WHERE flow = $1 AND event_ref = $2 ORDER BY at, id";
        let rows: Vec<(i64, String, String, String)> =
            query_as(sql).bind(flow).bind(run.as_str()).fetch_all(&self.database).await?;
        let record = |(at, who, what, came)| ActionRecord { at: Timestamp::from_millis(at), who, what, came };
        Ok(rows.into_iter().map(record).collect())
    }

    /// Returns the flows that some process works on, as far as the store has recorded. A process that was killed is
    /// still counted.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn worked_flows(&self) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT DISTINCT flow FROM usher_ownership WHERE owner <> '' ORDER BY flow";
        let rows: Vec<(String,)> = query_as(sql).fetch_all(&self.database).await?;
        Ok(rows.into_iter().map(|(flow,)| flow).collect())
    }

    /// Returns the flows with runs that have not ended, and the number of these runs.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn under_way(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = "SELECT flow, COUNT(*) FROM usher_open_run GROUP BY flow ORDER BY flow";
        Ok(query_as(sql).fetch_all(&self.database).await?)
    }

    /// Returns the names of the flows that have ever run here.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn flow_names(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            query_as("SELECT DISTINCT flow FROM usher_flow ORDER BY flow").fetch_all(&self.database).await?;
        Ok(rows.into_iter().map(|(flow,)| flow).collect())
    }

    /// Returns the names of the flows that are paused.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn paused_flows(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            query_as("SELECT flow FROM usher_pause ORDER BY flow").fetch_all(&self.database).await?;
        Ok(rows.into_iter().map(|(flow,)| flow).collect())
    }
}

/// Records an operator's action on a flow, with its author, the author's words about it, and its time.
pub(super) async fn record_action(
    connection: &mut Connection,
    what: &str,
    flow: &str,
    who: &str,
    why: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO usher_action (id, at, who, what, flow, why, came) VALUES ($1, $2, $3, $4, $5, $6, 'done')";
    query(sql)
        .bind(format!("{what}-{flow}-{}-{:08x}", now.millis(), rand::random::<u32>()))
        .bind(now.millis())
        .bind(who)
        .bind(what)
        .bind(flow)
        .bind(why)
        .execute(connection)
        .await?;
    Ok(())
}
