//! What is to become of one row, read out of an event.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use usher_proto::Json;

use super::table::{From, Kind};
use super::{PrepareError, StepInput};
use crate::store::isolate::storable;
use crate::subject::updated_at;

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
    pub(super) fn of(kind: Kind, inputs: &StepInput<'_>) -> Result<Self, PrepareError> {
        let table = kind.table();
        let data = inputs.sent().filter(|data| data.is_object());
        let data = data.ok_or_else(|| PrepareError("the event has no data".into()))?;
        // Old samples of some objects have no `object`.
        let object = data.get("object").and_then(Json::text);
        if object.is_some_and(|object| object != table.object) {
            return Err(PrepareError(format!("the event is about no {}", table.object)));
        }
        let id = data.get("id").and_then(Json::filled);
        let id = storable(&id.ok_or_else(|| PrepareError(format!("the event has no id of a {}", table.object)))?);
        let at = inputs.event.occurred_at.millis();
        // Most deletions hold no more than that they are; that of a membership holds all of it, and only its type tells.
        let deleted = data.get("deleted").is_some_and(Json::is_true) || inputs.event.kind.ends_with(".deleted");
        Ok(if deleted { Self::Delete { kind, id, at } } else { Self::Upsert(Row::of(kind, data, at)) })
    }
}

impl Row {
    fn of(kind: Kind, data: Json<'_>, event_at: i64) -> Self {
        let table = kind.table();
        let (mut columns, mut in_columns) = (Map::new(), Vec::new());
        for (name, from) in table.texts {
            let text = match from {
                From::Field => {
                    let field = data.get(name);
                    let text = field.and_then(column_text);
                    if text.is_some() || field.is_some_and(Json::is_null) {
                        in_columns.push(*name);
                    }
                    text
                }
                From::At(path) => data.at(path).and_then(Json::text),
                From::Found(find) => find(data).map(Cow::Owned),
            };
            // Clerk writes an id that does not apply as null, or as nothing.
            let text = text.filter(|text| !(text.is_empty() && name.ends_with("_id")));
            columns.insert((*name).to_owned(), json!(text.map(|text| storable(&text))));
        }
        for name in table.times.iter().copied().chain(["created_at", "updated_at"]) {
            let field = data.get(name);
            let time = field.and_then(Json::millis);
            if time.is_some_and(|time| time.is_exact) || field.is_some_and(Json::is_null) {
                in_columns.push(name);
            }
            columns.insert(name.to_owned(), json!(time.map(|time| time.value)));
        }
        // Required by Clerk's schema; without it the event's own time has to decide.
        columns.insert("updated_at".into(), json!(updated_at(data, event_at)));
        columns.insert("event_at".into(), json!(event_at));
        columns.insert("extra".into(), Value::String(extra(data, &in_columns)));
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

/// The text of a column, where the field says one without loss: a text, or the digits of a number.
fn column_text(field: Json<'_>) -> Option<Cow<'_, str>> {
    field.text().or_else(|| field.number().map(Cow::Borrowed))
}

/// Levels of nesting in `extra`, at most: SQLite reads 1,000 levels (sqlite.org/json1.html, section 3.4), and one row
/// beyond fails every query over the table.
const MAX_DEPTH: usize = 500;

/// The members that no column holds, byte for byte, but for what the user's own SQL could not read: NUL and half
/// surrogate pairs become U+FFFD, and what is nested too deep stands as a text.
fn extra(data: Json<'_>, in_columns: &[&str]) -> String {
    let rest = data.members().filter(|(name, _)| !in_columns.contains(&&**name));
    // Of two of the same name the last one counts.
    let members: BTreeMap<String, Json<'_>> = rest.map(|(name, value)| (storable(&name), value)).collect();
    let member = |(name, value): (String, Json<'_>)| format!("{}:{}", Value::from(name), value.storable(MAX_DEPTH - 1));
    format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
}
