//! The states of a destination's objects, and each operation's effect in them: the tables of docs/destinations.md,
//! against the doubles.

mod mailchimp;
mod stripe;
