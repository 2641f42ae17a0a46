//! The values that templates and expressions of a flow can access: `user`, `event` and `steps`; also `before`,
//! `changed` and `still_used` if the flow stores fields of its subjects; and the unsubscribe link in marketing mail.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use minijinja::Value as Rendered;
use minijinja::value::{Enumerator, Object};
use serde_json::{Map, Value, json};
use usher_clerk::{primary_email, primary_phone, user_id};
use usher_connectors::{SECRETS, secret_placeholder};
use usher_engine::Run;
use usher_engine::field_diff::EMAIL;
use usher_proto::Subject;
use usher_proto::json::SharedJson;
use usher_proto::{Event, Json, Source};

use super::Flow;
use super::flow_settings::SETTING;
use super::functions;
use super::sent::{Derived, SentJson};

/// The top-level names that are available in every flow.
pub(super) const ROOTS: [&str; 5] = [EVENT, "user", "steps", SETTING, UNSUBSCRIBE_URL];
/// The name of the unsubscribe link of marketing mail. It is set once the recipient is known.
pub(super) const UNSUBSCRIBE_URL: &str = "unsubscribe_url";
/// The name of the event, the only value that is available when an event arrives.
pub(super) const EVENT: &str = "event";
/// The additional top-level names of a flow that stores fields: the fields as they were before the event, null if
/// unknown; the names of the fields that the event changed; and the names of the fields whose former value some
/// existing user has now, which may be the same user. The last is determined for addresses only.
pub(super) const REMEMBERED: [&str; 3] = [BEFORE, "changed", STILL_USED];
const STILL_USED: &str = "still_used";
pub(super) const BEFORE: &str = "before";

/// The values that are available to a step when it is due, in the form that expressions use, which preserves the JSON that
/// was sent. A value is made when it is first accessed.
#[derive(Debug, Clone)]
pub struct Context {
    roots: Roots,
    /// All values as a tree, in which the names of an error are looked up.
    values: OnceLock<Value>,
}

/// The top-level names with their values.
#[derive(Debug, Clone, Default)]
struct Roots(BTreeMap<&'static str, Arc<Root>>);

/// The value of a top-level name.
#[derive(Debug)]
struct Root {
    source: RootSource,
    made: OnceLock<Rendered>,
}

/// The source of a top-level value.
#[derive(Debug)]
enum RootSource {
    /// A JSON text; an empty object if it is none.
    Text(String),
    /// The name and data of this event.
    Event(Arc<Event>),
    /// The secrets, each as a placeholder that the connector fills in when it sends the request.
    Secrets,
    /// The user whom an event concerns, by the newest snapshot or else by the event.
    User { event: Option<Arc<Event>>, snapshot: Option<String> },
}

impl Root {
    fn made(&self) -> &Rendered {
        self.made.get_or_init(|| match &self.source {
            RootSource::Text(text) => SentJson::value(&SharedJson::of(Json::read(text).unwrap_or(Json::EMPTY))),
            RootSource::Event(event) => SentJson::value(&event_json(event)),
            RootSource::Secrets => Rendered::from_object(SecretPlaces),
            RootSource::User { event, snapshot } => user(event.as_deref(), snapshot.as_deref()),
        })
    }
}

impl Object for Roots {
    fn get_value(self: &Arc<Self>, name: &Rendered) -> Option<Rendered> {
        Some(self.0.get(name.as_str()?)?.made().clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.keys().map(|name| Rendered::from(*name)).collect())
    }
}

/// The placeholders of all secrets. Values of secrets never come here.
#[derive(Debug)]
struct SecretPlaces;

impl Object for SecretPlaces {
    fn get_value(self: &Arc<Self>, name: &Rendered) -> Option<Rendered> {
        Some(Rendered::from(secret_placeholder(name.as_str()?)))
    }
}

/// The event's body is not a JSON object, so none of its values are available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body cannot be read")]
pub struct UnreadableBody;

impl Context {
    /// Creates the context of a run and the last known state of its subject. `user` is the newest snapshot, or the
    /// event's own if there is none, and empty for an event that concerns no user. `user.email`, `user.phone` and
    /// `user.name` are added to it.
    ///
    /// # Errors
    ///
    /// The event's body is not a JSON object.
    pub fn new(flow: &Flow, run: &Run, subject: Option<&Subject>) -> Result<Self, UnreadableBody> {
        let event = Arc::new(run.event.clone());
        let mut context = Self::of_shared(&event)?;
        let snapshot = subject.and_then(|subject| subject.snapshot.clone());
        let steps: Map<String, Value> = run
            .results
            .iter()
            .filter_map(|(index, result)| Some((flow.steps.get(*index)?.name.clone(), result.clone())))
            .collect();
        let was = run.before.clone().unwrap_or_default();
        let known = |name: &String| (name.clone(), was.fields.get(name).cloned().unwrap_or_default());
        let before: Map<String, Value> = flow.remember.iter().map(known).collect();
        context.set_source("user", RootSource::User { event: Some(event), snapshot });
        context.set("steps", &Value::Object(steps));
        context.set(BEFORE, &Value::Object(before));
        context.set("changed", &json!(was.changed));
        context.set(STILL_USED, &json!([]));
        context.set_settings(flow.settings.of(run.event.instance()));
        Ok(context)
    }

    /// Creates the context of an event without a run.
    ///
    /// # Errors
    ///
    /// The event's body is not a JSON object.
    pub(super) fn of_event(event: &Event) -> Result<Self, UnreadableBody> {
        Self::of_shared(&Arc::new(event.clone()))
    }

    /// Creates the context of a user whom no event concerns.
    pub(super) fn of_user(subject: &Subject) -> Self {
        let mut context = Self::none();
        context.set_source("user", RootSource::User { event: None, snapshot: subject.snapshot.clone() });
        context
    }

    fn of_shared(event: &Arc<Event>) -> Result<Self, UnreadableBody> {
        let body = std::str::from_utf8(&event.body).ok().and_then(Json::read).filter(|body| body.is_object());
        body.ok_or(UnreadableBody)?;
        let mut context = Self::none();
        context.set_source(EVENT, RootSource::Event(event.clone()));
        Ok(context)
    }

    /// Creates a context without any value.
    pub(super) fn none() -> Self {
        Self { roots: Roots::default(), values: OnceLock::new() }
    }

    fn set(&mut self, root: &'static str, value: &Value) {
        self.set_source(root, RootSource::Text(value.to_string()));
    }

    fn set_source(&mut self, root: &'static str, source: RootSource) {
        self.roots.0.insert(root, Arc::new(Root { source, made: OnceLock::new() }));
        self.values = OnceLock::new();
    }

    fn values(&self) -> &Value {
        self.values.get_or_init(|| {
            let value = |root: &Root| functions::to_tree(root.made()).unwrap_or_default();
            Value::Object(self.roots.0.iter().map(|(name, root)| ((*name).to_owned(), value(root))).collect())
        })
    }

    /// Creates a context of these values, for tests.
    #[cfg(test)]
    pub(super) fn of(values: Value) -> Self {
        let texts: Vec<_> = ROOTS.into_iter().chain(REMEMBERED).map(|root| (root, values[root].to_string())).collect();
        let texts = texts.iter().filter(|(root, _)| values.get(root).is_some());
        Self::of_texts(&texts.map(|(root, text)| (*root, text.as_str())).collect::<Vec<_>>())
    }

    /// Creates a context of these JSON texts, for tests.
    #[cfg(test)]
    pub(super) fn of_texts(texts: &[(&'static str, &str)]) -> Self {
        let mut context = Self::none();
        for (root, text) in texts {
            context.set_source(root, RootSource::Text((*text).to_owned()));
        }
        context
    }

    /// Sets the values of the variables that the flow names.
    pub(super) fn set_settings(&mut self, values: BTreeMap<String, String>) {
        // Most flows name none, and this is made for every step.
        if !values.is_empty() {
            self.set(SETTING, &json!(values));
        }
    }

    /// Returns the context in which a parameter is rendered that may name secrets.
    pub(super) fn with_secrets(&self) -> Self {
        let mut context = self.clone();
        context.set_source(SECRETS, RootSource::Secrets);
        context
    }

    /// Sets the unsubscribe link of this mail.
    pub fn set_unsubscribe_url(&mut self, url: &str) {
        self.set(UNSUBSCRIBE_URL, &Value::from(url));
    }

    /// Records that some existing user has the address that the subject had before.
    pub fn set_address_still_used(&mut self) {
        self.set(STILL_USED, &json!([EMAIL]));
    }

    /// Looks up a dotted name. Below metadata, which the application writes freely, and below null, names
    /// cannot be checked.
    pub(super) fn look(&self, name: &str) -> Sight<'_> {
        let mut owner = String::new();
        let mut value = self.values();
        for field in name.split('.') {
            value = match value {
                Value::Object(fields) => match fields.get(field) {
                    Some(value) => value,
                    None if owner.is_empty() || !is_open(&owner) => {
                        return Sight::Missing { owner, field: field.to_owned(), known: fields };
                    }
                    None => return Sight::Open,
                },
                // Positions and lengths are left to the evaluation of the expression.
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

    /// Sets a dotted name to null if it does not exist.
    pub(super) fn make_known(&mut self, name: &str) {
        let mut values = self.values().clone();
        let mut value = &mut values;
        for field in name.split('.') {
            let Value::Object(fields) = value else { break };
            value = fields.entry(field).or_insert(Value::Null);
        }
        let root = ROOTS.into_iter().chain(REMEMBERED).find(|root| name.split('.').next() == Some(root));
        if let Some(root) = root {
            self.set(root, &values[root]);
        }
    }

    pub(super) fn rendered(&self) -> Rendered {
        Rendered::from_object(self.roots.clone())
    }
}

/// The result of looking up a name.
#[derive(Debug, PartialEq)]
pub(super) enum Sight<'a> {
    /// The name has this value, which may be null.
    There(&'a Value),
    /// The name cannot be checked: a part above it is null, a list, or an object with arbitrary fields.
    Open,
    /// The name does not exist: `owner` has no `field`.
    Missing {
        /// The existing part of the name; empty at the top level.
        owner: String,
        /// The first part of the name that does not exist.
        field: String,
        /// The existing fields of the owner.
        known: &'a Map<String, Value>,
    },
}

/// True if the fields below this name are arbitrary, because others define them: metadata, a mail's tags, a destination's response,
/// and the data that Clerk puts into a mail.
fn is_open(owner: &str) -> bool {
    let is_metadata = owner.split('.').any(|part| part == "metadata" || part == "tags" || part.ends_with("_metadata"));
    is_metadata || owner.starts_with("steps.") || owner == "event.data.data" || owner.starts_with("event.data.data.")
}

/// Returns the JSON of an event, as expressions have it.
fn event_json(event: &Event) -> SharedJson {
    let data = event.data();
    let known = [
        ("id", event.id.to_string()),
        ("type", event.kind.clone()),
        ("instance", event.instance().to_owned()),
        ("occurred_at", event.occurred_at.to_string()),
    ];
    let user_id = match event.source {
        Source::Clerk => data.and_then(|data| user_id(&event.kind, data)),
        // The events of other senders concern a user if their subject is one.
        _ => event.subject.is_of(Source::Clerk).then(|| event.subject.key().to_owned()).filter(|id| !is_no_user(id)),
    };
    let known = known.map(|(name, text)| (name, Value::from(text))).into_iter();
    let known = known.chain([("user_id", Value::from(user_id))]).map(|(name, value)| (name, value.to_string()));
    let data = ("data", data.map_or("null", Json::as_str).to_owned());
    SharedJson::object(known.chain([data]).map(|(name, text)| (name.to_owned(), text)))
}

/// Returns the user whom an event concerns: by the newest snapshot, or by the event itself if there is none. It is empty
/// for an event that concerns no user. The derived texts `email`, `phone` and `name` replace fields of the same names.
fn user(event: Option<&Event>, snapshot: Option<&str>) -> Rendered {
    let own = |data: &Json<'_>| data.get("object").and_then(Json::text).as_deref() == Some("user");
    let user = match snapshot {
        // A snapshot that is not JSON counts as empty, so that steps that do not use it can continue.
        Some(snapshot) => Json::read(snapshot),
        None => event.filter(|event| event.source == Source::Clerk).and_then(Event::data).filter(own),
    };
    let user = SharedJson::of(user.filter(|user| user.is_object()).unwrap_or(Json::EMPTY));
    let read = |user: Json<'_>, name: &str| match name {
        "email" => primary_email(user),
        "phone" => primary_phone(user),
        _ => usher_clerk::name(user),
    };
    SentJson::with_derived(user, Derived { names: &["email", "phone", "name"], read, whole: OnceLock::new() })
}

/// True for keys at Clerk that are not the id of a user: of an organization, and digests.
fn is_no_user(key: &str) -> bool {
    key.starts_with("org_") || key.contains(':')
}
