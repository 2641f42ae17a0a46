//! Builds the change of a record. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{DELETE, SAVE};
use crate::path::Path;
use crate::{PrepareError, StepInput};

/// Attribute that stores the time of the record's state: milliseconds, followed by three digits for the number of
/// reruns. A rerun therefore overwrites its own state, but never a later one.
pub(super) const GUARD: &str = "usher_updated_at";
/// Value of one millisecond in the guard.
const MILLISECOND: i64 = 1000;
/// Fields of a user that are never put into an index, because browsers search it.
const PRIVATE: [&str; 2] = ["private_metadata", "unsafe_metadata"];

/// A request as it is stored. With a body it is a partial update, without one it is a deletion.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RecordChange {
    pub(super) object: String,
    pub(super) path: String,
    pub(super) body: Option<String>,
}

/// Builds the change for these inputs. `default_index` is used if the flow gives none.
pub(super) fn prepare(inputs: &StepInput<'_>, default_index: Option<&str>) -> Result<RecordChange, PrepareError> {
    let object = inputs.required("object_id")?.as_str().unwrap_or_default().to_owned();
    let index = inputs.params.get("index").and_then(Value::as_str).or(default_index);
    let index = index.ok_or_else(|| PrepareError("index is not given, and ALGOLIA_INDEX is not set".into()))?;
    let record = Path::of("/1/indexes").segment("index", index)?.segment("object_id", &object)?;
    Ok(match inputs.operation {
        SAVE => {
            let mut record_fields = fields(inputs)?;
            record_fields.insert(GUARD.into(), json!({ "_operation": "IncrementSet", "value": age(inputs) }));
            let body = Some(Value::Object(record_fields).to_string());
            // `true` is Algolia's default. It is set explicitly because the first save has to create the record.
            let path = record.then("/partial").query("createIfNotExists", "true");
            RecordChange { object, path: path.into_text(), body }
        }
        DELETE => RecordChange { object, path: record.into_text(), body: None },
        other => return Err(PrepareError(format!("algolia cannot {other}"))),
    })
}

/// Returns the fields of the record: those of the flow, or else the event's user. Empty values are null in both.
fn fields(inputs: &StepInput<'_>) -> Result<Map<String, Value>, PrepareError> {
    let data = inputs.data();
    let mut fields = match (inputs.params.get("fields"), data.as_object()) {
        (Some(fields), _) => fields.as_object().cloned().unwrap_or_default(),
        (None, Some(user)) if data["object"] == "user" && data["deleted"] != true => {
            let public = |(name, _): &(&String, &Value)| !PRIVATE.contains(&name.as_str());
            user.iter().filter(public).map(|(name, value)| (name.clone(), value.clone())).collect()
        }
        (None, _) => return Err(PrepareError("fields are not given, and the event brings no user".into())),
    };
    // The path identifies the object.
    fields.remove("objectID");
    Ok(fields)
}

/// Returns the time of the written state, in the guard's unit: by the object's own clock, else by the event's.
fn age(inputs: &StepInput<'_>) -> i64 {
    let occurred_at = inputs.event.occurred_at.millis();
    let millis = inputs.sent().map_or(occurred_at, |object| usher_clerk::updated_at(object, occurred_at));
    millis.saturating_mul(MILLISECOND).saturating_add(i64::from(inputs.rerun).min(MILLISECOND - 1))
}
