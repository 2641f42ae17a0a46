//! Whom a key stands for: what events say of a subject, which of two sayings counts, and what is read out of it.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use usher_proto::{Event, Source};

/// Whom a key stands for, as last known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The newest snapshot, as JSON; none once deleted.
    pub snapshot: Option<String>,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Counts what was applied.
    pub revision: i64,
}

/// The state of a subject as one event has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When the subject last changed, by its own clock, in milliseconds.
    pub updated_at: i64,
    /// When the event happened, in milliseconds: decides between equal `updated_at`.
    pub occurred_at: i64,
    /// The whole object as JSON; none if it was deleted.
    pub data: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    updated_at: Option<i64>,
}

impl Snapshot {
    /// Reads the snapshot out of an event that holds one. Every `user.*` event of Clerk is a whole snapshot, but for the
    /// deletion, which says only that.
    pub fn of(event: &Event) -> Option<Self> {
        if event.source != Source::Clerk || event.subject.source() != Source::Clerk.label() {
            return None;
        }
        let occurred_at = event.occurred_at.millis();
        match event.kind.as_str() {
            "user.deleted" => Some(Self { updated_at: occurred_at, occurred_at, data: None }),
            "user.created" | "user.updated" => {
                let envelope: Envelope<'_> = serde_json::from_slice(&event.body).ok()?;
                let version: Versioned = serde_json::from_str(envelope.data.get()).ok()?;
                let updated_at = version.updated_at.unwrap_or(occurred_at);
                Some(Self { updated_at, occurred_at, data: Some(envelope.data.get().to_owned()) })
            }
            _ => None,
        }
    }

    /// Whether this one counts where `other` came before it: a deletion always wins, newer wins, equal is not older.
    pub fn replaces(&self, other: &Self) -> bool {
        match (&self.data, &other.data) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(_), Some(_)) => (self.updated_at, self.occurred_at) >= (other.updated_at, other.occurred_at),
        }
    }
}

/// The entry of `list` whose id is the one under `id_field`: its `field`. Clerk's first address is not its primary one.
fn primary(user: &Map<String, Value>, id_field: &str, list: &str, field: &str) -> Option<String> {
    let id = user.get(id_field)?.as_str().filter(|id| !id.is_empty())?;
    let entry = user.get(list)?.as_array()?.iter().find(|entry| entry["id"] == id)?;
    entry[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The primary address; none where the id is null, or points at nothing.
pub(crate) fn primary_email(user: &Map<String, Value>) -> Option<String> {
    primary(user, "primary_email_address_id", "email_addresses", "email_address")
}

/// The primary address of a whole user, as JSON; what else stands in it is not read.
pub(crate) fn primary_address(user: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Addresses {
        primary_email_address_id: Value,
        email_addresses: Value,
    }
    let Addresses { primary_email_address_id, email_addresses } = serde_json::from_str(user).ok()?;
    let named = [("primary_email_address_id", primary_email_address_id), ("email_addresses", email_addresses)];
    primary_email(&named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The primary phone number, E.164.
pub(crate) fn primary_phone(user: &Map<String, Value>) -> Option<String> {
    primary(user, "primary_phone_number_id", "phone_numbers", "phone_number")
}

/// Those of its fields that `names` names. What the user does not say, or points at nothing, is left out: that is not
/// known, and something else than null.
pub(crate) fn fields(user: &Map<String, Value>, names: &[String]) -> Map<String, Value> {
    let looked_up = |id_field: &str, found: Option<String>| match (user.get(id_field)?.as_str(), found) {
        (Some(id), None) if !id.is_empty() => None,
        (_, found) => Some(found.map_or(Value::Null, Value::String)),
    };
    let field = |field: &String| match field.as_str() {
        "email" => looked_up("primary_email_address_id", primary_email(user)),
        "phone" => looked_up("primary_phone_number_id", primary_phone(user)),
        "name" => Some(name(user).map_or(Value::Null, Value::String)),
        other => user.get(other).cloned(),
    };
    names.iter().filter_map(|name| Some((name.clone(), field(name)?))).collect()
}

/// First and last name, as far as there are any.
pub(crate) fn name(user: &Map<String, Value>) -> Option<String> {
    let part = |field| user.get(field).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let parts: Vec<&str> = [part("first_name"), part("last_name")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn the_primary_address_is_looked_up_and_never_guessed() {
        let addresses =
            json!([{"id": "idn_1", "email_address": "a@x.test"}, {"id": "idn_2", "email_address": "b@x.test"}]);
        let of = |primary: Value| {
            primary_email(&object(json!({"primary_email_address_id": primary, "email_addresses": addresses})))
        };
        assert_eq!(of(json!("idn_2")).as_deref(), Some("b@x.test"));
        assert_eq!((of(Value::Null), of(json!("idn_3")), of(json!(""))), (None, None, None));
        let whole = json!({"id": "user_1", "primary_email_address_id": "idn_2", "email_addresses": addresses});
        assert_eq!(primary_address(&whole.to_string()).as_deref(), Some("b@x.test"));
        assert_eq!((primary_address("{}"), primary_address("no JSON")), (None, None));
    }

    #[test]
    fn a_name_is_made_of_what_there_is() {
        assert_eq!(name(&object(json!({"first_name": "Ann", "last_name": null}))).as_deref(), Some("Ann"));
        assert_eq!(name(&object(json!({"first_name": "", "last_name": " "}))), None);
    }

    #[test]
    fn what_is_not_said_is_left_out_and_is_not_null() {
        let names = ["email", "phone", "totp_enabled", "locale"].map(str::to_owned);
        let of = |value: Value| Value::Object(fields(&object(value), &names));
        let addresses = json!([{"id": "idn_1", "email_address": "a@x.test"}]);
        let known = json!({"primary_email_address_id": "idn_1", "email_addresses": addresses, "totp_enabled": false});
        assert_eq!(of(known), json!({"email": "a@x.test", "totp_enabled": false}));
        assert_eq!(
            of(json!({"primary_email_address_id": null, "locale": null})),
            json!({"email": null, "locale": null})
        );
        assert_eq!(of(json!({"primary_email_address_id": "idn_2", "email_addresses": addresses})), json!({}));
    }

    fn snapshot(updated_at: i64, occurred_at: i64, alive: bool) -> Snapshot {
        Snapshot { updated_at, occurred_at, data: alive.then(|| "{}".to_owned()) }
    }

    #[test]
    fn newer_wins_equal_is_not_older_and_a_deletion_is_final() {
        let old = snapshot(5, 9, true);
        assert!(snapshot(6, 0, true).replaces(&old));
        assert!(snapshot(5, 9, true).replaces(&old));
        assert!(!snapshot(5, 8, true).replaces(&old));
        assert!(snapshot(1, 1, false).replaces(&old));
        assert!(!snapshot(9, 9, true).replaces(&snapshot(1, 1, false)));
    }
}
