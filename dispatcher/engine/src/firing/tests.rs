//! Tests of the decisions, with a calendar of regular times.

use proptest::prelude::*;

use super::*;

/// Fires at every multiple of so many seconds.
struct Every(i64);

impl Calendar for Every {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        Some(Timestamp::from_seconds((after.seconds().div_euclid(self.0) + 1) * self.0))
    }

    fn latest(&self, until: Timestamp) -> Option<Timestamp> {
        Some(Timestamp::from_seconds(until.seconds().div_euclid(self.0) * self.0))
    }
}

const PLAN: &str = "0 * * * * UTC";
const HOUR: i64 = 3600;
const ONCE: FiringPolicy = FiringPolicy { missed: MissedPolicy::Once, expires_after: None };
const SKIP: FiringPolicy = FiringPolicy { missed: MissedPolicy::Skip, expires_after: None };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn hourly(progress: &ScheduleProgress, policy: FiringPolicy, now: i64) -> FiringDecision {
    decide(Some(progress), PLAN, &Every(HOUR), policy, at(now))
}

#[test]
fn a_schedule_that_is_new_or_changed_fires_nothing_of_the_past() {
    assert_eq!(decide(None, PLAN, &Every(HOUR), ONCE, at(HOUR)), FiringDecision::Restart);
    let changed = ScheduleProgress::new("30 * * * * UTC", at(0));
    assert_eq!(hourly(&changed, ONCE, 5 * HOUR), FiringDecision::Restart);
    let new = ScheduleProgress::new(PLAN, at(5 * HOUR));
    assert_eq!(hourly(&new, ONCE, 5 * HOUR), FiringDecision::Wait(Some(at(6 * HOUR))));
}

#[test]
fn a_time_is_due_from_its_second_on_and_once() {
    let progress = ScheduleProgress::new(PLAN, at(10));
    let just_before = Timestamp::from_millis(HOUR * 1000 - 1);
    let decided = decide(Some(&progress), PLAN, &Every(HOUR), ONCE, just_before);
    assert_eq!(decided, FiringDecision::Wait(Some(at(HOUR))));
    assert_eq!(hourly(&progress, ONCE, HOUR), FiringDecision::Begin { at: at(HOUR), skipped: 0 });
    let made = progress.settled(at(HOUR));
    assert_eq!(hourly(&made, ONCE, HOUR), FiringDecision::Wait(Some(at(2 * HOUR))));
    // A clock that is set back does not make the same time due again.
    assert_eq!(hourly(&made, ONCE, HOUR - 5), FiringDecision::Wait(Some(at(2 * HOUR))));
}

#[test]
fn of_missed_times_the_newest_is_made_up_for_or_none() {
    let progress = ScheduleProgress::new(PLAN, at(HOUR));
    let late = 4 * HOUR + 1800;
    assert_eq!(hourly(&progress, ONCE, late), FiringDecision::Begin { at: at(4 * HOUR), skipped: 2 });
    assert_eq!(hourly(&progress, SKIP, late), FiringDecision::Skip { until: at(4 * HOUR), times: 3 });
    let grace = i64::try_from(GRACE.as_secs()).expect("small");
    assert_eq!(hourly(&progress, SKIP, 2 * HOUR + grace), FiringDecision::Begin { at: at(2 * HOUR), skipped: 0 });
    assert_eq!(hourly(&progress, SKIP, 2 * HOUR + grace + 1), FiringDecision::Skip { until: at(2 * HOUR), times: 1 });
    let short = FiringPolicy { expires_after: Some(Duration::from_secs(60)), ..ONCE };
    assert_eq!(hourly(&progress, short, 2 * HOUR + 60), FiringDecision::Skip { until: at(2 * HOUR), times: 1 });
}

#[test]
fn a_firing_that_has_begun_is_finished_also_under_a_changed_plan() {
    let firing = Firing { at: at(HOUR), after: None };
    let begun = ScheduleProgress::new("of before", at(10)).firing(firing.clone());
    for policy in [ONCE, SKIP] {
        assert_eq!(hourly(&begun, policy, 9 * HOUR), FiringDecision::Continue(firing.clone()));
    }
    let short = FiringPolicy { expires_after: Some(Duration::from_secs(60)), ..ONCE };
    assert_eq!(hourly(&begun, short, 9 * HOUR), FiringDecision::Skip { until: at(HOUR), times: 1 });
}

#[test]
fn a_progress_that_a_clock_ahead_has_written_is_not_believed() {
    let ahead = ScheduleProgress::new(PLAN, at(100 * HOUR));
    assert_eq!(hourly(&ahead, ONCE, 5 * HOUR), FiringDecision::Restart);
}

/// The fate of a process: the seconds that pass, and true if it is killed before a firing ends.
fn lives() -> impl Strategy<Value = Vec<(i64, bool)>> {
    prop::collection::vec((prop_oneof![1_i64..120, 1_i64..20_000], any::<bool>()), 1..60)
}

proptest! {
    /// Whatever happens, each time is made or skipped at most once, in order, and none is left when the progress has passed it.
    #[test]
    fn every_time_is_settled_once_and_in_order(period in 1_i64..4000, lives in lives(), skip in any::<bool>()) {
        let policy = if skip { SKIP } else { ONCE };
        let calendar = Every(period);
        let mut now = 1_000_000;
        let mut progress = ScheduleProgress::new(PLAN, at(now));
        let mut made: Vec<Timestamp> = Vec::new();
        let mut settled = 0_u64;
        for (pause, killed) in lives {
            now += pause;
            loop {
                let decision = decide(Some(&progress), PLAN, &calendar, policy, at(now));
                progress = match decision {
                    FiringDecision::Restart => return Err(TestCaseError::fail("it never restarts")),
                    FiringDecision::Wait(next) => {
                        prop_assert!(next.is_some_and(|next| next > at(now)));
                        break;
                    }
                    FiringDecision::Skip { until, times } => {
                        settled += times;
                        progress.settled(until)
                    }
                    FiringDecision::Begin { at, skipped } => {
                        prop_assert!(made.last().is_none_or(|last| *last < at));
                        settled += skipped;
                        let begun = progress.firing(Firing { at, after: None });
                        if killed {
                            progress = begun;
                            break;
                        }
                        begun
                    }
                    FiringDecision::Continue(Firing { at, .. }) => {
                        made.push(at);
                        settled += 1;
                        progress.settled(at)
                    }
                };
            }
        }
        if let Some(Firing { at, .. }) = progress.under_way {
            made.push(at);
            settled += 1;
            progress = progress.settled(at);
        }
        prop_assert!(made.is_sorted() && made.windows(2).all(|two| two[0] < two[1]));
        let passed = (progress.settled.seconds().div_euclid(period) - 1_000_000_i64.div_euclid(period)).unsigned_abs();
        prop_assert!(settled == passed || passed > COUNTED, "{settled} of {passed}");
    }
}
