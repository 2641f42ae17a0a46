//! The decisions of the dispatcher, without input or output: `(state, input, now) -> (state, steps)`.
//!
//! Depends on no runtime, log, database, network or clock; `now` is a parameter. `delivery` carries out the steps
//! and reports their results as inputs. A simulation drives the engine through everything that can happen to a
//! group of replicas.

pub mod arrival;
pub mod breaker;
pub mod change;
pub mod clock;
pub mod destinations;
pub mod field_diff;
pub mod firing;
pub mod held;
pub mod input;
pub mod isolate;
pub mod outcome;
pub mod retry;
pub mod run;
pub mod start;
pub mod step;
pub mod story;

mod ahead;
mod catch_up;
mod lanes;
mod machine;
mod partitions;
pub mod storable;

pub use catch_up::{Seen, Unread};
pub use change::{Change, ChangeKind, Changed, StepEffect};
pub use destinations::{DestinationReport, Destinations, TroubledDestination, account};
pub use held::SkipReason;
pub use input::{AheadPage, CatchUpTarget, Input, NextStep, StepReport};
pub use machine::{Counts, Engine, FOUND_AT_ONCE, FlowLimits, dead_letter_change};
pub use outcome::{Cause, Effect, Outcome};
pub use retry::RetryPolicy;
pub use run::{AttemptState, Run, RunState};
pub use step::{AheadRange, LogCommand, Step, StoreRead, StoreRequest, StoreWrite};
pub use story::{AttemptSeen, DestinationAnswer, NotCalled, StoryEntry};

#[cfg(test)]
mod properties;

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "SEED, INPUTS and TRACE choose what is simulated, and how much takes how long"
)]
mod simulation;
