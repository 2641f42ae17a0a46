//! The limiter of one account: which of the waiting calls may be made, and when.
//!
//! It decides only. Times are passed in: `now` is the time since boot, on a clock that also counts suspension. A waiting
//! call is a value of the caller, which gets it back when the call may be made.

#[cfg(test)]
mod tests;

use std::time::Duration;

use usher_proto::Timestamp;

use crate::fair_queue::FairQueue;
use crate::pacer::CallPacer;
use crate::{Announced, CapBudget, CapShortage, Demand, Pace, Quota, QuotaLease, QuotaRequest, RateLimitHeaders};

/// Approximate longest wait of a flow's calls here. A step that has begun and waits cannot be handed over to another
/// replica.
const LINE: Duration = Duration::from_secs(1);
/// A permit expected within this time is near.
const NEAR: Duration = Duration::from_secs(2);
/// Number of a flow's calls that may always wait.
const MIN_QUEUE: usize = 2;

/// An account with a quota, or one that may announce a limit, and how it is used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitedAccount {
    /// The account, or one part of it: `nylas`, `nylas/<mailbox>`.
    pub account: String,
    /// The account's name in the engine.
    pub destination: String,
    /// The configured quota.
    pub quota: Quota,
    /// True if the quota is only an assumption, which the limits announced by the destination override.
    pub assumed: bool,
    /// True if an urgent flow uses the account.
    pub serves_urgent: bool,
}

/// The calls of one account that wait, those in flight, and what limits them.
#[derive(Debug)]
pub struct Limiter<W> {
    account: LimitedAccount,
    /// The limits that the destination has announced.
    announced: Announced,
    waiting: FairQueue<W>,
    under_way: u32,
    /// End of the lease.
    until: Duration,
    max_concurrent: u32,
    pacer: CallPacer,
    /// The granted pace, and this process's part of it.
    paced: Option<(Pace, u32)>,
    /// Processes that use the account, this one included.
    sharers: u32,
    usual: CapBudget,
    urgent: CapBudget,
    short: CapShortage,
    /// True if a permit was issued since the lease was last renewed.
    busy: bool,
}

/// Next action of the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum NextGrant<W> {
    /// The call may be made now. The number is the call's at the pacer; `None` if calls are not counted.
    Grant(W, Option<u64>),
    /// To be asked again after this pause.
    In(Duration),
    /// Nothing to do until something changes.
    Later,
}

impl<W> Limiter<W> {
    /// Returns the limiter of an account for which nothing is granted yet.
    pub fn new(account: LimitedAccount) -> Self {
        Self {
            account,
            announced: Announced::default(),
            waiting: FairQueue::default(),
            under_way: 0,
            until: Duration::ZERO,
            max_concurrent: 0,
            pacer: CallPacer::default(),
            paced: None,
            sharers: 1,
            usual: CapBudget::default(),
            urgent: CapBudget::default(),
            short: CapShortage::default(),
            busy: false,
        }
    }

    /// Returns the account.
    pub fn account(&self) -> &LimitedAccount {
        &self.account
    }

    /// Returns true if the quota limits the number of concurrent calls.
    pub fn limits_concurrency(&self) -> bool {
        self.account.quota.max_concurrent.is_some()
    }

    /// Returns the number of waiting calls.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a call of a flow to those that wait.
    pub fn push(&mut self, flow: &str, urgent: bool, call: W) {
        self.waiting.push(flow, urgent, call);
    }

    /// Takes one call from the budget of the caps. Returns `None` while it is not known whether one is left; the error
    /// is the time until which none is. `today` is the store's time.
    pub fn take(&mut self, urgent: bool, today: Timestamp) -> Option<Result<(), Timestamp>> {
        if self.account.quota.caps.is_empty() {
            return Some(Ok(()));
        }
        let valid = |budget: &CapBudget| budget.calls > 0 && budget.until.is_none_or(|until| today < until);
        let budgets =
            if urgent { [Some(&mut self.urgent), Some(&mut self.usual)] } else { [Some(&mut self.usual), None] };
        let mut until = None;
        for (place, budget) in budgets.into_iter().flatten().enumerate() {
            if valid(budget) {
                budget.calls -= 1;
                return Some(Ok(()));
            }
            if place == 0 {
                until = budget.none_before.filter(|until| today < *until);
            }
        }
        if let Some(until) = until {
            return Some(Err(until));
        }
        if urgent {
            self.short.urgent = true
        } else {
            self.short.usual = true
        }
        None
    }

    /// Returns the next call that may be made, if it may be made now.
    pub fn next(&mut self, now: Duration) -> NextGrant<W> {
        if self.waiting.is_empty() || !self.may_send(now) {
            return NextGrant::Later;
        }
        if self.limits_concurrency() && self.under_way >= self.max_concurrent {
            return NextGrant::Later;
        }
        if let Err(pause) = self.may_begin(0, now) {
            return NextGrant::In(pause);
        }
        let number = match self.pacer.grant(now) {
            Ok(number) => number,
            Err(pause) => return NextGrant::In(pause),
        };
        let Some(call) = self.waiting.pop() else { return NextGrant::Later };
        self.announced.count(now);
        self.under_way += 1;
        self.busy = true;
        NextGrant::Grant(call, number)
    }

    /// Records that a call has ended. `measured`: true if the time until now is the destination's response time.
    pub fn ended(&mut self, number: Option<u64>, measured: bool, now: Duration) {
        self.under_way -= 1;
        if let Some(number) = number {
            self.pacer.ended(number, measured, now);
        }
    }

    /// Returns the request for the account's next lease.
    pub fn request(&mut self, now: Duration) -> QuotaRequest {
        let has_demand = !self.waiting.is_empty() || std::mem::take(&mut self.busy);
        let demand = match has_demand {
            _ if self.waiting.any_urgent() => Demand::Urgent,
            true => Demand::Normal,
            false => Demand::Idle,
        };
        QuotaRequest {
            account: self.account.account.clone(),
            quota: self.account.quota.clone(),
            demand,
            serves_urgent: self.account.serves_urgent,
            max_concurrent: if now < self.until { self.max_concurrent } else { 0 },
            under_way: self.under_way,
            announced: self.announced.pace(now),
            counts: self.announced.counts(now),
            assumed: self.account.assumed,
            short: self.short,
        }
    }

    /// Applies a lease of the store, which ends at `until`.
    pub fn granted(&mut self, request: &QuotaRequest, lease: &QuotaLease, until: Duration, now: Duration) {
        self.until = until;
        self.max_concurrent = lease.max_concurrent;
        self.paced = lease.pace;
        self.sharers = lease.sharers.max(1);
        self.pacer.share(lease.pace, now);
        if request.short.usual {
            self.usual = lease.usual;
        }
        if request.short.urgent {
            self.urgent = lease.urgent;
        }
        self.short = CapShortage::default();
    }

    /// Records the rate limit headers of an answer. Returns true if they change the pace: then the other processes need
    /// to learn of it, and this one needs its part of the new pace.
    pub fn observe(&mut self, headers: &RateLimitHeaders, now: Duration) -> bool {
        let before = self.announced.pace(now);
        let under_way = self.under_way.saturating_sub(1);
        self.announced.observe(headers, self.account.quota.pace.map(|pace| pace.per), under_way, now);
        self.announced.pace(now) != before
    }

    /// Returns the number of a flow's calls that may wait here: as many as are sent in about a second, or may be in
    /// flight at once.
    pub fn room(&self, now: Duration) -> usize {
        let in_line = self.is_paced(now).then(|| (self.pacer.per_second() * LINE.as_secs_f64()).ceil() as usize);
        let in_line = if self.announced.check(self.sharers, now).is_err() { Some(0) } else { in_line };
        let max_concurrent = self.account.quota.max_concurrent.map(|_| self.max_concurrent as usize);
        in_line.into_iter().chain(max_concurrent).min().map_or(usize::MAX, |room| room.max(MIN_QUEUE))
    }

    /// Returns true if, by all that is known, a call queued now gets its permit within two seconds.
    pub fn is_near(&self, now: Duration) -> bool {
        let open = !self.limits_concurrency() && self.may_begin(self.waiting.len(), now).is_ok();
        let line = (self.waiting.len() + 1) as f64;
        open && self.may_send(now) && line <= self.pacer.per_second() * NEAR.as_secs_f64()
    }

    /// Returns true if calls wait and the process may not send.
    pub fn is_starving(&self, now: Duration) -> bool {
        !self.waiting.is_empty() && !self.may_send(now)
    }

    /// Returns true if the process may send at all.
    pub fn may_send(&self, now: Duration) -> bool {
        let paced = self.is_paced(now);
        let limits_concurrency = self.limits_concurrency();
        // An account without any limit needs no lease.
        let leased = now < self.until || !(paced || limits_concurrency);
        let pace = !paced || self.paced.is_some_and(|(_, part)| part > 0);
        let may_run = !limits_concurrency || self.max_concurrent > 0;
        pace && may_run && leased
    }

    /// Returns true if there is a pace to keep: configured, announced to this process, or announced to another process.
    fn is_paced(&self, now: Duration) -> bool {
        let granted = self.paced.is_some() && now < self.until;
        self.account.quota.pace.is_some() || self.announced.pace(now).is_some() || granted
    }

    /// Checks if a call may begin behind `waiting` others, by what the destination has announced or may yet announce.
    /// The error is the pause until the next check.
    fn may_begin(&self, waiting: usize, now: Duration) -> Result<(), Duration> {
        self.announced.check(self.sharers, now)?;
        if self.is_paced(now) || self.limits_concurrency() {
            return Ok(());
        }
        let before = self.under_way.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX));
        self.announced.may_probe(before, now)
    }
}
