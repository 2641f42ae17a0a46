//! Properties that hold for every input, checked with random ones.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::Value;
use usher_proto::{Snapshot, Timestamp};

use crate::breaker::{Breaker, Health};
use crate::field_diff::{Fields, RememberedFields, diff};
use crate::{AttemptState, RetryPolicy};

/// A failing input is printed, and not stored in a file.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::with_cases(256) }
}

fn policy() -> impl Strategy<Value = RetryPolicy> {
    (1..50_u32, 0..1_000_000_u64, 0..10_000_000_u64, 0..1_000_000_000_u64).prop_map(|(attempts, first, max, within)| {
        let millis = Duration::from_millis;
        RetryPolicy { attempts, first: millis(first), max: millis(max), within: millis(within) }
    })
}

fn fields() -> impl Strategy<Value = Fields> {
    let value = prop_oneof![Just(Value::Null), "[abAB]@x\\.test".prop_map(Value::from), (0..3).prop_map(Value::from)];
    vec((prop::sample::select(&["email", "phone", "name"][..]), value), 0..4)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (0..4_i64, 0..3_i64, any::<bool>()).prop_map(|(updated_at, occurred_at, alive)| Snapshot {
        updated_at,
        occurred_at,
        data: alive.then(|| "{}".to_owned()),
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_pause_is_bounded_and_grows_with_failures_jitter_and_request(
        policy in policy(), made in any::<u32>(), after in proptest::option::of(0..u64::MAX / 2), jitter in -0.5_f64..1.5,
        more in 0..10_u32, now in 0..4_000_000_000_000_i64,
    ) {
        let now = Timestamp::from_millis(now);
        let after = after.map(Duration::from_millis);
        let next = policy.next(made, after, jitter, now);
        prop_assert!(next >= now && next.since(now) <= policy.max);
        prop_assert!(policy.next(made.saturating_add(more), after, jitter, now) >= next);
        prop_assert!(policy.next(made, after, jitter + 0.1, now) >= next);
        prop_assert!(policy.next(made, None, jitter, now) <= next);
        let requested = after.unwrap_or_default().min(policy.max);
        prop_assert!(next.since(now) >= Duration::from_millis(requested.as_millis() as u64));
    }

    #[test]
    fn what_is_spent_stays_spent(
        policy in policy(), counted in 0..60_u32, first_at in proptest::option::of(0..1_000_000_i64),
        more in 0..10_u32, now in 0..2_000_000_000_i64, later in 0..1_000_000_000_u64,
    ) {
        let tries = |counted| AttemptState { counted, first_at: first_at.map(Timestamp::from_millis), ..AttemptState::default() };
        let now = Timestamp::from_millis(now);
        let spent = policy.is_spent(&tries(counted), now);
        prop_assert!(spent || counted < policy.attempts);
        prop_assert!(!spent || policy.is_spent(&tries(counted + more), now.plus(Duration::from_millis(later))));
    }

    /// The fields that a flow remembers and the snapshots that all flows share are replaced by the same events.
    #[test]
    fn fields_are_remembered_of_the_snapshots_that_replace_the_known_one(
        snapshots in vec((snapshot(), fields()), 1..8),
    ) {
        let mut state: Option<Snapshot> = None;
        let mut known: Option<RememberedFields> = None;
        for (snapshot, fields) in snapshots {
            let replaces = state.as_ref().is_none_or(|state| snapshot.replaces(state));
            let (before, now) = diff(known.as_ref(), &snapshot, &fields);
            prop_assert_eq!(now.is_some(), replaces);
            // Names only fields that were known before, with the values that they had.
            let old = known.as_ref().and_then(|known| known.fields.clone()).unwrap_or_default();
            prop_assert!(before.changed.iter().all(|name| before.fields.contains_key(name) && fields.contains_key(name)));
            prop_assert!(before.fields.is_empty() || before.fields == old);
            if let Some(now) = now {
                prop_assert_eq!(now.fields.is_none(), snapshot.data.is_none());
                let kept = now.fields.clone().unwrap_or_default();
                let has_all = old.keys().chain(fields.keys()).all(|name| kept.contains_key(name));
                prop_assert!(snapshot.data.is_none() || has_all);
                prop_assert!(fields.iter().all(|(name, value)| snapshot.data.is_none() || kept.get(name) == Some(value)));
                // The same event again changes nothing.
                let again = diff(Some(&now), &snapshot, &fields);
                prop_assert_eq!(again.0.changed, Vec::<String>::new());
                prop_assert!(again.1.is_none() || again.1.as_ref() == Some(&now));
                (known, state) = (Some(now), Some(snapshot));
            }
        }
    }

    /// Every call that the breaker counts returns its permit, in any order, so it always admits calls again.
    #[test]
    fn a_breaker_admits_again_whatever_the_answers_are(
        events in vec((0..6_u8, 0..12_u64, 0..3_000_u64, 0.0_f64..1.0), 0..200),
    ) {
        let mut breaker = Breaker::default();
        let mut now = Timestamp::from_seconds(1_000);
        let mut in_flight = VecDeque::new();
        for (choice, who, pause, jitter) in events {
            now = now.plus(Duration::from_millis(pause));
            let health = match choice {
                0 | 1 => {
                    let admits = breaker.admits(now);
                    let permit = breaker.permit(now);
                    prop_assert_eq!(permit.is_some(), admits);
                    in_flight.extend(permit);
                    continue;
                }
                2 => Health::Serves,
                3 => Health::Down,
                4 => Health::Throttles(Some(Duration::from_millis(pause * 1_000))),
                _ => Health::Unknown,
            };
            let permit = if who % 2 == 0 { in_flight.pop_front() } else { in_flight.pop_back() };
            if let Some(permit) = permit {
                breaker.answered(permit, health, who, now, jitter);
            }
            let next = breaker.trouble().and_then(|(_, next)| next);
            prop_assert!(next.is_none_or(|next| next.since(now) <= Duration::from_secs(300)));
        }
        for permit in in_flight {
            breaker.answered(permit, Health::Unknown, 1, now, 0.0);
        }
        let later = now.plus(Duration::from_secs(300));
        prop_assert!(breaker.admits(later), "{:?}", breaker);
        // A destination that serves again is closed after finitely many answers.
        for _ in 0..100 {
            if let Some(permit) = breaker.permit(later) {
                breaker.answered(permit, Health::Serves, 1, later, 0.0);
            }
        }
        prop_assert!(breaker.is_closed() && breaker.trouble().is_none());
    }
}
