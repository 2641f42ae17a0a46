//! Carrying out what is asked of a member, whatever state the member is in. docs/destinations.md has the same as a
//! table.
//!
//! Sources: mailchimp.com/developer/marketing (list members, member tags), and reports of those who met it:
//! - DELETE of who is pending, cleaned or archived is a 405: amro/gibbon#320;
//! - `status_if_new` leaves who is archived archived: mailchimp/mc-woocommerce#951; a `status` takes the person back,
//!   and what the state was before is not told: stackoverflow.com/questions/63584277;
//! - an address changes in place for who is subscribed alone (ibericode/mailchimp-user-sync#96), and not to one that
//!   has a member already, be it an archived one (brandonseydel/MailChimp.Net#201);
//! - `tags` of a PUT never reach who is there: ibericode/mailchimp-for-wordpress#674, VingtCinq/python-mailchimp#203.
//!
//! Each ends the same when it is done again from its beginning, so a repeat after a crash needs no idempotency.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use usher_proto::Reason;

use super::super::http::Answer;
use super::super::path::Path;
use super::{Mailchimp, classify, of_list};
use crate::engine::{Cause, Effect, Outcome};

/// A request as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) operation: String,
    pub(super) list: String,
    /// The member's id.
    pub(super) hash: String,
    /// The exact body, where there is one.
    pub(super) body: Option<String>,
    /// The id that the member has had before the address changed.
    #[serde(default)]
    pub(super) former: Option<String>,
    /// The body that gives the member tags, where there are any.
    #[serde(default)]
    pub(super) tags: Option<String>,
}

/// The state of a member. One who was erased for ever is told from one who never was only by the refusal to make a
/// member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Gets mail.
    Subscribed,
    /// Has said no.
    Unsubscribed,
    /// Mail has come back.
    Cleaned,
    /// Was asked, and has not answered.
    Pending,
    /// A customer who was never asked.
    Transactional,
    /// Taken out. The state before is not told.
    Archived,
}

impl State {
    /// Those that a request can say: all but the one that only archiving leads to.
    pub(super) const SAYABLE: [Self; 5] =
        [Self::Subscribed, Self::Unsubscribed, Self::Cleaned, Self::Pending, Self::Transactional];

    /// As Mailchimp says it.
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

    /// The state that an answer tells. One that says none was cut off on its way.
    fn of(answer: &Answer) -> Result<Self, Outcome> {
        let body = answer.json();
        let known = Self::SAYABLE.into_iter().chain([Self::Archived]);
        let mut found = known.filter(|state| body["status"] == state.label());
        found.next().ok_or_else(|| Outcome::retry(Cause::Interrupted))
    }
}

/// The body that gives a member these tags.
pub(super) fn tags<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let tags: Vec<Value> = names.into_iter().map(|name| json!({ "name": name, "status": "active" })).collect();
    json!({ "tags": tags }).to_string()
}

/// The path of a member.
fn of_member(list: &str, hash: &str) -> Result<Path, Outcome> {
    Ok(of_list(list)?.then("/members").segment("member", hash)?)
}

fn done(hash: &str, status: &str) -> Outcome {
    Outcome::Done(Effect::new(hash, json!({ "status": status })))
}

impl Mailchimp {
    /// Makes or updates the member. Who comes back is asked again, and who moves keeps what the old address has had.
    pub(super) async fn put(&self, change: &Change) -> Result<Outcome, Outcome> {
        let unreadable = || Outcome::reject(Reason::FlowChanged, "the kept request cannot be read");
        let text = change.body.as_deref().ok_or_else(unreadable)?;
        let mut body: Value = serde_json::from_str(text).map_err(|_| unreadable())?;
        if let Some(former) = &change.former {
            match self.state(&change.list, former).await? {
                Some(State::Subscribed) => {
                    if let Some(state) = self.change_address(change, former, &body).await? {
                        self.tag(change).await?;
                        let result = json!({ "status": state.label(), "moved": true });
                        return Ok(Outcome::Done(Effect::new(&change.hash, result)));
                    }
                }
                // The same person has said no already.
                Some(State::Unsubscribed) => body["status_if_new"] = json!(State::Unsubscribed.label()),
                Some(State::Cleaned | State::Pending | State::Transactional | State::Archived) | None => {}
            }
        }
        let mut state = self.write(change, &body).await?;
        if state == State::Archived {
            // A no that was said before the archiving cannot be seen any more, so nobody is subscribed without being
            // asked.
            let subscribed = body["status_if_new"] == State::Subscribed.label();
            body["status"] = if subscribed { json!(State::Pending.label()) } else { body["status_if_new"].clone() };
            state = self.write(change, &body).await?;
        }
        if state == State::Archived {
            return Err(Outcome::reject(Reason::InvalidRequest, "200 archived"));
        }
        self.tag(change).await?;
        Ok(done(&change.hash, state.label()))
    }

    async fn write(&self, change: &Change, body: &Value) -> Result<State, Outcome> {
        // Unless told to skip that, a field that the audience requires would refuse whoever lacks it.
        let path = of_member(&change.list, &change.hash)?.query("skip_merge_validation", "true");
        let answer = self.ask(Method::PUT, path, Some(body.to_string())).await?;
        if answer.status.is_success() { State::of(&answer) } else { Err(classify(&answer)) }
    }

    /// Gives the member at the former address the new one, and says the state. None where Mailchimp does not do that:
    /// the new address has a member, or the state has changed meanwhile.
    async fn change_address(&self, change: &Change, former: &str, body: &Value) -> Result<Option<State>, Outcome> {
        let path = of_member(&change.list, former)?.query("skip_merge_validation", "true");
        let mut changes = body.clone();
        if let Some(fields) = changes.as_object_mut() {
            fields.remove("status_if_new");
        }
        let answer = self.ask(Method::PATCH, path, Some(changes.to_string())).await?;
        match answer.status.as_u16() {
            200..=299 if answer.json()["id"] == change.hash.as_str() => State::of(&answer).map(Some),
            200..=299 | 400 | 404 => Ok(None),
            _ => Err(classify(&answer)),
        }
    }

    async fn tag(&self, change: &Change) -> Result<(), Outcome> {
        if let Some(tags) = &change.tags {
            let path = of_member(&change.list, &change.hash)?.then("/tags");
            let answer = self.ask(Method::POST, path, Some(tags.clone())).await?;
            if !answer.status.is_success() {
                return Err(classify(&answer));
            }
        }
        Ok(())
    }

    /// Unsubscribes who may get mail. Whoever gets none is left alone: the state would tell less afterwards.
    pub(super) async fn unsubscribe(&self, change: &Change) -> Result<Outcome, Outcome> {
        match self.state(&change.list, &change.hash).await? {
            None => Ok(done(&change.hash, "absent")),
            Some(state @ (State::Unsubscribed | State::Cleaned | State::Archived)) => {
                Ok(done(&change.hash, state.label()))
            }
            Some(State::Subscribed | State::Pending | State::Transactional) => {
                Ok(done(&change.hash, self.say_unsubscribed(change).await?.label()))
            }
        }
    }

    /// A PATCH, for a PUT would make a member of somebody who is none.
    async fn say_unsubscribed(&self, change: &Change) -> Result<State, Outcome> {
        let body = json!({ "status": State::Unsubscribed.label() }).to_string();
        let answer = self.ask(Method::PATCH, of_member(&change.list, &change.hash)?, Some(body)).await?;
        if answer.status.is_success() { State::of(&answer) } else { Err(classify(&answer)) }
    }

    /// Archives: the person may come back. Erasing for ever would also bar that.
    pub(super) async fn archive(&self, change: &Change) -> Result<Outcome, Outcome> {
        let delete = async || self.ask(Method::DELETE, of_member(&change.list, &change.hash)?, None).await;
        let mut answer = delete().await?;
        if matches!(answer.status.as_u16(), 404 | 405) {
            match self.state(&change.list, &change.hash).await? {
                None => return Ok(done(&change.hash, "absent")),
                Some(state @ (State::Archived | State::Cleaned)) => return Ok(done(&change.hash, state.label())),
                Some(State::Pending) => {
                    self.say_unsubscribed(change).await?;
                    answer = delete().await?;
                }
                // Somebody has answered, or come, between the two questions.
                Some(State::Subscribed | State::Unsubscribed | State::Transactional) => {
                    return Err(answer.retry(Cause::Conflict));
                }
            }
        }
        if answer.status.is_success() { Ok(done(&change.hash, "deleted")) } else { Err(classify(&answer)) }
    }

    /// The state of a member; none where there is no such member. A 404 may as well be about the list, and a list that
    /// is not there must not look like work done.
    async fn state(&self, list: &str, hash: &str) -> Result<Option<State>, Outcome> {
        let answer = self.ask(Method::GET, of_member(list, hash)?.query("fields", "status"), None).await?;
        match answer.status.as_u16() {
            200..=299 => State::of(&answer).map(Some),
            404 => {
                let answer = self.ask(Method::GET, of_list(list)?.query("fields", "id"), None).await?;
                if answer.status.is_success() { Ok(None) } else { Err(classify(&answer)) }
            }
            _ => Err(classify(&answer)),
        }
    }
}
