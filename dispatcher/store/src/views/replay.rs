//! The events that a flow has had, for a replay.

use std::collections::BTreeSet;

use usher_proto::{EventRef, Timestamp};
use usher_sql::query;

use crate::operate::record_action;
use crate::rows::Named;
use crate::{SqlStore, StoreError};

/// Number of events for which one statement asks.
const EVENTS: usize = 500;

impl SqlStore {
    /// Returns those of these events that a flow has admitted, as far as it remembers: see [`Self::horizon`].
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn had(&self, flow: &str, events: &[EventRef]) -> Result<BTreeSet<EventRef>, StoreError> {
        let mut had = BTreeSet::new();
        for events in events.chunks(EVENTS) {
            let numbers: Vec<String> = (2..=events.len() + 1).map(|number| format!("${number}")).collect();
            let numbers = numbers.join(", ");
            for table in ["usher_open_run", "usher_ended_run", "usher_event"] {
                let sql = format!("SELECT event_ref FROM {table} WHERE flow = $1 AND event_ref IN ({numbers})");
                let statement = events.iter().fold(query(sql).bind(flow), |query, event| query.bind(event.as_str()));
                for row in &statement.fetch_all(&self.database).await? {
                    had.insert(Named(row).parsed("event_ref")?);
                }
            }
        }
        Ok(had)
    }

    /// Returns the time before which received events may have been forgotten by a flow: it would give them up as too old.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn horizon(&self, flow: &str) -> Result<Timestamp, StoreError> {
        let sql = "SELECT older_than FROM usher_pruned WHERE flow = $1";
        let row = query(sql).bind(flow).fetch_optional(&self.database).await?;
        Ok(Timestamp::from_millis(row.map(|row| row.get("older_than")).transpose()?.unwrap_or(0)))
    }

    /// Records that an operator has replayed events to a flow, with the operator's words about it.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    pub async fn record_replay(&self, flow: &str, who: &str, what: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut writing = self.database.write().await?;
        record_action(writing.connection(), "replay", flow, who, Some(what), now).await?;
        Ok(writing.commit().await?)
    }
}
