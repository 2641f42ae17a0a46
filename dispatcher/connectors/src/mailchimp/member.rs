//! A member of an audience: its id, its path and its state.

use md5::{Digest as _, Md5};
use usher_engine::{Cause, Outcome};

use crate::PrepareError;
use crate::client::HttpAnswer;
use crate::path::Path;

/// State of a member. A permanently erased member looks like one that never existed, until Mailchimp refuses to create
/// a member for the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberState {
    /// Receives mail.
    Subscribed,
    /// Has unsubscribed.
    Unsubscribed,
    /// Mail to the address has bounced.
    Cleaned,
    /// Was asked to confirm and has not answered.
    Pending,
    /// A customer who was never asked to subscribe.
    Transactional,
    /// Removed from the audience. Mailchimp does not report the state before.
    Archived,
}

impl MemberState {
    /// States that a request can set: all except the one that only archiving leads to.
    pub(super) const SETTABLE: [Self; 5] =
        [Self::Subscribed, Self::Unsubscribed, Self::Cleaned, Self::Pending, Self::Transactional];

    /// Returns Mailchimp's name for the state.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Subscribed => "subscribed",
            Self::Unsubscribed => "unsubscribed",
            Self::Cleaned => "cleaned",
            Self::Pending => "pending",
            Self::Transactional => "transactional",
            Self::Archived => "archived",
        }
    }

    /// Reads the state from an answer. An answer without a known state was cut off in transit.
    pub(super) fn of(answer: &HttpAnswer) -> Result<Self, Outcome> {
        let body = answer.json();
        let known = Self::SETTABLE.into_iter().chain([Self::Archived]);
        let mut found = known.filter(|state| body["status"] == state.label());
        found.next().ok_or_else(|| Outcome::retry(Cause::Interrupted))
    }
}

/// Returns the member's id: the MD5, in lower-case hex, of the address in lower case. Mailchimp does not document how
/// letters beyond ASCII are lower-cased; Unicode's rule is the most likely one.
pub(super) fn subscriber_hash(email: &str) -> String {
    hex::encode(Md5::digest(email.to_lowercase().as_bytes()))
}

/// Returns the path of an audience.
pub(super) fn list_path(list: &str) -> Result<Path, PrepareError> {
    Path::of("/3.0/lists").segment("list", list)
}

/// Returns the path of a member.
pub(super) fn member_path(list: &str, hash: &str) -> Result<Path, Outcome> {
    Ok(list_path(list)?.then("/members").segment("member", hash)?)
}
