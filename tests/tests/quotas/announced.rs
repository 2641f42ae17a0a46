//! A rate limit that is announced by the destination and not configured is observed, by one process and
//! by three replicas.

use usher_lab::Limit;
use usher_tests::backend::{Backend, log_once};
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::needs;
use usher_tests::test_env::{Options, SOON, TestEnv};

use super::{FULL, arrivals, reached, requests};

/// Requests per second that the destination accepts.
const LIMIT: u32 = 20;
/// Number of mails in the short test and in the full one.
const SHORT_MAILS: usize = 200;
const FULL_MAILS: usize = 1_000;
/// Minimum rate in calls per second. Lower in the short test, where the start takes a large share of the time.
const LEAST: f64 = 18.0;
const LEAST_IN_SHORT: f64 = 14.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_holds_what_is_announced() {
    // The lab's settings configure no quota.
    hold(Backend::Embedded, 1, vec![]).await;
}

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_hold_what_is_announced() {
    // Unset: the quota assumed in that case yields to the announced one.
    hold(Backend::real(), 3, vec![("RESEND_QUOTA", String::new())]).await;
}

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_hold_what_is_announced_where_nothing_is_assumed() {
    hold(Backend::real(), 3, vec![]).await;
}

async fn hold(backend: Backend, replicas: usize, settings: Vec<(&'static str, String)>) {
    let full =
        std::env::var("USHER_QUOTA_MAILS").is_ok_and(|count| count.parse().is_ok_and(|count: usize| count >= FULL));
    let (mails, least) = if full { (FULL_MAILS, LEAST) } else { (SHORT_MAILS, LEAST_IN_SHORT) };
    let flows = vec![("news", include_str!("news.toml"))];
    let env = TestEnv::with(backend, Options { flows, settings, ..Options::default() }).await;
    env.lab().set_limit("resend", Limit { per_second: LIMIT }).unwrap();
    let others: Vec<_> = (1..replicas).map(|_| env.start_delivering()).collect();
    if replicas > 1 {
        let pool = env.pool().await;
        eventually("all have partitions", SOON, || async {
            let owners = sqlx::query_as("SELECT count(DISTINCT owner) FROM usher_ownership").fetch_one(&pool).await;
            owners.is_ok_and(|(owners,): (i64,)| owners == replicas as i64).then_some(())
        })
        .await;
    }
    let backlog: Vec<Webhook> = (0..mails).map(|_| User::new().created()).collect();
    env.send_all(&backlog).await;
    // Every refused request is repeated.
    reached(&env, mails).await;
    env.all_ended(mails, SOON).await;

    let arrived = arrivals(&env);
    let first = arrived[0];
    let last = arrived[arrived.len() - 1];
    let refused = requests(&env).iter().filter(|request| request.status == Some(429)).count();
    let rate = mails as f64 * 1_000.0 / (last - first) as f64;
    let mut each = vec![0; usize::try_from((last - first) / 1_000).unwrap() + 1];
    arrived.iter().for_each(|at| each[usize::try_from((at - first) / 1_000).unwrap()] += 1);
    log_once(&format!(
        "announced: {mails} mails by {replicas} process(es) at {LIMIT}/s that nobody configured: {rate:.1}/s, {refused} \
         refused\n  requests in each second: {each:?}"
    ));
    for replica in others {
        replica.kill().await;
    }
    let sent = env.effects("resend").len();
    env.end().await;
    assert_eq!(sent, mails);
    assert!(refused * 100 <= mails, "{refused} of {mails} were refused");
    assert!(rate >= least, "{rate:.1} a second");
}
