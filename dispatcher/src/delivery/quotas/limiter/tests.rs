//! Tests of the permits of one account.

use tokio::time::Instant;

use super::*;
use crate::engine::quota::Pace;

fn limiter(quota: &str) -> Arc<AccountLimiter> {
    let metrics = DispatcherMetrics::register(&prometheus::Registry::new()).expect("metrics");
    let quota = quota.parse().expect("a quota");
    let account = "resend".to_owned();
    let destination = "resend".to_owned();
    let limited = Limited { account, destination, quota, assumed: false, serves_urgent: false };
    Arc::new(AccountLimiter::new(limited, Arc::default(), metrics))
}

/// Grants the whole quota for this many seconds.
fn grant(limiter: &AccountLimiter, seconds: u64) {
    let quota_request = limiter.quota_request();
    let pace = quota_request.quota.pace.map(|pace| (pace, pace.calls));
    let max_concurrent = quota_request.quota.max_concurrent.unwrap_or(0);
    let grant = QuotaLease { pace, max_concurrent, ..QuotaLease::default() };
    limiter.granted(&quota_request, grant, clock::since_boot() + Duration::from_secs(seconds));
}

#[tokio::test]
async fn the_pace_is_kept_in_every_second_and_used_well() {
    let limiter = limiter("50/s");
    grant(&limiter, 60);
    let handing_out = tokio::spawn(limiter.clone().hand_out());
    let begun = Instant::now();
    let mut let_go = Vec::new();
    for _ in 0..100 {
        let permit = limiter.permit("a", false).await;
        let_go.push(begun.elapsed());
        drop(permit);
    }
    handing_out.abort();
    let most = let_go
        .iter()
        .map(|at| let_go.iter().filter(|other| **other >= *at && **other < *at + Duration::from_secs(1)).count());
    assert!(most.max() <= Some(50), "{let_go:?}");
    // Two seconds, plus the first one, plus a reserve for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(6), "100 calls at 47.6 a second: {:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_gets_a_turn_when_the_lease_is_over() {
    let limiter = limiter("1000/s");
    grant(&limiter, 0);
    let handing_out = tokio::spawn(limiter.clone().hand_out());
    let permit = tokio::time::timeout(Duration::from_millis(50), limiter.permit("a", false)).await;
    assert!(permit.is_err() && limiter.is_starving());
    grant(&limiter, 60);
    let permit = tokio::time::timeout(Duration::from_secs(5), limiter.permit("a", false)).await;
    handing_out.abort();
    assert!(permit.is_ok());
}

#[tokio::test]
async fn so_many_are_under_way_at_once_and_no_more() {
    let limiter = limiter("2 at once");
    grant(&limiter, 60);
    let handing_out = tokio::spawn(limiter.clone().hand_out());
    let first = limiter.permit("a", false).await;
    let _second = limiter.permit("a", false).await;
    let third = tokio::time::timeout(Duration::from_millis(50), limiter.permit("a", false)).await;
    assert!(third.is_err());
    drop(first);
    let third = tokio::time::timeout(Duration::from_secs(5), limiter.permit("a", false)).await;
    handing_out.abort();
    assert!(third.is_ok());
}

#[test]
fn none_left_is_believed_until_there_are_more() {
    let limiter = limiter("1000/s");
    grant(&limiter, 60);
    let remaining = Some(0);
    let reset = Some(Duration::from_secs(3_600));
    limiter.observe_headers(&RateLimitHeaders { remaining, reset, ..RateLimitHeaders::default() });
    let (who, _turn) = oneshot::channel();
    let mut state = limiter.state();
    state.waiting.push("a", false, who);
    let NextGrant::In(pause) = state.next() else { panic!("it waits") };
    assert!(pause > Duration::from_secs(50) && pause <= Duration::from_secs(60));
}

#[tokio::test]
async fn an_account_without_a_quota_asks_first_and_holds_what_is_announced_once_it_is_granted() {
    let limiter = limiter("none");
    let handing_out = tokio::spawn(limiter.clone().hand_out());
    let soon = Duration::from_millis(50);
    let first = limiter.permit("a", false).await;
    let second = limiter.permit("a", false).await;
    assert!(tokio::time::timeout(soon, limiter.permit("a", false)).await.is_err(), "two ask");
    let second_long = Pace { calls: 20, per: Duration::from_secs(1) };
    limiter.observe_headers(&RateLimitHeaders { policies: vec![second_long], ..RateLimitHeaders::default() });
    drop((first, second));
    assert!(
        tokio::time::timeout(soon, limiter.permit("a", false)).await.is_err() && limiter.is_starving(),
        "not granted yet"
    );
    let quota_request = limiter.quota_request();
    assert_eq!(quota_request.announced, Some(second_long));
    let grant = QuotaLease { pace: Some((second_long, 20)), ..QuotaLease::default() };
    limiter.granted(&quota_request, grant, clock::since_boot() + Duration::from_secs(60));
    let permit = tokio::time::timeout(Duration::from_secs(5), limiter.permit("a", false)).await;
    assert!(permit.is_ok() && limiter.room() == 20);
    handing_out.abort();
}

#[tokio::test]
async fn an_account_that_announces_nothing_is_not_limited_and_needs_no_lease() {
    let limiter = limiter("none");
    let handing_out = tokio::spawn(limiter.clone().hand_out());
    let first = limiter.permit("a", false).await;
    limiter.observe_headers(&RateLimitHeaders::default());
    drop(first);
    let mut turns = Vec::new();
    for _ in 0..200 {
        turns.push(tokio::time::timeout(Duration::from_secs(5), limiter.permit("a", false)).await.expect("at once"));
    }
    assert_eq!(limiter.room(), usize::MAX);
    handing_out.abort();
}

#[test]
fn urgent_flows_may_use_what_others_have_of_the_caps_and_not_the_other_way_round() {
    let limiter = limiter("10/d");
    let mut state = limiter.state();
    assert_eq!((state.take(false), state.short), (None, CapShortage { usual: true, urgent: false }));
    state.usual = CapBudget { calls: 1, ..CapBudget::default() };
    state.urgent = CapBudget { calls: 1, ..CapBudget::default() };
    assert_eq!((state.take(false), state.take(false)), (Some(Ok(())), None));
    assert_eq!(state.take(true), Some(Ok(())));
    let until = clock::now().plus(Duration::from_secs(60));
    state.usual.none_before = Some(until);
    assert_eq!((state.take(false), state.take(true)), (Some(Err(QuotaError::Exhausted(until))), None));
}
