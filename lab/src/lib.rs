//! The destinations' doubles, and traffic as Clerk sends it: what one needs to see Usher work, and to break it on
//! purpose, without an account anywhere.
//!
//! [`Lab`] is a server. Behind `/resend`, `/stripe` and the rest stand doubles that authenticate, validate, remember
//! idempotency keys and limit as the real ones are documented to do; a mail
//! server listens on a port of its own. `/effects` and `/requests` show what they did,
//! `/faults` (one, or a list of several at once) and `/limits` make them misbehave, `/keys` makes them forget what they
//! were asked.
//! All state is in memory, bounded, and ends with the process: the newest effects and requests are kept, the rest is counted.
//!
//! [`traffic`] makes signed Clerk events and posts them.
//!
//! A further destination is one file beside `resend.rs` that implements `Double`, its `mod` line, and one line in the
//! list in `lab.rs`.

mod lab;
pub mod traffic;

mod control;
mod fake_server;

mod answer;
mod bounded;
mod double;
mod form;
mod request;

mod faults;
mod ledger;
mod limits;
mod memory;

mod resend;
mod smtp;
mod stripe;

mod algolia;
mod mailchimp;
mod novu;
mod nylas;
mod webhook;

mod ids;
mod locked;
mod settings;

pub use faults::{Fault, FaultInForce, InvalidFault};
pub use lab::{KEEP, Lab, LabHandle};
pub use ledger::{Counts, Entry, Filter};
pub use limits::{InvalidLimit, Limit};
pub use settings::settings;

/// A control names a double that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no double of {name:?}: it may be {}", known.join(" or "))]
pub struct UnknownProvider {
    /// The name asked for.
    pub name: String,
    /// The names there are.
    pub known: Vec<&'static str>,
}

/// A control cannot be set.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ControlError {
    /// For a double that is not there.
    #[error(transparent)]
    Provider(#[from] UnknownProvider),
    /// The fault makes no sense.
    #[error(transparent)]
    Fault(#[from] InvalidFault),
    /// The limit makes no sense.
    #[error(transparent)]
    Limit(#[from] InvalidLimit),
}

#[cfg(test)]
mod tests;
