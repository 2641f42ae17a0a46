//! Results of the webhooks: runs, effects at the destinations, rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use usher_lab::{Entry, Filter};
use usher_sql::Database;
use usher_store::{RunFilter, RunRecord, SqlStore};

use super::TestEnv;
use crate::program::Program;

impl TestEnv {
    /// Returns the runs that match a filter.
    pub async fn runs(&self, filter: &RunFilter) -> Vec<RunRecord> {
        let database = Database::open(&self.store).expect("the store opens");
        SqlStore::reader(database).runs(filter, 1_000_000).await.expect("the runs")
    }

    /// Waits until `count` runs have ended and none is in flight, and returns all runs.
    pub async fn all_ended(&self, count: usize, deadline: Duration) -> Vec<RunRecord> {
        let sql = "SELECT count(*), count(*) FILTER (WHERE ended_at IS NULL) FROM usher_run";
        let pool = self.pool().await;
        let ended = async {
            loop {
                let counted: Result<(i64, i64), _> = sqlx::query_as(sql).fetch_one(&pool).await;
                let enough = |all| all >= i64::try_from(count).expect("a small number");
                if counted.is_ok_and(|(all, unfinished)| unfinished == 0 && enough(all)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(deadline, ended).await.is_err() {
            panic!("after {deadline:?} not {count} runs have ended: {}", self.standing().await);
        }
        let runs = self.runs(&RunFilter::default()).await;
        assert_eq!(runs.len(), count, "no run more than expected");
        runs
    }

    /// Returns the number of runs by flow and state, and the last output lines of the process that delivers.
    async fn standing(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for run in self.runs(&RunFilter::default()).await {
            *counts.entry(format!("{} {}", run.flow, run.state)).or_default() += 1;
        }
        let program = self.dispatcher.as_ref().or(self.ingest.as_ref());
        let output = program.map(Program::output).unwrap_or_default();
        let last: Vec<&str> = output.lines().rev().take(30).collect();
        format!("{counts:?}\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    /// Connects to the store's database.
    pub async fn pool(&self) -> sqlx::AnyPool {
        sqlx::any::install_default_drivers();
        sqlx::AnyPool::connect(&self.store_url).await.expect("the store opens")
    }

    /// Returns the number of rows in the users table.
    pub async fn rows(&self) -> i64 {
        let (count,) = sqlx::query_as("SELECT count(*) FROM usher_users")
            .fetch_one(&self.pool().await)
            .await
            .expect("the table is there");
        count
    }

    /// Returns the effects at a destination, without replays.
    pub fn effects(&self, provider: &str) -> Vec<Arc<Entry>> {
        let filter = Filter { provider: Some(provider.into()), ..Filter::default() };
        let mut effects = self.lab().effects(&filter).expect("a provider");
        effects.retain(|effect| !effect.replayed);
        effects
    }

    /// Returns how often each user had this effect.
    pub fn effects_by_user(&self, provider: &str, operation: &str) -> BTreeMap<String, usize> {
        let mut users = BTreeMap::new();
        for effect in self.effects(provider).iter().filter(|effect| effect.operation == operation) {
            *users.entry(effect.user.clone().expect("whose it is")).or_default() += 1;
        }
        users
    }

    /// Returns a user's row as JSON of the columns that tests inspect. `None` if the user has no row.
    pub async fn row(&self, user: &str) -> Option<Value> {
        let sql = "SELECT email, first_name, CAST(extra AS TEXT) FROM usher_users WHERE id = $1";
        let row: Option<(Option<String>, Option<String>, String)> =
            sqlx::query_as(sql).bind(user).fetch_optional(&self.pool().await).await.expect("the table is there");
        let (email, name, extra) = row?;
        let extra: Value = serde_json::from_str(&extra).expect("JSON");
        Some(json!({"email": email, "first_name": name, "extra": extra}))
    }
}
