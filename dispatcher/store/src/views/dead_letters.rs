//! Dead letters, newest first, for grouping by their causes.

use usher_proto::{EventRef, Offset, SubjectId, Timestamp};
use usher_sql::query;

use super::bound;
use crate::rows::Named;
use crate::{SqlStore, StoreError};

/// One dead letter, without its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRow {
    /// Name of the flow.
    pub flow: String,
    /// The run's event.
    pub reference: EventRef,
    /// The event's subject.
    pub subject: SubjectId,
    /// The event's type.
    pub kind: String,
    /// The run's partition.
    pub partition: i64,
    /// The offset of the event.
    pub offset: Offset,
    /// Index, from 0, of the step at which it ended.
    pub step: i64,
    /// Reason for giving it up, as a label.
    pub reason: String,
    /// Error text, in the destination's words.
    pub error: String,
    /// Number of times it has become dead.
    pub deaths: i64,
    /// The account that its step calls; `None` if it calls no destination.
    pub destination: Option<String>,
    /// Version of the flow that it ran with.
    pub flow_version: String,
    /// Time at which it was given up.
    pub ended_at: Timestamp,
}

impl SqlStore {
    /// Returns the dead letters that were given up until `until`: the newest `limit`, newest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn dead_letters(&self, until: Timestamp, limit: usize) -> Result<Vec<DeadLetterRow>, StoreError> {
        let sql = "SELECT flow, event_ref, subject, type, partition, origin, step, reason, error, deaths, destination, \
                     flow_version, ended_at \
                   FROM usher_ended_run WHERE state = 'dead' AND ended_at <= $1 \
                   ORDER BY ended_at DESC, flow DESC, event_ref DESC LIMIT $2";
        let rows = query(sql).bind(until.millis()).bind(bound(limit)).fetch_all(&self.database).await?;
        let read = |row| {
            let row = Named(row);
            Ok(DeadLetterRow {
                flow: row.get("flow")?,
                reference: row.parsed("event_ref")?,
                subject: row.parsed("subject")?,
                kind: row.get("type")?,
                partition: row.get("partition")?,
                offset: Offset(row.get("origin")?),
                step: row.get("step")?,
                reason: row.get::<Option<String>>("reason")?.unwrap_or_default(),
                error: row.get::<Option<String>>("error")?.unwrap_or_default(),
                deaths: row.get("deaths")?,
                destination: row.get("destination")?,
                flow_version: row.get("flow_version")?,
                ended_at: Timestamp::from_millis(row.get("ended_at")?),
            })
        };
        rows.iter().map(read).collect()
    }
}
