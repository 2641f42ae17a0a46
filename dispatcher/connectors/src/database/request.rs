//! Reads the change of one row from an event. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use usher_clerk::updated_at;
use usher_engine::isolate::storable;
use usher_proto::Json;

use super::table::{ColumnSource, Table, TableKind};
use crate::{PrepareError, StepInput};

/// A change as it is stored.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum RowChange {
    /// The object has this state.
    Upsert(TableRow),
    /// The object was deleted.
    Delete {
        #[serde(default)]
        kind: TableKind,
        id: String,
        /// Time of the deletion, in milliseconds.
        at: i64,
    },
}

/// A row: its table, and its columns by name.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TableRow {
    #[serde(default)]
    pub(super) kind: TableKind,
    #[serde(flatten)]
    columns: Map<String, Value>,
}

/// Returns the change that an event makes.
pub(super) fn prepare(inputs: &StepInput<'_>) -> Result<RowChange, PrepareError> {
    let kind = match inputs.operation {
        "sync_user" => TableKind::User,
        "sync_organization" => TableKind::Organization,
        "sync_membership" => TableKind::Membership,
        "sync_invitation" => TableKind::Invitation,
        other => return Err(PrepareError(format!("database cannot {other}"))),
    };
    RowChange::of(kind, inputs)
}

impl RowChange {
    fn of(kind: TableKind, inputs: &StepInput<'_>) -> Result<Self, PrepareError> {
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
        // Most deletions contain only the id and the fact of the deletion. That of a membership contains the whole
        // object, and only the event's type marks it as a deletion.
        let deleted = data.get("deleted").is_some_and(Json::is_true) || inputs.event.kind.ends_with(".deleted");
        Ok(if deleted { Self::Delete { kind, id, at } } else { Self::Upsert(TableRow::of(kind, data, at)) })
    }
}

impl TableRow {
    fn of(kind: TableKind, data: Json<'_>, event_at: i64) -> Self {
        let table = kind.table();
        let mut columns = Map::new();
        let mut in_columns = Vec::new();
        for (name, from) in table.texts {
            let text = match from {
                ColumnSource::Field => {
                    let field = data.get(name);
                    let text = field.and_then(column_text);
                    if text.is_some() || field.is_some_and(Json::is_null) {
                        in_columns.push(*name);
                    }
                    text
                }
                ColumnSource::At(path) => data.at(path).and_then(Json::text),
                ColumnSource::Found(find) => find(data).map(Cow::Owned),
            };
            // Clerk writes an id that does not apply as null or as an empty text.
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
        // Clerk's schema requires `updated_at`. If it is missing, the event's own time decides.
        columns.insert("updated_at".into(), json!(updated_at(data, event_at)));
        columns.insert("event_at".into(), json!(event_at));
        columns.insert("extra".into(), Value::String(extra(data, &in_columns)));
        Self { kind, columns }
    }

    pub(super) const fn table(&self) -> &'static Table {
        self.kind.table()
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

/// Returns the text of a column if the field can be represented without loss: a text, or the digits of a number.
fn column_text(field: Json<'_>) -> Option<Cow<'_, str>> {
    field.text().or_else(|| field.number().map(Cow::Borrowed))
}

/// Largest number of nesting levels in `extra`. SQLite reads 1,000 levels (sqlite.org/json1.html, section 3.4), and a
/// single row beyond that makes every query over the table fail.
const MAX_DEPTH: usize = 500;

/// Returns the members that no column holds, byte for byte, except those that the user's own SQL could not read: NUL
/// and unpaired surrogates become U+FFFD, and values that are nested too deeply become texts.
fn extra(data: Json<'_>, in_columns: &[&str]) -> String {
    let rest = data.members().filter(|(name, _)| !in_columns.contains(&&**name));
    // If a name occurs twice, the last member counts.
    let members: BTreeMap<String, Json<'_>> = rest.map(|(name, value)| (storable(&name), value)).collect();
    let member = |(name, value): (String, Json<'_>)| format!("{}:{}", Value::from(name), value.storable(MAX_DEPTH - 1));
    format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
}
