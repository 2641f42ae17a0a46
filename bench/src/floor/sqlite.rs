//! The floor's store in SQLite: a batch is one synced transaction.

use std::path::Path;

use rusqlite::{Connection, ToSql};

use super::{FloorBatch, FloorRun, newest};

const SCHEMA: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     CREATE TABLE partition_owner (partition INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, frontier INTEGER NOT NULL); \
     INSERT INTO partition_owner VALUES (0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0), (5, 1, 0), (6, 1, 0), (7, 1, 0); \
     CREATE TABLE open_run (id INTEGER PRIMARY KEY, event TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, \
       claimed_until INTEGER, request BLOB, body BLOB NOT NULL); \
     CREATE TABLE ended_run (event TEXT PRIMARY KEY, id INTEGER NOT NULL, user_id TEXT NOT NULL, effect TEXT NOT NULL, \
       ended_at INTEGER NOT NULL) WITHOUT ROWID; \
     CREATE TABLE subject (user_id TEXT PRIMARY KEY, updated_at INTEGER NOT NULL, snapshot BLOB NOT NULL);";
const FRONTIER: &str = "UPDATE partition_owner SET frontier = ?2 WHERE partition = ?1 AND epoch = 1";
const ADMIT: &str = "INSERT INTO open_run (id, event, user_id, claimed_until, request, body) \
     SELECT ?1, ?2, ?3, CASE WHEN ?4 IS NULL THEN NULL ELSE 1 END, ?4, ?5 \
     WHERE NOT EXISTS (SELECT 1 FROM ended_run WHERE event = ?2)";
const CLAIM: &str = "UPDATE open_run SET claimed_until = 1, request = ?2 WHERE id = ?1";
const END: &str = "INSERT INTO ended_run (event, id, user_id, effect, ended_at) \
     SELECT event, id, user_id, ?2, 1 FROM open_run WHERE id = ?1";
const REMOVE: &str = "DELETE FROM open_run WHERE id = ?1";
const REMEMBER: &str = "INSERT INTO subject (user_id, updated_at, snapshot) VALUES (?1, ?2, ?3) \
     ON CONFLICT (user_id) DO UPDATE SET updated_at = excluded.updated_at, snapshot = excluded.snapshot";

/// An open file.
pub(super) struct SqliteFloor(Connection);

impl SqliteFloor {
    /// Creates the file.
    ///
    /// # Errors
    ///
    /// It cannot be created.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(connection))
    }

    /// Writes a batch, on this thread.
    ///
    /// # Errors
    ///
    /// A statement fails or does not change its row.
    pub(super) fn write(&mut self, batch: &FloorBatch) -> anyhow::Result<()> {
        let transaction = self.0.transaction()?;
        let one = |sql: &str, parameters: &[&dyn ToSql]| {
            let changed = transaction.prepare_cached(sql)?.execute(parameters)?;
            anyhow::ensure!(changed == 1, "{changed} rows: {sql}");
            Ok(())
        };
        for (partition, frontier) in &batch.frontiers {
            one(FRONTIER, &[partition, frontier])?;
        }
        let admit = |run: &FloorRun, request: Option<&Vec<u8>>| {
            one(ADMIT, &[&run.id, &run.event, &run.user, &request, &run.body])
        };
        for claim in &batch.started {
            admit(&claim.run, Some(&claim.request))?;
        }
        for run in &batch.waiting {
            admit(run, None)?;
        }
        for claim in &batch.claimed {
            one(CLAIM, &[&claim.run.id, &claim.request])?;
        }
        for end in &batch.ended {
            one(END, &[&end.id, &end.effect])?;
            one(REMOVE, &[&end.id])?;
        }
        let new = batch.started.iter().map(|claim| &*claim.run).chain(batch.waiting.iter().map(|run| &**run));
        for (user, run) in newest(new) {
            one(REMEMBER, &[&user, &run.updated_at, &run.body])?;
        }
        Ok(transaction.commit()?)
    }
}
