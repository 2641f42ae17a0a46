//! The senders of webhooks, one file each: the form of the signature, and the position of the key and the time.

mod body;
mod svix;

pub mod clerk;
pub mod resend;

use axum::http::HeaderMap;
use bytes::Bytes;
use usher_proto::{Event, Source, Timestamp};

use crate::config::IngestConfig;
use crate::error::Refusal;

/// One sender. A new sender needs a file beside this one and a line in [`Senders::new`].
pub(crate) trait Sender: Send + Sync {
    /// The source of this sender's events.
    fn source(&self) -> Source;

    /// Refuses a request on the basis of its headers, before the body is read.
    ///
    /// # Errors
    ///
    /// The instance has no secret, or a header of the signature is missing, malformed or out of time.
    fn check_head(&self, instance: &str, headers: &HeaderMap, now: Timestamp) -> Result<(), Refusal>;

    /// Verifies the request and creates its event. The body is kept unchanged.
    ///
    /// # Errors
    ///
    /// The signature does not match, or the body is malformed.
    fn accept(&self, instance: &str, headers: &HeaderMap, body: Bytes, now: Timestamp) -> Result<Event, Refusal>;
}

/// All configured senders.
pub(crate) struct Senders(Vec<Box<dyn Sender>>);

impl Senders {
    pub(crate) fn new(config: &IngestConfig) -> Self {
        let resend = config.resend.clone().map(|resend| Box::new(resend) as Box<dyn Sender>);
        Self([Some(Box::new(config.clerk.clone()) as Box<dyn Sender>), resend].into_iter().flatten().collect())
    }

    /// Returns the configured sources.
    pub(crate) fn sources(&self) -> Vec<Source> {
        self.0.iter().map(|sender| sender.source()).collect()
    }

    pub(crate) fn find(&self, source: &str) -> Option<&dyn Sender> {
        self.0.iter().find(|sender| sender.source().label() == source).map(Box::as_ref)
    }
}
