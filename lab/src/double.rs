//! The part of a double that depends on the destination. Everything else (faults, limits, the memory of idempotency
//! keys, the ledger) is shared by all doubles and is in [`crate::fake_server`].

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use usher_proto::Timestamp;

use crate::answer::FakeResponse;
use crate::limits::RateWindow;
use crate::request::Request;

/// Retention of idempotency keys at Resend and Stripe.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Retention of idempotency keys at Nylas.
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// The name under which Usher attaches the Clerk user id to a request, in whatever field the destination offers for it:
/// Resend's tags, Stripe's metadata.
pub(crate) const USER: &str = "clerk_user_id";

/// The double of one destination.
pub(crate) trait Double: Send + Sync + 'static {
    /// Returns the name of the double: the first segment of its paths, and its name in the controls.
    fn name(&self) -> &'static str;

    /// Returns the hosts of the real service, where it is called through the double of `http`. One that begins with a full
    /// stop stands for all that end so.
    fn hosts(&self) -> &'static [&'static str] {
        &[]
    }

    /// Describes the request for the ledger. Refused requests are described too, as far as possible.
    fn describe(&self, request: &Request) -> EffectSubject;

    /// Checks the credentials of the caller. An error is the response to send.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), FakeResponse>;

    /// Finds the operation and checks its parameters. Has no effect itself; [`DoubleCall::run`] has. An error is the
    /// response to send.
    fn read(&self, request: &Request, now: Timestamp) -> Result<DoubleCall, FakeResponse>;

    /// Builds this provider's response to a refusal that the shared code has decided on.
    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse;

    /// Adds the headers that every response of this provider carries.
    fn finish(&self, _answer: &mut FakeResponse, _circumstances: Circumstances) {}
}

/// The subject of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct EffectSubject {
    /// The operation, such as `emails.send`. `None` if the provider has no such path.
    pub(crate) operation: Option<&'static str>,
    /// The Clerk user that the request concerns.
    pub(crate) user: Option<String>,
    /// The recipients' addresses, or the provider's equivalent of them.
    pub(crate) to: Option<String>,
}

/// A valid request, ready to run.
pub(crate) struct DoubleCall {
    /// The idempotency key under which the response is stored. `None` if the request has no key or the
    /// provider ignores it.
    pub(crate) key: Option<ExpiringKey>,
    /// True if the request changes state. A request that only reads is not recorded as an effect.
    pub(crate) changes: bool,
    /// Executes the request. It is synchronous, so that the effect and its entry in the ledger cannot be separated
    /// by a cancellation.
    pub(crate) run: Box<dyn FnOnce(Timestamp) -> FakeResponse + Send>,
}

/// An idempotency key, and its retention at this provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpiringKey {
    pub(crate) text: String,
    pub(crate) lasts: Duration,
}

/// A refusal that the shared code has decided on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DoubleRefusal<'a> {
    /// The rate limit is exceeded.
    Limited(RateWindow),
    /// The idempotency key was used with other parameters.
    KeyReused(&'a str),
    /// The first request with this idempotency key is still in flight.
    KeyInUse(&'a str),
    /// A fault replaces the response. If `name` is given, the provider's error of that name is used, documented or not.
    Fault { status: StatusCode, name: Option<&'a str>, retry_after: Option<u64> },
}

/// The facts on which the headers of a response depend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    /// True if the response is a replay of a stored one.
    pub(crate) replayed: bool,
    /// State of the rate limit. `None` if no limit is set or the request was refused before the limit was checked.
    pub(crate) quota: Option<RateWindow>,
}
