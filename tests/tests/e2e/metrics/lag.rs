//! The lag in seconds while nothing can be admitted.

use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{SOON, TestEnv};

use super::prometheus::dispatcher_admin;

usher_tests::on_both_backends!(the_lag_grows_while_nothing_is_admitted_and_ends_with_it);

/// Returns the value of a series on the pages of the process that delivers.
async fn value(admin: &str, series: &str) -> i64 {
    let page = reqwest::get(format!("http://{admin}/metrics")).await.unwrap().text().await.unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {series} in {page}")).parse().unwrap()
}

async fn the_lag_grows_while_nothing_is_admitted_and_ends_with_it(backend: Backend) {
    let lock = match backend {
        Backend::Embedded => "BEGIN IMMEDIATE",
        Backend::Real(_) => "BEGIN; LOCK TABLE usher_ownership IN EXCLUSIVE MODE",
    };
    let env = TestEnv::start(backend).await;
    let admin = dispatcher_admin(&env);
    env.send(&User::new().created()).await;
    env.all_ended(3, SOON).await;
    let lag = "usher_dispatcher_lag_seconds{flow=\"email\"}";
    let frontier = "usher_dispatcher_frontier_age_seconds{flow=\"email\"}";
    assert_eq!((value(&admin, lag).await, value(&admin, frontier).await), (0, 0), "everything is admitted");

    // Somebody else holds the lock that every admission needs.
    let pool = env.pool().await;
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql(lock).execute(&mut *connection).await.unwrap();
    let sent = std::time::Instant::now();
    env.send(&User::new().created()).await;
    for seconds in [2, 4] {
        eventually("the lag grows", SOON, || async {
            (value(&admin, lag).await >= seconds && value(&admin, frontier).await >= seconds - 1).then_some(())
        })
        .await;
        let age = value(&admin, lag).await;
        assert!(age <= i64::try_from(sent.elapsed().as_secs()).unwrap(), "{age} s, older than the event");
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.unwrap();
    drop(connection);
    env.all_ended(6, SOON).await;
    assert_eq!((value(&admin, lag).await, value(&admin, frontier).await), (0, 0), "everything is admitted again");
    env.end().await;
}
