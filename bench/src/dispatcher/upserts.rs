//! A limit of the database step: one row for each event, written with a commit of its own, on sixteen connections. Nothing else
//! is recorded, and nothing keeps a user's events in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sqlx::postgres::PgPoolOptions;
use usher_tests::database::OwnDatabase;

use super::{Scenario, TEXT};
use crate::meter::Meter;
use crate::report::Sample;
use crate::services::BenchServices;

/// Name of the arm.
pub(super) const NAME: &str = "limit: one upsert with its own commit, 16 connections";

const CONNECTIONS: u32 = 16;

/// Upserts the row of each event's user.
pub(super) async fn run(services: &BenchServices, scenario: &Scenario, round: usize) -> anyhow::Result<Sample> {
    let database = OwnDatabase::make(&services.postgres).await;
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(&database.url()).await?;
    sqlx::query("CREATE TABLE users (id TEXT PRIMARY KEY, updated_at BIGINT NOT NULL, data TEXT NOT NULL)")
        .execute(&pool)
        .await?;
    let meter = Meter::start(vec![("Postgres", services.postmaster.clone())])?;
    let begun = Instant::now();
    let next = Arc::<AtomicUsize>::default();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let next = next.clone();
        let pool = pool.clone();
        let scenario = *scenario;
        workers.spawn(async move {
            let sql = "INSERT INTO users (id, updated_at, data) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET \
                         updated_at = excluded.updated_at, data = excluded.data \
                       WHERE users.updated_at <= excluded.updated_at";
            let mut connection = pool.acquire().await?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= scenario.events {
                    return anyhow::Ok(());
                }
                sqlx::query(sql)
                    .bind(format!("user_{}", scenario.keys.user(number, scenario.users)))
                    .bind(i64::try_from(number)?)
                    .bind(TEXT)
                    .execute(&mut *connection)
                    .await?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = meter.read()?;
    let (newest,): (i64,) = sqlx::query_as("SELECT max(updated_at) FROM users").fetch_one(&pool).await?;
    anyhow::ensure!(usize::try_from(newest)? + 1 == scenario.events, "the last row is of event {newest}");
    pool.close().await;
    database.remove().await;
    Ok(scenario.sample(NAME, round, seconds, cpu_seconds))
}
