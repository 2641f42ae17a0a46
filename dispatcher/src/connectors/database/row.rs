//! What is to become of one row, read out of an event.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::table::{From, Kind};
use super::{CannotPrepare, Inputs};
use crate::store::isolate::storable;

/// A change as it is kept.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Change {
    /// The object is like this.
    Upsert(Row),
    /// The object is gone.
    Delete {
        #[serde(default)]
        kind: Kind,
        id: String,
        /// Since when, in milliseconds.
        at: i64,
    },
}

/// A row: its table, and its columns by name.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(default)]
    pub(super) kind: Kind,
    #[serde(flatten)]
    columns: Map<String, Value>,
}

impl Change {
    pub(super) fn of(kind: Kind, inputs: &Inputs<'_>) -> Result<Self, CannotPrepare> {
        let table = kind.table();
        let data = inputs.data.as_object().ok_or_else(|| CannotPrepare("the event has no data".into()))?;
        // Old samples of some objects have no `object`.
        if data.get("object").is_some_and(|object| *object != table.object) {
            return Err(CannotPrepare(format!("the event is about no {}", table.object)));
        }
        let id = data.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
        let id = storable(id.ok_or_else(|| CannotPrepare(format!("the event has no id of a {}", table.object)))?);
        let at = inputs.event.occurred_at.millis();
        // Most deletions hold no more than that they are; that of a membership holds all of it, and only its type tells.
        let deleted = data.get("deleted") == Some(&Value::Bool(true)) || inputs.event.kind.ends_with(".deleted");
        Ok(if deleted { Self::Delete { kind, id, at } } else { Self::Upsert(Row::of(kind, data, at)) })
    }
}

impl Row {
    fn of(kind: Kind, data: &Map<String, Value>, event_at: i64) -> Self {
        let table = kind.table();
        let data = &readable(data);
        let mut columns = Map::new();
        let mut extra = data.clone();
        for (name, from) in table.texts {
            let text = match from {
                From::Field => extra.remove(*name).and_then(|value| value.as_str().map(str::to_owned)),
                From::At(path) => pointer(data, path).and_then(Value::as_str).map(str::to_owned),
                From::Found(find) => find(data),
            };
            // Clerk writes an id that does not apply as null, or as nothing.
            let text = text.filter(|text| !(text.is_empty() && name.ends_with("_id")));
            columns.insert((*name).to_owned(), json!(text));
        }
        let mut time = |name: &str| extra.remove(name).and_then(|value| value.as_i64());
        for name in table.times.iter().copied().chain(["created_at"]) {
            columns.insert(name.to_owned(), json!(time(name)));
        }
        // Required by Clerk's schema; without it the event's own time has to decide.
        columns.insert("updated_at".into(), json!(time("updated_at").unwrap_or(event_at)));
        columns.insert("event_at".into(), json!(event_at));
        columns.insert("extra".into(), Value::String(Value::Object(extra).to_string()));
        Self { kind, columns }
    }

    pub(super) fn id(&self) -> &str {
        self.text("id").unwrap_or_default()
    }

    pub(super) fn text(&self, column: &str) -> Option<&str> {
        self.columns.get(column)?.as_str()
    }

    pub(super) fn time(&self, column: &str) -> Option<i64> {
        self.columns.get(column)?.as_i64()
    }
}

/// The object with every NUL replaced by U+FFFD, in names and texts: Postgres keeps one inside JSON, and then fails every
/// query that looks at it. Lone surrogates never come this far: no Rust text holds one.
fn readable(data: &Map<String, Value>) -> Map<String, Value> {
    data.iter().map(|(name, value)| (storable(name), readable_value(value))).collect()
}

fn readable_value(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(storable(text)),
        Value::Array(values) => Value::Array(values.iter().map(readable_value).collect()),
        Value::Object(object) => Value::Object(readable(object)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn pointer<'a>(data: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut parts = path.trim_start_matches('/').split('/');
    let first = data.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}
