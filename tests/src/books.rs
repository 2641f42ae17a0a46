//! Opens the books: what the store and the destinations' doubles have to log_once of what was sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::AnyPool;
use usher_lab::{Entry, Filter, Lab};

use crate::eventually;
use crate::ledger::{Ledger, Mark, Seen, Sent, seq_of_row};
use crate::test_env::SOON;

/// All there is to be known of what was sent. The store is asked until it answers.
pub async fn open(pool: &AnyPool, lab: &Lab, sent: Vec<Sent>, with_rows: bool) -> Ledger {
    let told = || async {
        let rows = if with_rows { rows(pool).await? } else { BTreeMap::new() };
        Some((runs(pool).await?, rows))
    };
    let (runs, rows) = eventually("the store tells all", SOON, told).await;
    let marks = |entries: Vec<Arc<Entry>>| entries.iter().filter_map(|entry| Mark::of(entry)).collect();
    let all = Filter::default();
    let attempts = marks(lab.requests(&all).expect("all providers"));
    let effects = marks(lab.effects(&all).expect("all providers"));
    Ledger { sent, runs, attempts, effects, rows }
}

async fn runs(pool: &AnyPool) -> Option<Vec<Seen>> {
    type Row = (String, String, String, String, Option<String>, i64, Option<i64>);
    let sql = "SELECT flow, event, key, state, reason, admitted_at, ended_at FROM usher_run";
    let rows: Vec<Row> = sqlx::query_as(sql).fetch_all(pool).await.ok()?;
    let seen = |(flow, event, key, state, reason, admitted_at, ended_at)| Seen {
        flow,
        event,
        key,
        state,
        reason,
        admitted_at,
        ended_at,
    };
    Some(rows.into_iter().map(seen).collect())
}

async fn rows(pool: &AnyPool) -> Option<BTreeMap<String, u64>> {
    let sql = "SELECT id, CAST(extra AS TEXT) FROM usher_users";
    let rows: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(pool).await.ok()?;
    Some(rows.iter().filter_map(|(id, extra)| Some((id.clone(), seq_of_row(extra)?))).collect())
}
