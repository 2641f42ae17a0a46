//! Builds the trigger of a workflow. Pure. It is stored as it is sent, except for the transaction's id.

use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::{PrepareError, StepInput, stored};

/// Size of a stored request, in bytes, at most. Novu accepts 512 KiB; the rest is reserved for the transaction's id.
const MOST_BYTES: usize = 512 * 1024 - 1024;

/// Fields of a trigger, in the order in which they are sent. Their values are passed on unchanged.
type Trigger = BTreeMap<String, Box<RawValue>>;

/// Returns the stored form of the trigger for these inputs.
pub(super) fn prepare(inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
    let mut subscriber = Map::new();
    subscriber.insert("subscriberId".into(), inputs.required("subscriber_id")?.clone());
    if let Some(email) = inputs.email()? {
        subscriber.insert("email".into(), json!(email));
    }
    for (param, field) in
        [("phone", "phone"), ("first_name", "firstName"), ("last_name", "lastName"), ("locale", "locale")]
    {
        if let Some(value) = inputs.params.get(param) {
            subscriber.insert(field.into(), value.clone());
        }
    }
    let mut subscriber: Trigger =
        subscriber.iter().map(|(name, value)| Ok((name.clone(), raw(value.to_string())?))).collect::<Result<_, _>>()?;
    if let Some(data) = data(inputs)? {
        subscriber.insert("data".to_owned(), data);
    }
    let value = |value: &Trigger| to_raw_value(value).map_err(|error| PrepareError(error.to_string()));
    let trigger = Trigger::from([
        ("name".to_owned(), raw(inputs.required("workflow")?.to_string())?),
        ("payload".to_owned(), raw(inputs.json("payload").unwrap_or("{}").to_owned())?),
        ("to".to_owned(), value(&subscriber)?),
    ]);
    let request = stored::write(&trigger)?;
    if request.len() > MOST_BYTES {
        return Err(PrepareError("payload is larger than the 512 KiB that Novu takes".into()));
    }
    Ok(request)
}

/// Returns JSON text as a value that is passed on unchanged.
pub(super) fn raw(json: String) -> Result<Box<RawValue>, PrepareError> {
    RawValue::from_string(json).map_err(|error| PrepareError(error.to_string()))
}

/// Returns the subscriber's own data, or `None` if there are none. Novu's OpenAPI document knows texts, lists of texts,
/// numbers, true and false.
pub(super) fn data(inputs: &StepInput<'_>) -> Result<Option<Box<RawValue>>, PrepareError> {
    let Some(text) = inputs.json("data") else { return Ok(None) };
    let fields: BTreeMap<String, Value> =
        serde_json::from_str(text).map_err(|error| PrepareError(error.to_string()))?;
    for (name, value) in &fields {
        let is_plain = match value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => true,
            Value::Array(items) => items.iter().all(Value::is_string),
            Value::Null | Value::Object(_) => false,
        };
        if !is_plain {
            let why = "is no text, number, true, false or list of texts, and Novu's subscribers have no others";
            return Err(PrepareError(format!("data: {name} {why}")));
        }
    }
    raw(text.to_owned()).map(Some)
}

/// Returns a stored trigger with its transaction's id.
pub(super) fn with_transaction(request: &[u8], id: &str) -> Option<String> {
    let mut trigger: Trigger = serde_json::from_slice(request).ok()?;
    trigger.insert("transactionId".to_owned(), RawValue::from_string(Value::from(id).to_string()).ok()?);
    serde_json::to_string(&trigger).ok()
}
