//! The cost of a run in Postgres: statements, WAL and the size of the open table. Counted by the server, so that the figures do
//! not depend on how fast the machine is.

use sqlx::postgres::{PgPool, PgPoolOptions};
use usher_tests::backend::{Backend, Services, log_once};
use usher_tests::events::User;
use usher_tests::group::Group;
use usher_tests::needs;
use usher_tests::postgres::Postgres;

/// Number of events; more than are read without reading ahead.
const EVENTS: usize = 4_000;

/// Counts since the last reset, in all databases of the server.
#[derive(Debug, sqlx::FromRow)]
struct Counted {
    /// Statements carried out. One that is run for many rows counts once.
    statements: i64,
    wal_records: i64,
    wal_bytes: i64,
    /// Blocks of tables and indexes that were looked at.
    blocks: i64,
}

async fn counted(statistics: &PgPool) -> Counted {
    // What the test itself asks does not count.
    let sql = "SELECT sum(calls)::bigint AS statements, sum(wal_records)::bigint AS wal_records, \
                 sum(wal_bytes)::bigint AS wal_bytes, sum(shared_blks_hit + shared_blks_read)::bigint AS blocks \
               FROM pg_stat_statements WHERE query LIKE '%usher\\_%' AND query NOT LIKE 'SELECT event, ended_at%'";
    sqlx::query_as(sql).fetch_one(statistics).await.unwrap()
}

/// Limits for each run of one flow.
struct Limits {
    statements: f64,
    wal_records: f64,
    wal_bytes: f64,
    blocks: f64,
}

/// Lets a replica carry out a backlog of one flow, and checks what that cost.
async fn costs_at_most(flow: &'static str, limits: Limits) {
    let postgres = Postgres::start();
    let statistics = PgPoolOptions::new().max_connections(1).connect(&postgres.url()).await.unwrap();
    sqlx::query("CREATE EXTENSION pg_stat_statements").execute(&statistics).await.unwrap();
    let Backend::Real(Services { kafka, .. }) = Backend::real() else { unreachable!("it was asked for") };
    let mut group =
        Group::new(&Backend::Real(Services { kafka, postgres: postgres.url(), pooler: None }), &[flow]).await;
    // Lays the tables out, and commits a first position of the flow in the log.
    group.honest().await.stop().await;
    let users: Vec<User> = (0..EVENTS).map(|_| User::new()).collect();
    group.create(&users).await;
    sqlx::query("SELECT pg_stat_statements_reset()").execute(&statistics).await.unwrap();
    let replica = group.honest().await;
    group.settled().await;
    let counted = counted(&statistics).await;
    replica.stop().await;
    log_once(&format!("cost of {EVENTS} runs of {flow}: {counted:?}"));
    for (what, count, limit) in [
        ("statements", counted.statements, limits.statements),
        ("WAL records", counted.wal_records, limits.wal_records),
        ("bytes of WAL", counted.wal_bytes, limits.wal_bytes),
        ("blocks", counted.blocks, limits.blocks),
    ] {
        let each = count as f64 / EVENTS as f64;
        assert!(each > 0.0 && each <= limit, "{each:.2} {what} a run of {flow}, {limit} at most: {counted:?}");
    }
    group.close("cost").await;
}

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_one_step_is_bounded() {
    costs_at_most("mail", Limits { statements: 1.0, wal_records: 18.0, wal_bytes: 4_500.0, blocks: 90.0 }).await;
}

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_two_steps_is_bounded() {
    costs_at_most("trial", Limits { statements: 1.3, wal_records: 22.0, wal_bytes: 5_900.0, blocks: 110.0 }).await;
}

/// With the row of the users' table, which is in the same server.
#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_writes_a_row_is_bounded() {
    costs_at_most("db-sync", Limits { statements: 1.0, wal_records: 24.0, wal_bytes: 5_900.0, blocks: 105.0 }).await;
}
