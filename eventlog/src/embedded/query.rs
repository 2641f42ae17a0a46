//! Queries outside any group: watermarks, offsets by time, committed offsets, and single records.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use usher_proto::{Key, Offset, Partition, Record, Timestamp};

use super::file::File;
use crate::{LogError, Watermarks};

pub(super) async fn watermarks(file: &File, topic: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
    let topic = topic.to_owned();
    let (topic, found) =
        file.call(move |connection| read_watermarks(connection, &topic).map(|found| (topic, found))).await?;
    match found.is_empty() {
        true => Err(LogError::Unavailable(format!("there is no topic {topic}"))),
        false => Ok(found),
    }
}

pub(super) fn read_watermarks(
    connection: &Connection,
    topic: &str,
) -> rusqlite::Result<BTreeMap<Partition, Watermarks>> {
    let mut statement = connection.prepare_cached("SELECT partition, low, next FROM partition WHERE topic = ?1")?;
    let watermarks = |row: &Row<'_>| {
        let watermarks = Watermarks { low: Offset(row.get(1)?), high: Offset(row.get(2)?) };
        Ok((Partition(row.get(0)?), watermarks))
    };
    statement.query_map([topic], watermarks)?.collect()
}

/// Returns for each partition the first offset whose record was appended at `at` or later, or the partition's end.
pub(super) async fn offsets_at(
    file: &File,
    topic: &str,
    at: Timestamp,
) -> Result<BTreeMap<Partition, Offset>, LogError> {
    let topic = topic.to_owned();
    let read = move |connection: &mut Connection| {
        let sql = "SELECT p.partition, COALESCE((SELECT min(r.\"offset\") FROM record r WHERE r.topic = p.topic \
                     AND r.partition = p.partition AND r.appended_at >= ?2), p.next) FROM partition p WHERE p.topic = ?1";
        connection.prepare_cached(sql)?.query_map(params![topic, at.millis()], offset_of_partition)?.collect()
    };
    file.call(read).await
}

/// Returns the offsets that a group has committed. Partitions without a commit are absent.
pub(super) async fn committed(file: &File, group: &str, topic: &str) -> Result<BTreeMap<Partition, Offset>, LogError> {
    let group = group.to_owned();
    let topic = topic.to_owned();
    let read = move |connection: &mut Connection| {
        let sql =
            "SELECT partition, committed FROM cursor WHERE \"group\" = ?1 AND topic = ?2 AND committed IS NOT NULL";
        connection.prepare_cached(sql)?.query_map(params![group, topic], offset_of_partition)?.collect()
    };
    file.call(read).await
}

fn offset_of_partition(row: &Row<'_>) -> rusqlite::Result<(Partition, Offset)> {
    Ok((Partition(row.get(0)?), Offset(row.get(1)?)))
}

pub(super) async fn read(
    file: &File,
    topic: &str,
    partition: Partition,
    offset: Offset,
) -> Result<Option<Record>, LogError> {
    let name = topic.to_owned();
    let read = move |connection: &mut Connection| {
        let sql = "SELECT \"offset\", key, headers, body FROM record \
                   WHERE topic = ?1 AND partition = ?2 AND \"offset\" = ?3";
        let found =
            connection.prepare_cached(sql)?.query_row(params![name, partition.0, offset.0], record).optional()?;
        let is_there = found.is_some() || read_watermarks(connection, &name)?.contains_key(&partition);
        Ok(is_there.then_some(found))
    };
    match file.call(read).await? {
        Some(found) => Ok(found.map(|(_, record)| record)),
        None => Err(no_partition(topic, partition)),
    }
}

/// Returns the error for a partition that does not exist.
pub(super) fn no_partition(topic: &str, partition: Partition) -> LogError {
    LogError::Unavailable(format!("there is no partition {partition} of topic {topic}"))
}

/// Limits of what is read at once.
#[derive(Clone, Copy)]
pub(super) struct PageLimits {
    pub(super) records: usize,
    /// No record follows those that have this size together, in bytes.
    pub(super) bytes: usize,
}

/// Returns the records of a partition from an offset on.
pub(super) fn read_records(
    connection: &Connection,
    topic: &str,
    partition: Partition,
    from: Offset,
    limits: PageLimits,
) -> rusqlite::Result<Vec<(Offset, Record)>> {
    let sql = "SELECT \"offset\", key, headers, body FROM record \
               WHERE topic = ?1 AND partition = ?2 AND \"offset\" >= ?3 ORDER BY \"offset\" LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let most = i64::try_from(limits.records).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![topic, partition.0, from.0, most])?;
    let mut records = Vec::new();
    let mut size = 0;
    while size < limits.bytes
        && let Some(row) = rows.next()?
    {
        let (offset, record) = record(row)?;
        size += record.size();
        records.push((offset, record));
    }
    Ok(records)
}

/// Reads the columns `offset`, `key`, `headers` and `body`.
fn record(row: &Row<'_>) -> rusqlite::Result<(Offset, Record)> {
    let key = Key::new(row.get_ref(1)?.as_str()?);
    let Headers(headers) = row.get(2)?;
    let body = Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?);
    Ok((Offset(row.get(0)?), Record { key, headers, body }))
}

/// The column `headers`.
struct Headers(Vec<(String, String)>);

impl FromSql for Headers {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}
