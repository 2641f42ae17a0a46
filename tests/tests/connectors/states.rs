//! What a destination's object is, and what each operation makes of it then: the tables of docs/destinations.md, against
//! the doubles.

mod mailchimp;
mod stripe;
