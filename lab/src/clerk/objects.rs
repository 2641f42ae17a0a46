//! The users and organizations of the double, and the merge of their metadata.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use usher_clerk::samples;
use usher_proto::Timestamp;

use super::error;
use crate::answer::FakeResponse;
use crate::bounded::Bounded;
use crate::ids;

/// Largest size of one metadata field, in bytes of JSON.
const MOST_METADATA: usize = 8 * 1024;
/// Length of the random part of an id.
const ID: usize = 27;
/// Fields of an object that metadata are merged into.
const METADATA: [&str; 3] = ["public_metadata", "private_metadata", "unsafe_metadata"];

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Organization,
}

impl Kind {
    /// Returns the kind whose objects have this segment in their paths.
    pub(super) fn of(segment: &str) -> Option<Self> {
        match segment {
            "users" => Some(Self::User),
            "organizations" => Some(Self::Organization),
            _ => None,
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::User => "user_",
            Self::Organization => "org_",
        }
    }

    const fn object(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Organization => "organization",
        }
    }

    /// Returns a whole object in the form of Clerk's API, that of its sample.
    fn whole(self) -> Map<String, Value> {
        let kind = format!("{}.created", self.object());
        let sample = samples::of_type(&kind).into_iter().next().map(|mut sample| sample["data"].take());
        match sample {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }
}

/// An object as it is stored.
#[derive(Debug, Clone)]
struct ClerkObject {
    fields: Map<String, Value>,
    /// True if it was created here. Of other objects only the metadata are known.
    is_whole: bool,
    is_deleted: bool,
}

/// The objects of an instance.
#[derive(Debug)]
pub(super) struct ClerkObjects {
    all: Bounded<String, ClerkObject>,
}

impl ClerkObjects {
    pub(super) fn holding(most: usize) -> Self {
        Self { all: Bounded::new(most) }
    }

    /// Creates an object with these fields, and returns it.
    pub(super) fn create(&mut self, kind: Kind, given: &Map<String, Value>, now: Timestamp) -> Value {
        let id = ids::prefixed(kind.prefix(), ID);
        let mut fields = kind.whole();
        fields.insert("id".into(), json!(id));
        for name in METADATA.iter().filter(|name| fields.contains_key(**name)).copied().collect::<Vec<_>>() {
            fields.insert(name.into(), given.get(name).cloned().unwrap_or_else(|| json!({})));
        }
        if kind == Kind::User {
            for name in ["first_name", "last_name"] {
                fields.insert(name.into(), given.get(name).cloned().unwrap_or_default());
            }
            let addresses = given.get("email_address").and_then(Value::as_array).into_iter().flatten();
            let addresses: Vec<Value> = addresses.filter_map(|it| Some(address(it.as_str()?, now))).collect();
            let primary = addresses.first().map(|address| address["id"].clone()).unwrap_or_default();
            fields.insert("primary_email_address_id".into(), primary);
            fields.insert("email_addresses".into(), Value::Array(addresses));
            fields.insert("external_accounts".into(), json!([]));
        } else if let Some(name) = given.get("name") {
            fields.insert("name".into(), name.clone());
        }
        for name in ["created_at", "updated_at"] {
            fields.insert(name.into(), json!(now.millis()));
        }
        let object = Value::Object(fields.clone());
        self.all.insert(id, ClerkObject { fields, is_whole: true, is_deleted: false });
        object
    }

    /// Returns an object.
    pub(super) fn get(&self, kind: Kind, id: &str) -> Result<Value, FakeResponse> {
        self.find(kind, id).map(|object| Value::Object(object.fields))
    }

    /// Merges metadata into an object. Returns the object, and true if it was created here.
    pub(super) fn merge(
        &mut self,
        kind: Kind,
        id: &str,
        patch: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<(Value, bool), FakeResponse> {
        let mut object = self.find(kind, id)?;
        for (name, patch) in patch {
            let mut merged = object.fields.get(name).cloned().unwrap_or_else(|| json!({}));
            merge(&mut merged, patch);
            if merged.to_string().len() > MOST_METADATA {
                let message =
                    format!("The given {name} exceeds the maximum allowed size of {MOST_METADATA} bytes (8 KB).");
                let code = "form_param_exceeds_allowed_size";
                return Err(error(StatusCode::UNPROCESSABLE_ENTITY, code, &message, Some(name)));
            }
            object.fields.insert(name.clone(), merged);
        }
        // Later than the last change, also within a millisecond, so that the newest state is known by its time.
        let before = object.fields.get("updated_at").and_then(Value::as_i64).unwrap_or_default();
        object.fields.insert("updated_at".into(), json!(now.millis().max(before + 1)));
        let answer = (Value::Object(object.fields.clone()), object.is_whole);
        self.all.insert(id.to_owned(), object);
        Ok(answer)
    }

    /// Deletes an object. Returns what Clerk answers with.
    pub(super) fn delete(&mut self, kind: Kind, id: &str) -> Result<Value, FakeResponse> {
        let object = self.find(kind, id)?;
        self.all.insert(id.to_owned(), ClerkObject { is_deleted: true, ..object });
        Ok(json!({ "object": kind.object(), "id": id, "deleted": true }))
    }

    /// Returns an object as it is stored, or one with nothing but its id if an object of that id can exist.
    fn find(&self, kind: Kind, id: &str) -> Result<ClerkObject, FakeResponse> {
        let missing = || {
            let message = format!("No {} was found with id {id}", kind.object());
            error(StatusCode::NOT_FOUND, "resource_not_found", &message, None)
        };
        if let Some(object) = self.all.get(id) {
            return if object.is_deleted { Err(missing()) } else { Ok(object.clone()) };
        }
        let rest = id.strip_prefix(kind.prefix()).filter(|rest| !rest.is_empty() && !rest.starts_with("missing"));
        if rest.is_none() {
            return Err(missing());
        }
        let mut fields = kind.whole();
        fields.insert("id".into(), json!(id));
        for name in METADATA.iter().filter(|name| fields.contains_key(**name)).copied().collect::<Vec<_>>() {
            fields.insert(name.into(), json!({}));
        }
        if kind == Kind::User {
            for name in ["first_name", "last_name", "primary_email_address_id"] {
                fields.insert(name.into(), Value::Null);
            }
            for name in ["email_addresses", "external_accounts"] {
                fields.insert(name.into(), json!([]));
            }
        }
        Ok(ClerkObject { fields, is_whole: false, is_deleted: false })
    }
}

/// Returns a verified address in the form of Clerk's API.
fn address(text: &str, now: Timestamp) -> Value {
    json!({
        "id": ids::prefixed("idn_", ID), "object": "email_address", "email_address": text, "reserved": false,
        "verification": {
            "object": "verification_admin", "status": "verified", "strategy": "admin", "attempts": null, "expire_at": null,
        },
        "linked_to": [], "matches_sso_connection": false, "created_at": now.millis(), "updated_at": now.millis(),
    })
}

/// Merges metadata as Clerk documents it. It is written a second time here, and not shared with the connector: a mistake in one of
/// them is found by the other.
fn merge(into: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (name, field) in fields {
                if field.is_null() {
                    if let Some(into) = into.as_object_mut() {
                        into.remove(name);
                    }
                } else {
                    merge(&mut into[name], field);
                }
            }
        }
        other => *into = other.clone(),
    }
}
