//! Builds the change of a contact. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{DELETE_CONTACT, PUT_CONTACT};
use crate::{PrepareError, StepInput};

/// Value of `topics` for a topic whose broadcasts the contact gets.
pub(super) const OPT_IN: &str = "opt_in";
/// Value of `topics` for a topic whose broadcasts the contact does not get.
pub(super) const OPT_OUT: &str = "opt_out";

/// A change of a contact as it is stored. A mail's stored form has no `operation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ContactChange {
    pub(super) operation: String,
    pub(super) email: String,
    /// Address of the person's earlier contact; absent if the address has not changed.
    #[serde(default)]
    pub(super) former: Option<String>,
    /// Names, by Resend's names of the fields; a name that is absent stays as it is.
    #[serde(default)]
    pub(super) names: BTreeMap<String, String>,
    /// True if the contact gets no broadcasts. False changes nothing.
    #[serde(default)]
    pub(super) unsubscribed: bool,
    /// Ids of segments that the contact joins.
    #[serde(default)]
    pub(super) segments: Vec<String>,
    /// Subscriptions by the topic's id: `opt_in` or `opt_out`.
    #[serde(default)]
    pub(super) topics: BTreeMap<String, String>,
    /// Custom properties: texts, numbers, and null to remove one.
    #[serde(default)]
    pub(super) properties: Map<String, Value>,
}

/// Builds the change for these inputs.
pub(super) fn prepare(inputs: &StepInput<'_>) -> Result<ContactChange, PrepareError> {
    inputs.required("email")?;
    let email = inputs.email()?.unwrap_or_default();
    let former = inputs.mailboxes("former_email")?.pop().map(|mailbox| mailbox.address);
    let text = |name: &str| Some((name.to_owned(), inputs.params.get(name)?.as_str()?.to_owned()));
    let table = |name: &str| inputs.params.get(name).and_then(Value::as_object).into_iter().flatten();
    let topics = table("topics").map(|(topic, wanted)| match wanted.as_str() {
        Some(wanted @ (OPT_IN | OPT_OUT)) => Ok((topic.clone(), wanted.to_owned())),
        _ => Err(PrepareError(format!("topics: the subscription of {topic:?} is {OPT_IN:?} or {OPT_OUT:?}"))),
    });
    let properties = table("properties").map(|(name, value)| match value {
        Value::Null | Value::String(_) | Value::Number(_) => Ok((name.clone(), value.clone())),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Err(PrepareError(format!("properties: {name} is neither a text nor a number, and Resend has no others")))
        }
    });
    let segments = match inputs.params.get("segments") {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(id)) => vec![id.clone()],
        Some(_) | None => Vec::new(),
    };
    match inputs.operation {
        PUT_CONTACT | DELETE_CONTACT => Ok(ContactChange {
            operation: inputs.operation.to_owned(),
            former: former.filter(|former| !former.eq_ignore_ascii_case(&email)),
            email,
            names: ["first_name", "last_name"].into_iter().filter_map(text).collect(),
            unsubscribed: inputs.params.get("unsubscribed") == Some(&Value::Bool(true)),
            segments,
            topics: topics.collect::<Result<_, _>>()?,
            properties: properties.collect::<Result<_, _>>()?,
        }),
        other => Err(PrepareError(format!("resend cannot {other}"))),
    }
}

impl ContactChange {
    /// Returns the body that creates the contact.
    pub(super) fn creation(&self) -> Value {
        let mut contact = self.fields();
        contact.insert("email".to_owned(), json!(self.email));
        // Null removes a property, and a new contact has none.
        let properties: Map<String, Value> =
            self.properties.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
        contact.insert("properties".to_owned(), Value::Object(properties));
        contact.insert("segments".to_owned(), json!(self.segments));
        contact.insert("topics".to_owned(), self.topics(|_| true));
        contact.retain(|_, value| !is_empty(value));
        Value::Object(contact)
    }

    /// Returns the body that updates the contact, or `None` if nothing in it would change. It never subscribes
    /// anybody: `unsubscribed` is true or absent.
    pub(super) fn update(&self) -> Option<Value> {
        let mut contact = self.fields();
        contact.insert("properties".to_owned(), Value::Object(self.properties.clone()));
        contact.retain(|_, value| !is_empty(value));
        (!contact.is_empty()).then_some(Value::Object(contact))
    }

    /// Returns the body that ends subscriptions to topics, or `None` if there are none. Nobody is opted in who is a
    /// contact already: Resend does not tell a person's own refusal from a topic's default.
    pub(super) fn opt_outs(&self) -> Option<Value> {
        let topics = self.topics(|wanted| wanted == OPT_OUT);
        (!is_empty(&topics)).then(|| json!({ "topics": topics }))
    }

    fn topics(&self, which: impl Fn(&str) -> bool) -> Value {
        let chosen = self.topics.iter().filter(|(_, wanted)| which(wanted));
        chosen.map(|(id, wanted)| json!({ "id": id, "subscription": wanted })).collect()
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields: Map<String, Value> = self.names.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        if self.unsubscribed {
            fields.insert("unsubscribed".to_owned(), json!(true));
        }
        fields
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}
