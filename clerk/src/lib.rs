//! Clerk's payloads: the only code that knows where Clerk puts what. Everything is read leniently and partly: a value
//! that is not asked for may be of any type, and cannot keep the others from being read.
//!
//! Pure, like `usher-proto`. Signatures are not Clerk's own but those of Svix, and are verified by the ingest.

mod key;
mod user;

pub mod event_types;
pub mod samples;
pub mod test_recipients;

pub use key::{is_id, is_user_id, key};
pub use user::{fields, name, primary_address, primary_email, primary_phone, snapshot, updated_at, user_id};
