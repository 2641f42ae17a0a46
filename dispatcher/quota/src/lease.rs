//! Leases: what a process asks of the store for each account, and the share of the limits that it gets for a while.

use usher_proto::Timestamp;

use super::{Demand, Pace, Quota};

/// A process's request for a lease of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRequest {
    /// Name of the account.
    pub account: String,
    /// Limits for all processes together.
    pub quota: Quota,
    /// Current demand of the process.
    pub demand: Demand,
    /// True if an urgent flow of the process may need calls at any time.
    pub serves_urgent: bool,
    /// Number of concurrent calls that the process currently allows itself.
    pub max_concurrent: u32,
    /// Number of its calls in flight.
    pub under_way: u32,
    /// The pace that the destination has announced to the process.
    pub announced: Option<Pace>,
    /// True if the process counts calls of a longer window that was announced to it.
    pub counts: bool,
    /// True if the quota's pace is only assumed, and limits that the destination announces replace it.
    pub assumed: bool,
    /// Shortage of calls under the caps, for usual and for urgent flows.
    pub short: CapShortage,
}

/// Shortage of calls under the caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapShortage {
    /// True if calls for usual flows are short.
    pub usual: bool,
    /// True if calls for urgent flows are short.
    pub urgent: bool,
}

/// Limits of a process on one account until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuotaLease {
    /// The pace that all processes share, and this process's part of it in calls.
    pub pace: Option<(Pace, u32)>,
    /// Processes that use the account, this one included; 0 if they are not counted.
    pub sharers: u32,
    /// Largest number of calls in flight; without meaning if they are not limited.
    pub max_concurrent: u32,
    /// Calls under the caps, for usual flows.
    pub usual: CapBudget,
    /// Calls under the caps, for urgent flows.
    pub urgent: CapBudget,
}

/// Budget of calls under the caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapBudget {
    /// Calls left.
    pub calls: u32,
    /// Time until which they may be made.
    pub until: Option<Timestamp>,
    /// Time until which no calls are left, if none are left.
    pub none_before: Option<Timestamp>,
}
