//! What a destination's double has to know itself. Everything else (faults, limits, the memory of idempotency keys, the
//! record of what happened) is the same for all and stands in [`crate::server`].

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use usher_proto::Timestamp;

use crate::answer::Answer;
use crate::limits::Quota;
use crate::request::Request;

/// How long Resend and Stripe remember an idempotency key.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long Nylas remembers one.
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// What Usher calls the Clerk user in whatever a destination lets it attach: Resend's tags, Stripe's metadata.
pub(crate) const USER: &str = "clerk_user_id";

/// The double of one destination.
pub(crate) trait Double: Send + Sync + 'static {
    /// The first segment of its paths, and its name in the controls.
    fn name(&self) -> &'static str;

    /// What the request is about, for the record. Refused requests are described too, as far as they can be.
    fn describe(&self, request: &Request) -> Subject;

    /// Whether the caller may ask at all.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), Answer>;

    /// Finds the operation and checks its parameters. Without effect: that is left to [`Call::run`].
    fn read(&self, request: &Request, now: Timestamp) -> Result<Call, Answer>;

    /// This provider's words for a refusal that the shared machinery has decided.
    fn refuse(&self, refusal: Refusal<'_>) -> Answer;

    /// Adds what stands on every answer of this provider.
    fn finish(&self, _answer: &mut Answer, _circumstances: Circumstances) {}
}

/// What a request is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    /// `emails.send`; none where the provider has no such path.
    pub(crate) operation: Option<&'static str>,
    /// The Clerk user whom it concerns.
    pub(crate) user: Option<String>,
    /// The addresses it goes to.
    pub(crate) to: Option<String>,
}

/// A request that was found valid, ready to run.
pub(crate) struct Call {
    /// The key to remember the answer by, where the provider honours one here.
    pub(crate) key: Option<Key>,
    /// Whether it changes anything: what only reads is no effect.
    pub(crate) changes: bool,
    /// Does it. Never waits, so effect and record cannot come apart.
    pub(crate) run: Box<dyn FnOnce(Timestamp) -> Answer + Send>,
}

/// An idempotency key, and how long this provider remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) lasts: Duration,
}

/// What the shared machinery refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal<'a> {
    /// More requests in a second than the limit lets through.
    Limited(Quota),
    /// The idempotency key was used with other parameters.
    KeyReused(&'a str),
    /// The first request with this idempotency key still runs.
    KeyInUse(&'a str),
    /// A fault answers. With a name, the provider's error of that name, known or not.
    Fault { status: StatusCode, name: Option<&'a str>, retry_after: Option<u64> },
}

/// What an answer's headers depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    /// The answer comes from memory.
    pub(crate) replayed: bool,
    /// What is left of the limit, where one is set and was asked.
    pub(crate) quota: Option<Quota>,
}
