//! The contract between the writers and the readers of the log: events, their keys, their headers and topics,
//! and their signatures.
//!
//! Everything here is pure: no I/O, no clock, no environment, no async runtime. `now` is always a parameter.

pub mod json;
pub mod time;

pub mod event;
pub mod headers;
pub mod identity;
pub mod instance;
pub mod key;
pub mod offset;
pub mod ownership;
pub mod partition;
pub mod record;
pub mod snapshot;
pub mod source;
pub mod subject_key;
pub mod topics;
pub mod trace_parent;

pub mod reason;
pub mod signature;
pub mod text_signature;

pub mod address;
pub mod suppression;
pub mod unsubscribe;

pub mod visible;

pub use address::{AddressDigest, Mailbox};
pub use event::{Event, EventId};
pub use identity::{EventRef, SubjectId};
pub use instance::Instance;
pub use json::Json;
pub use key::Key;
pub use offset::Offset;
pub use ownership::{AssignedPartition, Assignment, Epoch};
pub use partition::Partition;
pub use reason::Reason;
pub use record::Record;
pub use snapshot::{Snapshot, Subject};
pub use source::{SenderName, Source};
pub use time::Timestamp;
pub use topics::Topics;
pub use trace_parent::TraceParent;
