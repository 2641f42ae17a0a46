//! Records that no flow can take. Each is stored once for all flows, by the first that finds it, for operators to see.

use serde::Serialize;
use usher_engine::arrival::{Batch, RefusedRecord};
use usher_engine::storable::text as storable;
use usher_proto::{Offset, Partition, Timestamp};
use usher_sql::{SqlQuery, query, query_as};

use super::{SqlStore, StoreError};

/// One refused record, as shown to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedRow {
    /// The partition of the record in the topic of events.
    pub partition: i64,
    /// Its offset in that partition.
    pub offset: Offset,
    /// Time at which a flow first found it.
    pub at: Timestamp,
    /// Reason for the refusal, as a label.
    pub reason: String,
    /// Reason for the refusal, in a sentence.
    pub error: String,
    /// The event's id, if the record has one; else empty.
    pub event: String,
    /// The record's key.
    pub key: String,
}

/// Returns the statement that stores one record, in place of a record of another log at the same offset. It changes no row
/// if another flow has stored the record already.
pub(super) fn keep(flow: &str, batch: &Batch, record: &RefusedRecord, now: Timestamp) -> SqlQuery {
    // The record may have been refused because no store would accept it unchanged.
    query(
        "INSERT INTO usher_refused (partition, position, at, reason, error, event, record_key, body) \
         SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE EXISTS ( \
           SELECT 1 FROM usher_ownership f WHERE f.flow = $9 AND f.partition = $1 AND f.epoch = $10) ON CONFLICT (partition, position) DO UPDATE SET \
           at = excluded.at, reason = excluded.reason, error = excluded.error, event = excluded.event, \
           record_key = excluded.record_key, body = excluded.body \
         WHERE usher_refused.body <> excluded.body OR usher_refused.record_key <> excluded.record_key",
    )
    .bind(batch.partition.0)
    .bind(record.offset.0)
    .bind(now.millis())
    .bind(record.reason.label())
    .bind(storable(&record.error, MAX_TEXT))
    .bind(storable(&record.event, MAX_TEXT))
    .bind(record.key.as_str())
    .bind(record.body.clone())
    .bind(flow)
    .bind(batch.epoch.0)
}

/// Longest text that is shown, in characters.
const MAX_TEXT: usize = 300;

impl SqlStore {
    /// Returns the refused records since a time: the newest `limit`, oldest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn refused(&self, since: Timestamp, limit: i64) -> Result<Vec<RefusedRow>, StoreError> {
        let sql = "SELECT partition, position, at, reason, error, event, record_key FROM usher_refused WHERE at >= $1 \
                   ORDER BY at DESC, partition DESC, position DESC LIMIT $2";
        let rows: Vec<(i64, i64, i64, String, String, String, String)> =
            query_as(sql).bind(since.millis()).bind(limit).fetch_all(&self.database).await?;
        let row = |(partition, offset, at, reason, error, event, key)| RefusedRow {
            partition,
            offset: Offset(offset),
            at: Timestamp::from_millis(at),
            reason,
            error,
            event,
            key,
        };
        let mut rows: Vec<RefusedRow> = rows.into_iter().map(row).collect();
        rows.reverse();
        Ok(rows)
    }

    /// Returns the value of one refused record, byte for byte; `None` if there is no such record.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or the row cannot be read.
    pub async fn refused_body(&self, partition: Partition, offset: Offset) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT body FROM usher_refused WHERE partition = $1 AND position = $2";
        let row: Option<(Vec<u8>,)> =
            query_as(sql).bind(i64::from(partition.0)).bind(offset.0).fetch_optional(&self.database).await?;
        Ok(row.map(|(body,)| body))
    }
}
