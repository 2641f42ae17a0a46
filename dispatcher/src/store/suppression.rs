//! Whom not to write to, as the store knows it: the newest word about each address and list, of each instance, and of an
//! operator for every one.
//!
//! Every flow applies every such event, each at its own pace and some in another order: newer wins, so all of them come to
//! the same.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use sqlx::{AnyConnection, AssertSqlSafe};
use usher_proto::suppression::{EVERYTHING, SuppressionKind};
use usher_proto::{AddressDigest, Instance, Timestamp};

use super::{SqlStore, StoreError};
use crate::engine::arrival::Arrival;
use crate::sql::Database;
use crate::suppression::SuppressionEntry;

/// Stands for every instance; no instance has this name.
const EVERY_INSTANCE: &str = "*";

/// The newest word about an address, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuppressionRecord {
    /// The SHA-256 of the address in lower case.
    pub address: String,
    /// The instance whose mail it concerns, or `*`: that of every one.
    pub instance: String,
    /// The list, or `all`.
    pub scope: String,
    /// Whether it is not to be written to; else it may be again.
    pub held: bool,
    /// In a word why.
    pub reason: String,
    /// Who said so; empty where it is nobody in particular.
    pub who: String,
    /// When.
    pub at: Timestamp,
}

/// Applies what a batch says of addresses.
pub(super) async fn apply(connection: &mut AnyConnection, arrivals: &[&Arrival]) -> Result<(), StoreError> {
    // In one order everywhere, for the rows are locked.
    let mut changes = BTreeMap::new();
    for arrival in arrivals {
        if let Some(change) = &arrival.suppression {
            let event = &arrival.event;
            let instance = change.instance.as_ref().map_or(EVERY_INSTANCE, Instance::as_str);
            changes.insert((change.address, instance, &change.scope, event.occurred_at, event.reference()), change);
        }
    }
    let sql = "INSERT INTO usher_reach (address, instance, scope, held, reason, who, at, event) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (address, instance, scope) DO UPDATE SET held = excluded.held, reason = excluded.reason, \
                 who = excluded.who, at = excluded.at, event = excluded.event \
               WHERE (usher_reach.at, usher_reach.event) < (excluded.at, excluded.event)";
    for ((address, instance, scope, at, event), change) in changes {
        let held = match change.kind {
            SuppressionKind::Suppressed | SuppressionKind::Unsubscribed => 1_i64,
            SuppressionKind::Restored => 0,
        };
        sqlx::query(sql)
            .bind(address.to_string())
            .bind(instance)
            .bind(scope)
            .bind(held)
            .bind(&change.reason)
            .bind(&change.by)
            .bind(at.millis())
            .bind(event.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Which of these addresses an instance does not write to: at all, or with mail of this list. What was said of it alone and
/// what was said for every instance are one history: the newest word counts.
pub(super) async fn listed(
    database: &Database,
    instance: &str,
    list: Option<&str>,
    addresses: &[AddressDigest],
) -> Result<Vec<SuppressionEntry>, StoreError> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT address, scope FROM usher_reach r WHERE held = 1 AND scope IN ('{EVERYTHING}', $1) \
           AND instance IN ('{EVERY_INSTANCE}', $3) AND address IN ({}) AND NOT EXISTS ( \
             SELECT 1 FROM usher_reach o WHERE o.address = r.address AND o.scope = r.scope \
               AND o.instance IN ('{EVERY_INSTANCE}', $3) AND (o.at, o.event) > (r.at, r.event))",
        database.dialect.texts()
    );
    let texts: Vec<String> = addresses.iter().map(AddressDigest::to_string).collect();
    let rows: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(list.unwrap_or(EVERYTHING))
        .bind(json!(texts).to_string())
        .bind(instance)
        .fetch_all(&database.pool)
        .await?;
    let read = |(address, scope): (String, String)| {
        let address = address.parse().map_err(|_| StoreError::Unreadable("address".into()))?;
        Ok(SuppressionEntry { address, scope })
    };
    rows.into_iter().map(read).collect()
}

impl SqlStore {
    /// What was last said of this address, or of every one, oldest first.
    pub async fn suppressions(&self, address: Option<AddressDigest>) -> Result<Vec<SuppressionRecord>, StoreError> {
        let sql = "SELECT address, instance, scope, held, reason, who, at FROM usher_reach \
                   WHERE $1 = '' OR address = $1 ORDER BY at, address, instance, scope";
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let rows: Vec<(String, String, String, i64, String, String, i64)> =
            sqlx::query_as(sql).bind(address).fetch_all(&self.database.pool).await?;
        let record = |(address, instance, scope, held, reason, who, at)| SuppressionRecord {
            address,
            instance,
            scope,
            held: held == 1,
            reason,
            who,
            at: Timestamp::from_millis(at),
        };
        Ok(rows.into_iter().map(record).collect())
    }
}
