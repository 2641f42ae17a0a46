//! Conversion of rows to runs.

use bytes::Bytes;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use usher_engine::{AttemptState, Run, RunState};
use usher_proto::{Event, EventId, Partition, Source, Timestamp};

use super::StoreError;

/// The columns that [`run`] reads, in its order.
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

/// Reads the columns of a row one after the other.
struct Columns<'a> {
    row: &'a AnyRow,
    next: usize,
}

impl<'a> Columns<'a> {
    fn take<T: sqlx::Decode<'a, sqlx::Any> + sqlx::Type<sqlx::Any>>(&mut self) -> Result<T, sqlx::Error> {
        self.next += 1;
        self.row.try_get(self.next - 1)
    }

    fn time(&mut self) -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp::from_millis))
    }

    fn small(&mut self, what: &str) -> Result<u32, StoreError> {
        u32::try_from(self.take::<i64>()?).map_err(|_| unreadable(what))
    }
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Unreadable(what.to_owned())
}

/// Reads a run from a row of [`RUN_COLUMNS`].
pub(super) fn run(row: &AnyRow) -> Result<Run, StoreError> {
    let mut columns = Columns { row, next: 0 };
    let c = &mut columns;
    let id = EventId::new(c.take::<String>()?);
    let subject = c.take::<String>()?.parse().map_err(|_| unreadable("subject"))?;
    let partition = Partition(i32::try_from(c.take::<i64>()?).map_err(|_| unreadable("partition"))?);
    let position = c.take()?;
    let source = c.take::<String>()?.parse::<Source>().map_err(|_| unreadable("source"))?;
    let kind = c.take()?;
    let occurred_at = Timestamp::from_millis(c.take()?);
    let received_at = Timestamp::from_millis(c.take()?);
    let provenance = serde_json::from_str(&c.take::<String>()?).map_err(|_| unreadable("provenance"))?;
    let body = Bytes::from(c.take::<Option<String>>()?.unwrap_or_default());
    let event = Event { id, kind, source, subject, occurred_at, received_at, provenance, body };
    let flow_version = c.take()?;
    let step = usize::try_from(c.take::<i64>()?).map_err(|_| unreadable("step"))?;
    let destination = c.take()?;
    let state = c.take::<String>()?.parse::<RunState>().map_err(|_| unreadable("state"))?;
    let rerun = c.small("pass")?;
    let tries = AttemptState {
        attempts: c.small("attempts")?,
        counted: c.small("spent")?,
        unanswered: c.small("unanswered")?,
        generation: c.small("generation")?,
        first_at: c.time()?,
        first_sent_at: c.time()?,
        failed_at: c.time()?,
        claimed_until: c.time()?,
    };
    let request = c.take()?;
    let results = serde_json::from_str(&c.take::<String>()?).map_err(|_| unreadable("results"))?;
    let wait_until = c.time()?;
    let reason: Option<String> = c.take()?;
    let error: Option<String> = c.take()?;
    let verdict = match reason {
        None => None,
        Some(label) => Some((label.parse().map_err(|_| unreadable("reason"))?, error.unwrap_or_default())),
    };
    let expires_at = c.time()?;
    let before: Option<String> = c.take()?;
    let before = before.map(|text| serde_json::from_str(&text)).transpose();
    let before = before.map_err(|_| unreadable("before_event"))?;
    let begun = matches!(state, RunState::Running | RunState::Parked);
    Ok(Run {
        event,
        partition,
        position,
        flow_version,
        step,
        destination,
        begun,
        rerun,
        tries,
        request,
        results,
        wait_until,
        expires_at,
        before,
        verdict,
        quarantined: false,
    })
}

pub(super) fn runs(rows: &[AnyRow]) -> Result<Vec<Run>, StoreError> {
    rows.iter().map(run).collect()
}
