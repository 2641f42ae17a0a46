//! What operators change in the store themselves: which flows are paused. Everything about runs goes through the log.

use serde::Serialize;
use usher_proto::{EventRef, Timestamp};

use super::{SqlStore, StoreError};

/// Something an operator has ordered.
#[derive(Debug, Clone, Serialize)]
pub struct ActionRecord {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// What: redrive, cancel, rerun, pause, resume.
    pub what: String,
    /// What came of it at first: queued, cancelled, done, nothing.
    pub came: String,
}

impl SqlStore {
    /// Pauses a flow, or lets it go on. The flow's replicas look every few seconds. False if it was so already.
    pub async fn set_paused(&self, flow: &str, paused: bool, who: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut writing = self.database.write().await?;
        let changed = if paused {
            sqlx::query("INSERT INTO usher_pause (flow, who, at) VALUES ($1, $2, $3) ON CONFLICT (flow) DO NOTHING")
                .bind(flow)
                .bind(who)
                .bind(now.millis())
                .execute(writing.connection())
                .await?
        } else {
            sqlx::query("DELETE FROM usher_pause WHERE flow = $1").bind(flow).execute(writing.connection()).await?
        };
        let what = if paused { "pause" } else { "resume" };
        if changed.rows_affected() > 0 {
            let sql = "INSERT INTO usher_action (id, at, who, what, flow, came) VALUES ($1, $2, $3, $4, $5, 'done')";
            sqlx::query(sql)
                .bind(format!("{what}-{flow}-{}-{:08x}", now.millis(), rand::random::<u32>()))
                .bind(now.millis())
                .bind(who)
                .bind(what)
                .bind(flow)
                .execute(writing.connection())
                .await?;
        }
        writing.commit().await?;
        Ok(changed.rows_affected() > 0)
    }

    /// What operators have ordered about a run, oldest first.
    pub async fn actions(&self, flow: &str, run: &EventRef) -> Result<Vec<ActionRecord>, StoreError> {
        let sql = "SELECT at, who, what, came FROM usher_action WHERE flow = $1 AND event_ref = $2 ORDER BY at, id";
        let rows: Vec<(i64, String, String, String)> =
            sqlx::query_as(sql).bind(flow).bind(run.as_str()).fetch_all(&self.database.pool).await?;
        let record = |(at, who, what, came)| ActionRecord { at: Timestamp::from_millis(at), who, what, came };
        Ok(rows.into_iter().map(record).collect())
    }

    /// The flows that have ever run here.
    pub async fn flow_names(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT DISTINCT flow FROM usher_flow ORDER BY flow").fetch_all(&self.database.pool).await?;
        Ok(rows.into_iter().map(|(flow,)| flow).collect())
    }

    /// The flows that are paused.
    pub async fn paused_flows(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT flow FROM usher_pause ORDER BY flow").fetch_all(&self.database.pool).await?;
        Ok(rows.into_iter().map(|(flow,)| flow).collect())
    }
}
