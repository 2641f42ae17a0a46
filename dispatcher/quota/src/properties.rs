//! Properties that hold for every input, checked with random ones, in time that the tests set.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use usher_proto::Timestamp;

use crate::fair_queue::FairQueue;
use crate::{
    Cap, CapBudget, Demand, LimitedAccount, Limiter, NextGrant, Pace, Quota, QuotaLease, QuotaMember, Span, share,
};

/// Time of the first event, since boot.
const BEGIN: Duration = Duration::from_secs(1_000);

/// A failing input is printed, and not stored in a file.
fn cases(number: u32) -> Config {
    Config { failure_persistence: None, ..Config::with_cases(number) }
}

fn quota() -> impl Strategy<Value = Quota> {
    let pace = (1..1_000_000_u32, any::<bool>())
        .prop_map(|(calls, is_minute)| Pace { calls, per: Duration::from_secs(if is_minute { 60 } else { 1 }) });
    let spans = prop::sample::subsequence(vec![Span::Hour, Span::Day, Span::Month], 0..=3).prop_shuffle();
    (proptest::option::of(pace), spans, vec(1..1_000_000_u32, 3), proptest::option::of(1..1_000_u32)).prop_map(
        |(pace, spans, calls, max_concurrent)| {
            let caps = spans.into_iter().zip(calls).map(|(span, calls)| Cap { calls, span }).collect();
            Quota { pace, caps, max_concurrent }
        },
    )
}

fn demand() -> impl Strategy<Value = Demand> {
    prop::sample::select(&[Demand::Idle, Demand::Normal, Demand::Urgent][..])
}

fn limiter(quota: &Quota) -> Limiter<usize> {
    let account = "resend".to_owned();
    let destination = account.clone();
    Limiter::new(LimitedAccount { account, destination, quota: quota.clone(), assumed: false, serves_urgent: false })
}

/// One event in the life of a limiter.
#[derive(Debug, Clone)]
enum Happening {
    /// A number of calls of a flow that wait.
    Push { flow: u8, urgent: bool, calls: u8 },
    /// Every call that may be made is made, up to this number.
    Next(u8),
    /// A call in flight ends.
    Ended { which: prop::sample::Index, measured: bool },
    /// A new lease: the part of the pace and of the concurrency in percent, and its length in ms.
    Lease { part: u32, concurrent: u32, length: u64 },
    /// Time passes, in ms.
    Wait(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::{Ended, Lease, Next, Push, Wait};
    prop_oneof![
        2 => (0..3_u8, any::<bool>(), 1..30_u8).prop_map(|(flow, urgent, calls)| Push { flow, urgent, calls }),
        4 => any::<u8>().prop_map(Next),
        3 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, measured)| Ended { which, measured }),
        1 => (0..=100_u32, 0..=100_u32, prop_oneof![4 => 0..20_000_u64, 1 => Just(0)]).prop_map(|(part, concurrent, length)| Lease { part, concurrent, length }),
        4 => prop_oneof![0..50_u64, 0..1_500_u64].prop_map(Wait),
    ]
}

/// Largest number of times within any window of this length.
fn most_within(times: &[Duration], window: Duration) -> usize {
    let in_window = |from: &Duration| times.iter().filter(|at| *at >= from && **at < *from + window).count();
    times.iter().map(in_window).max().unwrap_or(0)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_quota_reads_back(quota in quota()) {
        prop_assert_eq!(quota.to_string().parse(), Ok(quota));
    }

    #[test]
    fn a_span_contains_the_time_and_ends_where_the_next_one_begins(millis in 0..4_000_000_000_000_i64) {
        for span in [Span::Hour, Span::Day, Span::Month] {
            let now = Timestamp::from_millis(millis);
            let (name, end) = span.of(now);
            prop_assert!(end > now);
            prop_assert_eq!(span.of(end.minus(Duration::from_millis(1))), (name.clone(), end));
            let (next, later) = span.of(end);
            prop_assert!(next > name && later > end);
        }
    }

    #[test]
    fn members_never_take_more_than_the_limit_and_use_all_of_it_once_settled(
        limit in 1..80_u32, demands in vec((demand(), any::<bool>(), 0..200_u32), 1..8),
        order in vec(any::<prop::sample::Index>(), 0..40), second in 0..100_000_i64, minute: bool,
    ) {
        let per = Duration::from_secs(if minute { 60 } else { 1 });
        let now = Timestamp::from_seconds(second);
        let mut left = limit;
        let member = |(at, (demand, serves_urgent, has)): (usize, (Demand, bool, u32))| {
            let has = has.min(left);
            left -= has;
            QuotaMember { name: format!("m{at}"), demand, serves_urgent, has }
        };
        let mut members: Vec<QuotaMember> = demands.into_iter().enumerate().map(member).collect();
        let all = (0..members.len()).cycle().take(2 * members.len());
        for at in order.iter().map(|at| at.index(members.len())).collect::<Vec<_>>().into_iter().chain(all) {
            members[at].has = share(limit, &members, &members[at].name, now, per);
            prop_assert!(members.iter().map(|member| member.has).sum::<u32>() <= limit, "{:?}", members);
        }
        prop_assert_eq!(members.iter().map(|member| member.has).sum::<u32>(), limit, "{:?}", members);
    }

    #[test]
    fn a_queue_returns_every_call_once_each_flow_in_order_and_starves_none(
        // A call of a flow arrives, urgent or not, or the next call leaves.
        events in vec(proptest::option::weighted(0.6, (0..4_u8, any::<bool>())), 0..80),
    ) {
        let mut queue = FairQueue::default();
        let mut usual_waiting = 0;
        let mut in_a_row = 0;
        let mut pushed = 0;
        let mut popped: Vec<(u8, bool, usize)> = Vec::new();
        for event in events.into_iter().chain(std::iter::repeat_n(None, 80)) {
            if let Some((flow, urgent)) = event {
                queue.push(&flow.to_string(), urgent, (flow, urgent, pushed));
                pushed += 1;
                usual_waiting += u32::from(!urgent);
                continue;
            }
            prop_assert_eq!(queue.len(), pushed - popped.len());
            prop_assert_eq!(queue.is_empty(), popped.len() == pushed);
            let Some(call @ (_, urgent, _)) = queue.pop() else { continue };
            popped.push(call);
            in_a_row = if urgent && usual_waiting > 0 { in_a_row + 1 } else { 0 };
            prop_assert!(in_a_row <= 4, "others wait");
            usual_waiting -= u32::from(!urgent);
        }
        for of in (0..4).flat_map(|flow| [(flow, false), (flow, true)]) {
            let of_flow = popped.iter().filter(|(flow, urgent, _)| (*flow, *urgent) == of);
            prop_assert!(of_flow.map(|(_, _, place)| place).is_sorted());
        }
        let mut places: Vec<usize> = popped.iter().map(|(_, _, place)| *place).collect();
        places.sort_unstable();
        prop_assert_eq!(places, (0..pushed).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(cases(128))]

    /// Grants stay within the parts that were leased in the window before, and within lease and concurrency.
    #[test]
    fn a_limiter_never_grants_more_than_was_leased(
        calls in 1..60_u32, minute: bool, limits_concurrency: bool, happenings in vec(happening(), 0..250),
    ) {
        let per = Duration::from_secs(if minute { 60 } else { 1 });
        let pace = Pace { calls, per };
        let quota = Quota { pace: Some(pace), caps: Vec::new(), max_concurrent: limits_concurrency.then_some(20) };
        let mut limiter = limiter(&quota);
        let mut now = BEGIN;
        let mut in_flight: Vec<Option<u64>> = Vec::new();
        let mut granted: Vec<Duration> = Vec::new();
        // Start of each lease, with its part of the pace.
        let mut leases: Vec<(Duration, u32)> = Vec::new();
        let mut until = Duration::ZERO;
        let mut max_concurrent = 0;
        let mut pushed = 0;
        let mut calls_waiting = 0;
        for happening in happenings {
            match happening {
                Happening::Push { flow, urgent, calls } => {
                    for _ in 0..calls {
                        limiter.push(&flow.to_string(), urgent, pushed);
                        pushed += 1;
                        calls_waiting += 1;
                    }
                }
                Happening::Next(most) => {
                    for _ in 0..most {
                        match limiter.next(now) {
                            NextGrant::Grant(_, number) => {
                                in_flight.push(number);
                                granted.push(now);
                                calls_waiting -= 1;
                                prop_assert!(now < until, "no lease");
                                prop_assert!(!limits_concurrency || in_flight.len() <= max_concurrent as usize);
                            }
                            NextGrant::In(pause) => {
                                prop_assert!(calls_waiting > 0 && pause > Duration::ZERO);
                                break;
                            }
                            NextGrant::Later => break,
                        }
                    }
                }
                Happening::Ended { which, measured } => {
                    if !in_flight.is_empty() {
                        let number = in_flight.swap_remove(which.index(in_flight.len()));
                        limiter.ended(number, measured, now);
                    }
                }
                Happening::Lease { part, concurrent, length } => {
                    let part = calls * part / 100;
                    max_concurrent = 20 * concurrent / 100;
                    until = now + Duration::from_millis(length);
                    leases.push((now, part));
                    let request = limiter.request(now);
                    let lease = QuotaLease { pace: Some((pace, part)), max_concurrent, ..QuotaLease::default() };
                    limiter.granted(&request, &lease, until, now);
                }
                Happening::Wait(millis) => now += Duration::from_millis(millis),
            }
            prop_assert_eq!(limiter.waiting(), calls_waiting);
        }
        prop_assert!(most_within(&granted, per) <= calls as usize, "{:?}", granted);
        // No window holds more than the largest part that was leased in it or was in force when it began.
        for from in &granted {
            let end = *from + per;
            let at_begin = leases.iter().rev().find(|(at, _)| at < from).map_or(0, |(_, part)| *part);
            let within = leases.iter().filter(|(at, _)| at >= from && *at < end).map(|(_, part)| *part);
            let most = within.chain([at_begin]).max().unwrap_or(0);
            let count = granted.iter().filter(|at| *at >= from && **at < end).count();
            prop_assert!(count <= most as usize, "{} of {} from {:?}", count, most, from);
        }
    }

    /// Three processes, of which others have calls to make in each phase, renew their leases and keep the pace together.
    #[test]
    fn processes_that_share_a_pace_keep_it_together(
        calls in 1..40_u32, minute: bool, renew_every in 3..40_u64,
        phases in vec((1..8_u32, 20..150_u64, any::<bool>()), 2..7),
    ) {
        let per = Duration::from_secs(if minute { 60 } else { 1 });
        // A second has a hundred steps, a minute three hundred.
        let step = Duration::from_millis(if minute { 200 } else { 10 });
        let pace = Pace { calls, per };
        let mut limiters: Vec<Limiter<usize>> =
            (0..3).map(|_| limiter(&Quota { pace: Some(pace), ..Quota::default() })).collect();
        let member = |at| QuotaMember { name: format!("m{at}"), demand: Demand::Idle, serves_urgent: false, has: 0 };
        let mut members: Vec<QuotaMember> = (0..3).map(member).collect();
        let mut now = BEGIN;
        let mut granted = Vec::new();
        for (active, steps, is_forward) in phases {
            for number in 0..steps {
                now += step;
                for at in 0..3 {
                    let at = if is_forward { at } else { 2 - at };
                    let limiter = &mut limiters[at];
                    if active & 1 << at != 0 && limiter.waiting() == 0 {
                        (0..3).for_each(|call| limiter.push("a", false, call));
                    }
                    if (number + at as u64 * 7).is_multiple_of(renew_every) {
                        let request = limiter.request(now);
                        members[at].demand = request.demand;
                        let store = Timestamp::from_millis(i64::try_from(now.as_millis()).expect("a short time"));
                        members[at].has = share(calls, &members, &members[at].name, store, per);
                        let lease = QuotaLease { pace: Some((pace, members[at].has)), sharers: 3, ..QuotaLease::default() };
                        limiter.granted(&request, &lease, now + Duration::from_secs(3_600), now);
                    }
                    while let NextGrant::Grant(_, number) = limiter.next(now) {
                        granted.push(now);
                        limiter.ended(number, true, now);
                    }
                }
            }
        }
        prop_assert!(most_within(&granted, per) <= calls as usize, "{} of {}", most_within(&granted, per), calls);
    }

    #[test]
    fn no_more_calls_are_taken_from_caps_than_were_leased(
        takes in vec(any::<bool>(), 0..60), usual in 0..20_u32, urgent in 0..20_u32,
    ) {
        let mut limiter = limiter(&"50/d".parse().expect("a quota"));
        let today = Timestamp::from_seconds(1_000_000);
        prop_assert!(limiter.take(false, today).is_none() && limiter.take(true, today).is_none());
        let request = limiter.request(BEGIN);
        let budget = |calls| CapBudget { calls, ..CapBudget::default() };
        let lease = QuotaLease { usual: budget(usual), urgent: budget(urgent), ..QuotaLease::default() };
        limiter.granted(&request, &lease, BEGIN + Duration::from_secs(60), BEGIN);
        let taken = |is_urgent: bool, takes: &[(bool, bool)]| takes.iter().filter(|take| **take == (is_urgent, true)).count();
        let takes: Vec<(bool, bool)> =
            takes.into_iter().map(|urgent| (urgent, limiter.take(urgent, today).is_some_and(|taken| taken.is_ok()))).collect();
        prop_assert!(taken(false, &takes) <= usual as usize);
        prop_assert!(taken(true, &takes) + taken(false, &takes) <= (usual + urgent) as usize);
        // Refused only when nothing was left for that kind of flow.
        let refused_urgent = takes.contains(&(true, false));
        prop_assert!(!refused_urgent || taken(true, &takes) + taken(false, &takes) == (usual + urgent) as usize);
    }
}
