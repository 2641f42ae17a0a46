//! Keeps a subscriber up to date without a trigger, and deletes it.
//!
//! Sources: Novu's OpenAPI document (`/v2/subscribers`), and the server's source
//! (`subscribers-v2/usecases/patch-subscriber`): a PATCH changes what it names, null clears, and 404 is the answer if
//! there is no such subscriber; novuhq/novu#2090 for a deletion. The document knows `timezone` in a PATCH only.
//!
//! No idempotency key is sent: each operation leaves the same state when it is repeated, and where Novu honours keys, it
//! would refuse the second request of an operation under the same key, and repeat an error for a day.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use usher_engine::{Cause, Effect, Outcome};

use super::classify::refused;
use super::request::{data, raw};
use super::{DELETE_SUBSCRIBER, Novu, PUT_SUBSCRIBER};
use crate::client::{self, HttpAnswer};
use crate::path::Path;
use crate::{CallGate, PrepareError, StepInput, stored};

/// Texts of a subscriber: parameter and Novu's field.
const TEXTS: [(&str, &str); 5] = [
    ("phone", "phone"),
    ("first_name", "firstName"),
    ("last_name", "lastName"),
    ("locale", "locale"),
    ("timezone", TIMEZONE),
];
const TIMEZONE: &str = "timezone";

/// A change of a subscriber as it is stored. A trigger's stored form has no `operation`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SubscriberChange {
    operation: String,
    subscriber: String,
    /// Fields that change, with their values as they are sent. Null clears.
    fields: BTreeMap<String, Box<RawValue>>,
}

/// Builds the change for these inputs.
pub(super) fn prepare(inputs: &StepInput<'_>) -> Result<SubscriberChange, PrepareError> {
    let subscriber = inputs.required("subscriber_id")?.as_str().unwrap_or_default().to_owned();
    let mut fields = BTreeMap::new();
    if inputs.params.contains_key("email") {
        fields.insert("email".to_owned(), raw(json!(inputs.email()?).to_string())?);
    }
    for (param, field) in TEXTS {
        if let Some(value) = inputs.params.get(param) {
            fields.insert(field.to_owned(), raw(value.to_string())?);
        }
    }
    if let Some(data) = data(inputs)? {
        fields.insert("data".to_owned(), data);
    }
    match inputs.operation {
        PUT_SUBSCRIBER | DELETE_SUBSCRIBER => {
            Ok(SubscriberChange { operation: inputs.operation.to_owned(), subscriber, fields })
        }
        other => Err(PrepareError(format!("novu cannot {other}"))),
    }
}

impl SubscriberChange {
    /// Returns the body that creates the subscriber: nothing has to be cleared, and the time zone follows in a PATCH.
    fn creation(&self) -> Result<Vec<u8>, PrepareError> {
        let given = self.fields.iter().filter(|(name, value)| *name != TIMEZONE && value.get() != "null");
        let mut body: BTreeMap<&str, &RawValue> = given.map(|(name, value)| (name.as_str(), &**value)).collect();
        let id = raw(json!(self.subscriber).to_string())?;
        body.insert("subscriberId", &id);
        stored::write(&body)
    }

    fn update(&self) -> Result<Vec<u8>, PrepareError> {
        stored::write(&self.fields)
    }
}

impl Novu {
    /// Carries out a stored change. `Err` is the outcome of a request to Novu that failed.
    pub(super) async fn apply(&self, request: &[u8], gate: &CallGate) -> Result<Outcome, Outcome> {
        let change: SubscriberChange = stored::read(request)?;
        let path = Path::of("/v2/subscribers").segment("subscriber_id", &change.subscriber)?;
        let done = |status: &str| Ok(Outcome::Done(Effect::new(&change.subscriber, json!({ "status": status }))));
        if change.operation != PUT_SUBSCRIBER {
            let answer = self.ask(Method::DELETE, &path, None, gate).await?;
            // No such subscriber.
            return if is_done(&answer) || answer.status.as_u16() == 404 {
                done("deleted")
            } else {
                Err(refused(&answer))
            };
        }
        let answer = self.ask(Method::PATCH, &path, Some(change.update()?), gate).await?;
        if is_done(&answer) {
            return done("updated");
        }
        if answer.status.as_u16() != 404 {
            return Err(refused(&answer));
        }
        let answer = self.ask(Method::POST, &Path::of("/v2/subscribers"), Some(change.creation()?), gate).await?;
        if !is_done(&answer) {
            return Err(refused(&answer));
        }
        let is_zoned = change.fields.get(TIMEZONE).is_some_and(|zone| zone.get() != "null");
        if is_zoned {
            let answer = self.ask(Method::PATCH, &path, Some(change.update()?), gate).await?;
            if !is_done(&answer) {
                // The subscriber was deleted between the two requests: the next attempt creates it.
                let gone = answer.status.as_u16() == 404;
                return Err(if gone { answer.retry(Cause::Conflict) } else { refused(&answer) });
            }
        }
        done("created")
    }

    async fn ask(
        &self,
        method: Method,
        path: &Path,
        body: Option<Vec<u8>>,
        gate: &CallGate,
    ) -> Result<HttpAnswer, Outcome> {
        let request = self.request(method, path)?;
        let request = match body {
            Some(body) => request.header("Content-Type", "application/json").body(body),
            None => request,
        };
        client::send_for_status(request, gate).await
    }
}

fn is_done(answer: &HttpAnswer) -> bool {
    answer.status.is_success()
}
