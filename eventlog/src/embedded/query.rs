//! Queries outside any group: watermarks, offsets by time, committed offsets, and single records.

use std::collections::BTreeMap;

use bytes::Bytes;
use sqlx::sqlite::SqlitePool;
use usher_proto::{Key, Offset, Partition, Record, Timestamp};

use crate::{LogError, Watermarks};

/// Key, headers and body of a record. All are `None` if there is no record.
type Columns = (Option<String>, Option<String>, Option<Vec<u8>>);

pub(super) async fn watermarks(pool: &SqlitePool, topic: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
    let rows: Vec<(i32, i64, i64)> = sqlx::query_as("SELECT partition, low, next FROM partition WHERE topic = $1")
        .bind(topic)
        .fetch_all(pool)
        .await?;
    if rows.is_empty() {
        return Err(LogError::Unavailable(format!("there is no topic {topic}")));
    }
    Ok(rows
        .into_iter()
        .map(|(partition, low, end)| (Partition(partition), Watermarks { low: Offset(low), high: Offset(end) }))
        .collect())
}

/// Returns for each partition the first offset whose record was appended at `at` or later, or the partition's end.
pub(super) async fn offsets_at(
    pool: &SqlitePool,
    topic: &str,
    at: Timestamp,
) -> Result<BTreeMap<Partition, Offset>, LogError> {
    let sql = "SELECT p.partition, COALESCE((SELECT min(r.\"offset\") FROM record r WHERE r.topic = p.topic \
                 AND r.partition = p.partition AND r.appended_at >= $2), p.next) FROM partition p WHERE p.topic = $1";
    let rows: Vec<(i32, i64)> = sqlx::query_as(sql).bind(topic).bind(at.millis()).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(partition, offset)| (Partition(partition), Offset(offset))).collect())
}

/// Returns the offsets that a group has committed. Partitions without a commit are absent.
pub(super) async fn committed(
    pool: &SqlitePool,
    group: &str,
    topic: &str,
) -> Result<BTreeMap<Partition, Offset>, LogError> {
    let sql = "SELECT partition, committed FROM cursor WHERE \"group\" = $1 AND topic = $2 AND committed IS NOT NULL";
    let rows: Vec<(i32, i64)> = sqlx::query_as(sql).bind(group).bind(topic).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(partition, offset)| (Partition(partition), Offset(offset))).collect())
}

pub(super) async fn read(
    pool: &SqlitePool,
    topic: &str,
    partition: Partition,
    offset: Offset,
) -> Result<Option<Record>, LogError> {
    // Returns one row if the partition exists, with or without the record; no row means that it does not exist.
    let sql = "SELECT r.key, r.headers, r.body FROM partition p LEFT JOIN record r \
                 ON r.topic = p.topic AND r.partition = p.partition AND r.\"offset\" = $3 \
               WHERE p.topic = $1 AND p.partition = $2";
    let row: Option<Columns> =
        sqlx::query_as(sql).bind(topic).bind(partition.0).bind(offset.0).fetch_optional(pool).await?;
    match row {
        None => Err(LogError::Unavailable(format!("there is no partition {partition} of topic {topic}"))),
        Some((Some(key), Some(headers), Some(body))) => Ok(Some(record(key, &headers, body)?)),
        Some(_) => Ok(None),
    }
}

/// Converts the columns of a row into a record.
pub(super) fn record(key: String, headers: &str, body: Vec<u8>) -> Result<Record, LogError> {
    let headers = serde_json::from_str(headers).map_err(|error| LogError::Unavailable(error.to_string()))?;
    Ok(Record { key: Key::new(key), headers, body: Bytes::from(body) })
}
