//! The topics of a file, and their partitions.

use rusqlite::{Connection, params};

use super::transaction::in_transaction;
use crate::{LogError, Retention, TopicProblem, TopicSpec};

/// Creates the missing partitions of topics, and writes how long each topic keeps its records. Nothing is changed if a
/// topic has fewer partitions than configured, which is the inner error.
pub(super) fn ensure(connection: &Connection, topics: &[TopicSpec]) -> rusqlite::Result<Result<(), LogError>> {
    in_transaction(connection, |connection| {
        let mut founds = Vec::with_capacity(topics.len());
        for topic in topics {
            let found = partitions(connection, &topic.name)?;
            if (1..topic.partitions).contains(&found) {
                let topic_name = topic.name.clone();
                return Ok(Err(LogError::PartitionCount { topic: topic_name, found, wanted: topic.partitions }));
            }
            founds.push(found);
        }
        for (topic, found) in topics.iter().zip(founds) {
            ensure_topic(connection, topic, found)?;
        }
        Ok(Ok(()))
    })
}

fn partitions(connection: &Connection, topic: &str) -> rusqlite::Result<i32> {
    connection.query_row("SELECT count(*) FROM partition WHERE topic = ?1", [topic], |row| row.get(0))
}

fn ensure_topic(connection: &Connection, topic: &TopicSpec, found: i32) -> rusqlite::Result<()> {
    if found > topic.partitions {
        let problem = TopicProblem::MorePartitions { found, wanted: topic.partitions };
        tracing::warn!(topic = topic.name, problem = problem.label(), "topic {} {problem}", topic.name);
    }
    // Here a topic can be missing only because the file is new. If the former file was moved away, the flows
    // detect it by their frontiers and end.
    for partition in found..topic.partitions {
        let sql = "INSERT INTO partition (topic, partition, low, next) VALUES (?1, ?2, 0, 0)";
        connection.prepare_cached(sql)?.execute(params![topic.name, partition])?;
    }
    if let Retention::Compact(time) = topic.retention {
        let sql = "INSERT INTO compacted (topic, keeps_for) VALUES (?1, ?2) \
                   ON CONFLICT (topic) DO UPDATE SET keeps_for = excluded.keeps_for";
        let keeps_for_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        connection.prepare_cached(sql)?.execute(params![topic.name, keeps_for_ms])?;
    }
    Ok(())
}
