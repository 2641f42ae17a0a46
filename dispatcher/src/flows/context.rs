//! What templates and expressions of a flow can see: `user`, `event` and `steps`; where the flow remembers fields of its
//! subjects, also `before` and `changed`; and in marketing mail the link that ends it.

use serde_json::{Map, Value, json};
use usher_proto::Event;

use crate::before::EMAIL;
use crate::engine::Run;
use crate::subject::{Subject, name, primary_email, primary_phone};

use super::Flow;

/// The names at the top, and so all that a template may begin with.
pub(super) const ROOTS: [&str; 4] = [EVENT, "user", "steps", UNSUBSCRIBE_URL];
/// The link that ends marketing mail: known once its recipient is.
pub(super) const UNSUBSCRIBE_URL: &str = "unsubscribe_url";
/// What is known of an event by itself, when it arrives.
pub(super) const EVENT: &str = "event";
/// The same of a flow that remembers: the fields as they were before the event, null where that is not known; the names of
/// those that the event changed; and the names of those whose former value some living user has now, be it the same user.
/// That is looked up for addresses alone.
pub(super) const REMEMBERED: [&str; 3] = [BEFORE, "changed", STILL_USED];
const STILL_USED: &str = "still_used";
pub(super) const BEFORE: &str = "before";

/// What is known when a step is due.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    values: Value,
}

impl Context {
    /// From the run and its subject as last known. `user` is the newest snapshot, or the event's own where there is none,
    /// and empty for an event that concerns no user; `user.email`, `user.phone` and `user.name` are added to it.
    pub(crate) fn new(flow: &Flow, run: &Run, subject: Option<&Subject>) -> Result<Self, serde_json::Error> {
        let event = of_event(&run.event)?;
        let own = || if event["data"]["object"] == "user" { event["data"].clone() } else { json!({}) };
        let mut user = match subject.and_then(|subject| subject.snapshot.as_deref()) {
            Some(snapshot) => serde_json::from_str(snapshot)?,
            None => own(),
        };
        if let Some(fields) = user.as_object_mut() {
            let derived = [("email", primary_email(fields)), ("phone", primary_phone(fields)), ("name", name(fields))];
            fields.extend(derived.map(|(field, value)| (field.to_owned(), value.map_or(Value::Null, Value::String))));
        }
        let steps: Map<String, Value> = run
            .results
            .iter()
            .filter_map(|(index, result)| Some((flow.steps.get(*index)?.name.clone(), result.clone())))
            .collect();
        let was = run.before.clone().unwrap_or_default();
        let known = |name: &String| (name.clone(), was.fields.get(name).cloned().unwrap_or_default());
        let before: Map<String, Value> = flow.remember.iter().map(known).collect();
        let values = json!({
            "user": user, EVENT: event, "steps": steps, BEFORE: before, "changed": was.changed,
            STILL_USED: [],
        });
        Ok(Self { values })
    }

    /// From an event alone.
    pub(super) fn of_event(event: &Event) -> Result<Self, serde_json::Error> {
        Ok(Self { values: json!({ EVENT: of_event(event)? }) })
    }

    /// Of these values, for tests.
    #[cfg(test)]
    pub(super) fn of(values: Value) -> Self {
        Self { values }
    }

    /// With the link that ends this mail.
    pub(crate) fn set_unsubscribe_url(&mut self, url: &str) {
        self.values[UNSUBSCRIBE_URL] = Value::from(url);
    }

    /// Says that some living user has the address that the subject had before.
    pub(crate) fn set_address_still_used(&mut self) {
        self.values[STILL_USED] = json!([EMAIL]);
    }

    /// The event's `data`.
    pub(crate) fn event_data(&self) -> &Value {
        &self.values["event"]["data"]
    }

    /// What there is under a name with dots. Below metadata, which are the user's own, and below a null nothing is known.
    pub(super) fn look(&self, name: &str) -> Sight<'_> {
        let (mut owner, mut value) = (String::new(), &self.values);
        for field in name.split('.') {
            value = match value {
                Value::Object(fields) => match fields.get(field) {
                    Some(value) => value,
                    None if owner.is_empty() || !is_open(&owner) => {
                        return Sight::Missing { owner, field: field.to_owned(), known: fields };
                    }
                    None => return Sight::Open,
                },
                // Positions and lengths are the expression's affair.
                Value::Null | Value::Array(_) => return Sight::Open,
                Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
                    return Sight::Missing { owner, field: field.to_owned(), known: &NONE };
                }
            };
            if !owner.is_empty() {
                owner.push('.');
            }
            owner.push_str(field);
        }
        Sight::There(value)
    }

    /// Puts null where a name with dots leads to nothing.
    pub(super) fn make_known(&mut self, name: &str) {
        let mut value = &mut self.values;
        for field in name.split('.') {
            let Value::Object(fields) = value else { return };
            value = fields.entry(field).or_insert(Value::Null);
        }
    }

    pub(super) fn rendered(&self) -> minijinja::Value {
        minijinja::Value::from(minijinja::value::Serde(&self.values))
    }
}

/// What a name leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Sight<'a> {
    /// This value, which may be null.
    There(&'a Value),
    /// Nothing that could be known: what is above it is null, a list, or the user's own.
    Open,
    /// Nothing: `owner` has no `field`, but what is `known`.
    Missing {
        /// The part of the name that leads somewhere; empty at the top.
        owner: String,
        /// The first part of it that does not.
        field: String,
        /// What its owner has.
        known: &'a Map<String, Value>,
    },
}

/// Whether what stands below this name is for somebody else to decide: metadata, a destination's answer, and what Clerk
/// puts into a mail.
fn is_open(owner: &str) -> bool {
    let is_metadata = owner.split('.').any(|part| part.ends_with("_metadata"));
    is_metadata || owner.starts_with("steps.") || owner == "event.data.data" || owner.starts_with("event.data.data.")
}

fn of_event(event: &Event) -> Result<Value, serde_json::Error> {
    let mut body: Value = serde_json::from_slice(&event.body)?;
    let data = body.get_mut("data").map(Value::take).unwrap_or_default();
    Ok(json!({
        "id": event.id.as_str(),
        "type": event.kind,
        "instance": event.instance(),
        "occurred_at": event.occurred_at.to_string(),
        "user_id": user_id(&event.kind, &data),
        "data": data,
    }))
}

/// The user whom an event concerns, wherever its type says so; null if it is nobody. Clerk writes an empty text where it
/// means null.
fn user_id(kind: &str, data: &Value) -> Value {
    let own = if kind.starts_with("user.") { &data["id"] } else { &Value::Null };
    let places =
        [own, &data["user_id"], &data["user"]["id"], &data["public_user_data"]["user_id"], &data["payer"]["user_id"]];
    let id = places.into_iter().find(|id| id.as_str().is_some_and(|id| !id.is_empty()));
    id.cloned().unwrap_or_default()
}
