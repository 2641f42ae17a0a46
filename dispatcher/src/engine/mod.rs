//! The decisions of the dispatcher, without input or output: `(state, input, now) -> (state, steps)`.
//!
//! Knows no runtime, no log, no database, no network and no clock; `now` is a parameter. What it says is carried out by
//! `delivery`, which tells it what came of it.

pub mod outcome;
pub mod retry;
pub mod run;
pub mod start;

pub mod lanes;

mod machine;

pub use machine::{Engine, Input, Limits, Report, Settlement, Step};
pub use outcome::{Cause, Effect, Outcome};
pub use retry::RetryPolicy;
pub use run::{Run, RunState};
