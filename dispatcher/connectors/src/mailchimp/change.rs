//! Carries out the operations on a member in every state of the member. docs/destinations.md has the same as a table.
//!
//! Sources: mailchimp.com/developer/marketing (list members, member tags), and reports of its users:
//! - DELETE of a pending, cleaned or archived member is answered with 405: amro/gibbon#320;
//! - `status_if_new` leaves an archived member archived: mailchimp/mc-woocommerce#951; a `status` restores the member,
//!   and Mailchimp does not report the state before the archiving: stackoverflow.com/questions/63584277;
//! - an address can be changed in place for subscribed members only (ibericode/mailchimp-user-sync#96), and not to an
//!   address that already has a member, even an archived one (brandonseydel/MailChimp.Net#201);
//! - `tags` of a PUT have no effect on existing members: ibericode/mailchimp-for-wordpress#674,
//!   VingtCinq/python-mailchimp#203.
//!
//! Each operation has the same result when it is repeated from its beginning, so a repeat after a crash needs no key.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use super::super::client::HttpAnswer;
use super::super::path::Path;
use super::{Mailchimp, classify, of_list};
use crate::CallGate;

/// A request as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MemberChange {
    pub(super) operation: String,
    pub(super) list: String,
    /// Id of the member.
    pub(super) hash: String,
    /// Exact body; absent for operations without one.
    pub(super) body: Option<String>,
    /// Id that the member had before the address changed; absent if it has not changed.
    #[serde(default)]
    pub(super) former: Option<String>,
    /// Body that adds tags to the member; absent if there are none.
    #[serde(default)]
    pub(super) tags: Option<String>,
}

/// State of a member. A permanently erased member looks like one that never existed, until Mailchimp refuses to create
/// a member for the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
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

impl State {
    /// States that a request can set: all except the one that only archiving leads to.
    pub(super) const SAYABLE: [Self; 5] =
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
    fn of(answer: &HttpAnswer) -> Result<Self, Outcome> {
        let body = answer.json();
        let known = Self::SAYABLE.into_iter().chain([Self::Archived]);
        let mut found = known.filter(|state| body["status"] == state.label());
        found.next().ok_or_else(|| Outcome::retry(Cause::Interrupted))
    }
}

/// Returns the body that adds these tags to a member.
pub(super) fn tags<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let tags: Vec<Value> = names.into_iter().map(|name| json!({ "name": name, "status": "active" })).collect();
    json!({ "tags": tags }).to_string()
}

/// Returns the path of a member.
fn of_member(list: &str, hash: &str) -> Result<Path, Outcome> {
    Ok(of_list(list)?.then("/members").segment("member", hash)?)
}

fn done(hash: &str, status: &str) -> Outcome {
    Outcome::Done(Effect::new(hash, json!({ "status": status })))
}

impl Mailchimp {
    /// Creates or updates the member. An archived member is restored; one to be subscribed is asked to confirm first, and a member whose address has
    /// changed keeps the data of the old address.
    pub(super) async fn put(&self, change: &MemberChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        let unreadable = || Outcome::reject(Reason::FlowChanged, "the stored request cannot be read");
        let text = change.body.as_deref().ok_or_else(unreadable)?;
        let mut body: Value = serde_json::from_str(text).map_err(|_| unreadable())?;
        if let Some(former) = &change.former {
            match self.state(&change.list, former, gate).await? {
                Some(State::Subscribed) => {
                    if let Some(state) = self.change_address(change, former, &body, gate).await? {
                        self.tag(change, gate).await?;
                        let result = json!({ "status": state.label(), "moved": true });
                        return Ok(Outcome::Done(Effect::new(&change.hash, result)));
                    }
                }
                // The same person has already unsubscribed at the former address.
                Some(State::Unsubscribed) => body["status_if_new"] = json!(State::Unsubscribed.label()),
                Some(State::Cleaned | State::Pending | State::Transactional | State::Archived) | None => {}
            }
        }
        let mut state = self.write(change, &body, gate).await?;
        if state == State::Archived {
            // Mailchimp does not report a refusal from before the archiving, so the member is asked to confirm and not
            // subscribed directly.
            let subscribed = body["status_if_new"] == State::Subscribed.label();
            body["status"] = if subscribed { json!(State::Pending.label()) } else { body["status_if_new"].clone() };
            state = self.write(change, &body, gate).await?;
        }
        if state == State::Archived {
            return Err(Outcome::reject(Reason::InvalidRequest, "200 archived"));
        }
        self.tag(change, gate).await?;
        Ok(done(&change.hash, state.label()))
    }

    async fn write(&self, change: &MemberChange, body: &Value, gate: &CallGate) -> Result<State, Outcome> {
        // Without this parameter, a field that the audience requires would cause the refusal of members without it.
        let path = of_member(&change.list, &change.hash)?.query("skip_merge_validation", "true");
        let answer = self.ask(Method::PUT, path, Some(body.to_string()), gate).await?;
        if answer.status.is_success() { State::of(&answer) } else { Err(classify(&answer)) }
    }

    /// Changes the address of the member at the former address and returns the state. Returns `None` if Mailchimp does
    /// not do that: the new address has a member, or the state has changed meanwhile.
    async fn change_address(
        &self,
        change: &MemberChange,
        former: &str,
        body: &Value,
        gate: &CallGate,
    ) -> Result<Option<State>, Outcome> {
        let path = of_member(&change.list, former)?.query("skip_merge_validation", "true");
        let mut changes = body.clone();
        if let Some(fields) = changes.as_object_mut() {
            fields.remove("status_if_new");
        }
        let answer = self.ask(Method::PATCH, path, Some(changes.to_string()), gate).await?;
        match answer.status.as_u16() {
            200..=299 if answer.json()["id"] == change.hash.as_str() => State::of(&answer).map(Some),
            200..=299 | 400 | 404 => Ok(None),
            _ => Err(classify(&answer)),
        }
    }

    async fn tag(&self, change: &MemberChange, gate: &CallGate) -> Result<(), Outcome> {
        if let Some(tags) = &change.tags {
            let path = of_member(&change.list, &change.hash)?.then("/tags");
            let answer = self.ask(Method::POST, path, Some(tags.clone()), gate).await?;
            if !answer.status.is_success() {
                return Err(classify(&answer));
            }
        }
        Ok(())
    }

    /// Unsubscribes a member who may receive mail. A member who receives none is left unchanged, because the new state
    /// would contain less information.
    pub(super) async fn unsubscribe(&self, change: &MemberChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        match self.state(&change.list, &change.hash, gate).await? {
            None => Ok(done(&change.hash, "absent")),
            Some(state @ (State::Unsubscribed | State::Cleaned | State::Archived)) => {
                Ok(done(&change.hash, state.label()))
            }
            Some(State::Subscribed | State::Pending | State::Transactional) => {
                Ok(done(&change.hash, self.say_unsubscribed(change, gate).await?.label()))
            }
        }
    }

    /// Sends a PATCH, because a PUT would create a member where there is none.
    async fn say_unsubscribed(&self, change: &MemberChange, gate: &CallGate) -> Result<State, Outcome> {
        let body = json!({ "status": State::Unsubscribed.label() }).to_string();
        let answer = self.ask(Method::PATCH, of_member(&change.list, &change.hash)?, Some(body), gate).await?;
        if answer.status.is_success() { State::of(&answer) } else { Err(classify(&answer)) }
    }

    /// Archives the member, so that the person can come back. A permanent erasure would also prevent that.
    pub(super) async fn archive(&self, change: &MemberChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        let delete = async || self.ask(Method::DELETE, of_member(&change.list, &change.hash)?, None, gate).await;
        let mut answer = delete().await?;
        if matches!(answer.status.as_u16(), 404 | 405) {
            match self.state(&change.list, &change.hash, gate).await? {
                None => return Ok(done(&change.hash, "absent")),
                Some(state @ (State::Archived | State::Cleaned)) => return Ok(done(&change.hash, state.label())),
                Some(State::Pending) => {
                    self.say_unsubscribed(change, gate).await?;
                    answer = delete().await?;
                }
                // The member confirmed or was added between the two requests.
                Some(State::Subscribed | State::Unsubscribed | State::Transactional) => {
                    return Err(answer.retry(Cause::Conflict));
                }
            }
        }
        if answer.status.is_success() { Ok(done(&change.hash, "deleted")) } else { Err(classify(&answer)) }
    }

    /// Returns the state of a member, or `None` if there is no such member. A 404 may also refer to the list, and a
    /// missing list must not look like completed work.
    async fn state(&self, list: &str, hash: &str, gate: &CallGate) -> Result<Option<State>, Outcome> {
        let answer = self.ask(Method::GET, of_member(list, hash)?.query("fields", "status"), None, gate).await?;
        match answer.status.as_u16() {
            200..=299 => State::of(&answer).map(Some),
            404 => {
                let answer = self.ask(Method::GET, of_list(list)?.query("fields", "id"), None, gate).await?;
                if answer.status.is_success() { Ok(None) } else { Err(classify(&answer)) }
            }
            _ => Err(classify(&answer)),
        }
    }
}
