//! Traffic in the form that Clerk and other senders send: events about generated people, signed as their sender signs
//! them, posted at a given rate.
//!
//! A [`Template`] is one event, built in or given by the user. A [`Generator`] makes many events from it, about many
//! people, from a seed. [`send`] signs and posts them and reports the result of each. This module neither prints nor
//! retries; the recovery of a lost delivery can be observed in the event log behind the receiver.

mod person;
mod rewrite;
mod template;

mod generator;
mod signed;

mod report;
mod sender;

pub use generator::{GeneratedEvent, Generator};
pub use report::{Latency, Reply, SentEvent, TrafficReport};
/// The type of a receiver's URL.
pub use reqwest::Url;
pub use sender::{SendError, SentCount, TrafficPlan, send};
pub use signed::{InvalidTrafficSecret, TrafficSecret};
pub use template::{InvalidTemplate, Template};
/// Names of the built-in events of Clerk.
pub use usher_clerk::samples::names as sample_names;

/// Returns the names of all built-in events: those of Clerk, and those of other senders after their source and a slash.
pub fn all_sample_names() -> Vec<String> {
    sample_names().into_iter().map(str::to_owned).chain(usher_senders::samples::names()).collect()
}
