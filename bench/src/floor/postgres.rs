//! The floor's store in Postgres: a batch is one transaction and one round trip, with one statement for each kind of change.

use std::rc::Rc;

use anyhow::Context as _;
use futures::try_join;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

use super::{FloorBatch, FloorClaim, FloorRun, newest};

/// Epoch in which the floor owns its partitions.
const EPOCH: i64 = 1;

/// Fails, by a division by zero that rolls the transaction back, if a partition has another owner.
const FRONTIER: &str = "WITH moved AS (UPDATE partition_owner AS o SET frontier = n.frontier \
     FROM unnest($1::int4[], $2::int8[]) AS n (partition, frontier) \
     WHERE o.partition = n.partition AND o.epoch = $3 RETURNING 1) \
     SELECT 1 / (count(*) = cardinality($1))::int4 FROM moved";
/// Without the runs that are open or ended already.
const ADMIT: &str = "INSERT INTO open_run (id, claimed_until, event, user_id, request, body) \
     SELECT id, CASE WHEN request IS NULL THEN NULL ELSE 1 END, event, user_id, request, body \
     FROM unnest($1::int8[], $2::text[], $3::text[], $4::bytea[], $5::bytea[]) AS n (id, event, user_id, request, body) \
     WHERE (SELECT true FROM ended_run AS e WHERE e.event = n.event) IS NULL ON CONFLICT (event) DO NOTHING";
const CLAIM: &str = "UPDATE open_run AS o SET claimed_until = 1, request = n.request \
     FROM unnest($1::int8[], $2::bytea[]) AS n (id, request) WHERE o.id = n.id";
const END: &str = "WITH gone AS (DELETE FROM open_run AS o USING unnest($1::int8[], $2::text[]) AS n (id, effect) \
     WHERE o.id = n.id RETURNING o.event, o.id, o.user_id, n.effect) \
     INSERT INTO ended_run (event, id, ended_at, user_id, effect) SELECT event, id, 1, user_id, effect FROM gone";
const REMEMBER: &str = "INSERT INTO subject AS s (user_id, updated_at, snapshot) \
     SELECT * FROM unnest($1::text[], $2::int8[], $3::bytea[]) ON CONFLICT (user_id) DO UPDATE \
     SET updated_at = excluded.updated_at, snapshot = excluded.snapshot WHERE s.updated_at <= excluded.updated_at";
const SUBJECTS: &str = "SELECT snapshot FROM subject WHERE user_id = ANY ($1)";
const SUPPRESSED: &str = "SELECT address FROM suppression WHERE address = ANY ($1)";

/// A connection with its statements.
pub(super) struct PostgresFloor {
    client: Client,
    frontier: Statement,
    admit: Statement,
    claim: Statement,
    end: Statement,
    remember: Statement,
    subjects: Statement,
    suppressed: Statement,
}

impl PostgresFloor {
    /// Creates the tables.
    ///
    /// # Errors
    ///
    /// Postgres does not answer, or the tables exist.
    pub(super) async fn open(url: &str) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(include_str!("schema.sql")).await?;
        Ok(Self {
            frontier: client.prepare(FRONTIER).await?,
            admit: client.prepare(ADMIT).await?,
            claim: client.prepare(CLAIM).await?,
            end: client.prepare(END).await?,
            remember: client.prepare(REMEMBER).await?,
            subjects: client.prepare(SUBJECTS).await?,
            suppressed: client.prepare(SUPPRESSED).await?,
            client,
        })
    }

    /// Reads the subjects of runs, and checks that nobody is suppressed, in one round trip.
    ///
    /// # Errors
    ///
    /// A statement fails, or somebody is suppressed.
    pub(super) async fn look_up(&self, runs: impl Iterator<Item = &Rc<FloorRun>>) -> anyhow::Result<()> {
        let users: Vec<&str> = runs.map(|run| run.user.as_str()).collect();
        let addresses: Vec<String> = users.iter().map(|user| format!("{user}@mail.test")).collect();
        let by_user: [&(dyn ToSql + Sync); 1] = [&users];
        let by_address: [&(dyn ToSql + Sync); 1] = [&addresses];
        let (subjects, suppressed) =
            try_join!(self.client.query(&self.subjects, &by_user), self.client.query(&self.suppressed, &by_address))?;
        for subject in subjects {
            serde_json::from_slice::<serde_json::Value>(subject.get(0)).context("a snapshot")?;
        }
        anyhow::ensure!(suppressed.is_empty(), "nobody is suppressed here");
        Ok(())
    }

    /// Writes a batch. All statements are sent before the first answer is awaited.
    ///
    /// # Errors
    ///
    /// A statement fails or changes another number of rows than it should. Then nothing is to be sent.
    pub(super) async fn write(&self, batch: &FloorBatch) -> anyhow::Result<()> {
        let partitions: Vec<i32> = batch.frontiers.iter().map(|(partition, _)| *partition).collect();
        let offsets: Vec<i64> = batch.frontiers.iter().map(|(_, offset)| *offset).collect();
        let new: Vec<(&FloorRun, Option<&[u8]>)> = (batch.started.iter())
            .map(|claim| (&*claim.run, Some(&*claim.request)))
            .chain(batch.waiting.iter().map(|run| (&**run, None)))
            .collect();
        let new_ids: Vec<i64> = new.iter().map(|(run, _)| run.id).collect();
        let events: Vec<&str> = new.iter().map(|(run, _)| run.event.as_str()).collect();
        let users: Vec<&str> = new.iter().map(|(run, _)| run.user.as_str()).collect();
        let requests: Vec<Option<&[u8]>> = new.iter().map(|(_, request)| *request).collect();
        let bodies: Vec<&[u8]> = new.iter().map(|(run, _)| run.body.as_slice()).collect();
        let claim_ids: Vec<i64> = batch.claimed.iter().map(|claim| claim.run.id).collect();
        let claim_requests: Vec<&[u8]> = batch.claimed.iter().map(|claim: &FloorClaim| &*claim.request).collect();
        let end_ids: Vec<i64> = batch.ended.iter().map(|end| end.id).collect();
        let effects: Vec<&str> = batch.ended.iter().map(|end| end.effect.as_str()).collect();
        let newest = newest(new.iter().map(|(run, _)| *run));
        let subjects: Vec<&str> = newest.values().map(|run| run.user.as_str()).collect();
        let times: Vec<i64> = newest.values().map(|run| run.updated_at).collect();
        let snapshots: Vec<&[u8]> = newest.values().map(|run| run.body.as_slice()).collect();
        let frontier_values: [&(dyn ToSql + Sync); 3] = [&partitions, &offsets, &EPOCH];
        let admit_values: [&(dyn ToSql + Sync); 5] = [&new_ids, &events, &users, &requests, &bodies];
        let claim_values: [&(dyn ToSql + Sync); 2] = [&claim_ids, &claim_requests];
        let end_values: [&(dyn ToSql + Sync); 2] = [&end_ids, &effects];
        let remember_values: [&(dyn ToSql + Sync); 3] = [&subjects, &times, &snapshots];
        let (_, _, admitted, claimed, ended, _, _) = try_join!(
            self.sql("BEGIN"),
            self.rows(&self.frontier, partitions.len(), &frontier_values),
            self.rows(&self.admit, new.len(), &admit_values),
            self.rows(&self.claim, claim_ids.len(), &claim_values),
            self.rows(&self.end, end_ids.len(), &end_values),
            self.rows(&self.remember, subjects.len(), &remember_values),
            self.sql("COMMIT"),
        )?;
        anyhow::ensure!(admitted == new.len(), "{admitted} of {} runs are new", new.len());
        anyhow::ensure!(claimed == claim_ids.len(), "{claimed} of {} runs are claimed", claim_ids.len());
        anyhow::ensure!(ended == end_ids.len(), "{ended} of {} runs are ended", end_ids.len());
        Ok(())
    }

    async fn sql(&self, sql: &str) -> anyhow::Result<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Executes a statement unless it is about nothing, and returns the number of rows.
    async fn rows(
        &self,
        statement: &Statement,
        count: usize,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> anyhow::Result<usize> {
        if count == 0 {
            return Ok(0);
        }
        Ok(usize::try_from(self.client.execute(statement, parameters).await?)?)
    }
}
