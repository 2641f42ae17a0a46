//! Views for operators: runs with their effects, read only.

use serde::Serialize;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;
use usher_engine::RunState;
use usher_proto::{EventRef, Instance, Offset, Reason, SubjectId, Timestamp};

use super::rows::Named;
use super::{SqlStore, StoreError};

/// Selection of runs. A field that is `None` does not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Runs of this key, which for a person is the user id.
    pub key: Option<String>,
    /// Runs of this flow.
    pub flow: Option<String>,
    /// Runs in this state.
    pub state: Option<RunState>,
    /// Runs given up for this reason.
    pub reason: Option<Reason>,
    /// Runs of this event: its sender's id, or the whole reference.
    pub event: Option<String>,
    /// Runs of this instance.
    pub instance: Option<Instance>,
    /// Runs admitted at or after this time.
    pub since: Option<Timestamp>,
}

/// One run, as shown to operators.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    /// Name of the flow.
    pub flow: String,
    /// The event's id, as its sender has it.
    pub event: String,
    /// The event's reference, unique among all senders and instances.
    #[serde(skip)]
    pub reference: EventRef,
    /// The event's subject, unique among all senders and instances.
    #[serde(skip)]
    pub subject: SubjectId,
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Key of the event's subject.
    pub key: String,
    /// The key if it is a user's id, else null.
    pub user: Option<String>,
    /// State of the run, as a label.
    pub state: String,
    /// Index, from 0, of the current step, or of the step at which the run ended.
    pub step: i64,
    /// Attempts made of that step.
    pub attempts: i64,
    /// The account that its step calls; `None` if it calls no destination.
    pub destination: Option<String>,
    /// Time at which its latest attempt failed.
    pub failed_at: Option<Timestamp>,
    /// Time until which it waits.
    pub due_at: Option<Timestamp>,
    /// Reason for giving it up, as a label.
    pub reason: Option<String>,
    /// Error text, in the destination's words.
    pub error: Option<String>,
    /// Label for why it ended as it did.
    pub note: Option<String>,
    /// The source of the event.
    pub source: String,
    /// The sender's instance.
    pub instance: String,
    /// The run's partition.
    pub partition: i64,
    /// The offset of the event.
    pub offset: Offset,
    /// Number of times it has become dead.
    pub deaths: i64,
    /// Time of its admission.
    pub admitted_at: Timestamp,
    /// Time of its end; `None` before that.
    pub ended_at: Option<Timestamp>,
    /// Its effects at destinations, in order.
    pub effects: Vec<EffectRecord>,
}

/// One effect, as shown to operators.
#[derive(Debug, Clone, Serialize)]
pub struct EffectRecord {
    /// Name of the connector.
    pub connector: String,
    /// The step's name.
    pub step: String,
    /// The id that the destination has given.
    pub id: String,
    /// Time of the effect.
    pub at: Timestamp,
}

const COLUMNS: &str = "r.flow, r.event, r.type, r.key, r.state, r.step, r.attempts, r.due_at, r.reason, r.error, r.note, \
                       r.source, r.partition, r.origin, r.admitted_at, r.ended_at, r.deaths, r.instance, r.event_ref, r.subject, \
                       r.destination, r.failed_at";

fn record(row: &AnyRow) -> Result<RunRecord, StoreError> {
    let row = Named(row);
    let key: String = row.get("key")?;
    Ok(RunRecord {
        flow: row.get("flow")?,
        event: row.get("event")?,
        reference: row.parsed("event_ref")?,
        subject: row.parsed("subject")?,
        instance: row.get("instance")?,
        kind: row.get("type")?,
        user: key.starts_with("user_").then(|| key.clone()),
        key,
        state: row.get("state")?,
        step: row.get("step")?,
        attempts: row.get("attempts")?,
        destination: row.get("destination")?,
        failed_at: row.time("failed_at")?,
        due_at: row.time("due_at")?,
        reason: row.get("reason")?,
        error: row.get("error")?,
        note: row.get("note")?,
        source: row.get("source")?,
        partition: row.get("partition")?,
        offset: Offset(row.get("origin")?),
        admitted_at: Timestamp::from_millis(row.get("admitted_at")?),
        ended_at: row.time("ended_at")?,
        deaths: row.get("deaths")?,
        effects: Vec::new(),
    })
}

/// Returns the column for a lookup by `event`: a reference, or a sender's id.
fn event_column(event: Option<&str>) -> &'static str {
    if event.is_some_and(|event| event.parse::<EventRef>().is_ok()) { "r.event_ref" } else { "r.event" }
}

impl SqlStore {
    /// Returns the runs that match the filter: the newest `limit`, oldest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn runs(&self, filter: &RunFilter, limit: i64) -> Result<Vec<RunRecord>, StoreError> {
        let texts = [
            ("r.key", filter.key.clone()),
            ("r.flow", filter.flow.clone()),
            ("r.state", filter.state.map(|state| state.label().to_owned())),
            ("r.reason", filter.reason.map(|reason| reason.label().to_owned())),
            ("r.instance", filter.instance.as_ref().map(Instance::to_string)),
            (event_column(filter.event.as_deref()), filter.event.clone()),
        ];
        let given: Vec<(&str, String)> =
            texts.into_iter().filter_map(|(column, value)| Some((column, value?))).collect();
        let mut conditions = vec!["r.admitted_at >= $1".to_owned()];
        conditions.extend(given.iter().enumerate().map(|(index, (column, _))| format!("{column} = ${}", index + 3)));
        let sql = format!(
            "SELECT {COLUMNS} FROM usher_run r WHERE {} ORDER BY r.admitted_at DESC, r.partition DESC, r.origin DESC, r.flow DESC LIMIT $2",
            conditions.join(" AND ")
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(filter.since.map_or(0, Timestamp::millis)).bind(limit);
        for (_, value) in given {
            query = query.bind(value);
        }
        let rows = query.fetch_all(&self.database.pool).await?;
        let mut records = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        records.reverse();
        for record in &mut records {
            record.effects = self.effects(&record.flow, &record.reference).await?;
        }
        Ok(records)
    }

    async fn effects(&self, flow: &str, run: &EventRef) -> Result<Vec<EffectRecord>, StoreError> {
        let sql = "SELECT connector, step_name, id, at FROM usher_effect WHERE flow = $1 AND event_ref = $2 ORDER BY pass, step";
        let rows: Vec<(String, String, String, i64)> =
            sqlx::query_as(sql).bind(flow).bind(run.as_str()).fetch_all(&self.database.pool).await?;
        let effect = |(connector, step, id, at)| EffectRecord { connector, step, id, at: Timestamp::from_millis(at) };
        Ok(rows.into_iter().map(effect).collect())
    }

    /// Returns the body of a run's event while it is stored. It is deleted when the run ends; only a dead run keeps it,
    /// until the run expires. A body that is not JSON is returned as a string.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn body(&self, flow: &str, run: &EventRef) -> Result<Option<Value>, StoreError> {
        let row: Option<(Option<String>,)> =
            sqlx::query_as("SELECT body FROM usher_run WHERE flow = $1 AND event_ref = $2")
                .bind(flow)
                .bind(run.as_str())
                .fetch_optional(&self.database.pool)
                .await?;
        let text = row.and_then(|(body,)| body);
        Ok(text.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}
