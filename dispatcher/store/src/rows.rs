//! Conversion of rows to runs.

use std::str::FromStr;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use usher_engine::{AttemptState, Run, RunState};
use usher_proto::{Event, EventId, Partition, Timestamp};

use super::StoreError;

/// The columns that [`run`] reads.
pub(super) const RUN_COLUMNS: &str = "event, subject, partition, position, source, type, occurred_at, \
     received_at, provenance, body, flow_version, step, destination, state, pass, attempts, spent, unanswered, generation, \
     tried_since, asked_at, failed_at, claimed_until, request, results, due_at, reason, error, \
     expires_at, before_event";

/// Returns an SQL expression: 0 for a run that has started, and so precedes all others of its key, else 1.
pub(super) fn rank(run: &str) -> String {
    format!("CASE WHEN {run}.state IN ('running', 'parked') THEN 0 ELSE 1 END")
}

/// Returns an SQL condition: true if another run of its key precedes `run`, a row of `usher_run`.
pub(super) fn preceded(run: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM usher_run o WHERE o.flow = {run}.flow AND o.subject = {run}.subject AND o.ended_at IS NULL \
           AND o.state <> 'waiting' AND ({}, o.position, o.event_ref) < ({}, {run}.position, {run}.event_ref))",
        rank("o"),
        rank(run)
    )
}

/// A row whose columns are read by name.
pub(super) struct Named<'a>(pub(super) &'a AnyRow);

impl<'a> Named<'a> {
    /// Returns the value of a column.
    pub(super) fn get<T: sqlx::Decode<'a, sqlx::Any> + sqlx::Type<sqlx::Any>>(
        &self,
        name: &str,
    ) -> Result<T, sqlx::Error> {
        self.0.try_get(name)
    }

    /// Returns the value of a column of times.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, sqlx::Error> {
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
pub(super) fn run(row: &AnyRow) -> Result<Run, StoreError> {
    let row = Named(row);
    let event = Event {
        id: EventId::new(row.get::<String>("event")?),
        kind: row.get("type")?,
        source: row.parsed("source")?,
        subject: row.parsed("subject")?,
        occurred_at: Timestamp::from_millis(row.get("occurred_at")?),
        received_at: Timestamp::from_millis(row.get("received_at")?),
        provenance: row.json("provenance")?.ok_or_else(|| unreadable("provenance"))?,
        body: Bytes::from(row.get::<Option<String>>("body")?.unwrap_or_default()),
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
    })
}

pub(super) fn runs(rows: &[AnyRow]) -> Result<Vec<Run>, StoreError> {
    rows.iter().map(run).collect()
}
