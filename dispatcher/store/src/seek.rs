//! Positions at which an operator lets a flow continue, after a log or a store was lost, restored or moved.

use std::collections::BTreeMap;

use usher_proto::{Key, Offset, Partition, SubjectId, Timestamp};
use usher_sql::{Connection, query, query_as};

use super::operate::record_action;
use super::{SqlStore, StoreError};

impl SqlStore {
    /// Lets a flow continue at these offsets in each of its partitions. A replica that works on one of them is fenced,
    /// joins the group again and starts there. Runs that have not ended keep their order and precede everything that is
    /// read from then on.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement; nothing is changed then.
    pub async fn seek(
        &self,
        flow: &str,
        offsets: &BTreeMap<Partition, Offset>,
        who: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut writing = self.database.write().await?;
        let connection = writing.connection();
        for (partition, offset) in offsets {
            // A frontier of another log does not show what has been read of this one.
            let sql = "INSERT INTO usher_ownership (flow, partition, epoch, owner, owned_at, sought) \
                       VALUES ($1, $2, 1, '', $3, $4) ON CONFLICT (flow, partition) DO UPDATE SET \
                         epoch = usher_ownership.epoch + 1, owner = excluded.owner, owned_at = excluded.owned_at, \
                         frontier = NULL, told = NULL, sought = excluded.sought";
            query(sql)
                .bind(flow)
                .bind(i64::from(partition.0))
                .bind(now.millis())
                .bind(offset.0)
                .execute(&mut *connection)
                .await?;
            // Positions from another log do not compare with these offsets. For example, a cancellation at offset 5 is
            // later than all of these runs.
            let shifted = "UPDATE usher_open_run SET position = position - ( \
                             SELECT max(position) - $3 + 1 FROM usher_open_run \
                             WHERE flow = $1 AND partition = $2) \
                           WHERE flow = $1 AND partition = $2 AND $3 <= ( \
                             SELECT max(position) FROM usher_open_run \
                             WHERE flow = $1 AND partition = $2)";
            query(shifted).bind(flow).bind(i64::from(partition.0)).bind(offset.0).execute(&mut *connection).await?;
        }
        record_action(connection, "seek", flow, who, None, now).await?;
        Ok(writing.commit().await?)
    }

    /// Returns the offset at which a flow continues in each partition: the one set by an operator, else its frontier.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn places(&self, flow: &str) -> Result<BTreeMap<Partition, Offset>, StoreError> {
        let sql = "SELECT partition, COALESCE(sought, frontier) FROM usher_ownership WHERE flow = $1";
        let rows: Vec<(i64, Option<i64>)> = query_as(sql).bind(flow).fetch_all(&self.database).await?;
        let place = |(partition, offset): (i64, Option<i64>)| {
            Some((Partition(i32::try_from(partition).ok()?), Offset(offset?)))
        };
        Ok(rows.into_iter().filter_map(place).collect())
    }

    /// Lays the store out for another topic, with one partition for each of `offsets`; every flow starts at these.
    /// Every run that has not ended moves to the partition that its key then has, before everything that is read there.
    /// Call this only while nothing of the old topic is unread. Returns the number of runs moved.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses a statement; nothing is changed then.
    pub async fn relocate(
        &self,
        offsets: &BTreeMap<Partition, Offset>,
        who: &str,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut writing = self.database.write().await?;
        let connection = writing.connection();
        let count = i32::try_from(offsets.len()).unwrap_or(i32::MAX);
        let moved = move_runs(connection, count).await?;
        // Higher than all earlier epochs, so that a replica that writes too late is fenced.
        let (epoch,): (i64,) =
            query_as("SELECT COALESCE(max(epoch), 0) + 1 FROM usher_ownership").fetch_one(&mut *connection).await?;
        let newest: Vec<(String, Option<i64>)> =
            query_as("SELECT flow, max(newest_at) FROM usher_ownership GROUP BY flow")
                .fetch_all(&mut *connection)
                .await?;
        query("DELETE FROM usher_ownership").execute(&mut *connection).await?;
        for (flow, newest_at) in newest {
            record_action(connection, "move", &flow, who, None, now).await?;
            for (partition, offset) in offsets {
                let sql = "INSERT INTO usher_ownership (flow, partition, epoch, owner, owned_at, newest_at, sought) \
                           VALUES ($1, $2, $3, '', $4, $5, $6)";
                query(sql)
                    .bind(&flow)
                    .bind(i64::from(partition.0))
                    .bind(epoch)
                    .bind(now.millis())
                    .bind(newest_at)
                    .bind(offset.0)
                    .execute(&mut *connection)
                    .await?;
            }
        }
        query("UPDATE usher_meta SET value = $1 WHERE name = 'partitions'")
            .bind(count.to_string())
            .execute(&mut *connection)
            .await?;
        writing.commit().await?;
        Ok(moved)
    }
}

/// Moves runs to their new partitions, in the order that they had within their keys.
async fn move_runs(connection: &mut Connection, partitions: i32) -> Result<u64, StoreError> {
    let runs: Vec<(String, String, String)> =
        query_as("SELECT flow, event_ref, subject FROM usher_open_run ORDER BY flow, position, event_ref")
            .fetch_all(&mut *connection)
            .await?;
    let count = i64::try_from(runs.len()).unwrap_or(i64::MAX);
    for ((flow, event, subject), place) in runs.into_iter().zip(0_i64..) {
        let subject: SubjectId = subject.parse().map_err(|_| StoreError::Unreadable("subject".into()))?;
        let partition = Partition::of(&Key::new(subject.key()), partitions);
        query("UPDATE usher_open_run SET partition = $1, position = $2 WHERE flow = $3 AND event_ref = $4")
            .bind(i64::from(partition.0))
            .bind(place - count)
            .bind(flow)
            .bind(event)
            .execute(&mut *connection)
            .await?;
    }
    Ok(count.unsigned_abs())
}
