//! Traffic as Clerk sends it: events of invented people, signed as Svix signs them, posted at a rate.
//!
//! A [`Template`] is one event, built in or the user's own. A [`Generator`] makes many of it, for many people, from a
//! seed. [`send`] signs and posts them and reports what came of each. Nothing here prints, and nothing tries again:
//! who wants to know how a lost delivery is made up for, watches the log behind the receiver.

mod person;
mod rewrite;
mod template;

mod generator;
mod signed;

mod report;
mod sender;

/// Names of the built-in events.
pub use usher_proto::samples::names as sample_names;

/// Where to send to.
pub use reqwest::Url;

pub use generator::{Event, Generator};
pub use report::{Latency, Reply, Report, Sent};
pub use sender::{Order, SendError, send};
pub use signed::SignedRequest;
pub use template::{InvalidTemplate, Template};
