//! Conversion of rows to runs, and the order of the runs of one key.

use std::str::FromStr;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use usher_engine::{AttemptState, Run, RunState};
use usher_proto::{Event, EventId, EventRef, Partition, Timestamp};
use usher_sql::{FromColumn, Row, SqlError};

use super::StoreError;

/// The columns that [`run`] reads, of an open run.
pub(super) const RUN_COLUMNS: &str = "event_ref, subject, partition, position, type, occurred_at, received_at, provenance, \
     body, flow_version, step, destination, state, pass, attempts, spent, unanswered, generation, tried_since, asked_at, \
     failed_at, claimed_until, request, results, due_at, reason, error, expires_at, before_event";

/// The columns that open and ended runs have in common, except those that an end changes.
pub(super) const LASTING_COLUMNS: &str = "flow, event_ref, subject, partition, position, origin, type, occurred_at, \
     received_at, admitted_at, digest, provenance, expires_at, flow_version, step, destination, pass, attempts, generation, asked_at, \
     failed_at, effects, story";

/// Returns an SQL expression: 0 for a run that has started, and so precedes all others of its key, else 1.
pub(super) fn rank(run: &str) -> String {
    format!("CASE WHEN {run}.state IN ('running', 'parked') THEN 0 ELSE 1 END")
}

/// Returns an SQL condition: true if another open run of its key precedes `run` of this flow, whose [`rank`] is given: one
/// before it in its lane, or, as long as it has not started, one after it that has. Of a run at the end of its lane each part
/// reads one row.
pub(super) fn preceded(run: &str, flow: &str, its_rank: &str) -> String {
    let other = format!("EXISTS (SELECT 1 FROM usher_open_run p WHERE p.subject = {run}.subject AND p.flow = {flow}");
    format!(
        "({other} AND p.state <> 'waiting' AND p.position <= {run}.position \
            AND (p.position, p.event_ref) < ({run}.position, {run}.event_ref) AND {} <= {its_rank}) \
          OR {its_rank} = 1 AND {other} AND p.state IN ('running', 'parked') AND p.position >= {run}.position \
            AND (p.position, p.event_ref) > ({run}.position, {run}.event_ref)))",
        rank("p"),
    )
}

/// A row whose columns are read by name.
pub(super) struct Named<'a>(pub(super) &'a Row);

impl<'a> Named<'a> {
    /// Returns the value of a column.
    pub(super) fn get<T: FromColumn<'a>>(&self, name: &str) -> Result<T, SqlError> {
        self.0.get(name)
    }

    /// Returns the value of a column of times.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, SqlError> {
        Ok(self.get::<Option<i64>>(name)?.map(Timestamp::from_millis))
    }

    /// Returns the value of a column of texts in the form that `T` writes.
    pub(super) fn parsed<T: FromStr>(&self, name: &str) -> Result<T, StoreError> {
        self.get::<String>(name)?.parse().map_err(|_| unreadable(name))
    }

    fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, StoreError> {
        T::try_from(self.get::<i64>(name)?).map_err(|_| unreadable(name))
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.get(name)?;
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(|_| unreadable(name))
    }
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Unreadable(what.to_owned())
}

/// Reads a run from a row of [`RUN_COLUMNS`].
pub(super) fn run(row: &Row) -> Result<Run, StoreError> {
    let row = Named(row);
    let reference: EventRef = row.parsed("event_ref")?;
    let event = Event {
        id: EventId::new(reference.id()),
        kind: row.get("type")?,
        source: reference.source().parse().map_err(|_| unreadable("event_ref"))?,
        subject: row.parsed("subject")?,
        occurred_at: Timestamp::from_millis(row.get("occurred_at")?),
        received_at: Timestamp::from_millis(row.get("received_at")?),
        provenance: row.json("provenance")?.ok_or_else(|| unreadable("provenance"))?,
        body: row.get::<Option<&str>>("body")?.map(|body| Bytes::copy_from_slice(body.as_bytes())).unwrap_or_default(),
    };
    let state: RunState = row.parsed("state")?;
    let tries = AttemptState {
        attempts: row.number("attempts")?,
        counted: row.number("spent")?,
        unanswered: row.number("unanswered")?,
        generation: row.number("generation")?,
        first_at: row.time("tried_since")?,
        first_sent_at: row.time("asked_at")?,
        failed_at: row.time("failed_at")?,
        claimed_until: row.time("claimed_until")?,
    };
    let error: Option<String> = row.get("error")?;
    let verdict = match row.get::<Option<String>>("reason")? {
        None => None,
        Some(label) => Some((label.parse().map_err(|_| unreadable("reason"))?, error.unwrap_or_default())),
    };
    Ok(Run {
        event,
        partition: Partition(row.number("partition")?),
        position: row.get("position")?,
        flow_version: row.get("flow_version")?,
        step: row.number("step")?,
        destination: row.get("destination")?,
        begun: matches!(state, RunState::Running | RunState::Parked),
        rerun: row.number("pass")?,
        tries,
        request: row.get("request")?,
        results: row.json("results")?.ok_or_else(|| unreadable("results"))?,
        wait_until: row.time("due_at")?,
        expires_at: row.time("expires_at")?,
        before: row.json("before_event")?,
        verdict,
        quarantined: false,
        untold: Vec::new(),
        claimed: None,
    })
}

pub(super) fn runs<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Result<Vec<Run>, StoreError> {
    rows.into_iter().map(run).collect()
}
