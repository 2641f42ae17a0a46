//! Carries out the change of a contact in every state of it. docs/destinations.md has the same as a table.
//!
//! Sources: Resend's OpenAPI document (contacts, segments, topics), the recorded answers in resend-node
//! (`src/contacts/__recordings__`), and reports of its users:
//! - POST of a contact that exists answers 201 with its id (the recordings), and resets each field that the request
//!   omits: it subscribes who has unsubscribed (akhileshrangani4/teachanything#392). So a contact is created only where
//!   there is none, and otherwise updated by a PATCH;
//! - a contact is named by its id or by its address; if there is none, GET and a segment answer 404 `not_found`, and
//!   DELETE answers 200 (the recordings).
//!
//! Each operation has the same result when it is repeated from its beginning, so a repeat needs no key.

use reqwest::Method;
use serde_json::{Value, json};
use usher_engine::{Cause, Effect, Outcome};

use super::classify::classify;
use super::contact::{ContactChange, OPT_OUT};
use super::{PUT_CONTACT, Resend};
use crate::client::HttpAnswer;
use crate::path::Path;
use crate::{CallGate, stored};

/// Topics of a contact that are read at most. Resend lists up to a hundred at once.
const MOST_TOPICS: &str = "100";

/// A contact as Resend has it.
struct Contact {
    id: String,
    unsubscribed: bool,
}

impl Resend {
    /// Carries out a stored change. `Err` is the outcome of a request to Resend that failed.
    pub(super) async fn apply(&self, request: &[u8], gate: &CallGate) -> Result<Outcome, Outcome> {
        let change: ContactChange = stored::read(request)?;
        if change.operation == PUT_CONTACT { self.put(change, gate).await } else { self.remove(&change, gate).await }
    }

    /// Creates the contact, or updates it without ever subscribing a person again. A contact that replaces one of the
    /// same person at another address keeps that person's refusals.
    async fn put(&self, mut change: ContactChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        if let Some(contact) = self.contact(&change.email, gate).await? {
            return self.update(&change, contact, gate).await;
        }
        if let Some(former) = change.former.take()
            && let Some(contact) = self.contact(&former, gate).await?
        {
            change.unsubscribed |= contact.unsubscribed;
            for topic in self.refused_topics(&former, gate).await? {
                change.topics.insert(topic, OPT_OUT.to_owned());
            }
        }
        let answer = self.ask(Method::POST, &Path::of("/contacts"), Some(change.creation()), gate).await?;
        let id = id_of(&answer)?;
        Ok(done(&id, "created", change.unsubscribed))
    }

    async fn update(&self, change: &ContactChange, contact: Contact, gate: &CallGate) -> Result<Outcome, Outcome> {
        let path = contact_path(&change.email)?;
        if let Some(body) = change.update() {
            let answer = self.ask(Method::PATCH, &path, Some(body), gate).await?;
            // The contact was removed between the two requests: the next attempt creates it.
            if answer.status.as_u16() == 404 {
                return Err(answer.retry(Cause::Conflict));
            }
            id_of(&answer)?;
        }
        for segment in &change.segments {
            let segment = path.clone().then("/segments").segment("segments", segment)?;
            let answer = self.ask(Method::POST, &segment, None, gate).await?;
            if !answer.status.is_success() {
                return Err(classify(&answer));
            }
        }
        if let Some(body) = change.opt_outs() {
            let answer = self.ask(Method::PATCH, &path.then("/topics"), Some(body), gate).await?;
            if !answer.status.is_success() {
                return Err(classify(&answer));
            }
        }
        Ok(done(&contact.id, "updated", contact.unsubscribed || change.unsubscribed))
    }

    /// Deletes the contact. A contact that does not exist counts as deleted.
    async fn remove(&self, change: &ContactChange, gate: &CallGate) -> Result<Outcome, Outcome> {
        let request = self.request(Method::DELETE, &contact_path(&change.email)?)?;
        let answer = crate::client::send_for_status(request, gate).await?;
        match answer.status.as_u16() {
            200..=299 | 404 => Ok(Outcome::Done(Effect::new("", json!({ "status": "deleted" })))),
            _ => Err(classify(&answer)),
        }
    }

    /// Returns the contact at an address, or `None` if there is none.
    async fn contact(&self, email: &str, gate: &CallGate) -> Result<Option<Contact>, Outcome> {
        let answer = self.ask(Method::GET, &contact_path(email)?, None, gate).await?;
        if answer.status.as_u16() == 404 {
            return Ok(None);
        }
        let id = id_of(&answer)?;
        // An answer without it was cut off in transit.
        let unsubscribed = answer.json()["unsubscribed"].as_bool().ok_or_else(|| Outcome::retry(Cause::Interrupted))?;
        Ok(Some(Contact { id, unsubscribed }))
    }

    /// Returns the ids of the topics that a contact has opted out of.
    async fn refused_topics(&self, email: &str, gate: &CallGate) -> Result<Vec<String>, Outcome> {
        let path = contact_path(email)?.then("/topics").query("limit", MOST_TOPICS);
        let answer = self.ask(Method::GET, &path, None, gate).await?;
        if !answer.status.is_success() {
            return Err(classify(&answer));
        }
        let body = answer.json();
        let topics = body["data"].as_array().ok_or_else(|| Outcome::retry(Cause::Interrupted))?;
        let refused = topics.iter().filter(|topic| topic["subscription"] == OPT_OUT);
        Ok(refused.filter_map(|topic| topic["id"].as_str()).map(str::to_owned).collect())
    }

    async fn ask(
        &self,
        method: Method,
        path: &Path,
        body: Option<Value>,
        gate: &CallGate,
    ) -> Result<HttpAnswer, Outcome> {
        let request = self.request(method, path)?;
        let request = match body {
            Some(body) => request.header("Content-Type", "application/json").body(body.to_string()),
            None => request,
        };
        crate::client::send(request, gate).await
    }
}

fn contact_path(email: &str) -> Result<Path, Outcome> {
    Ok(Path::of("/contacts").segment("email", email)?)
}

/// Returns the id in an answer, or the outcome if it is a refusal or was cut off in transit.
fn id_of(answer: &HttpAnswer) -> Result<String, Outcome> {
    match classify(answer) {
        Outcome::Done(effect) => Ok(effect.id),
        other => Err(other),
    }
}

fn done(id: &str, status: &str, unsubscribed: bool) -> Outcome {
    Outcome::Done(Effect::new(id, json!({ "status": status, "unsubscribed": unsubscribed })))
}
