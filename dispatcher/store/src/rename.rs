//! Flows that go on under another name. Everything that the store has of a flow gets the new name in one transaction, with new
//! epochs: so a replica that still works under the former name is fenced, and cannot take its partitions over again.

use serde::Serialize;
use usher_proto::Timestamp;
use usher_sql::{Connection, Dialect, query, query_as};

use super::operate::record_action;
use super::{SqlStore, StoreError};

/// The result of taking over what a flow has done under a former name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameResult {
    /// The flow has the new name now. With the number of its runs that have not ended.
    Renamed {
        /// The number.
        open_runs: u64,
    },
    /// It was renamed before.
    Already,
    /// No flow of the former name has ever read the log.
    Unknown,
    /// A flow of the new name has read the log already, so that two positions and two sets of runs would be one. Nothing is
    /// changed.
    Taken,
}

/// A former name of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FormerName {
    /// The former name.
    pub was: String,
    /// The present name.
    pub flow: String,
    /// Time of the change.
    pub at: Timestamp,
}

/// The tables that name flows, without the pauses, of which both names may have one. A redrive that is being carried out goes on
/// with commands to the former name, which the flow takes.
const TABLES: [&str; 8] = [
    "usher_open_run",
    "usher_ended_run",
    "usher_remembered",
    "usher_event",
    "usher_flow",
    "usher_pruned",
    "usher_action",
    "usher_schedule",
];

/// The name under which a change of a flow's name is recorded.
const RENAME: &str = "rename";
/// The author of a change of a flow's name: its file says it.
const BY_FILE: &str = "flow file";

/// Returns the statement that holds the names of flows as they are until the transaction ends. Whoever takes partitions over
/// reads them, and whoever renames a flow writes them.
pub(super) fn hold_names(dialect: Dialect, for_change: bool) -> &'static str {
    match (dialect, for_change) {
        (Dialect::Postgres, true) => "SELECT 1 FROM usher_meta WHERE name = 'partitions' FOR UPDATE",
        (Dialect::Postgres, false) => "SELECT 1 FROM usher_meta WHERE name = 'partitions' FOR SHARE",
        // The transaction locks the whole file.
        (Dialect::Sqlite, _) => "SELECT 1 FROM usher_meta WHERE name = 'partitions'",
    }
}

/// Fails if the flow has another name now. To be called with the names held.
pub(super) async fn refuse_former_name(connection: &mut Connection, flow: &str) -> Result<(), StoreError> {
    let sql = "SELECT flow FROM usher_renamed WHERE was = $1 AND freed = 0";
    let row: Option<(String,)> = query_as(sql).bind(flow).fetch_optional(connection).await?;
    row.map_or(Ok(()), |(now,)| Err(StoreError::Renamed { was: flow.to_owned(), now }))
}

impl SqlStore {
    /// Gives everything that the flow `was` has in the store to the flow `flow`, once: its runs, its positions, what it has
    /// admitted and remembers, its versions, its pause and the history of its commands.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement; nothing is changed then.
    pub async fn rename_flow(&self, was: &str, flow: &str, now: Timestamp) -> Result<RenameResult, StoreError> {
        let dialect = self.database.dialect;
        let mut writing = self.database.write().await?;
        let connection = writing.connection();
        if dialect == Dialect::Postgres {
            // The runs of a month may take longer than a statement usually may.
            connection.batch("SET LOCAL statement_timeout = 0").await?;
        }
        query(hold_names(dialect, true)).execute(&mut *connection).await?;
        let sql = "SELECT flow FROM usher_renamed WHERE was = $1";
        let known: Option<(String,)> = query_as(sql).bind(was).fetch_optional(&mut *connection).await?;
        if known.is_some_and(|(known,)| known == flow) {
            return Ok(RenameResult::Already);
        }
        let owned = "SELECT count(*) FROM usher_ownership WHERE flow = $1";
        let (taken,): (i64,) = query_as(owned).bind(flow).fetch_one(&mut *connection).await?;
        if taken > 0 {
            return Ok(RenameResult::Taken);
        }
        let renamed = "INSERT INTO usher_renamed (was, flow, at) VALUES ($1, $2, $3) \
                       ON CONFLICT (was) DO UPDATE SET flow = excluded.flow, at = excluded.at, freed = 0";
        query(renamed).bind(was).bind(flow).bind(now.millis()).execute(&mut *connection).await?;
        // It has a name again that it once had.
        query("DELETE FROM usher_renamed WHERE was = $1").bind(flow).execute(&mut *connection).await?;
        // First of all: whoever writes for the flow holds its partitions, and finds them gone.
        let moved = "UPDATE usher_ownership SET flow = $2, epoch = epoch + 1, owner = '', told = NULL, told_version = NULL \
                     WHERE flow = $1";
        if query(moved).bind(was).bind(flow).execute(&mut *connection).await? == 0 {
            writing.commit().await?;
            return Ok(RenameResult::Unknown);
        }
        let mut open_runs = 0;
        for table in TABLES {
            let sql = format!("UPDATE {table} SET flow = $2 WHERE flow = $1");
            let changed = query(sql).bind(was).bind(flow).execute(&mut *connection).await?;
            if table == "usher_open_run" {
                open_runs = changed;
            }
        }
        let pause = "UPDATE usher_pause SET flow = $2 WHERE flow = $1 AND NOT EXISTS (SELECT 1 FROM usher_pause WHERE flow = $2)";
        query(pause).bind(was).bind(flow).execute(&mut *connection).await?;
        for sql in ["DELETE FROM usher_pause WHERE flow = $1", "DELETE FROM usher_pause_seen WHERE flow = $1"] {
            query(sql).bind(was).execute(&mut *connection).await?;
        }
        record_action(connection, RENAME, flow, BY_FILE, Some(was), now).await?;
        writing.commit().await?;
        Ok(RenameResult::Renamed { open_runs })
    }

    /// Returns the former names of flows that no other flow has.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn former_names(&self) -> Result<Vec<FormerName>, StoreError> {
        let sql = "SELECT was, flow, at FROM usher_renamed WHERE freed = 0 ORDER BY was";
        let rows: Vec<(String, String, i64)> = query_as(sql).fetch_all(&self.database).await?;
        Ok(rows.into_iter().map(|(was, flow, at)| FormerName { was, flow, at: Timestamp::from_millis(at) }).collect())
    }

    /// Lets a new flow have the former name of another one.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    pub async fn free_name(&self, was: &str) -> Result<(), StoreError> {
        let mut writing = self.database.write().await?;
        query("UPDATE usher_renamed SET freed = 1 WHERE was = $1").bind(was).execute(writing.connection()).await?;
        Ok(writing.commit().await?)
    }
}
