//! Operators' actions that change no run and no flow, recorded beside those that do.

use usher_proto::Timestamp;
use usher_sql::query;

use crate::{ActionRecord, SqlStore, StoreError};

/// Label of the action that is recorded when an operator has personal data shown.
const SHOW: &str = "show";
/// The flow of an action that concerns none.
const NO_FLOW: &str = "";

impl SqlStore {
    /// Records that an operator has seen the personal data of an event or a subject, given by its identity.
    ///
    /// # Errors
    ///
    /// If the database does not answer or refuses the statement.
    pub async fn record_shown(&self, identity: &str, who: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut writing = self.database.write().await?;
        let sql = "INSERT INTO usher_action (id, at, who, what, flow, event_ref, came) VALUES ($1, $2, $3, $4, $5, $6, 'done')";
        query(sql)
            .bind(format!("{SHOW}-{}-{:016x}", now.millis(), rand::random::<u64>()))
            .bind(now.millis())
            .bind(who)
            .bind(SHOW)
            .bind(NO_FLOW)
            .bind(identity)
            .execute(writing.connection())
            .await?;
        Ok(writing.commit().await?)
    }

    /// Returns who has seen the personal data of an event or a subject, and when: the newest `limit`, newest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn shown(&self, identity: &str, limit: i64) -> Result<Vec<ActionRecord>, StoreError> {
        let sql = "SELECT at, who, what, came FROM usher_action WHERE flow = $1 AND event_ref = $2 ORDER BY at DESC, id LIMIT $3";
        let rows: Vec<(i64, String, String, String)> =
            usher_sql::query_as(sql).bind(NO_FLOW).bind(identity).bind(limit).fetch_all(&self.database).await?;
        let record = |(at, who, what, came)| ActionRecord { at: Timestamp::from_millis(at), who, what, came };
        Ok(rows.into_iter().map(record).collect())
    }
}
