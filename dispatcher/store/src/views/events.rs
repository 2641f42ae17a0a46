//! Events, newest first, each with the state of its run in every flow.
//!
//! An event has no table of its own: its runs do. All runs of an event have the time at which it was received, so events are
//! ordered by that time and by their reference, and a page ends at such a place. For a page, the newest matching runs of
//! every flow are read and merged: if an event belongs to the page, then also to the page of each of its flows.
//!
//! A filter that no index serves is applied to the newest [`SCAN`] runs of a flow. Where they are used up, the page ends, and
//! the next one begins there.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use usher_engine::RunState;
use usher_proto::{EventRef, Instance, SubjectId, Timestamp};
use usher_sql::{SqlQuery, query};

use super::{SCAN, bound};
use crate::rows::Named;
use crate::{SqlStore, StoreError};

/// The place at which a page of events ends: the time and the reference of its last event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventCursor {
    /// Time at which the event was received.
    pub received_at: Timestamp,
    /// The event; empty for a place between two times.
    pub reference: String,
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.received_at.millis(), self.reference)
    }
}

/// A text that is no place in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no place in the list")]
pub struct NoCursor;

impl FromStr for EventCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (at, reference) = text.split_once('.').ok_or(NoCursor)?;
        let at = at.parse().map_err(|_| NoCursor)?;
        Ok(Self { received_at: Timestamp::from_millis(at), reference: reference.to_owned() })
    }
}

/// Selection of events. A field that is `None` does not restrict it; together they select the events that match each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Events with a run of this flow.
    pub flow: Option<String>,
    /// Events with a run in this state: of the flow, if one is given.
    pub state: Option<RunState>,
    /// Events of this type.
    pub kind: Option<String>,
    /// Events of this instance.
    pub instance: Option<Instance>,
    /// Events with a run whose step calls this account and does not wait for a time or for news: an open one, unless a state is
    /// given.
    pub account: Option<String>,
    /// Events received at or after this time.
    pub since: Option<Timestamp>,
    /// Events after this place.
    pub after: Option<EventCursor>,
}

/// The state of an event's run in one flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunCell {
    /// Name of the flow.
    pub flow: String,
    /// State of the run, as a label.
    pub state: String,
    /// Number of attempts made of the present step.
    pub attempts: i64,
    /// Reason for giving it up, as a label.
    pub reason: Option<String>,
    /// Version of the flow that the run continues with.
    pub flow_version: String,
}

/// One event with its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRow {
    /// The event's reference.
    #[serde(serialize_with = "as_text")]
    pub reference: EventRef,
    /// The event's subject.
    #[serde(skip)]
    pub subject: SubjectId,
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Time of the event.
    pub occurred_at: Timestamp,
    /// Time at which it was received.
    pub received_at: Timestamp,
    /// Its runs, by flow.
    pub runs: Vec<RunCell>,
}

fn as_text<S: serde::Serializer>(reference: &EventRef, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reference)
}

/// A page of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventPage {
    /// The events, newest first.
    pub events: Vec<EventRow>,
    /// The place at which the next page begins; `None` if there are no more events.
    pub next: Option<EventCursor>,
}

/// A table of runs, and the expression with which its index by flow and time begins.
struct RunTable {
    name: &'static str,
    flow: &'static str,
    suffix: &'static str,
}

const OPEN: RunTable = RunTable { name: "usher_open_run", flow: "flow || '/'", suffix: "/" };
const ENDED: RunTable = RunTable { name: "usher_ended_run", flow: "flow || ''", suffix: "" };

/// Returns the tables that can hold the runs of a query.
fn tables(of: &EventQuery) -> &'static [RunTable] {
    match of.state.map(RunState::is_terminal) {
        None if of.account.is_some() => &[OPEN],
        None => &[OPEN, ENDED],
        Some(false) => &[OPEN],
        Some(true) => &[ENDED],
    }
}

impl EventQuery {
    fn is_scan(&self) -> bool {
        self.state.is_some() || self.kind.is_some() || self.instance.is_some() || self.account.is_some()
    }

    /// Returns the statement that reads the newest runs of a flow before the place, and of them those that match.
    fn statement(&self, table: &RunTable, flow: &str, limit: usize) -> SqlQuery {
        let RunTable { name, flow: by_flow, suffix } = table;
        let (at, reference) = match &self.after {
            Some(after) => (after.received_at.millis(), after.reference.as_str()),
            None => (i64::MAX, ""),
        };
        let scan = if self.is_scan() { SCAN } else { limit };
        let order = "ORDER BY received_at DESC, event_ref DESC";
        let mut sql = format!(
            "SELECT q.event_ref, q.received_at FROM (SELECT event_ref, received_at, state, type, destination FROM {name} \
               WHERE {by_flow} = $1 AND received_at <= $2 AND (received_at < $2 OR event_ref < $3) AND received_at >= $4 \
               {order} LIMIT $5) q WHERE 1 = 1"
        );
        let since = self.since.map_or(i64::MIN, Timestamp::millis);
        let instance = self.instance.as_ref().map(|instance| format!("%/{}/%", instance.as_str()));
        let filters = [
            ("q.state =", self.state.map(|state| state.label().to_owned())),
            ("q.type =", self.kind.clone()),
            ("q.event_ref LIKE", instance),
            ("q.state <> 'waiting' AND q.destination =", self.account.clone()),
        ];
        let mut given = Vec::new();
        for (condition, value) in filters {
            if let Some(value) = value {
                given.push(value);
                sql.push_str(&format!(" AND {condition} ${}", given.len() + 6));
            }
        }
        sql.push_str(&format!(
            " {} LIMIT $6",
            order.replace("received_at", "q.received_at").replace("event_ref", "q.event_ref")
        ));
        let statement = query(sql)
            .bind(format!("{flow}{suffix}"))
            .bind(at)
            .bind(reference)
            .bind(since)
            .bind(bound(scan))
            .bind(bound(limit));
        given.into_iter().fold(statement, SqlQuery::bind)
    }

    /// Returns the statement that finds the last run that [`Self::statement`] reads, if it does not read all.
    fn end_of_scan(&self, table: &RunTable, flow: &str) -> SqlQuery {
        let RunTable { name, flow: by_flow, suffix } = table;
        let at = self.after.as_ref().map_or(i64::MAX, |after| after.received_at.millis());
        let sql = format!(
            "SELECT event_ref, received_at FROM {name} WHERE {by_flow} = $1 AND received_at <= $2 AND received_at >= $3 \
             ORDER BY received_at DESC, event_ref DESC LIMIT 1 OFFSET $4"
        );
        let since = self.since.map_or(i64::MIN, Timestamp::millis);
        query(sql).bind(format!("{flow}{suffix}")).bind(at).bind(since).bind(bound(SCAN - 1))
    }
}

impl SqlStore {
    /// Returns a page of at most `limit` events, newest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn events(&self, of: &EventQuery, limit: usize) -> Result<EventPage, StoreError> {
        let flows = match &of.flow {
            Some(flow) => vec![flow.clone()],
            None => self.flow_names().await?,
        };
        let mut places: Vec<EventCursor> = Vec::new();
        // Below the newest of these places, a flow was not searched.
        let mut searched_to: Option<EventCursor> = None;
        for flow in &flows {
            for table in tables(of) {
                let found = of.statement(table, flow, limit + 1).fetch_all(&self.database).await?;
                if found.len() <= limit && of.is_scan() {
                    let end = of.end_of_scan(table, flow).fetch_optional(&self.database).await?;
                    searched_to = searched_to.max(end.as_ref().map(place).transpose()?);
                }
                for row in &found {
                    places.push(place(row)?);
                }
            }
        }
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.dedup();
        if let Some(end) = &searched_to {
            places.retain(|place| place >= end);
        }
        // The id of an event, too, may look like the name of an instance.
        if let Some(instance) = &of.instance {
            let is_of = |reference: EventRef| reference.instance() == instance.as_str();
            places.retain(|place| place.reference.parse().is_ok_and(is_of));
        }
        let more = places.len() > limit;
        places.truncate(limit);
        let next = if more { places.last().cloned() } else { searched_to };
        Ok(EventPage { events: self.event_rows(&places).await?, next })
    }

    /// Returns the events at these places, with all of their runs, in the same order.
    async fn event_rows(&self, places: &[EventCursor]) -> Result<Vec<EventRow>, StoreError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<String> = (1..=places.len()).map(|number| format!("${number}")).collect();
        let sql = format!(
            "SELECT event_ref, subject, type, occurred_at, received_at, flow, state, attempts, reason, flow_version FROM usher_run \
             WHERE event_ref IN ({}) ORDER BY flow",
            numbers.join(", ")
        );
        let statement = places.iter().fold(query(sql), |statement, place| statement.bind(&place.reference));
        let mut found: BTreeMap<String, EventRow> = BTreeMap::new();
        for row in &statement.fetch_all(&self.database).await? {
            let row = Named(row);
            let cell = RunCell {
                flow: row.get("flow")?,
                state: row.get("state")?,
                attempts: row.get("attempts")?,
                reason: row.get("reason")?,
                flow_version: row.get("flow_version")?,
            };
            let reference: String = row.get("event_ref")?;
            if let Some(event) = found.get_mut(&reference) {
                event.runs.push(cell);
                continue;
            }
            let event = EventRow {
                reference: row.parsed("event_ref")?,
                subject: row.parsed("subject")?,
                kind: row.get("type")?,
                occurred_at: Timestamp::from_millis(row.get("occurred_at")?),
                received_at: Timestamp::from_millis(row.get("received_at")?),
                runs: vec![cell],
            };
            found.insert(reference, event);
        }
        Ok(places.iter().filter_map(|place| found.remove(&place.reference)).collect())
    }

    /// Returns the body of an event, as far as a run of it still keeps it. Nobody's view of it is recorded: whoever calls this
    /// masks it, or asks for [`SqlStore::show_content`].
    ///
    /// # Errors
    ///
    /// If the database does not answer, or the row cannot be read.
    pub async fn event_body(&self, reference: &EventRef) -> Result<Option<String>, StoreError> {
        let sql = "SELECT body FROM usher_run WHERE event_ref = $1 AND body IS NOT NULL ORDER BY flow LIMIT 1";
        let row = query(sql).bind(reference.as_str()).fetch_optional(&self.database).await?;
        Ok(row.as_ref().map(|row| row.get("body")).transpose()?)
    }

    /// Returns one event with its runs; `None` if none of them is stored.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn event(&self, reference: &EventRef) -> Result<Option<EventRow>, StoreError> {
        let place = EventCursor { received_at: Timestamp::default(), reference: reference.as_str().to_owned() };
        Ok(self.event_rows(&[place]).await?.pop())
    }
}

fn place(row: &usher_sql::Row) -> Result<EventCursor, StoreError> {
    let row = Named(row);
    Ok(EventCursor { received_at: Timestamp::from_millis(row.get("received_at")?), reference: row.get("event_ref")? })
}
