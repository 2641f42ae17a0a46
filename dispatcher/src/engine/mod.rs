//! The decisions of the dispatcher, without input or output: `(state, input, now) -> (state, steps)`.
//!
//! Knows no runtime, no log, no database, no network and no clock; `now` is a parameter. What it says is carried out by
//! `delivery`, which tells it what came of it. A simulation drives it through whatever can happen to a group of replicas.

pub mod arrival;
pub mod breaker;
pub mod change;
pub mod clock;
pub mod destinations;
pub mod held;
pub mod input;
pub mod outcome;
pub mod quota;
pub mod retry;
pub mod run;
pub mod start;
pub mod step;

mod catch_up;
mod lanes;
mod machine;
mod partitions;
pub(crate) mod storable;

pub use catch_up::{Seen, Unread};
pub use change::{Change, ChangeKind, Changed, StepEffect};
pub use destinations::{Destinations, News, account};
pub use held::SkipReason;
pub use input::{Given, Input, Looked, Next, Report};
pub use machine::{Engine, FOUND_AT_ONCE, Limits, Numbers, dead_letter_change};
pub use outcome::{Cause, Effect, Outcome};
pub use retry::RetryPolicy;
pub use run::{AttemptState, Run, RunState};
pub use step::Step;

#[cfg(test)]
mod simulation;
