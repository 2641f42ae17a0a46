//! A quota belongs to an account, whatever the number of replicas and flows that use it. It is never exceeded and is
//! well used, a replica that dies returns its share, and urgent mail does not wait behind a backlog.
//!
//! A short version runs with the other tests; `just quotas` runs the full one.
#![allow(clippy::unwrap_used)]

mod announced;
mod store;

use std::sync::Arc;
use std::time::Duration;

use usher_lab::{Entry, Filter, Limit};
use usher_service::clock;
use usher_tests::backend::{Backend, log_once};
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::ledger::Mark;
use usher_tests::needs;
use usher_tests::program::Program;
use usher_tests::test_env::{Options, SOON, TestEnv};

/// Calls per second of the account.
const LIMIT: usize = 50;
/// Maximum calls in any second, by arrival: a delayed call may arrive together with later ones.
const MOST: usize = 52;
/// Minimum rate in calls per second. Lower in the short test, which shares the machine with other tests.
const LEAST: usize = 45;
const LEAST_IN_SHORT: usize = 40;
/// Number of mails from which on the test counts as the full one.
const FULL: usize = 5_000;
/// Maximum time until the share of a dead replica is used again, in ms.
const BACK: i64 = 5_000;
/// Maximum time until an urgent mail is sent, in ms.
const URGENT: i64 = 1_000;

/// Three flows whose mails use the same account: two with the backlog, and one for urgent mail.
const FLOWS: [(&str, &str); 3] = [
    ("news", include_str!("news.toml")),
    ("offers", include_str!("offers.toml")),
    ("codes", include_str!("codes.toml")),
];

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_and_two_flows_share_one_account() {
    let backend = Backend::real();
    let mails = std::env::var("USHER_QUOTA_MAILS").map_or(1_200, |count| count.parse().unwrap());
    let settings = vec![("RESEND_QUOTA", format!("{LIMIT}/s")), ("USHER_KAFKA_SESSION_TIMEOUT_MS", "6000".into())];
    let env = TestEnv::with(backend, Options { flows: FLOWS.to_vec(), settings, ..Options::default() }).await;
    env.lab().set_limit("resend", Limit { per_second: u32::try_from(MOST).unwrap() }).unwrap();

    let mut replicas: Vec<Program> = (0..2).map(|_| env.start_delivering()).collect();
    let pool = env.pool().await;
    eventually("all three have partitions", SOON, || async {
        let owners = sqlx::query_as("SELECT count(DISTINCT owner) FROM usher_ownership").fetch_one(&pool).await;
        owners.is_ok_and(|(owners,): (i64,)| owners == 3).then_some(())
    })
    .await;
    // The backlog arrives many times faster than it can be processed.
    let backlog: Vec<Webhook> = (0..mails / 2).map(|_| User::new().created()).collect();
    env.send_all(&backlog).await;

    reached(&env, mails / 4).await;
    let urgent = urgent(&env).await;
    reached(&env, mails / 2).await;
    let killed_at = clock::now().millis();
    replicas.remove(0).kill().await;
    reached(&env, mails).await;

    let arrived = Arrivals(arrivals(&env));
    let first = arrived.0[0];
    let last = arrived.0[mails - 1];
    let busiest = arrived.0.iter().map(|at| arrived.within(*at, 1_000)).max().unwrap_or_default();
    let average = mails as f64 * 1_000.0 / (last - first) as f64;
    let mut each: Vec<usize> = (first..last).step_by(1_000).map(|from| arrived.within(from, 1_000)).collect();
    let course = format!("{each:?}, the replica killed {} s after the first", (killed_at - first) / 1_000);
    each.sort_unstable();
    let typical = each[each.len() / 2];
    // Not before a second in which calls are missing.
    let least = if mails < FULL { LEAST_IN_SHORT } else { LEAST };
    let missed = (killed_at..last).find(|at| arrived.within(*at, 1_000) < least).unwrap_or(killed_at);
    let back = (missed..last).find(|at| arrived.within(*at, 1_000) >= least).map(|at| at - killed_at);
    let slowest = urgent.iter().max().copied().unwrap_or_default();
    log_once(&format!(
        "quotas: {mails} mails of 2 flows by 3 replicas at {LIMIT}/s: {average:.1}/s on average, {typical} in a typical \
         second, {busiest} in the busiest; the share of a replica that was killed is used after {back:?} ms; {} urgent \
         mails in the middle, the slowest took {slowest} ms\n  calls in each second: {course}",
        urgent.len(),
    ));
    for mut replica in replicas {
        replica.terminate();
        assert!(replica.ended(SOON).await.success(), "{}", replica.output());
    }
    env.end().await;
    assert!(busiest <= MOST);
    assert!(typical >= least);
    assert!(back.is_some_and(|back| back <= BACK));
    assert!(slowest <= URGENT);
    // In a short test the kill lowers the average too much.
    assert!(mails < FULL || average >= LEAST as f64);
}

/// Arrival times of the mails in ms, in order.
struct Arrivals(Vec<i64>);

impl Arrivals {
    /// Returns the number of mails that arrived from `from` on, within `millis`.
    fn within(&self, from: i64, millis: i64) -> usize {
        self.0.partition_point(|at| *at < from + millis) - self.0.partition_point(|at| *at < from)
    }
}

/// Waits until this many mails have reached the destination.
async fn reached(env: &TestEnv, mails: usize) {
    let deadline = SOON + Duration::from_secs(mails as u64 / 20);
    eventually("so many mails are sent", deadline, || async { (arrivals(env).len() >= mails).then_some(()) }).await;
}

/// Returns the arrival times of the mails in ms, in order.
fn arrivals(env: &TestEnv) -> Vec<i64> {
    requests(env).iter().map(|request| request.at.millis()).collect()
}

/// Returns the requests for mails, in order.
fn requests(env: &TestEnv) -> Vec<Arc<Entry>> {
    let filter = Filter { provider: Some("resend".into()), ..Filter::default() };
    env.lab().requests(&filter).unwrap()
}

/// Sends codes one after the other during the backlog. Returns the time of each from acknowledgement to effect, in ms.
async fn urgent(env: &TestEnv) -> Vec<i64> {
    let mut took = Vec::new();
    for _ in 0..10 {
        let code = User::new().updated();
        env.send(&code).await;
        let acknowledged = clock::now().millis();
        let arrived = eventually("the code is sent", SOON, || async {
            let effects = env.effects("resend");
            effects.iter().filter_map(|entry| Mark::of(entry)).find(|mark| mark.event == code.id).map(|mark| mark.at)
        });
        took.push(arrived.await - acknowledged);
    }
    took
}
