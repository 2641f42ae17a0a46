//! The senders of webhooks, one file each: how one signs, and where its key and its time are.

mod body;
mod subject;
mod svix;

pub mod clerk;
pub mod resend;

use axum::http::HeaderMap;
use bytes::Bytes;
use usher_proto::{Event, Source, Timestamp};

use crate::config::Config;
use crate::error::Refusal;

/// One sender. Adding one costs a file beside this and a line in [`Senders::new`].
pub(crate) trait Sender: Send + Sync {
    /// Who it is.
    fn source(&self) -> Source;

    /// What can be refused before the body is read.
    fn check_head(&self, instance: &str, headers: &HeaderMap, now: Timestamp) -> Result<(), Refusal>;

    /// Verifies the whole and reads what an event needs from it; the body stays as it is.
    fn accept(&self, instance: &str, headers: &HeaderMap, body: Bytes, now: Timestamp) -> Result<Event, Refusal>;
}

/// All senders that are configured.
pub(crate) struct Senders(Vec<Box<dyn Sender>>);

impl Senders {
    pub(crate) fn new(config: &Config) -> Self {
        let resend = config.resend.clone().map(|resend| Box::new(resend) as Box<dyn Sender>);
        Self([Some(Box::new(config.clerk.clone()) as Box<dyn Sender>), resend].into_iter().flatten().collect())
    }

    pub(crate) fn find(&self, source: &str) -> Option<&dyn Sender> {
        self.0.iter().find(|sender| sender.source().label() == source).map(Box::as_ref)
    }
}
