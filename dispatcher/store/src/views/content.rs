//! The content of a run: what may hold personal data, and is shown to operators only when they ask for it.

use serde::Serialize;
use serde_json::Value;
use usher_proto::{EventRef, Timestamp};
use usher_sql::query;

use crate::rows::Named;
use crate::story::{self, AttemptMessage};
use crate::{SqlStore, StoreError};

/// The content of a run, as far as it is still kept: a run that has ended has none, unless it is dead.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunContent {
    /// The body of the event. One that is not JSON is a string.
    pub body: Option<Value>,
    /// The stored form of the request whose result is not known, or else of the last one that failed.
    pub request: Option<Vec<u8>>,
    /// The messages of destinations, in order.
    pub messages: Vec<AttemptMessage>,
}

impl SqlStore {
    /// Returns the content of a run, and records that the operator has seen it.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn show_content(
        &self,
        flow: &str,
        run: &EventRef,
        who: &str,
        now: Timestamp,
    ) -> Result<RunContent, StoreError> {
        self.record_shown(run.as_str(), who, now).await?;
        let sql = "SELECT body, COALESCE(request, sent) AS request, answers FROM usher_run WHERE flow = $1 AND event_ref = $2";
        let row = query(sql).bind(flow).bind(run.as_str()).fetch_optional(&self.database).await?;
        let Some(row) = &row else { return Ok(RunContent::default()) };
        let row = Named(row);
        let body: Option<String> = row.get("body")?;
        Ok(RunContent {
            body: body.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
            request: row.get("request")?,
            messages: story::read_messages(row.get("answers")?)?,
        })
    }
}
