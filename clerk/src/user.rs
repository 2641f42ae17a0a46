//! Users: the snapshots that events carry, and the fields that are read from them.

use serde_json::{Map, Value};
use usher_proto::{Event, Json, Snapshot, Source};

/// Returns the time of an object's last change, in ms since 1970. This is its own `updated_at`, of any JSON type that
/// can be read as a time, otherwise the event's time, which is slightly later.
pub fn updated_at(object: Json<'_>, occurred_at: i64) -> i64 {
    object.get("updated_at").and_then(Json::millis).map_or(occurred_at, |time| time.value)
}

/// Reads the snapshot from an event; `None` if the event carries none. Every `user.*` event of Clerk carries a complete
/// snapshot, except for the deletion, which only states that the user was deleted.
pub fn snapshot(event: &Event) -> Option<Snapshot> {
    if event.source != Source::Clerk || event.subject.source() != Source::Clerk.label() {
        return None;
    }
    let occurred_at = event.occurred_at.millis();
    match event.kind.as_str() {
        "user.deleted" => Some(Snapshot { updated_at: occurred_at, occurred_at, data: None }),
        "user.created" | "user.updated" => {
            let user = event.data().filter(|data| data.is_object())?;
            let updated_at = updated_at(user, occurred_at);
            Some(Snapshot { updated_at, occurred_at, data: Some(user.as_str().to_owned()) })
        }
        _ => None,
    }
}

/// Returns the id of the user whom an event concerns, from the field that events of its type use; `None` if it concerns
/// no user. Clerk writes an empty string where it means null.
pub fn user_id(kind: &str, data: Json<'_>) -> Option<String> {
    let own: &[&str] = if kind.starts_with("user.") { &["id"] } else { &[] };
    let places: [&[&str]; 5] =
        [own, &["user_id"], &["user", "id"], &["public_user_data", "user_id"], &["payer", "user_id"]];
    places.into_iter().filter(|place| !place.is_empty()).find_map(|place| data.at(place)?.filled()).map(Into::into)
}

/// Returns `field` of the entry of `list` whose id equals the value of `id_field`. The first address in Clerk's list is
/// not necessarily the primary one.
fn primary(user: Json<'_>, id_field: &str, list: &str, field: &str) -> Option<String> {
    let id = user.get(id_field)?.filled()?;
    let is_primary = |entry: &Json<'_>| entry.get("id").and_then(Json::text).is_some_and(|known| known == id);
    user.get(list)?.items().find(is_primary)?.get(field)?.filled().map(Into::into)
}

/// Returns the primary email address; `None` if its id is null or refers to no entry.
pub fn primary_email(user: Json<'_>) -> Option<String> {
    primary(user, "primary_email_address_id", "email_addresses", "email_address")
}

/// Returns the primary email address of a complete user, given as JSON. The other fields are not parsed.
pub fn primary_address(user: &str) -> Option<String> {
    Json::read(user).and_then(primary_email)
}

/// Returns the primary phone number in E.164 format.
pub fn primary_phone(user: Json<'_>) -> Option<String> {
    primary(user, "primary_phone_number_id", "phone_numbers", "phone_number")
}

/// Returns the fields of a user that `names` lists. A field that the user object does not contain, or whose id refers
/// to no entry, is omitted: it is unknown, which is different from null.
pub fn fields(user: Json<'_>, names: &[String]) -> Map<String, Value> {
    let looked_up = |id_field: &str, found: Option<String>| match (user.get(id_field)?.filled(), found) {
        (Some(_), None) => None,
        (_, found) => Some(found.map_or(Value::Null, Value::String)),
    };
    let field = |field: &String| match field.as_str() {
        "email" => looked_up("primary_email_address_id", primary_email(user)),
        "phone" => looked_up("primary_phone_number_id", primary_phone(user)),
        "name" => Some(name(user).map_or(Value::Null, Value::String)),
        other => user.get(other).map(Json::to_value),
    };
    names.iter().filter_map(|name| Some((name.clone(), field(name)?))).collect()
}

/// Returns the first and last name, as far as they are set; `None` if neither is.
pub fn name(user: Json<'_>) -> Option<String> {
    let part = |field| Some(user.get(field)?.text()?.trim().to_owned()).filter(|text| !text.is_empty());
    let parts: Vec<String> = [part("first_name"), part("last_name")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Json<'_> {
        Json::read(text).expect("JSON")
    }

    #[test]
    fn the_primary_address_is_looked_up_and_never_guessed() {
        let addresses =
            json!([{"id": "idn_1", "email_address": "a@x.test"}, {"id": "idn_2", "email_address": "b@x.test"}]);
        let of = |primary: Value| {
            primary_email(read(&json!({"primary_email_address_id": primary, "email_addresses": addresses}).to_string()))
        };
        assert_eq!(of(json!("idn_2")).as_deref(), Some("b@x.test"));
        assert_eq!((of(Value::Null), of(json!("idn_3")), of(json!(""))), (None, None, None));
        let whole = json!({"id": "user_1", "primary_email_address_id": "idn_2", "email_addresses": addresses});
        assert_eq!(primary_address(&whole.to_string()).as_deref(), Some("b@x.test"));
        assert_eq!((primary_address("{}"), primary_address("no JSON")), (None, None));
    }

    #[test]
    fn a_name_is_made_of_what_there_is() {
        assert_eq!(name(read(r#"{"first_name": "Ann", "last_name": null}"#)).as_deref(), Some("Ann"));
        assert_eq!(name(read(r#"{"first_name": "", "last_name": " "}"#)), None);
    }

    #[test]
    fn what_is_not_said_is_left_out_and_is_not_null() {
        let names = ["email", "phone", "totp_enabled", "locale"].map(str::to_owned);
        let of = |value: Value| Value::Object(fields(read(&value.to_string()), &names));
        let addresses = json!([{"id": "idn_1", "email_address": "a@x.test"}]);
        let known = json!({"primary_email_address_id": "idn_1", "email_addresses": addresses, "totp_enabled": false});
        assert_eq!(of(known), json!({"email": "a@x.test", "totp_enabled": false}));
        assert_eq!(
            of(json!({"primary_email_address_id": null, "locale": null})),
            json!({"email": null, "locale": null})
        );
        assert_eq!(of(json!({"primary_email_address_id": "idn_2", "email_addresses": addresses})), json!({}));
    }

    fn event(data: &str) -> Event {
        Event {
            id: usher_proto::EventId::new("msg_1"),
            kind: "user.updated".into(),
            source: Source::Clerk,
            subject: usher_proto::SubjectId::new(
                Source::Clerk,
                &usher_proto::Instance::default(),
                &usher_proto::Key::new("user_1"),
            ),
            occurred_at: usher_proto::Timestamp::from_millis(9_000),
            received_at: usher_proto::Timestamp::from_millis(9_001),
            provenance: Vec::new(),
            body: format!(r#"{{"type":"user.updated","data":{data}}}"#).into(),
        }
    }

    #[test]
    fn a_snapshot_is_read_whatever_stands_in_it_and_its_time_in_every_type() {
        for (updated_at, expected) in [
            ("5000", 5_000),
            (r#""5000""#, 5_000),
            ("5000.0", 5_000),
            ("5000.9", 5_000),
            (r#""1970-01-01T00:00:05Z""#, 5_000),
            ("null", 9_000),
            ("true", 9_000),
            ("1e400", 9_000),
            ("123456789012345678901234567890", 9_000),
            (r#""soon""#, 9_000),
            ("[5000]", 9_000),
            ("{}", 9_000),
        ] {
            let nested = "[".repeat(5_000) + &"]".repeat(5_000);
            let data = format!(
                r#"{{"id":"user_1","unsafe_metadata":{{"a":"\ud83d","b":1e400,"c":{nested}}},"updated_at":{updated_at}}}"#
            );
            let snapshot = super::snapshot(&event(&data)).expect("a snapshot");
            assert_eq!(
                (snapshot.updated_at, snapshot.data.as_deref()),
                (expected, Some(data.as_str())),
                "{updated_at}"
            );
        }
        assert_eq!(super::snapshot(&event(r#"{"id":"user_1"}"#)).map(|snapshot| snapshot.updated_at), Some(9_000));
        for no_user in ["null", "[]", r#""text""#, "7"] {
            assert_eq!(super::snapshot(&event(no_user)), None, "{no_user}");
        }
    }

    #[test]
    fn no_type_in_any_field_keeps_the_others_from_being_read() {
        for odd in ["null", "true", "7", "1e400", r#""x""#, r#""\ud83d""#, "[]", "[7]", "{}", r#"{"id":{}}"#] {
            for field in ["primary_phone_number_id", "phone_numbers", "last_name", "locale", "updated_at"] {
                let user = format!(
                    r#"{{"first_name":"Ann","primary_email_address_id":"idn_1","email_addresses":[7,{{"id":{odd}}},
                    {{"id":"idn_1","email_address":"a@x.test"}}],"{field}":{odd}}}"#
                );
                assert_eq!(primary_email(read(&user)).as_deref(), Some("a@x.test"), "{field} {odd}");
                assert!(name(read(&user)).is_some_and(|name| name.starts_with("Ann")), "{field} {odd}");
                let names = ["email", "phone", "locale"].map(str::to_owned);
                assert_eq!(fields(read(&user), &names)["email"], "a@x.test", "{field} {odd}");
            }
        }
    }
}
