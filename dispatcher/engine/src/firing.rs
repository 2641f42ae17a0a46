//! The decision whether a scheduled flow fires: made by the replica that owns the flow's first partition, from the progress
//! that the store holds, the calendar and the time. The firing itself, which takes time, is carried out elsewhere.

use std::time::Duration;

use usher_proto::{SubjectId, Timestamp};

/// Lateness up to which a firing counts as made in time. A failover, a deployment and a short outage take less.
pub const GRACE: Duration = Duration::from_secs(300);

/// Lead of the progress over the clock from which on it is not believed: a clock that was ahead has written it.
const MAX_LEAD: Duration = Duration::from_secs(3600);

/// Largest number of missed times that are counted.
const COUNTED: u64 = 1000;

/// The times at which a schedule fires. They are whole seconds.
pub trait Calendar {
    /// Returns the first time after this one; `None` if there is none.
    fn next(&self, after: Timestamp) -> Option<Timestamp>;

    /// Returns the last time that is not after this one; `None` if there is none.
    fn latest(&self, until: Timestamp) -> Option<Timestamp>;
}

/// The treatment of a time at which nothing could fire, because every process was down, the flow was paused, or the firing
/// before it took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedPolicy {
    /// The newest missed time is made up for, the earlier ones are skipped.
    #[default]
    Once,
    /// Every missed time is skipped.
    Skip,
}

/// The rules by which a late firing is made or skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FiringPolicy {
    /// The treatment of missed times.
    pub missed: MissedPolicy,
    /// The age from which on a firing is worth nothing; `None` if it is always worth something.
    pub expires_after: Option<Duration>,
}

impl FiringPolicy {
    /// Returns true if a firing that is this late is still to be made.
    fn takes(&self, late: Duration) -> bool {
        let expired = self.expires_after.is_some_and(|life| late >= life);
        !expired && (late <= GRACE || self.missed == MissedPolicy::Once)
    }
}

/// The progress of a flow's schedule, as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleProgress {
    /// The schedule and its time zone, as text.
    pub plan: String,
    /// Every time up to this one was fired or skipped.
    pub settled: Timestamp,
    /// The firing that has begun and not ended.
    pub under_way: Option<Firing>,
}

/// A firing that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The time for which it is made.
    pub at: Timestamp,
    /// The last subject of which it is known that it was treated, in the order of their identities; `None` before the first.
    pub after: Option<SubjectId>,
}

impl ScheduleProgress {
    /// Returns the progress of a schedule that is new, or was changed: nothing of the past is due.
    pub fn new(plan: &str, now: Timestamp) -> Self {
        Self { plan: plan.to_owned(), settled: now, under_way: None }
    }

    /// Returns this progress with all times up to `until` settled, and no firing under way.
    #[must_use]
    pub fn settled(&self, until: Timestamp) -> Self {
        Self { plan: self.plan.clone(), settled: self.settled.max(until), under_way: None }
    }

    /// Returns this progress with this firing under way.
    #[must_use]
    pub fn firing(&self, firing: Firing) -> Self {
        Self { under_way: Some(firing), ..self.clone() }
    }
}

/// The next action for a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FiringDecision {
    /// The schedule is new or was changed: its progress begins now.
    Restart,
    /// Nothing is due. The next time at which something is; `None` if there is none.
    Wait(Option<Timestamp>),
    /// All times up to this one are skipped, which are so many.
    Skip {
        /// The newest of them.
        until: Timestamp,
        /// Their number, at most a thousand.
        times: u64,
    },
    /// The firing for this time begins.
    Begin {
        /// The time for which it is made.
        at: Timestamp,
        /// The number of earlier times that are skipped, at most a thousand.
        skipped: u64,
    },
    /// The firing that has begun goes on.
    Continue(Firing),
}

/// Returns what is to be done at `now` for the schedule whose text is `plan`.
pub fn decide(
    progress: Option<&ScheduleProgress>,
    plan: &str,
    calendar: &impl Calendar,
    policy: FiringPolicy,
    now: Timestamp,
) -> FiringDecision {
    let Some(progress) = progress else { return FiringDecision::Restart };
    if let Some(firing) = &progress.under_way {
        // A firing that has begun is finished, so that not only some of the users get something of it.
        let expired = policy.expires_after.is_some_and(|life| now.since(firing.at) >= life);
        return if expired {
            FiringDecision::Skip { until: firing.at, times: 1 }
        } else {
            FiringDecision::Continue(firing.clone())
        };
    }
    if progress.plan != plan || progress.settled.since(now) > MAX_LEAD {
        return FiringDecision::Restart;
    }
    let Some(newest) = calendar.latest(now).filter(|newest| *newest > progress.settled) else {
        return FiringDecision::Wait(calendar.next(now.max(progress.settled)));
    };
    let earlier = count(calendar, progress.settled, newest);
    if policy.takes(now.since(newest)) {
        FiringDecision::Begin { at: newest, skipped: earlier }
    } else {
        FiringDecision::Skip { until: newest, times: earlier + 1 }
    }
}

/// Returns the number of times between these two, without both.
fn count(calendar: &impl Calendar, after: Timestamp, before: Timestamp) -> u64 {
    let mut at = after;
    let mut times = 0;
    while times < COUNTED
        && let Some(next) = calendar.next(at)
        && next < before
    {
        times += 1;
        at = next;
    }
    times
}

#[cfg(test)]
mod tests;
