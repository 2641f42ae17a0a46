//! Doubles of the destinations, and traffic in the form that Clerk sends. With the lab, Usher can be run, and broken on
//! purpose, without an account at any provider.
//!
//! [`Lab`] is a server. Each path prefix (`/resend`, `/stripe` and so on) is a double that authenticates, validates,
//! remembers idempotency keys and limits the rate as the real service is documented to do. A mail server listens on a
//! separate port. `/effects` and `/requests` list what the doubles did and received. `/faults` (one fault or a list)
//! and `/limits` make a double misbehave. `/keys` makes it forget its idempotency keys.
//!
//! All state is in memory, bounded, and lost with the process. The newest effects and requests are stored; older ones
//! are only counted.
//!
//! [`traffic`] generates signed Clerk events and posts them.
//!
//! Another destination needs one file beside `resend.rs` that implements `Double`, its `mod` line, and one line in the
//! list in `lab.rs`; a service that is called by `http.request`, `ReceiverRules` as in `slack.rs`.

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
mod clerk;
mod mailchimp;
mod novu;
mod nylas;
mod webhook;

mod receiver;

mod customer_io;
mod discord;
mod hubspot;
mod loops;
mod posthog;
mod segment;
mod slack;
mod teams;

mod ids;
mod locked;
mod settings;

pub use faults::{Fault, FaultInForce, InvalidFault};
pub use lab::{KEEP, Lab, LabHandle};
pub use ledger::{Entry, Filter, LedgerCounts};
pub use limits::{InvalidLimit, Limit};
pub use settings::settings;

/// Error of a control call that names a double which does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no double of {name:?}: it may be {}", known.join(" or "))]
pub struct UnknownProvider {
    /// The requested name.
    pub name: String,
    /// The names of all doubles.
    pub known: Vec<&'static str>,
}

/// Error of a control call that sets a fault or a limit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ControlError {
    /// There is no double of that name.
    #[error(transparent)]
    Provider(#[from] UnknownProvider),
    /// The fault is invalid.
    #[error(transparent)]
    Fault(#[from] InvalidFault),
    /// The limit is out of range.
    #[error(transparent)]
    Limit(#[from] InvalidLimit),
}

#[cfg(test)]
mod tests;
