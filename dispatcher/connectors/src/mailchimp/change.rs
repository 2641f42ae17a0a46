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
use serde_json::{Value, json};
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;

use super::classify::classify;
use super::member::{MemberState, list_path, member_path};
use super::request::MemberChange;
use super::{ERASE_MEMBER, Mailchimp, PUT_MEMBER, TAG_MEMBER, UNSUBSCRIBE};
use crate::{CallGate, stored};

fn done(hash: &str, status: &str) -> Outcome {
    Outcome::Done(Effect::new(hash, json!({ "status": status })))
}

impl Mailchimp {
    /// Carries out a stored change. `Err` is the outcome of a request to Mailchimp that failed.
    pub(super) async fn apply(&self, request: &[u8], gate: &CallGate) -> Result<Outcome, Outcome> {
        let change: MemberChange = stored::read(request)?;
        match change.operation.as_str() {
            PUT_MEMBER => self.put(&change, gate).await,
            UNSUBSCRIBE => self.unsubscribe(&change, gate).await,
            TAG_MEMBER => self.change_tags(&change, gate).await,
            ERASE_MEMBER => self.erase(&change, gate).await,
            _ => self.archive(&change, gate).await,
        }
    }

    /// Creates or updates the member. An archived member is restored; one to be subscribed is asked to confirm first,
    /// and a member whose address has changed keeps the data of the old address.
    async fn put(&self, change: &MemberChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        let text = change.body.as_deref().ok_or_else(stored::unreadable)?;
        let mut body: Value = stored::read(text.as_bytes())?;
        if let Some(former) = &change.former {
            match self.state(&change.list, former, gate).await? {
                Some(MemberState::Subscribed) => {
                    if let Some(state) = self.change_address(change, former, &body, gate).await? {
                        self.tag(change, gate).await?;
                        let result = json!({ "status": state.label(), "moved": true });
                        return Ok(Outcome::Done(Effect::new(&change.hash, result)));
                    }
                }
                // The same person has already unsubscribed at the former address.
                Some(MemberState::Unsubscribed) => body["status_if_new"] = json!(MemberState::Unsubscribed.label()),
                Some(
                    MemberState::Cleaned | MemberState::Pending | MemberState::Transactional | MemberState::Archived,
                )
                | None => {}
            }
        }
        let mut state = self.write(change, &body, gate).await?;
        if state == MemberState::Archived {
            // Mailchimp does not report a refusal from before the archiving, so the member is asked to confirm and not
            // subscribed directly.
            let subscribed = body["status_if_new"] == MemberState::Subscribed.label();
            body["status"] =
                if subscribed { json!(MemberState::Pending.label()) } else { body["status_if_new"].clone() };
            state = self.write(change, &body, gate).await?;
        }
        if state == MemberState::Archived {
            return Err(Outcome::reject(Reason::InvalidRequest, "200 archived"));
        }
        self.tag(change, gate).await?;
        Ok(done(&change.hash, state.label()))
    }

    async fn write(&self, change: &MemberChange, body: &Value, gate: &CallGate) -> Result<MemberState, Outcome> {
        // Without this parameter, a field that the audience requires would cause the refusal of members without it.
        let path = member_path(&change.list, &change.hash)?.query("skip_merge_validation", "true");
        let answer = self.ask(Method::PUT, path, Some(body.to_string()), gate).await?;
        if answer.status.is_success() { MemberState::of(&answer) } else { Err(classify(&answer)) }
    }

    /// Changes the address of the member at the former address and returns the state. Returns `None` if Mailchimp does
    /// not do that: the new address has a member, or the state has changed meanwhile.
    async fn change_address(
        &self,
        change: &MemberChange,
        former: &str,
        body: &Value,
        gate: &CallGate,
    ) -> Result<Option<MemberState>, Outcome> {
        let path = member_path(&change.list, former)?.query("skip_merge_validation", "true");
        let mut changes = body.clone();
        if let Some(fields) = changes.as_object_mut() {
            fields.remove("status_if_new");
        }
        let answer = self.ask(Method::PATCH, path, Some(changes.to_string()), gate).await?;
        match answer.status.as_u16() {
            200..=299 if answer.json()["id"] == change.hash.as_str() => MemberState::of(&answer).map(Some),
            200..=299 | 400 | 404 => Ok(None),
            _ => Err(classify(&answer)),
        }
    }

    async fn tag(&self, change: &MemberChange, gate: &CallGate) -> Result<(), Outcome> {
        if let Some(tags) = &change.tags {
            let path = member_path(&change.list, &change.hash)?.then("/tags");
            let answer = self.ask(Method::POST, path, Some(tags.clone()), gate).await?;
            if !answer.status.is_success() {
                return Err(classify(&answer));
            }
        }
        Ok(())
    }

    /// Unsubscribes a member who may receive mail. A member who receives none is left unchanged, because the new state
    /// would contain less information.
    async fn unsubscribe(&self, change: &MemberChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        match self.state(&change.list, &change.hash, gate).await? {
            None => Ok(done(&change.hash, "absent")),
            Some(state @ (MemberState::Unsubscribed | MemberState::Cleaned | MemberState::Archived)) => {
                Ok(done(&change.hash, state.label()))
            }
            Some(MemberState::Subscribed | MemberState::Pending | MemberState::Transactional) => {
                Ok(done(&change.hash, self.set_unsubscribed(change, gate).await?.label()))
            }
        }
    }

    /// Sends a PATCH, because a PUT would create a member where there is none.
    async fn set_unsubscribed(&self, change: &MemberChange, gate: &CallGate) -> Result<MemberState, Outcome> {
        let body = json!({ "status": MemberState::Unsubscribed.label() }).to_string();
        let answer = self.ask(Method::PATCH, member_path(&change.list, &change.hash)?, Some(body), gate).await?;
        if answer.status.is_success() { MemberState::of(&answer) } else { Err(classify(&answer)) }
    }

    /// Archives the member, so that the person can come back. A permanent erasure would also prevent that.
    async fn archive(&self, change: &MemberChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        let delete = async || self.ask(Method::DELETE, member_path(&change.list, &change.hash)?, None, gate).await;
        let mut answer = delete().await?;
        if matches!(answer.status.as_u16(), 404 | 405) {
            match self.state(&change.list, &change.hash, gate).await? {
                None => return Ok(done(&change.hash, "absent")),
                Some(state @ (MemberState::Archived | MemberState::Cleaned)) => {
                    return Ok(done(&change.hash, state.label()));
                }
                Some(MemberState::Pending) => {
                    self.set_unsubscribed(change, gate).await?;
                    answer = delete().await?;
                }
                // The member confirmed or was added between the two requests.
                Some(MemberState::Subscribed | MemberState::Unsubscribed | MemberState::Transactional) => {
                    return Err(answer.retry(Cause::Conflict));
                }
            }
        }
        if answer.status.is_success() { Ok(done(&change.hash, "deleted")) } else { Err(classify(&answer)) }
    }

    /// Adds and removes the tags of a member, in every state. Where there is no member, there is nothing to tag.
    async fn change_tags(&self, change: &MemberChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        match self.state(&change.list, &change.hash, gate).await? {
            None => Ok(done(&change.hash, "absent")),
            Some(state) => {
                self.tag(change, gate).await?;
                Ok(done(&change.hash, state.label()))
            }
        }
    }

    /// Erases the member permanently, with the history. Only the person can subscribe the address again.
    async fn erase(&self, change: &MemberChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        let path = member_path(&change.list, &change.hash)?.then("/actions/delete-permanent");
        let answer = self.ask(Method::POST, path, None, gate).await?;
        if answer.status.is_success() {
            return Ok(done(&change.hash, "erased"));
        }
        if answer.status.as_u16() != 404 {
            return Err(classify(&answer));
        }
        match self.state(&change.list, &change.hash, gate).await? {
            None => Ok(done(&change.hash, "absent")),
            // The member was added between the two requests.
            Some(_) => Err(answer.retry(Cause::Conflict)),
        }
    }

    /// Returns the state of a member, or `None` if there is no such member. A 404 may also refer to the list, and a
    /// missing list must not look like completed work.
    async fn state(&self, list: &str, hash: &str, gate: &CallGate) -> Result<Option<MemberState>, Outcome> {
        let answer = self.ask(Method::GET, member_path(list, hash)?.query("fields", "status"), None, gate).await?;
        match answer.status.as_u16() {
            200..=299 => MemberState::of(&answer).map(Some),
            404 => {
                let answer = self.ask(Method::GET, list_path(list)?.query("fields", "id"), None, gate).await?;
                if answer.status.is_success() { Ok(None) } else { Err(classify(&answer)) }
            }
            _ => Err(classify(&answer)),
        }
    }
}
