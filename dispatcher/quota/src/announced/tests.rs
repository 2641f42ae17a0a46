use super::*;

const DAY: u64 = 86_400;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn policy(calls: u32, seconds: u64) -> RateLimitHeaders {
    let policies = vec![Pace { calls, per: Duration::from_secs(seconds) }];
    RateLimitHeaders { policies, ..RateLimitHeaders::default() }
}

fn remaining(calls: u32, reset: u64) -> RateLimitHeaders {
    RateLimitHeaders { remaining: Some(calls), reset: Some(Duration::from_secs(reset)), ..RateLimitHeaders::default() }
}

fn heard(headers: &RateLimitHeaders) -> Announced {
    let mut announced = Announced::default();
    announced.observe(headers, None, 0, at(0));
    announced
}

/// Makes as many calls as may be made at once. Returns their number.
fn burst(announced: &mut Announced, sharers: u32, now: Duration) -> u32 {
    let mut made = 0;
    while made < 1_000 && announced.check(sharers, now).is_ok() {
        announced.count(now);
        made += 1;
    }
    made
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[test]
fn a_limit_a_day_is_a_number_and_no_pace() {
    let mut announced = heard(&policy(100, DAY));
    assert_eq!(announced.pace(at(0)), None);
    assert_eq!(burst(&mut announced, 1, at(0)), 100);
    let wait = announced.check(1, at(0)).expect_err("used up");
    assert!(wait >= Duration::from_secs(DAY), "{wait:?}");
    assert_eq!(announced.check(1, Duration::from_secs(DAY)), Ok(()), "it has expired with its window");
}

#[test]
fn a_limit_a_second_is_a_pace_and_ends_soon_after_it_is_not_announced_any_more() {
    let mut limit = RateLimitHeaders { limit: Some(20), reset: Some(at(300)), ..RateLimitHeaders::default() };
    let pace = |calls| Some(Pace { calls, per: Duration::from_secs(1) });
    assert_eq!(heard(&limit).pace(at(2_900)), pace(20));
    assert_eq!(heard(&limit).pace(at(3_000)), None);
    limit.policies = policy(10, 1).policies;
    assert_eq!(heard(&limit).pace(at(0)), pace(10), "a window that is said counts before one that is concluded");
}

#[test]
fn a_window_that_is_not_said_is_as_long_as_the_longest_time_until_its_end() {
    let limit = |reset| RateLimitHeaders { limit: Some(5), reset: Some(at(reset)), ..RateLimitHeaders::default() };
    let mut announced = heard(&limit(60_000));
    announced.observe(&limit(1_000), None, 0, at(59_000));
    assert_eq!(announced.pace(at(59_000)), None, "it has not become five a second");
    let mut lower = heard(&RateLimitHeaders { limit: Some(5), ..RateLimitHeaders::default() });
    assert!(!lower.counts(at(0)) && lower.pace(at(0)).is_none(), "five in what time?");
    assert_eq!(lower.may_probe(1_000, at(5_000)), Ok(()), "what cannot be held holds nobody up");
    lower.observe(&RateLimitHeaders { limit: Some(5), ..RateLimitHeaders::default() }, Some(at(1_000)), 0, at(0));
    assert!(lower.pace(at(0)).is_some());
}

#[test]
fn the_destinations_own_count_is_shared_and_ends_with_its_window() {
    let mut announced = heard(&remaining(9, 30));
    assert_eq!(burst(&mut announced, 1, at(0)), 9);
    assert_eq!(announced.check(1, at(0)), Err(Duration::from_secs(30)));
    announced.observe(&remaining(4, 30), None, 0, at(100));
    assert!(announced.check(1, at(100)).is_err(), "an answer to an earlier call gives nothing back");
    assert_eq!(announced.check(1, at(30_100)), Ok(()));
    announced.observe(&remaining(9, 30), None, 3, at(30_200));
    assert_eq!(burst(&mut announced, 1, at(30_200)), 6, "calls under way may not be counted yet");
}

#[test]
fn while_nothing_is_left_for_long_one_call_a_minute_asks() {
    let mut announced = heard(&remaining(0, 20 * DAY));
    assert_eq!(announced.check(1, at(0)), Err(Duration::from_secs(60)));
    assert_eq!(burst(&mut announced, 1, at(60_000)), 1);
    assert_eq!(announced.check(1, at(61_000)), Err(Duration::from_secs(59)));
    announced.observe(&remaining(0, 20 * DAY - 62), None, 0, at(62_000));
    assert!(announced.check(1, at(62_000)).is_err(), "still none");
    assert_eq!(burst(&mut announced, 1, at(122_000)), 1);
    announced.observe(&remaining(5, 20 * DAY - 123), None, 0, at(123_000));
    assert_eq!(burst(&mut announced, 1, at(123_000)), 5, "the plan was raised, or its word was wrong");
}

#[test]
fn a_few_calls_ask_first_and_all_go_once_no_limit_is_announced() {
    let mut announced = Announced::default();
    announced.count(at(0));
    assert_eq!(announced.may_probe(1, at(0)), Ok(()));
    assert_eq!(announced.may_probe(2, at(400)), Err(at(600)));
    assert_eq!(announced.may_probe(3, at(1_000)), Ok(()), "one that is slow to answer is asked more");
    announced.observe(&RateLimitHeaders::default(), None, 2, at(1_100));
    assert_eq!(announced.may_probe(1_000, at(1_100)), Ok(()));
    announced.observe(&policy(20, 1), None, 0, at(1_200));
    assert_eq!(announced.may_probe(1_000, at(1_200)), Ok(()), "now the limit is what holds");
    assert!(announced.may_probe(2, at(9_000)).is_err(), "the limit has expired, and may be announced again");
}

/// No window holds more calls than its limit, however calls arrive, however often the limit is announced and whatever
/// is in flight.
#[test]
fn no_window_ever_holds_more_than_its_limit() {
    let mut random = Random(7);
    for _ in 0..200 {
        let seconds = 3 + random.below(5_000);
        let limit = 1 + u32::try_from(random.below(40)).unwrap_or(0);
        let mut announced = heard(&policy(limit, seconds));
        let mut now = at(0);
        let mut made = Vec::new();
        for _ in 0..400 {
            now += at(random.below(seconds * 100));
            announced.observe(&policy(limit, seconds), None, 0, now);
            for _ in 0..random.below(5) {
                if announced.check(1, now).is_ok() {
                    announced.count(now);
                    made.push(now);
                }
            }
        }
        let length = Duration::from_secs(seconds);
        for from in &made {
            let within = made.iter().filter(|it| **it >= *from && **it < *from + length).count();
            assert!(within <= limit as usize, "{within} of {limit} in {length:?}");
        }
        assert!(made.len() >= limit as usize);
    }
}

/// The destination has a fixed window, which it reports to several processes. None of them ever has more calls refused
/// than it had in flight, and the window's calls are used up.
#[test]
fn processes_that_are_told_what_is_left_use_it_up_and_no_more() {
    let mut random = Random(11);
    for _ in 0..100 {
        let limit = 5 + u32::try_from(random.below(100)).unwrap_or(0);
        let sharers = 1 + u32::try_from(random.below(4)).unwrap_or(0);
        let mut replicas: Vec<Announced> = (0..sharers).map(|_| Announced::default()).collect();
        let mut used = 0;
        let mut refused = 0;
        for millis in (0..50_000).step_by(50) {
            let replica = &mut replicas[random.below(u64::from(sharers)) as usize];
            if replica.check(sharers, at(millis)).is_err() || replica.may_probe(0, at(millis)).is_err() {
                continue;
            }
            replica.count(at(millis));
            let taken = used < limit;
            (used, refused) = if taken { (used + 1, refused) } else { (used, refused + 1) };
            let answer = RateLimitHeaders { limit: Some(limit), ..remaining(limit - used, 60 - millis / 1_000) };
            replica.observe(&answer, None, 0, at(millis));
        }
        assert_eq!(used, limit);
        assert!(refused <= sharers, "{refused} refused of {limit} by {sharers}");
    }
}
