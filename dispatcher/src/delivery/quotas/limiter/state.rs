//! What a limiter knows of its account, and its decision on the next permit.

use std::time::Duration;

use tokio::sync::oneshot;
use usher_service::clock;

use super::super::QuotaError;
use super::super::fair_queue::FairQueue;
use super::super::pace::CallPacer;
use super::CallPermit;
use crate::engine::quota::{Announced, Pace, Quota};
use crate::store::{CapBudget, CapShortage};

pub(super) struct LimiterState {
    /// The quota. Only the presence of a pace and of a concurrency limit, and the caps, are read from it here.
    pub(super) quota: Quota,
    /// The limits that the destination has announced.
    pub(super) announced: Announced,
    /// True if a header that cannot be read was logged.
    pub(super) unreadable_logged: bool,
    pub(super) waiting: FairQueue<oneshot::Sender<CallPermit>>,
    pub(super) under_way: u32,
    /// End of the lease, as time since boot.
    pub(super) until: Duration,
    pub(super) max_concurrent: u32,
    pub(super) pacer: CallPacer,
    /// The granted pace, and this process's part of it.
    pub(super) paced: Option<(Pace, u32)>,
    /// Processes that use the account, this one included.
    pub(super) sharers: u32,
    pub(super) usual: CapBudget,
    pub(super) urgent: CapBudget,
    pub(super) short: CapShortage,
    /// True if a permit was issued since the lease was last renewed.
    pub(super) busy: bool,
}

/// Next action of the loop that hands out permits.
pub(super) enum NextGrant {
    Grant(oneshot::Sender<CallPermit>, Option<u64>),
    In(Duration),
    /// Nothing to do until something changes.
    Later,
}

impl LimiterState {
    /// Takes one call from the budget of the caps. Returns `None` while it is not known whether one is left.
    pub(super) fn take(&mut self, urgent: bool) -> Option<Result<(), QuotaError>> {
        if self.quota.caps.is_empty() {
            return Some(Ok(()));
        }
        let now = clock::now();
        let valid = |budget: &CapBudget| budget.calls > 0 && budget.until.is_none_or(|until| now < until);
        let budgets =
            if urgent { [Some(&mut self.urgent), Some(&mut self.usual)] } else { [Some(&mut self.usual), None] };
        let mut until = None;
        for (place, budget) in budgets.into_iter().flatten().enumerate() {
            if valid(budget) {
                budget.calls -= 1;
                return Some(Ok(()));
            }
            if place == 0 {
                until = budget.none_before.filter(|until| now < *until);
            }
        }
        if let Some(until) = until {
            return Some(Err(QuotaError::Exhausted(until)));
        }
        if urgent {
            self.short.urgent = true
        } else {
            self.short.usual = true
        }
        None
    }

    /// Returns true if the process may send at all.
    pub(super) fn has_something(&self) -> bool {
        let now = clock::since_boot();
        let paced = self.is_paced(now);
        let limits_concurrency = self.quota.max_concurrent.is_some();
        // An account without any limit needs no lease.
        let leased = now < self.until || !(paced || limits_concurrency);
        let pace = !paced || self.paced.is_some_and(|(_, part)| part > 0);
        let may_run = !limits_concurrency || self.max_concurrent > 0;
        pace && may_run && leased
    }

    /// Returns true if there is a pace to keep: configured, announced to this process, or announced to another process.
    pub(super) fn is_paced(&self, now: Duration) -> bool {
        let granted = self.paced.is_some() && now < self.until;
        self.quota.pace.is_some() || self.announced.pace(now).is_some() || granted
    }

    /// Checks if a call may begin behind `waiting` others, by what the destination has announced or may yet announce.
    /// The error is the pause until the next check.
    pub(super) fn may_begin(&self, waiting: usize, now: Duration) -> Result<(), Duration> {
        self.announced.check(self.sharers, now)?;
        if self.is_paced(now) || self.quota.max_concurrent.is_some() {
            return Ok(());
        }
        let before = self.under_way.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX));
        self.announced.may_probe(before, now)
    }

    pub(super) fn next(&mut self) -> NextGrant {
        let now = clock::since_boot();
        if self.waiting.is_empty() || !self.has_something() {
            return NextGrant::Later;
        }
        if self.quota.max_concurrent.is_some() && self.under_way >= self.max_concurrent {
            return NextGrant::Later;
        }
        if let Err(pause) = self.may_begin(0, now) {
            return NextGrant::In(pause);
        }
        let number = match self.pacer.grant(now) {
            Ok(number) => number,
            Err(pause) => return NextGrant::In(pause),
        };
        let Some(who) = self.waiting.pop() else { return NextGrant::Later };
        self.announced.count(now);
        self.under_way += 1;
        self.busy = true;
        NextGrant::Grant(who, number)
    }
}
