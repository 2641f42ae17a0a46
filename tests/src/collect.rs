//! Reads the ledger of a test: the runs in the store and the requests recorded by the destinations' doubles.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::AnyPool;
use usher_lab::{Entry, Filter, Lab};

use crate::eventually;
use crate::ledger::{Ledger, Mark, RunRow, SentWebhook, seq_of_row};
use crate::test_env::SOON;

/// Collects everything recorded about `sent`. Retries the store until it answers. `with_rows`: also read
/// the users table.
pub async fn collect(pool: &AnyPool, lab: &Lab, sent: Vec<SentWebhook>, with_rows: bool) -> Ledger {
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

async fn runs(pool: &AnyPool) -> Option<Vec<RunRow>> {
    type Row = (String, String, String, String, Option<String>, i64, Option<i64>);
    let sql = "SELECT flow, event, key, state, reason, admitted_at, ended_at FROM usher_run";
    let rows: Vec<Row> = sqlx::query_as(sql).fetch_all(pool).await.ok()?;
    let seen = |(flow, event, key, state, reason, admitted_at, ended_at)| RunRow {
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
