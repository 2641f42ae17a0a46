//! Redrives of many dead letters: the runs that an operator has confirmed, and what came of each. A row for each run is written
//! at the beginning, so that a run which dies later is not among them, and a process that is killed is followed by another one.

use std::time::Duration;

use serde::Serialize;
use usher_proto::{EventRef, Offset, SubjectId, Timestamp};
use usher_sql::{Rows, query, query_as};

use crate::rows::Named;
use crate::{SqlStore, StoreError};

/// Time for which a redrive is shown after its end.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Number of rows that one statement writes.
const AT_ONCE: usize = 1_000;

/// A redrive that is to begin.
#[derive(Debug, Clone)]
pub struct NewRedrive {
    /// Its id. A second one with the same id does not begin.
    pub id: String,
    /// Time of the order.
    pub at: Timestamp,
    /// The operator.
    pub who: String,
    /// Dead letters that were given up later are not among its runs.
    pub until: Timestamp,
    /// The filters by which the runs were selected.
    pub selection: String,
    /// Number of matching dead letters that have died too often, and are not among its runs.
    pub skipped: i64,
    /// Largest number of commands a second.
    pub rate: i64,
}

/// A redrive, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedriveRecord {
    /// Its id.
    pub id: String,
    /// Time of the order.
    pub at: Timestamp,
    /// The operator.
    pub who: String,
    /// Dead letters that were given up later are not among its runs.
    pub until: Timestamp,
    /// The filters by which the runs were selected.
    pub selection: String,
    /// Number of its runs.
    pub runs: i64,
    /// Number of matching dead letters that have died too often, and are not among its runs.
    pub skipped: i64,
    /// Largest number of commands a second.
    pub rate: i64,
    /// The operator who has stopped it.
    pub stopped_by: Option<String>,
    /// Time of the stop.
    pub stopped_at: Option<Timestamp>,
    /// Time at which the outcome of the last run was known.
    pub ended_at: Option<Timestamp>,
    /// The reason why it does not go on at this moment.
    pub trouble: Option<String>,
}

/// The result of one run of a redrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedriveCame {
    /// Not asked for yet; after a stop it never is.
    Left,
    /// Asked for, and not over: the command is not executed yet, or the step is at work.
    Asked,
    /// The step that had failed is over.
    Done,
    /// The run was given up again.
    Failed,
    /// The run was dead no longer when its turn came.
    Nothing,
    /// The run was cancelled, has expired, or is stored no longer.
    Ended,
}

impl RedriveCame {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 6] = [Self::Left, Self::Asked, Self::Done, Self::Failed, Self::Nothing, Self::Ended];

    /// Returns the word in the store and in addresses.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Asked => "asked",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Nothing => "nothing",
            Self::Ended => "ended",
        }
    }

    /// Reads [`Self::label`].
    pub fn read(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|came| came.label() == label)
    }
}

/// One run of a redrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveRow {
    /// Its place in the order, from 0.
    pub number: i64,
    /// Name of the flow.
    pub flow: String,
    /// The run's event.
    pub reference: EventRef,
    /// The event's subject.
    pub subject: SubjectId,
    /// The run's partition.
    pub partition: i64,
    /// The offset of the event.
    pub offset: Offset,
    /// Index, from 0, of the step at which it had died.
    pub step: i64,
    /// Number of times that it had died.
    pub deaths: i64,
    /// Id of the command's event.
    pub command: String,
    /// Its result so far.
    pub came: RedriveCame,
}

/// Numbers of a redrive's runs; together they are all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RedriveCounts {
    /// Not asked for yet.
    pub left: i64,
    /// Asked for, and not over.
    pub asked: i64,
    /// Those whose failed step is over.
    pub done: i64,
    /// Given up again.
    pub failed: i64,
    /// Dead no longer when their turn came.
    pub nothing: i64,
    /// Cancelled, expired, or stored no longer.
    pub ended: i64,
}

impl RedriveCounts {
    /// Returns the number of runs of which this came.
    pub const fn of(&self, came: RedriveCame) -> i64 {
        match came {
            RedriveCame::Left => self.left,
            RedriveCame::Asked => self.asked,
            RedriveCame::Done => self.done,
            RedriveCame::Failed => self.failed,
            RedriveCame::Nothing => self.nothing,
            RedriveCame::Ended => self.ended,
        }
    }
}

const COLUMNS: &str = "id, at, who, until, selection, runs, skipped, rate, stopped_by, stopped_at, ended_at, trouble";

fn record(row: &usher_sql::Row) -> Result<RedriveRecord, StoreError> {
    let row = Named(row);
    Ok(RedriveRecord {
        id: row.get("id")?,
        at: Timestamp::from_millis(row.get("at")?),
        who: row.get("who")?,
        until: Timestamp::from_millis(row.get("until")?),
        selection: row.get("selection")?,
        runs: row.get("runs")?,
        skipped: row.get("skipped")?,
        rate: row.get("rate")?,
        stopped_by: row.get("stopped_by")?,
        stopped_at: row.time("stopped_at")?,
        ended_at: row.time("ended_at")?,
        trouble: row.get("trouble")?,
    })
}

impl SqlStore {
    /// Writes down a redrive with its runs, which are numbered in their order. Returns false if there is one with this id
    /// already, and changes nothing then. Forgets redrives that ended a month ago.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    pub async fn begin_redrive(&self, redrive: &NewRedrive, runs: &[RedriveRow]) -> Result<bool, StoreError> {
        let mut writing = self.database.write().await?;
        let connection = writing.connection();
        let older_than = redrive.at.minus(KEPT).millis();
        query("DELETE FROM usher_redrive_run WHERE redrive IN (SELECT id FROM usher_redrive WHERE ended_at < $1)")
            .bind(older_than)
            .execute(&mut *connection)
            .await?;
        query("DELETE FROM usher_redrive WHERE ended_at < $1").bind(older_than).execute(&mut *connection).await?;
        let sql = "INSERT INTO usher_redrive (id, at, who, until, selection, runs, skipped, rate) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING";
        let begun = query(sql)
            .bind(&redrive.id)
            .bind(redrive.at.millis())
            .bind(&redrive.who)
            .bind(redrive.until.millis())
            .bind(&redrive.selection)
            .bind(i64::try_from(runs.len()).unwrap_or(i64::MAX))
            .bind(redrive.skipped)
            .bind(redrive.rate)
            .execute(&mut *connection)
            .await?;
        if begun == 0 {
            writing.commit().await?;
            return Ok(false);
        }
        for runs in runs.chunks(AT_ONCE) {
            let rows = Rows::of(runs)
                .int("number", |run| run.number)
                .text("flow", |run| run.flow.as_str())
                .text("event_ref", |run| run.reference.as_str())
                .text("subject", |run| run.subject.as_str())
                .int("partition", |run| run.partition)
                .int("origin", |run| run.offset.0)
                .int("step", |run| run.step)
                .int("deaths", |run| run.deaths)
                .text("command", |run| run.command.as_str());
            let statement = rows.query(self.database.dialect, vec![(&redrive.id).into()], |rows| {
                format!(
                    "INSERT INTO usher_redrive_run (redrive, number, flow, event_ref, subject, partition, origin, step, \
                       deaths, command, came) \
                     SELECT $1, r.number, r.flow, r.event_ref, r.subject, r.partition, r.origin, r.step, r.deaths, \
                       r.command, 'left' FROM {rows}"
                )
            });
            connection.run_all(vec![statement]).await?;
        }
        writing.commit().await?;
        Ok(true)
    }

    /// Returns a redrive; `None` if there is none with this id.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or the row cannot be read.
    pub async fn redrive(&self, id: &str) -> Result<Option<RedriveRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM usher_redrive WHERE id = $1");
        let row = query(sql).bind(id).fetch_optional(&self.database).await?;
        row.as_ref().map(record).transpose()
    }

    /// Returns the redrives that were ordered before a time: the newest `limit`, newest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn redrives(&self, before: Timestamp, limit: i64) -> Result<Vec<RedriveRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM usher_redrive WHERE at < $1 ORDER BY at DESC, id LIMIT $2");
        let rows = query(sql).bind(before.millis()).bind(limit).fetch_all(&self.database).await?;
        rows.iter().map(record).collect()
    }

    /// Returns the redrives that have not ended, oldest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn open_redrives(&self) -> Result<Vec<RedriveRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM usher_redrive WHERE ended_at IS NULL ORDER BY at, id");
        query(sql).fetch_all(&self.database).await?.iter().map(record).collect()
    }

    /// Returns how many runs of a redrive have come to what.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn redrive_counts(&self, id: &str) -> Result<RedriveCounts, StoreError> {
        let sql = "SELECT came, COUNT(*) FROM usher_redrive_run WHERE redrive = $1 GROUP BY came";
        let rows: Vec<(String, i64)> = query_as(sql).bind(id).fetch_all(&self.database).await?;
        let of =
            |came: RedriveCame| rows.iter().find(|(label, _)| label == came.label()).map_or(0, |(_, count)| *count);
        Ok(RedriveCounts {
            left: of(RedriveCame::Left),
            asked: of(RedriveCame::Asked),
            done: of(RedriveCame::Done),
            failed: of(RedriveCame::Failed),
            nothing: of(RedriveCame::Nothing),
            ended: of(RedriveCame::Ended),
        })
    }

    /// Returns runs of a redrive of which this came, in their order, after a number: at most `limit`. -1 is before the first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn redrive_runs(
        &self,
        id: &str,
        came: RedriveCame,
        after: i64,
        limit: i64,
    ) -> Result<Vec<RedriveRow>, StoreError> {
        let sql = "SELECT number, flow, event_ref, subject, partition, origin, step, deaths, command \
                   FROM usher_redrive_run WHERE redrive = $1 AND came = $2 AND number > $3 ORDER BY number LIMIT $4";
        let rows = query(sql).bind(id).bind(came.label()).bind(after).bind(limit).fetch_all(&self.database).await?;
        let read = |row| {
            let row = Named(row);
            Ok(RedriveRow {
                number: row.get("number")?,
                flow: row.get("flow")?,
                reference: row.parsed("event_ref")?,
                subject: row.parsed("subject")?,
                partition: row.get("partition")?,
                offset: Offset(row.get("origin")?),
                step: row.get("step")?,
                deaths: row.get("deaths")?,
                command: row.get("command")?,
                came,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Returns the identities of a flow and an event of a redrive's runs among these dead letters.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn redrive_failed(&self, id: &str) -> Result<Vec<(String, String)>, StoreError> {
        let sql = "SELECT flow, event_ref FROM usher_redrive_run WHERE redrive = $1 AND came = 'failed' \
                   ORDER BY number LIMIT 100000";
        Ok(query_as(sql).bind(id).fetch_all(&self.database).await?)
    }

    /// Stops a redrive: nothing more is asked for. Returns false if it has ended, or was stopped already.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    pub async fn stop_redrive(&self, id: &str, who: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "UPDATE usher_redrive SET stopped_by = $2, stopped_at = $3 \
                   WHERE id = $1 AND stopped_at IS NULL AND ended_at IS NULL";
        let mut writing = self.database.write().await?;
        let stopped = query(sql).bind(id).bind(who).bind(now.millis()).execute(writing.connection()).await?;
        writing.commit().await?;
        Ok(stopped > 0)
    }

    /// Holds a redrive for a process, which then is the only one that carries it out. Returns false if another one holds it.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    pub async fn hold_redrive(
        &self,
        id: &str,
        runner: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE usher_redrive SET runner = $2, held_until = $4 \
                   WHERE id = $1 AND ended_at IS NULL AND (runner = $2 OR held_until <= $3)";
        let mut writing = self.database.write().await?;
        let held = query(sql)
            .bind(id)
            .bind(runner)
            .bind(now.millis())
            .bind(until.millis())
            .execute(writing.connection())
            .await?;
        writing.commit().await?;
        Ok(held > 0)
    }

    /// Records that runs of a redrive are asked for.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    pub async fn redrive_asked(&self, id: &str, first: i64, last: i64) -> Result<(), StoreError> {
        let sql = "UPDATE usher_redrive_run SET came = 'asked' \
                   WHERE redrive = $1 AND came = 'left' AND number >= $2 AND number <= $3";
        let mut writing = self.database.write().await?;
        query(sql).bind(id).bind(first).bind(last).execute(writing.connection()).await?;
        Ok(writing.commit().await?)
    }

    /// Records why a redrive does not go on; `None` if it does.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    pub async fn redrive_trouble(&self, id: &str, trouble: Option<&str>) -> Result<(), StoreError> {
        let mut writing = self.database.write().await?;
        query("UPDATE usher_redrive SET trouble = $2 WHERE id = $1")
            .bind(id)
            .bind(trouble)
            .execute(writing.connection())
            .await?;
        Ok(writing.commit().await?)
    }

    /// Looks what came of the runs that were asked for, and records it. Ends the redrive if all is known that will be.
    /// Returns the counts.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement.
    pub async fn settle_redrive(&self, id: &str, now: Timestamp) -> Result<RedriveCounts, StoreError> {
        let asked = "redrive = $1 AND came = 'asked'";
        let executed = |came: &str| {
            format!("EXISTS (SELECT 1 FROM usher_action a WHERE a.id = usher_redrive_run.command AND a.came {came})")
        };
        let run = |table: &str, which: &str| {
            format!(
                "EXISTS (SELECT 1 FROM {table} o WHERE o.flow = usher_redrive_run.flow \
                   AND o.event_ref = usher_redrive_run.event_ref AND {which})"
            )
        };
        let taken_up = executed("<> 'nothing'");
        let goes_on = run("usher_open_run", "(o.step > usher_redrive_run.step OR o.state = 'waiting')");
        let settled = [
            ("nothing", executed("= 'nothing'")),
            ("done", format!("{taken_up} AND ({goes_on} OR {})", run("usher_ended_run", "o.state = 'done'"))),
            (
                "failed",
                format!(
                    "{taken_up} AND {}",
                    run("usher_ended_run", "o.state = 'dead' AND o.deaths > usher_redrive_run.deaths")
                ),
            ),
            (
                "ended",
                format!(
                    "{taken_up} AND NOT {} AND NOT {}",
                    run("usher_open_run", "1 = 1"),
                    run("usher_ended_run", "o.state = 'dead'")
                ),
            ),
        ];
        let mut writing = self.database.write().await?;
        let connection = writing.connection();
        for (came, which) in settled {
            query(format!("UPDATE usher_redrive_run SET came = '{came}' WHERE {asked} AND {which}"))
                .bind(id)
                .execute(&mut *connection)
                .await?;
        }
        let sql = "UPDATE usher_redrive SET ended_at = $2, trouble = NULL WHERE id = $1 AND ended_at IS NULL \
                   AND NOT EXISTS (SELECT 1 FROM usher_redrive_run r WHERE r.redrive = $1 AND r.came = 'asked') \
                   AND (stopped_at IS NOT NULL \
                        OR NOT EXISTS (SELECT 1 FROM usher_redrive_run r WHERE r.redrive = $1 AND r.came = 'left'))";
        query(sql).bind(id).bind(now.millis()).execute(connection).await?;
        writing.commit().await?;
        self.redrive_counts(id).await
    }
}
