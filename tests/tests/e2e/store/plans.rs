//! The cost of a run in Postgres does not depend on how many runs there are, nor on what the planner believes of the tables.
//! A queue table is always fuller or emptier than at the last ANALYZE, so a plan that is good for what the statistics say may
//! read the whole table for each event.

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use usher_tests::eventually;

use super::*;

/// Runs of one measurement.
const RUNS: i64 = 100;
/// Largest ratio of the cost in a full store to the cost in an empty one: an index of more rows has more levels.
const MOST: i64 = 2;
/// Time for the server's statistics to arrive.
const STATISTICS: Duration = Duration::from_secs(30);

/// A store in Postgres, and the one connection that watches the server's statistics.
struct Watched {
    address: DatabaseAddress,
    statistics: PgPool,
    next: i64,
}

impl Watched {
    /// Returns the blocks of tables and indexes that statements have touched so far.
    async fn blocks(&self) -> i64 {
        // A session reports what it has read once a second, and this one has read much if it has analysed tables.
        self.execute("SELECT pg_stat_force_next_flush()").await;
        let sql = "SELECT sum(heap_blks_read + heap_blks_hit + COALESCE(idx_blks_read + idx_blks_hit, 0) \
                     + COALESCE(toast_blks_read + toast_blks_hit, 0) + COALESCE(tidx_blks_read + tidx_blks_hit, 0))::bigint \
                   FROM pg_statio_user_tables";
        let (blocks,): (i64,) = sqlx::query_as(sql).fetch_one(&self.statistics).await.unwrap();
        blocks
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.statistics).await.unwrap();
    }

    async fn opened(&self) -> SqlStore {
        SqlStore::open(Database::open(&self.address).unwrap(), PARTITIONS).await.unwrap()
    }

    /// A session reports what it has read at its end at the latest.
    async fn sessions_end(&self) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                     AND backend_type = 'client backend'";
        eventually("all sessions have ended", STATISTICS, || async {
            let (open,): (i64,) = sqlx::query_as(sql).fetch_one(&self.statistics).await.ok()?;
            (open == 0).then_some(())
        })
        .await;
    }

    /// Returns events of users of their own, each with a snapshot.
    fn events(&mut self, count: i64) -> Vec<Arrival> {
        let first = self.next;
        self.next += count;
        let event = |n: i64| Arrival { starts: true, ..news(n, &format!("e{n}"), &format!("key{n}"), n, true) };
        (first..self.next).map(event).collect()
    }

    /// Admits runs and leaves them open, or ends them.
    async fn fill(&mut self, store: &SqlStore, count: i64, ended: bool) {
        let epoch = store.acquire(FLOW, &[ZERO], "me").await.unwrap()[0].epoch;
        for _ in 0..count / 250 {
            let admitted = store.admit(FLOW, &batch(epoch, self.events(250))).await.unwrap();
            if ended {
                store.change(FLOW, &changes(epoch, &admitted.heads, || end(RunState::Done))).await.unwrap();
            }
        }
    }

    /// Returns the blocks that [`RUNS`] touch, so many times, in a store that is opened for them.
    async fn cost(&mut self, times: i64) -> i64 {
        self.sessions_end().await;
        let before = self.blocks().await;
        let store = self.opened().await;
        for _ in 0..times {
            self.work(&store).await;
        }
        drop(store);
        self.sessions_end().await;
        self.blocks().await - before
    }

    /// Admits [`RUNS`], looks for them as the dispatcher does, and ends them.
    async fn work(&mut self, store: &SqlStore) {
        let epoch = store.acquire(FLOW, &[ZERO], "me").await.unwrap()[0].epoch;
        let admitted = store.admit(FLOW, &batch(epoch, self.events(RUNS))).await.unwrap();
        let of = HeadsQuery { partition: ZERO, after: None, without: Vec::new(), limit: 10 };
        assert!(!store.heads(FLOW, &of).await.unwrap().is_empty());
        let keys: Vec<SubjectId> = admitted.heads.iter().map(|run| run.event.subject.clone()).collect();
        let lane = |key: &SubjectId| LaneQuery { key: key.clone(), limit: 8 };
        assert_eq!(store.lanes(FLOW, &keys.iter().map(lane).collect::<Vec<_>>()).await.unwrap().len(), keys.len());
        assert_eq!(store.subjects(&keys).await.unwrap().len(), keys.len());
        store.change(FLOW, &changes(epoch, &admitted.heads, || claim(1, 0, b"x"))).await.unwrap();
        store.change(FLOW, &changes(epoch, &admitted.heads, || story::retry(1))).await.unwrap();
        store.due(FLOW, &[(ZERO, epoch)], Timestamp::from_seconds(1)).await.unwrap();
        store.change(FLOW, &changes(epoch, &admitted.heads, || end(RunState::Done))).await.unwrap();
    }
}

/// An autovacuum of any table reads blocks too, and makes new statistics.
const NO_AUTOVACUUM: &str = "DO $$ DECLARE name regclass; BEGIN \
     FOR name IN SELECT relid FROM pg_stat_user_tables LOOP \
       EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name); \
     END LOOP; END $$";

/// Returns an empty store whose tables nobody analyses but the test.
async fn watched() -> Watched {
    let TestStore { store, address, url, .. } = subject(Place::Postgres).await;
    drop(store);
    let statistics = PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    let watched = Watched { address, statistics, next: 0 };
    watched.execute(NO_AUTOVACUUM).await;
    watched
}

fn changes(epoch: Epoch, runs: &[Run], kind: impl Fn() -> ChangeKind) -> Vec<Change> {
    let change = |run: &Run| Change {
        event: run.event.reference(),
        key: run.event.subject.clone(),
        partition: ZERO,
        epoch,
        kind: kind(),
        story: [story::attempt(1, "no")].into(),
    };
    runs.iter().map(change).collect()
}

#[usher_tests::needs(postgres)]
#[tokio::test]
async fn a_run_costs_the_same_however_many_there_are_and_whatever_the_statistics_say() {
    let mut watched = watched().await;
    let empty = watched.cost(1).await;
    let store = watched.opened().await;
    watched.fill(&store, 5_000, true).await;
    watched.execute("VACUUM ANALYZE").await;
    drop(store);
    let drained = watched.cost(1).await;
    let store = watched.opened().await;
    watched.fill(&store, 10_000, false).await;
    drop(store);
    let full = watched.cost(1).await;
    watched.execute("ANALYZE").await;
    let analysed = watched.cost(1).await;
    for (state, cost) in [("drained", drained), ("full", full), ("freshly analysed", analysed)] {
        assert!(cost <= MOST * empty, "{state}: {} blocks a run, {} when empty", cost / RUNS, empty / RUNS);
    }
}

/// Plans are kept for as long as a session lasts, and the first of them are made for empty tables.
#[usher_tests::needs(postgres)]
#[tokio::test]
async fn a_session_that_began_with_an_empty_store_works_as_fast_in_a_full_one() {
    const TIMES: i64 = 100;
    let empty = watched().await.cost(1).await;
    let filling = watched().await.cost(TIMES).await;
    let each = filling / TIMES;
    assert!(each <= MOST * empty, "{} blocks a run on average, {} when empty", each / RUNS, empty / RUNS);
}

/// Events of users who are known already change their rows where they are. A page that another process reads just then is not
/// cleaned, so one database of several has to show it.
#[usher_tests::needs(postgres)]
#[tokio::test]
async fn an_event_of_a_known_user_writes_no_index_of_the_subjects() {
    const TRIES: usize = 5;
    const SHARE: f64 = 0.9;
    let mut seen = Vec::new();
    while seen.len() < TRIES && seen.last().is_none_or(|share| *share < SHARE) {
        seen.push(updated_in_place().await);
    }
    assert!(seen.last().is_some_and(|share| *share >= SHARE), "shares of the updates that wrote no index: {seen:?}");
}

/// Returns the share of the updates of known subjects that wrote no index.
async fn updated_in_place() -> f64 {
    const EVENTS: i64 = 20;
    let mut watched = watched().await;
    let store = watched.opened().await;
    let epoch = store.acquire(FLOW, &[ZERO], "me").await.unwrap()[0].epoch;
    for _ in 0..EVENTS {
        let first = watched.next;
        watched.next += 100;
        let event =
            |n: i64| Arrival { starts: false, ..news(n, &format!("e{n}"), &format!("key{}", n % 100), n, true) };
        store.admit(FLOW, &batch(epoch, (first..watched.next).map(event).collect())).await.unwrap();
    }
    drop(store);
    watched.sessions_end().await;
    let sql = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'usher_subject'";
    let (updated, in_place): (i64, i64) = sqlx::query_as(sql).fetch_one(&watched.statistics).await.unwrap();
    assert_eq!(updated, (EVENTS - 1) * 100);
    in_place as f64 / updated as f64
}

/// Runs pass through the table of open runs. What they leave there is no reason for it to grow.
#[usher_tests::needs(postgres)]
#[tokio::test]
async fn the_space_of_runs_that_have_ended_is_used_again() {
    let mut watched = watched().await;
    let store = watched.opened().await;
    let mut sizes = Vec::new();
    for _ in 0..6 {
        watched.fill(&store, 1_000, true).await;
        store.reuse_space().await.unwrap();
        let sql = "SELECT pg_total_relation_size('usher_open_run')";
        let (bytes,): (i64,) = sqlx::query_as(sql).fetch_one(&watched.statistics).await.unwrap();
        sizes.push(bytes);
    }
    assert!(sizes[5] <= sizes[1] + sizes[1] / 4, "bytes after each thousand: {sizes:?}");
}
