//! What templates and expressions of a flow can see: `user`, `event` and `steps`; where the flow remembers fields of its
//! subjects, also `before` and `changed`; and in marketing mail the link that ends it.

use std::collections::BTreeMap;

use minijinja::Value as Rendered;
use serde_json::{Map, Value, json};
use usher_proto::{Event, Json};

use super::Flow;
use super::sent::Sent;
use crate::engine::Run;
use crate::field_diff::EMAIL;
use crate::subject::{Subject, name, primary_email, primary_phone};

/// The names at the top, and so all that a template may begin with.
pub(super) const ROOTS: [&str; 4] = [EVENT, "user", "steps", UNSUBSCRIBE_URL];
/// The link that ends marketing mail: known once its recipient is.
pub(super) const UNSUBSCRIBE_URL: &str = "unsubscribe_url";
/// What is known of an event by itself, when it arrives.
pub(super) const EVENT: &str = "event";
/// The same of a flow that remembers: the fields as they were before the event, null where that is not known; the names
/// of those that the event changed; and the names of those whose former value some living user has now, be it the same
/// user. That is looked up for addresses alone.
pub(super) const REMEMBERED: [&str; 3] = [BEFORE, "changed", STILL_USED];
const STILL_USED: &str = "still_used";
pub(super) const BEFORE: &str = "before";

/// The values that a step sees when it is due: as a tree, to look names up in, and as expressions take it, which is
/// what was sent.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    values: Value,
    roots: BTreeMap<&'static str, Rendered>,
}

/// The event's body is no JSON object, so nothing of it can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body cannot be read")]
pub(crate) struct UnreadableBody;

impl Context {
    /// From the run and its subject as last known. `user` is the newest snapshot, or the event's own where there is none,
    /// and empty for an event that concerns no user; `user.email`, `user.phone` and `user.name` are added to it.
    ///
    /// # Errors
    /// The event's body is no JSON object.
    pub(crate) fn new(flow: &Flow, run: &Run, subject: Option<&Subject>) -> Result<Self, UnreadableBody> {
        let mut context = Self::of_event(&run.event)?;
        let data = crate::subject::data(&run.event);
        let own = || data.filter(|data| data.get("object").and_then(Json::text).as_deref() == Some("user"));
        let user = match subject.and_then(|subject| subject.snapshot.as_deref()) {
            // One that is no JSON says nothing; what does not ask for it goes on.
            Some(snapshot) => Json::read(snapshot),
            None => own(),
        };
        let steps: Map<String, Value> = run
            .results
            .iter()
            .filter_map(|(index, result)| Some((flow.steps.get(*index)?.name.clone(), result.clone())))
            .collect();
        let was = run.before.clone().unwrap_or_default();
        let known = |name: &String| (name.clone(), was.fields.get(name).cloned().unwrap_or_default());
        let before: Map<String, Value> = flow.remember.iter().map(known).collect();
        context.set_sent("user", &with_derived(user));
        context.set("steps", Value::Object(steps));
        context.set(BEFORE, Value::Object(before));
        context.set("changed", json!(was.changed));
        context.set(STILL_USED, json!([]));
        Ok(context)
    }

    /// From an event alone.
    ///
    /// # Errors
    /// The event's body is no JSON object.
    pub(super) fn of_event(event: &Event) -> Result<Self, UnreadableBody> {
        let body = std::str::from_utf8(&event.body).ok().and_then(Json::read).filter(|body| body.is_object());
        let data = body.ok_or(UnreadableBody)?.get("data");
        let known = [
            ("id", event.id.to_string()),
            ("type", event.kind.clone()),
            ("instance", event.instance().to_owned()),
            ("occurred_at", event.occurred_at.to_string()),
        ];
        let user_id = data.and_then(|data| user_id(&event.kind, data));
        let known = known.map(|(name, text)| (name, Value::from(text))).into_iter();
        let known = known.chain([("user_id", Value::from(user_id))]).map(|(name, value)| (name, value.to_string()));
        let data = ("data", data.map_or("null", Json::as_str).to_owned());
        let mut context = Self::none();
        context.set_sent(EVENT, &object(known.chain([data]).map(|(name, text)| (name.to_owned(), text))));
        Ok(context)
    }

    fn none() -> Self {
        Self { values: json!({}), roots: BTreeMap::new() }
    }

    fn set(&mut self, root: &'static str, value: Value) {
        self.set_sent(root, &value.to_string());
        self.values[root] = value;
    }

    /// Sets what a text of JSON holds; an empty object where it holds none.
    fn set_sent(&mut self, root: &'static str, text: &str) {
        let json = Json::read(text).unwrap_or(Json::EMPTY);
        self.values[root] = json.to_value();
        self.roots.insert(root, Sent::value(json));
    }

    /// Of these values, for tests.
    #[cfg(test)]
    pub(super) fn of(values: Value) -> Self {
        let texts: Vec<_> = ROOTS.into_iter().chain(REMEMBERED).map(|root| (root, values[root].to_string())).collect();
        let texts = texts.iter().filter(|(root, _)| values.get(root).is_some());
        Self::of_texts(&texts.map(|(root, text)| (*root, text.as_str())).collect::<Vec<_>>())
    }

    /// Of these texts of JSON, for tests.
    #[cfg(test)]
    pub(super) fn of_texts(texts: &[(&'static str, &str)]) -> Self {
        let mut context = Self::none();
        for (root, text) in texts {
            context.set_sent(root, text);
        }
        context
    }

    /// With the link that ends this mail.
    pub(crate) fn set_unsubscribe_url(&mut self, url: &str) {
        self.set(UNSUBSCRIBE_URL, Value::from(url));
    }

    /// Says that some living user has the address that the subject had before.
    pub(crate) fn set_address_still_used(&mut self) {
        self.set(STILL_USED, json!([EMAIL]));
    }

    /// The event's `data`.
    pub(crate) fn event_data(&self) -> &Value {
        &self.values["event"]["data"]
    }

    /// Looks a name with dots up. Below metadata, which are the user's own, and below a null nothing is known.
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
            let Value::Object(fields) = value else { break };
            value = fields.entry(field).or_insert(Value::Null);
        }
        let root = ROOTS.into_iter().chain(REMEMBERED).find(|root| name.split('.').next() == Some(root));
        if let Some(root) = root {
            self.set(root, self.values[root].clone());
        }
    }

    pub(super) fn rendered(&self) -> Rendered {
        Rendered::from(self.roots.clone())
    }
}

/// The result of looking a name up.
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
        /// The fields of its owner.
        known: &'a Map<String, Value>,
    },
}

/// True if what stands below this name is for somebody else to decide: metadata, a destination's answer, and what Clerk
/// puts into a mail.
fn is_open(owner: &str) -> bool {
    let is_metadata = owner.split('.').any(|part| part.ends_with("_metadata"));
    is_metadata || owner.starts_with("steps.") || owner == "event.data.data" || owner.starts_with("event.data.data.")
}

/// A user with what templates are given beside what Clerk sends, in the place of what has the same name.
fn with_derived(user: Option<Json<'_>>) -> String {
    let user = user.filter(|user| user.is_object()).unwrap_or(Json::EMPTY);
    let derived = [("email", primary_email(user)), ("phone", primary_phone(user)), ("name", name(user))];
    let names = derived.each_ref().map(|(name, _)| *name);
    let own = user.members().filter(|(name, _)| !names.contains(&&**name));
    let own = own.map(|(name, value)| (name.into_owned(), value.as_str().to_owned()));
    let derived = derived.map(|(name, value)| (name.to_owned(), Value::from(value).to_string()));
    object(own.chain(derived))
}

/// The text of an object with members of these names and texts.
fn object(members: impl Iterator<Item = (String, String)>) -> String {
    let members: Vec<String> = members.map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    format!("{{{}}}", members.join(","))
}

/// The user whom an event concerns, wherever its type says so; null if it is nobody. Clerk writes an empty text where it
/// means null.
fn user_id(kind: &str, data: Json<'_>) -> Option<String> {
    let own: &[&str] = if kind.starts_with("user.") { &["id"] } else { &[] };
    let places: [&[&str]; 5] =
        [own, &["user_id"], &["user", "id"], &["public_user_data", "user_id"], &["payer", "user_id"]];
    places.into_iter().filter(|place| !place.is_empty()).find_map(|place| data.at(place)?.filled()).map(Into::into)
}
