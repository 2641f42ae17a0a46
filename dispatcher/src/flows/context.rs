//! What templates and expressions of a flow can see: `user`, `event` and `steps`.

use serde_json::{Map, Value, json};

use crate::engine::Run;
use crate::store::Subject;

use super::Flow;

/// The names at the top, and so all that a template may begin with.
pub(super) const ROOTS: [&str; 3] = ["user", "event", "steps"];

/// What is known when a step is due.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    values: Value,
}

impl Context {
    /// From the run and its subject as last known. `user` is the newest snapshot, or the event's own where there is none,
    /// and empty for an event that concerns no user; `user.email`, `user.phone` and `user.name` are added to it.
    pub(crate) fn new(flow: &Flow, run: &Run, subject: Option<&Subject>) -> Result<Self, serde_json::Error> {
        let body: Value = serde_json::from_slice(&run.event.body)?;
        let data = body.get("data").cloned().unwrap_or(Value::Null);
        let own = || if data["object"] == "user" { data.clone() } else { json!({}) };
        let mut user = match subject.and_then(|subject| subject.snapshot.as_deref()) {
            Some(snapshot) => serde_json::from_str(snapshot)?,
            None => own(),
        };
        if let Some(fields) = user.as_object_mut() {
            let derived = [("email", primary_email(fields)), ("phone", primary_phone(fields)), ("name", name(fields))];
            fields.extend(derived.map(|(field, value)| (field.to_owned(), value.map_or(Value::Null, Value::String))));
        }
        let steps: Map<String, Value> = run
            .results
            .iter()
            .filter_map(|(index, result)| Some((flow.steps.get(*index)?.name.clone(), result.clone())))
            .collect();
        let event = json!({
            "id": run.event.id.as_str(),
            "type": run.event.kind,
            "instance": run.event.instance,
            "occurred_at": run.event.occurred_at.to_string(),
            "data": data,
        });
        Ok(Self { values: json!({ "user": user, "event": event, "steps": steps }) })
    }

    /// The event's `data`.
    pub(crate) fn event_data(&self) -> &Value {
        &self.values["event"]["data"]
    }

    pub(super) fn rendered(&self) -> minijinja::Value {
        minijinja::Value::from(minijinja::value::Serde(&self.values))
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

/// The primary phone number, E.164.
pub(crate) fn primary_phone(user: &Map<String, Value>) -> Option<String> {
    primary(user, "primary_phone_number_id", "phone_numbers", "phone_number")
}

fn name(user: &Map<String, Value>) -> Option<String> {
    let part = |field| user.get(field).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let parts: Vec<&str> = [part("first_name"), part("last_name")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
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
    }

    #[test]
    fn a_name_is_made_of_what_there_is() {
        assert_eq!(name(&object(json!({"first_name": "Ann", "last_name": null}))).as_deref(), Some("Ann"));
        assert_eq!(name(&object(json!({"first_name": "", "last_name": " "}))), None);
    }
}
