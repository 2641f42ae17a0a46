//! Queries outside any group: watermarks, offsets by time, committed offsets, and single records.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt as _;
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
        None => Err(no_partition(topic, partition)),
        Some((Some(key), Some(headers), Some(body))) => Ok(Some(record(key, &headers, body)?)),
        Some(_) => Ok(None),
    }
}

/// Returns the error for a partition that does not exist.
pub(super) fn no_partition(topic: &str, partition: Partition) -> LogError {
    LogError::Unavailable(format!("there is no partition {partition} of topic {topic}"))
}

/// Returns the records of a partition from an offset on, at most `most` of them, and none after those that have `bytes` bytes.
pub(super) async fn records(
    pool: &SqlitePool,
    topic: &str,
    partition: Partition,
    from: Offset,
    most: usize,
    bytes: usize,
) -> Result<Vec<(Offset, Record)>, LogError> {
    let sql = "SELECT \"offset\", key, headers, body FROM record \
               WHERE topic = $1 AND partition = $2 AND \"offset\" >= $3 ORDER BY \"offset\" LIMIT $4";
    let mut rows = sqlx::query_as::<_, (i64, String, String, Vec<u8>)>(sql)
        .bind(topic)
        .bind(partition.0)
        .bind(from.0)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch(pool);
    let mut records = Vec::new();
    let mut size = 0;
    while size < bytes
        && let Some((offset, key, headers, body)) = rows.try_next().await?
    {
        let record = record(key, &headers, body)?;
        size += record.size();
        records.push((Offset(offset), record));
    }
    Ok(records)
}

/// Converts the columns of a row into a record.
pub(super) fn record(key: String, headers: &str, body: Vec<u8>) -> Result<Record, LogError> {
    let headers = serde_json::from_str(headers).map_err(|error| LogError::Unavailable(error.to_string()))?;
    Ok(Record { key: Key::new(key), headers, body: Bytes::from(body) })
}
