//! Views for operators: runs with their effects, read only.

use serde::{Deserialize, Serialize};
use usher_engine::{Outcome, RunState};
use usher_proto::{EventRef, Instance, Offset, Reason, SubjectId, Timestamp};
use usher_sql::{Row, SqlParam, SqlQuery, query, query_as};

use super::rows::Named;
use super::story::{self, AttemptRecord};
use super::{SqlStore, StoreError};

/// Largest number of events whose runs one statement reads.
const EVENTS: usize = 200;

/// Selection of runs. A field that is `None` does not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Runs of this key, which for a person is the user id, of any sender and instance.
    pub key: Option<String>,
    /// Runs of one of these subjects.
    pub subjects: Option<Vec<SubjectId>>,
    /// Runs of this flow.
    pub flow: Option<String>,
    /// Runs in one of these states. If there are none, of every state.
    pub states: Vec<RunState>,
    /// Runs given up for this reason.
    pub reason: Option<Reason>,
    /// Runs of this event: its sender's id, or the whole reference.
    pub event: Option<String>,
    /// Runs of this instance.
    pub instance: Option<Instance>,
    /// Runs admitted at or after this time.
    pub since: Option<Timestamp>,
    /// Runs admitted before this time.
    pub until: Option<Timestamp>,
}

impl RunFilter {
    /// Returns true if the filter selects a run.
    pub fn takes(&self, run: &RunRecord) -> bool {
        let Self { key, subjects, flow, states, reason, event, instance, since, until } = self;
        key.as_ref().is_none_or(|key| *key == run.key)
            && subjects.as_ref().is_none_or(|subjects| subjects.contains(&run.subject))
            && flow.as_ref().is_none_or(|flow| *flow == run.flow)
            && (states.is_empty() || states.iter().any(|state| state.label() == run.state))
            && reason.is_none_or(|reason| run.reason.as_deref() == Some(reason.label()))
            && event.as_ref().is_none_or(|event| *event == run.event || event == run.reference.as_str())
            && instance.as_ref().is_none_or(|instance| instance.as_str() == run.instance)
            && since.is_none_or(|since| run.admitted_at >= since)
            && until.is_none_or(|until| run.admitted_at < until)
    }
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
    /// Version of the flow that it continues, or ended, with.
    pub version: String,
    /// True if news of its subject end its wait.
    pub awaits_news: bool,
    /// Label for why it ended as it did.
    pub note: Option<String>,
    /// The event with the newest state of its subject, if the run was superseded.
    pub newest_state: Option<String>,
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
                       r.destination, r.failed_at, r.pass, r.effects, r.story, \
                       r.flow_version, r.awaits_news, \
                       CASE WHEN r.state = 'superseded' THEN (SELECT s.event FROM usher_subject s WHERE s.subject = r.subject) END AS newest_state";

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
        version: row.get("flow_version")?,
        awaits_news: row.get::<i64>("awaits_news")? == 1,
        note: row.get("note")?,
        newest_state: row.get("newest_state")?,
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
            by: None,
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

/// The conditions of a statement about runs `r`, with the values of its parameters.
pub(super) struct RunConditions {
    pub(super) sql: String,
    pub(super) values: Vec<SqlParam>,
}

impl RunConditions {
    /// Adds the parameters to a statement.
    pub(super) fn bind(&self, sql: String) -> SqlQuery {
        self.values.iter().fold(query(sql), |query, value| query.bind(value.clone()))
    }
}

impl SqlStore {
    /// Returns the conditions of a filter; `None` if it selects nothing.
    pub(super) async fn conditions(&self, filter: &RunFilter) -> Result<Option<RunConditions>, StoreError> {
        let by_id = filter.key.is_some() || filter.event.is_some();
        let senders = if by_id { self.senders().await? } else { Vec::new() };
        let of_any_sender =
            |id: &String| senders.iter().map(|(source, instance)| format!("{source}/{instance}/{id}")).collect();
        let references = |event: &String| match event.parse::<EventRef>() {
            Ok(_) => vec![event.clone()],
            Err(_) => of_any_sender(event),
        };
        let subjects = |subjects: &Vec<SubjectId>| subjects.iter().map(|subject| subject.as_str().to_owned()).collect();
        let one = |value: String| vec![value];
        let texts: [(&str, Option<Vec<String>>); 6] = [
            ("r.subject", filter.key.as_ref().map(of_any_sender)),
            ("r.subject", filter.subjects.as_ref().map(subjects)),
            ("r.flow", filter.flow.clone().map(one)),
            ("r.reason", filter.reason.map(|reason| one(reason.label().to_owned()))),
            ("r.instance", filter.instance.as_ref().map(|instance| one(instance.to_string()))),
            ("r.event_ref", filter.event.as_ref().map(references)),
        ];
        let since = filter.since.map_or(0, Timestamp::millis);
        let until = filter.until.map_or(i64::MAX, Timestamp::millis);
        let mut conditions = vec!["r.admitted_at >= $1 AND r.admitted_at < $2".to_owned()];
        let mut given: Vec<SqlParam> = vec![since.into(), until.into()];
        // A state stands in the text, because an index of one state serves no parameter.
        if !filter.states.is_empty() {
            let states: Vec<String> = filter.states.iter().map(|state| format!("'{}'", state.label())).collect();
            conditions.push(format!("r.state IN ({})", states.join(", ")));
        }
        for (column, values) in texts {
            let Some(values) = values else { continue };
            if values.is_empty() {
                return Ok(None); // nobody has sent anything yet
            }
            let places: Vec<String> = (1..=values.len()).map(|at| format!("${}", given.len() + at)).collect();
            conditions.push(format!("{column} IN ({})", places.join(", ")));
            given.extend(values.into_iter().map(SqlParam::from));
        }
        Ok(Some(RunConditions { sql: conditions.join(" AND "), values: given }))
    }

    /// Returns the runs that match the filter: the newest `limit`, oldest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn runs(&self, filter: &RunFilter, limit: i64) -> Result<Vec<RunRecord>, StoreError> {
        let Some(conditions) = self.conditions(filter).await? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT {COLUMNS} FROM usher_run r WHERE {} ORDER BY r.admitted_at DESC, r.partition DESC, r.origin DESC, r.flow DESC \
             LIMIT ${}",
            conditions.sql,
            conditions.values.len() + 1
        );
        let rows = conditions.bind(sql).bind(limit).fetch_all(&self.database).await?;
        let mut records = rows.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        records.reverse();
        Ok(records)
    }

    /// Returns the runs of these events, by event and flow.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn runs_of(&self, events: &[EventRef]) -> Result<Vec<RunRecord>, StoreError> {
        let mut records = Vec::new();
        for events in events.chunks(EVENTS) {
            let numbers: Vec<String> = (1..=events.len()).map(|number| format!("${number}")).collect();
            let sql = format!(
                "SELECT {COLUMNS} FROM usher_run r WHERE r.event_ref IN ({}) ORDER BY r.event_ref, r.flow",
                numbers.join(", ")
            );
            let query = events.iter().fold(query(sql), |query, event| query.bind(event.as_str()));
            for row in &query.fetch_all(&self.database).await? {
                records.push(record(row)?);
            }
        }
        Ok(records)
    }

    /// Returns the senders and instances of all events and subjects that were ever admitted. With each of them, an id or a key
    /// makes a reference, by which runs are found.
    async fn senders(&self) -> Result<Vec<(String, String)>, StoreError> {
        Ok(query_as("SELECT source, instance FROM usher_sender").fetch_all(&self.database).await?)
    }
}
