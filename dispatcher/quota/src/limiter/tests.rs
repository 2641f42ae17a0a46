//! The permits of one account, in time that the tests set.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const BEGIN: Duration = Duration::from_secs(1_000);

fn limiter(quota: &str) -> Limiter<usize> {
    let quota = quota.parse().expect("a quota");
    let account = "resend".to_owned();
    let destination = "resend".to_owned();
    Limiter::new(LimitedAccount { account, destination, quota, assumed: false, serves_urgent: false })
}

/// Grants the whole quota from [`BEGIN`] for this many seconds.
fn grant(limiter: &mut Limiter<usize>, seconds: u64) {
    let request = limiter.request(BEGIN);
    let pace = request.quota.pace.map(|pace| (pace, pace.calls));
    let max_concurrent = request.quota.max_concurrent.unwrap_or(0);
    let lease = QuotaLease { pace, max_concurrent, ..QuotaLease::default() };
    limiter.granted(&request, &lease, BEGIN + Duration::from_secs(seconds), BEGIN);
}

/// Adds a call and returns the answer to the question for the next one.
fn ask(limiter: &mut Limiter<usize>, call: usize, now: Duration) -> NextGrant<usize> {
    limiter.push("a", false, call);
    limiter.next(now)
}

#[test]
fn the_pace_is_kept_in_every_second_and_used_well() {
    let mut limiter = limiter("50/s");
    grant(&mut limiter, 60);
    (0..100).for_each(|call| limiter.push("a", false, call));
    let mut now = BEGIN;
    let mut granted = Vec::new();
    while granted.len() < 100 {
        match limiter.next(now) {
            NextGrant::Grant(_, number) => {
                granted.push(now);
                limiter.ended(number, true, now);
            }
            NextGrant::In(pause) => now += pause,
            NextGrant::Later => panic!("calls wait"),
        }
    }
    let most = granted.iter().map(|at| granted.iter().filter(|other| **other >= *at && **other < *at + SECOND).count());
    assert!(most.max() <= Some(50), "{granted:?}");
    // Two seconds, plus the first one, in which a share that is new is not used.
    assert!(now - BEGIN < Duration::from_millis(3_500), "100 calls at 49 a second: {:?}", now - BEGIN);
}

#[test]
fn no_call_is_granted_when_the_lease_is_over() {
    let mut limiter = limiter("1000/s");
    grant(&mut limiter, 0);
    assert_eq!(ask(&mut limiter, 1, BEGIN), NextGrant::Later);
    assert!(limiter.is_starving(BEGIN));
    grant(&mut limiter, 60);
    assert_eq!(limiter.next(BEGIN + SECOND), NextGrant::Grant(1, Some(0)));
    assert!(!limiter.is_starving(BEGIN + SECOND));
}

#[test]
fn so_many_are_in_flight_at_once_and_no_more() {
    let mut limiter = limiter("2 at once");
    grant(&mut limiter, 60);
    assert_eq!(ask(&mut limiter, 1, BEGIN), NextGrant::Grant(1, None));
    assert_eq!(ask(&mut limiter, 2, BEGIN), NextGrant::Grant(2, None));
    assert_eq!(ask(&mut limiter, 3, BEGIN), NextGrant::Later);
    limiter.ended(None, true, BEGIN);
    assert_eq!(limiter.next(BEGIN), NextGrant::Grant(3, None));
}

#[test]
fn none_left_is_believed_until_there_are_more() {
    let mut limiter = limiter("1000/s");
    grant(&mut limiter, 60);
    let remaining = Some(0);
    let reset = Some(Duration::from_secs(3_600));
    limiter.observe(&RateLimitHeaders { remaining, reset, ..RateLimitHeaders::default() }, BEGIN);
    let NextGrant::In(pause) = ask(&mut limiter, 1, BEGIN) else { panic!("it waits") };
    assert!(pause > Duration::from_secs(50) && pause <= Duration::from_secs(60));
}

#[test]
fn an_account_without_a_quota_asks_first_and_holds_what_is_announced_once_it_is_granted() {
    let mut limiter = limiter("none");
    let first = ask(&mut limiter, 1, BEGIN);
    let second = ask(&mut limiter, 2, BEGIN);
    assert_eq!((first, second), (NextGrant::Grant(1, None), NextGrant::Grant(2, None)));
    assert!(matches!(ask(&mut limiter, 3, BEGIN), NextGrant::In(_)), "two ask");
    let twenty = Pace { calls: 20, per: SECOND };
    let headers = RateLimitHeaders { policies: vec![twenty], ..RateLimitHeaders::default() };
    assert!(limiter.observe(&headers, BEGIN), "the pace is new");
    limiter.ended(None, true, BEGIN);
    limiter.ended(None, true, BEGIN);
    assert_eq!(limiter.next(BEGIN), NextGrant::Later, "not granted yet");
    assert!(limiter.is_starving(BEGIN));
    let request = limiter.request(BEGIN);
    assert_eq!(request.announced, Some(twenty));
    let lease = QuotaLease { pace: Some((twenty, 20)), ..QuotaLease::default() };
    limiter.granted(&request, &lease, BEGIN + 60 * SECOND, BEGIN);
    assert_eq!(limiter.next(BEGIN + SECOND), NextGrant::Grant(3, Some(0)));
    assert_eq!(limiter.room(BEGIN + SECOND), 20);
}

#[test]
fn an_account_that_announces_nothing_is_not_limited_and_needs_no_lease() {
    let mut limiter = limiter("none");
    assert_eq!(ask(&mut limiter, 0, BEGIN), NextGrant::Grant(0, None));
    limiter.observe(&RateLimitHeaders::default(), BEGIN);
    limiter.ended(None, true, BEGIN);
    for call in 1..=200 {
        assert_eq!(ask(&mut limiter, call, BEGIN), NextGrant::Grant(call, None));
    }
    assert_eq!(limiter.room(BEGIN), usize::MAX);
}

#[test]
fn urgent_flows_may_use_what_others_have_of_the_caps_and_not_the_other_way_round() {
    let mut limiter = limiter("10/d");
    let today = Timestamp::from_seconds(1_000_000);
    assert_eq!((limiter.take(false, today), limiter.short), (None, CapShortage { usual: true, urgent: false }));
    limiter.usual = CapBudget { calls: 1, ..CapBudget::default() };
    limiter.urgent = CapBudget { calls: 1, ..CapBudget::default() };
    assert_eq!((limiter.take(false, today), limiter.take(false, today)), (Some(Ok(())), None));
    assert_eq!(limiter.take(true, today), Some(Ok(())));
    let until = today.plus(Duration::from_secs(60));
    limiter.usual.none_before = Some(until);
    assert_eq!((limiter.take(false, today), limiter.take(true, today)), (Some(Err(until)), None));
}
