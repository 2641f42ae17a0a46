//! A limit: what Postgres alone needs to claim and end as many effects. A row with the request is written and then
//! updated, in batches, one transaction each; nothing is ordered, fenced or looked up.

use std::time::Instant;

use sqlx::{Connection as _, Executor as _, PgConnection};
use usher_tests::database::OwnDatabase;

use super::{Scenario, TEXT};
use crate::meter::Meter;
use crate::report::Sample;
use crate::services::BenchServices;

/// Name of the arm.
pub(super) const NAME: &str = "limit: bare SQL, one insert and one update an event";

/// Rows in a transaction.
const BATCH: usize = 256;

/// Writes as many rows as there are events.
pub(super) async fn run(services: &BenchServices, scenario: &Scenario, round: usize) -> anyhow::Result<Sample> {
    let database = OwnDatabase::make(&services.postgres).await;
    let mut connection = PgConnection::connect(&database.url()).await?;
    connection.execute("CREATE TABLE bare (event TEXT PRIMARY KEY, request BYTEA, ended_at BIGINT)").await?;
    let meter = Meter::start(vec![("Postgres", services.postmaster.clone())])?;
    let begun = Instant::now();
    let events: Vec<String> = (0..scenario.events).map(|number| format!("clerk/default/msg_{number:09}")).collect();
    for batch in events.chunks(BATCH) {
        let mut transaction = connection.begin().await?;
        sqlx::query("INSERT INTO bare (event, request) SELECT event, $2 FROM unnest($1::text[]) AS event")
            .bind(batch)
            .bind(TEXT.as_bytes())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("UPDATE bare SET ended_at = 1, request = NULL FROM unnest($1::text[]) AS of WHERE event = of")
            .bind(batch)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = meter.read()?;
    let (ended,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM bare WHERE ended_at = 1").fetch_one(&mut connection).await?;
    anyhow::ensure!(usize::try_from(ended)? == scenario.events, "{ended} of {} rows", scenario.events);
    connection.close().await?;
    database.remove().await;
    Ok(scenario.sample(NAME, round, seconds, cpu_seconds))
}
