//! Dead letters, newest first, for grouping by their causes.

use std::fmt;
use std::str::FromStr;

use usher_proto::{EventRef, Offset, SubjectId, Timestamp};
use usher_sql::query;

use super::bound;
use super::events::NoCursor;
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

/// A place in the list of dead letters: that of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterCursor {
    /// Time at which the run was given up.
    pub ended_at: Timestamp,
    /// Its flow.
    pub flow: String,
    /// Its event's reference.
    pub reference: String,
}

impl From<&DeadLetterRow> for DeadLetterCursor {
    fn from(row: &DeadLetterRow) -> Self {
        Self { ended_at: row.ended_at, flow: row.flow.clone(), reference: row.reference.as_str().to_owned() }
    }
}

impl fmt::Display for DeadLetterCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.ended_at.millis(), self.flow, self.reference)
    }
}

impl FromStr for DeadLetterCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        // The name of a flow, which is that of a file, has no slash.
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().ok_or(NoCursor);
        let ended_at = Timestamp::from_millis(part()?.parse().map_err(|_| NoCursor)?);
        Ok(Self { ended_at, flow: part()?.to_owned(), reference: part()?.to_owned() })
    }
}

/// Selection of dead letters by what an index serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// Given up at or after this time.
    pub since: Option<Timestamp>,
    /// Given up at or before this time.
    pub until: Option<Timestamp>,
    /// Of these subjects; of none if it is empty.
    pub subjects: Option<Vec<SubjectId>>,
    /// After this place.
    pub after: Option<DeadLetterCursor>,
}

impl SqlStore {
    /// Returns the dead letters of a selection: the newest `limit`, newest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn dead_letters(&self, of: &DeadLetterQuery, limit: usize) -> Result<Vec<DeadLetterRow>, StoreError> {
        let mut conditions = vec!["state = 'dead' AND ended_at >= $1 AND ended_at <= $2".to_owned()];
        let mut given: Vec<&str> = Vec::new();
        let mut until = of.until.map_or(i64::MAX, Timestamp::millis);
        if let Some(after) = &of.after {
            until = until.min(after.ended_at.millis());
            given.extend([after.flow.as_str(), after.reference.as_str()]);
            conditions.push(format!(
                "(ended_at < {} OR flow < $4 OR (flow = $4 AND event_ref < $5))",
                after.ended_at.millis()
            ));
        }
        if let Some(subjects) = &of.subjects {
            if subjects.is_empty() {
                return Ok(Vec::new());
            }
            let places: Vec<String> = (0..subjects.len()).map(|at| format!("${}", given.len() + at + 4)).collect();
            conditions.push(format!("subject IN ({})", places.join(", ")));
            given.extend(subjects.iter().map(SubjectId::as_str));
        }
        let sql = format!(
            "SELECT flow, event_ref, subject, type, partition, origin, step, reason, error, deaths, destination, \
               flow_version, ended_at \
             FROM usher_ended_run WHERE {} ORDER BY ended_at DESC, flow DESC, event_ref DESC LIMIT $3",
            conditions.join(" AND ")
        );
        let statement = query(sql).bind(of.since.map_or(i64::MIN, Timestamp::millis)).bind(until).bind(bound(limit));
        let rows = given.into_iter().fold(statement, |statement, value| statement.bind(value));
        let rows = rows.fetch_all(&self.database).await?;
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
