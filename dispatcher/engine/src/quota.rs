//! Quotas: the limits of a destination's account, and their division among the replicas that use it.

mod announced;
mod limit;
mod share;

pub use announced::{Announced, RateLimitHeaders};
pub use limit::{Cap, InvalidQuota, Pace, Quota, Span};
pub use share::{Demand, QuotaMember, share};

/// One in this many calls of a cap (calls a day, say) is reserved for urgent flows.
pub const CAP_RESERVE_DIVISOR: u32 = 10;
