//! Effects of each operation in each state of a destination's objects: the tables of `docs/destinations.md`, tested
//! against the doubles.

mod mailchimp;
mod novu;
mod resend;
mod stripe;
