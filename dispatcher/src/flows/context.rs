//! What templates and expressions of a flow can see: `user`, `event` and `steps`, and in marketing mail the link that ends
//! it.

use serde_json::{Map, Value, json};

use crate::engine::Run;
use crate::subject::{Subject, name, primary_email, primary_phone};

use super::Flow;

/// The names at the top, and so all that a template may begin with.
pub(super) const ROOTS: [&str; 4] = ["user", "event", "steps", UNSUBSCRIBE_URL];

/// The link that ends marketing mail: known once its recipient is.
pub(super) const UNSUBSCRIBE_URL: &str = "unsubscribe_url";

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

    /// With the link that ends this mail.
    pub(crate) fn set_unsubscribe_url(&mut self, url: &str) {
        self.values[UNSUBSCRIBE_URL] = Value::from(url);
    }

    /// The event's `data`.
    pub(crate) fn event_data(&self) -> &Value {
        &self.values["event"]["data"]
    }

    pub(super) fn rendered(&self) -> minijinja::Value {
        minijinja::Value::from(minijinja::value::Serde(&self.values))
    }
}
