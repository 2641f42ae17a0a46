//! Builds the write of metadata, and decides what it changes in the event's subject. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use usher_proto::{Json, Source};

use super::{SET_METADATA, SET_ORGANIZATION_METADATA, merge};
use crate::path::Path;
use crate::{PrepareError, StepInput, SubjectChange};

/// Largest size of one metadata field in bytes of JSON. clerk.com/docs (metadata): 8 KB. It is unconfirmed if these are 8,000
/// or 8,192 bytes, so the larger number is allowed here. Clerk compares the merged value, which only it knows.
const MOST_BYTES: usize = 8 * 1024;
/// Parameters, and Clerk's fields that they are merged into.
const FIELDS: [(&str, &str); 3] =
    [("public", "public_metadata"), ("private", "private_metadata"), ("unsafe", "unsafe_metadata")];

/// A write as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MetadataWrite {
    /// Path of the user or organization.
    pub(super) object: String,
    /// Id of the user or organization.
    pub(super) id: String,
    /// The body as it is sent.
    pub(super) body: String,
    /// True if the object is read first, and written only if that changes it.
    pub(super) reads_first: bool,
}

impl MetadataWrite {
    /// True if the write changes nothing in an object, given in the form of Clerk's API.
    pub(super) fn is_in_place(&self, object: &Value) -> bool {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let fields = body.as_object();
        fields.is_some_and(|fields| fields.iter().all(|(name, patch)| merge::is_in_place(object.get(name), patch)))
    }
}

/// The object that is written.
struct Target {
    /// Path of its kind.
    objects: &'static str,
    /// The parameter that names it.
    param: &'static str,
    id: String,
}

/// Builds the write for these inputs.
pub(super) fn prepare(inputs: &StepInput<'_>) -> Result<MetadataWrite, PrepareError> {
    let target = target(inputs)?;
    let patch = patch(inputs)?;
    for (param, field) in FIELDS {
        if patch.get(field).is_some_and(|value| value.to_string().len() > MOST_BYTES) {
            return Err(PrepareError(format!("{param} is larger than the 8 KB that Clerk stores of it")));
        }
    }
    let object = Path::of(target.objects).segment(target.param, &target.id)?.into_text();
    // An event of this kind may be the consequence of a write, by this flow or another one.
    let may_be_echo = inputs.event.source == Source::Clerk && inputs.event.kind.ends_with(".updated");
    let reads_first = may_be_echo && change(inputs, &target, &patch) == SubjectChange::Unknown;
    Ok(MetadataWrite { object, id: target.id, body: Value::Object(patch).to_string(), reads_first })
}

/// Returns what the write changes in the event's subject, as far as its newest known state shows that.
pub(super) fn subject_change(inputs: &StepInput<'_>) -> SubjectChange {
    // Inputs that make no write are reported when it is built.
    match target(inputs).and_then(|target| Ok((patch(inputs)?, target))) {
        Ok((patch, target)) => change(inputs, &target, &patch),
        Err(_) => SubjectChange::Unknown,
    }
}

fn change(inputs: &StepInput<'_>, target: &Target, patch: &Map<String, Value>) -> SubjectChange {
    let Some(Value::Object(mut subject)) = inputs.known.and_then(Json::read).map(Json::to_value) else {
        return SubjectChange::Unknown;
    };
    // Clerk may leave private and unsafe metadata out of what it sends.
    let is_known = |field: &String| subject.get(field).is_some_and(Value::is_object);
    if subject.get("id").and_then(Value::as_str) != Some(&target.id) || !patch.keys().all(is_known) {
        return SubjectChange::Unknown;
    }
    if patch.iter().all(|(field, patch)| merge::is_in_place(subject.get(field), patch)) {
        return SubjectChange::Nothing;
    }
    merge::merge(&mut subject, patch);
    SubjectChange::Becomes(Value::Object(subject))
}

/// Returns the object to write: the one that a parameter names, or else the event's user.
fn target(inputs: &StepInput<'_>) -> Result<Target, PrepareError> {
    let id = |param| inputs.required(param).map(|id| id.as_str().unwrap_or_default().to_owned());
    let user = |id| Target { objects: "/v1/users", param: "user_id", id };
    match inputs.operation {
        SET_ORGANIZATION_METADATA => {
            let id = id("organization_id")?;
            Ok(Target { objects: "/v1/organizations", param: "organization_id", id })
        }
        SET_METADATA if inputs.params.contains_key("user_id") => id("user_id").map(user),
        SET_METADATA => {
            let data = inputs.sent().filter(|_| inputs.event.source == Source::Clerk);
            let own = data.and_then(|data| usher_clerk::user_id(&inputs.event.kind, data));
            own.map(user).ok_or_else(|| PrepareError("user_id is not given, and the event concerns no user".into()))
        }
        other => Err(PrepareError(format!("clerk cannot {other}"))),
    }
}

/// Returns the body: Clerk's fields with what is to be merged into each.
fn patch(inputs: &StepInput<'_>) -> Result<Map<String, Value>, PrepareError> {
    let given = |(param, field): &(&str, &str)| Some(((*field).to_owned(), inputs.params.get(*param)?.clone()));
    let patch: Map<String, Value> = FIELDS.iter().filter_map(given).collect();
    if patch.is_empty() {
        return Err(PrepareError("no metadata are given: name public, private or both, or unsafe of a user".into()));
    }
    Ok(patch)
}
