//! Quotas: what a destination's account may be asked, and how replicas that use it share that.

mod announced;
mod limit;
mod share;

pub use announced::{Announced, RateLimitHeaders};
pub use limit::{BadLimit, Cap, Pace, Quota, Span};
pub use share::{Demand, Member, share};

/// What part of a cap (calls a day, say) is kept for urgent flows: one in so many.
pub const RESERVE_OF_CAP: u32 = 10;
