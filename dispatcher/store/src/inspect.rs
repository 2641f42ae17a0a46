//! Views for operators: runs with their effects, read only.

use serde::{Deserialize, Serialize};
use usher_engine::{Outcome, RunState};
use usher_proto::{EventRef, Instance, Offset, Reason, SubjectId, Timestamp};
use usher_sql::{Row, query, query_as};

use super::rows::Named;
use super::story::{self, AttemptRecord};
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
    /// Number of times it was run again after its end.
    pub pass: i64,
    /// Number of times it has become dead.
    pub deaths: i64,
    /// Time of its admission.
    pub admitted_at: Timestamp,
    /// Time of its end; `None` before that.
    pub ended_at: Option<Timestamp>,
    /// Its effects at destinations, in order.
    pub effects: Vec<EffectRecord>,
    /// Its attempts and the steps that were passed over, in order; the newest if there were very many.
    pub story: Vec<AttemptRecord>,
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
                       r.destination, r.failed_at, r.pass, r.effects, r.story";

fn record(row: &Row) -> Result<RunRecord, StoreError> {
    let row = Named(row);
    let key: String = row.get("key")?;
    let effects = effects(row.get("effects")?)?;
    let succeeded = effects.iter().filter_map(StoredEffect::attempt).collect();
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
        pass: row.get("pass")?,
        deaths: row.get("deaths")?,
        story: story::read(row.get("story")?, succeeded)?,
        effects: effects.into_iter().map(StoredEffect::record).collect(),
    })
}

/// An item of the column `effects`.
#[derive(Deserialize)]
struct StoredEffect {
    pass: i64,
    step: i64,
    name: String,
    connector: String,
    id: String,
    at: i64,
    /// The number of the attempt that had the effect, and its time; earlier versions put them into the story.
    attempt: Option<i64>,
    ms: Option<u64>,
}

impl StoredEffect {
    /// Returns the attempt that had the effect; `None` if the story has it.
    fn attempt(&self) -> Option<AttemptRecord> {
        let (attempt, ms) = (self.attempt?, self.ms?);
        let began = self.at.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX));
        Some(AttemptRecord {
            step: self.step,
            name: self.name.clone(),
            attempt,
            pass: self.pass,
            at: Timestamp::from_millis(began),
            ms,
            outcome: Outcome::DONE.to_owned(),
            status: None,
            error: None,
            next_at: None,
        })
    }

    fn record(self) -> EffectRecord {
        let Self { name, connector, id, at, .. } = self;
        EffectRecord { connector, step: name, id, at: Timestamp::from_millis(at) }
    }
}

/// Reads the column of effects.
fn effects(column: Option<&str>) -> Result<Vec<StoredEffect>, StoreError> {
    let Some(text) = column else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable("effects".into()))
}

impl SqlStore {
    /// Returns the runs that match the filter: the newest `limit`, oldest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn runs(&self, filter: &RunFilter, limit: i64) -> Result<Vec<RunRecord>, StoreError> {
        self.runs_before(filter, None, limit).await
    }

    /// Does the same with the runs that were admitted before a time.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn runs_before(
        &self,
        filter: &RunFilter,
        before: Option<Timestamp>,
        limit: i64,
    ) -> Result<Vec<RunRecord>, StoreError> {
        let by_id = filter.key.is_some() || filter.event.is_some();
        let senders = if by_id { self.senders().await? } else { Vec::new() };
        let of_any_sender =
            |id: &String| senders.iter().map(|(source, instance)| format!("{source}/{instance}/{id}")).collect();
        let references = |event: &String| match event.parse::<EventRef>() {
            Ok(_) => vec![event.clone()],
            Err(_) => of_any_sender(event),
        };
        let one = |value: String| vec![value];
        let texts = [
            ("r.subject", filter.key.as_ref().map(of_any_sender)),
            ("r.flow", filter.flow.clone().map(one)),
            ("r.state", filter.state.map(|state| one(state.label().to_owned()))),
            ("r.reason", filter.reason.map(|reason| one(reason.label().to_owned()))),
            ("r.instance", filter.instance.as_ref().map(|instance| one(instance.to_string()))),
            ("r.event_ref", filter.event.as_ref().map(references)),
        ];
        let mut conditions = vec!["r.admitted_at >= $1".to_owned()];
        conditions.extend(before.map(|before| format!("r.admitted_at < {}", before.millis())));
        let mut given = Vec::new();
        for (column, values) in texts {
            let Some(values) = values else { continue };
            if values.is_empty() {
                return Ok(Vec::new()); // nobody has sent anything yet
            }
            let places: Vec<String> = (0..values.len()).map(|at| format!("${}", given.len() + at + 3)).collect();
            conditions.push(format!("{column} IN ({})", places.join(", ")));
            given.extend(values);
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM usher_run r WHERE {} ORDER BY r.admitted_at DESC, r.partition DESC, r.origin DESC, r.flow DESC LIMIT $2",
            conditions.join(" AND ")
        );
        let mut query = query(sql).bind(filter.since.map_or(0, Timestamp::millis)).bind(limit);
        for value in given {
            query = query.bind(value);
        }
        let rows = query.fetch_all(&self.database).await?;
        let mut records = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        records.reverse();
        Ok(records)
    }

    /// Returns the senders and instances of all events and subjects that were ever admitted. With each of them, an id or a key
    /// makes a reference, by which runs are found.
    async fn senders(&self) -> Result<Vec<(String, String)>, StoreError> {
        Ok(query_as("SELECT source, instance FROM usher_sender").fetch_all(&self.database).await?)
    }
}
