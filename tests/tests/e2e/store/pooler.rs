//! Nothing of a session is used behind a connection pooler in transaction mode.

use usher_sql::{Database, Dialect, Rows, query_as};

use super::*;

/// Runs a statement that is prepared where that is possible, and returns the number of prepared statements.
async fn prepared(subject: &TestStore) -> i64 {
    let database = Database::open(&subject.address).unwrap();
    let numbers = [1, 2];
    let rows = Rows::of(&numbers).int("number", |number| *number);
    let sum =
        rows.query(Dialect::Postgres, Vec::new(), |rows| format!("SELECT sum(r.number)::bigint AS sum FROM {rows}"));
    let answers = database.transact(vec![sum]).await.unwrap();
    assert_eq!(answers[0].rows[0].get::<i64>("sum").unwrap(), 3);
    let (count,): (i64,) = query_as("SELECT count(*) FROM pg_prepared_statements").fetch_one(&database).await.unwrap();
    count
}

#[usher_tests::needs(postgres)]
#[tokio::test]
async fn a_direct_connection_keeps_statements_prepared() {
    assert!(prepared(&subject(Place::Postgres).await).await > 0);
}

#[usher_tests::needs(postgres, pgbouncer)]
#[tokio::test]
async fn behind_a_pooler_no_statement_is_prepared() {
    assert_eq!(prepared(&subject(Place::Pooler).await).await, 0);
}

#[usher_tests::needs(postgres, pgbouncer)]
#[tokio::test]
async fn behind_a_pooler_the_schema_holds_for_each_transaction_and_for_nobody_else() {
    let outside = subject(Place::Pooler).await;
    let address = outside.address.clone().in_schema("USHER_STORE_SCHEMA", "apart").unwrap();
    let apart = SqlStore::open(Database::open(&address).unwrap(), PARTITIONS).await.unwrap();
    let owned = apart.acquire(FLOW, &[ZERO], "me").await.unwrap();
    apart.admit(FLOW, &batch(owned[0].epoch, vec![arrival(0, "e0", "a")])).await.unwrap();
    assert_eq!(apart.runs(&RunFilter::default(), 10).await.unwrap().len(), 1);
    assert!(outside.store.runs(&RunFilter::default(), 10).await.unwrap().is_empty());
}
