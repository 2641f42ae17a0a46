//! The senders of webhooks, one file each: the form of the signature, and the position of the key and the time.

mod body;
mod head;
mod pointer;
pub(crate) mod secrets;
mod svix;

pub mod clerk;
pub mod nylas;
pub mod resend;
pub mod standard;
pub mod stripe;

use axum::http::HeaderMap;
use bytes::Bytes;
use usher_proto::{Event, Source, Timestamp};

use crate::config::IngestConfig;
use crate::error::Refusal;

/// One sender. A new sender needs a file beside this one and a line in [`Senders::new`].
pub(crate) trait Sender: Send + Sync {
    /// The source of this sender's events.
    fn source(&self) -> Source;

    /// Returns the time that a request says it was signed at, in seconds since 1970. `None` if the sender signs no time.
    fn signed_at(&self, headers: &HeaderMap) -> Option<i64>;

    /// True if a GET request with a challenge at this instance is answered with the challenge.
    fn answers_challenges(&self, _instance: &str) -> bool {
        false
    }

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
        let mut senders: Vec<Box<dyn Sender>> = vec![Box::new(config.clerk.clone())];
        senders.extend(config.resend.clone().map(|resend| Box::new(resend) as _));
        senders.extend(config.stripe.clone().map(|stripe| Box::new(stripe) as _));
        senders.extend(config.nylas.clone().map(|nylas| Box::new(nylas) as _));
        senders.extend(config.standard.iter().cloned().map(|sender| Box::new(sender) as _));
        Self(senders)
    }

    /// Returns the configured sources.
    pub(crate) fn sources(&self) -> Vec<Source> {
        self.0.iter().map(|sender| sender.source()).collect()
    }

    pub(crate) fn find(&self, source: &str) -> Option<&dyn Sender> {
        self.0.iter().find(|sender| sender.source().label() == source).map(Box::as_ref)
    }
}
