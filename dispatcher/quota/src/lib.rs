//! Quotas: the limits of a destination's account, their division among the replicas that use it, and the limiter that
//! lets each call pass when it may be made.
//!
//! Decides only: no I/O, no clock, no async runtime. Times are passed in.

mod announced;
mod fair_queue;
mod headers;
mod lease;
mod limit;
mod limiter;
mod pacer;
#[cfg(test)]
mod properties;
mod share;

pub use announced::Announced;
pub use headers::RateLimitHeaders;
pub use lease::{CapBudget, CapShortage, QuotaLease, QuotaRequest};
pub use limit::{Cap, InvalidQuota, Pace, Quota, Span};
pub use limiter::{LimitedAccount, Limiter, NextGrant};
pub use share::{Demand, QuotaMember, share};

/// One in this many calls of a cap (calls a day, say) is reserved for urgent flows.
pub const CAP_RESERVE_DIVISOR: u32 = 10;
