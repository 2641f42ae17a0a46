//! Builds requests to Stripe. Pure. Their stored form has everything that is needed to send them again and to look up
//! their effect.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    CANCEL_SUBSCRIPTION, CANCEL_SUBSCRIPTIONS, CREATE_CUSTOMER, CREATE_SUBSCRIPTION, DELETE_CUSTOMER, MARK,
    UPDATE_CUSTOMER,
};
use crate::path::Path;
use crate::{PrepareError, StepInput};

/// Metadata name by which a customer is found if a flow gives neither a customer nor metadata.
const USER: &str = "clerk_user_id";

/// A request as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum StoredRequest {
    /// Creates an object.
    Make(Make),
    /// Cancels or deletes objects.
    Retire(Retire),
    /// Sets fields of customers.
    Update(Update),
}

/// Creation of an object: the path, and the form as it is sent, except for the mark.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Make {
    pub(super) path: String,
    form: String,
    /// Arrival time of the event, in seconds. Absent in requests stored by earlier versions. Those were sent without a
    /// mark and must be repeated unchanged.
    #[serde(default)]
    pub(super) since: Option<i64>,
}

/// Cancellation or deletion of objects.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Retire {
    #[serde(rename = "retire")]
    pub(super) kind: RetireKind,
    #[serde(rename = "of")]
    pub(super) target: Customers,
    /// Arrival time of the event, in seconds.
    pub(super) at: i64,
}

/// Change of customers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Update {
    #[serde(rename = "update")]
    pub(super) target: Customers,
    /// The form as it is sent, with the fields to set. Empty if there are none.
    pub(super) form: String,
    /// Arrival time of the event, in seconds.
    pub(super) at: i64,
}

/// Objects that a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RetireKind {
    /// One subscription, which is cancelled.
    Subscription,
    /// All subscriptions of the customers, which are cancelled.
    Subscriptions,
    /// The customers, which are deleted.
    Customer,
}

/// Selection of the customers, or of the subscription to cancel.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Customers {
    /// The id of the object itself, or of the customer.
    Id(String),
    /// All customers with this metadata; never empty.
    Metadata(BTreeMap<String, String>),
}

impl Make {
    /// Returns the path, or `None` if it could be interpreted as another one.
    pub(super) fn path(&self) -> Option<Path> {
        Path::kept(self.path.clone())
    }

    /// Returns the form to send under a key. It is the same for every attempt under that key, as Stripe demands.
    pub(super) fn form_under(&self, key: &str) -> String {
        if self.since.is_none() {
            return self.form.clone();
        }
        let mark = serde_urlencoded::to_string([(format!("metadata[{MARK}]"), key)]).unwrap_or_default();
        let between = if self.form.is_empty() { "" } else { "&" };
        format!("{}{between}{mark}", self.form)
    }

    /// Returns a field of the form.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let fields: Vec<(String, String)> = serde_urlencoded::from_str(&self.form).ok()?;
        fields.into_iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }
}

/// Builds the request of an operation. `price` is used if the flow gives none.
pub(super) fn prepare(inputs: &StepInput<'_>, price: Option<&str>) -> Result<StoredRequest, PrepareError> {
    let at = inputs.event.received_at.seconds();
    let retire = |kind, target| StoredRequest::Retire(Retire { kind, target, at });
    Ok(match inputs.operation {
        CREATE_CUSTOMER => make("/v1/customers", customer(inputs)?, inputs, at)?,
        UPDATE_CUSTOMER => {
            let form = form(customer(inputs)?, inputs)?;
            StoredRequest::Update(Update { target: target(inputs, "found_by")?, form, at })
        }
        CREATE_SUBSCRIPTION => make("/v1/subscriptions", subscription(inputs, price)?, inputs, at)?,
        CANCEL_SUBSCRIPTION => retire(RetireKind::Subscription, Customers::Id(id(inputs.required("subscription")?)?)),
        CANCEL_SUBSCRIPTIONS => retire(RetireKind::Subscriptions, target(inputs, "metadata")?),
        DELETE_CUSTOMER => retire(RetireKind::Customer, target(inputs, "metadata")?),
        other => return Err(PrepareError(format!("stripe cannot {other}"))),
    })
}

fn text(inputs: &StepInput<'_>, name: &str) -> Option<String> {
    inputs.params.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn table<'a>(inputs: &'a StepInput<'_>, name: &str) -> Option<&'a Map<String, Value>> {
    inputs.params.get(name).and_then(Value::as_object)
}

type Form = Vec<(String, String)>;

fn make(path: &str, fields: Form, inputs: &StepInput<'_>, since: i64) -> Result<StoredRequest, PrepareError> {
    let form = form(fields, inputs)?;
    Ok(StoredRequest::Make(Make { path: path.to_owned(), form, since: Some(since) }))
}

/// Returns the encoded form of these fields and the metadata to write.
fn form(mut fields: Form, inputs: &StepInput<'_>) -> Result<String, PrepareError> {
    for (name, value) in table(inputs, "metadata").into_iter().flatten() {
        fields.push((format!("metadata[{name}]"), value.as_str().unwrap_or_default().to_owned()));
    }
    serde_urlencoded::to_string(fields).map_err(|error| PrepareError(error.to_string()))
}

fn customer(inputs: &StepInput<'_>) -> Result<Form, PrepareError> {
    let fields = [("email", inputs.email()?), ("name", text(inputs, "full_name")), ("phone", text(inputs, "phone"))];
    Ok(fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))).collect())
}

fn subscription(inputs: &StepInput<'_>, price: Option<&str>) -> Result<Form, PrepareError> {
    let price = text(inputs, "price").or_else(|| price.map(str::to_owned));
    let price = price.ok_or_else(|| PrepareError("price is not given, and STRIPE_PRICE_ID is not set".into()))?;
    let mut form = vec![("customer".into(), id(inputs.required("customer")?)?), ("items[0][price]".to_owned(), price)];
    if let Some(days) = inputs.params.get("trial_days").and_then(Value::as_u64) {
        form.push(("trial_period_days".into(), days.to_string()));
        // Without a payment method the subscription ends with the trial; else Stripe would issue an invoice that fails.
        form.push(("trial_settings[end_behavior][missing_payment_method]".into(), "cancel".into()));
    }
    Ok(form)
}

/// Checks an id. It becomes part of a path, so any other text could address another object.
fn id(value: &Value) -> Result<String, PrepareError> {
    let id = value.as_str().filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    id.map(str::to_owned).ok_or_else(|| PrepareError("the id of a Stripe object is letters, digits and _".into()))
}

/// Returns the customers that the request applies to. The parameter `by` selects them by their metadata. Metadata with an
/// empty value are refused: the remaining ones would match other customers, too.
fn target(inputs: &StepInput<'_>, by: &str) -> Result<Customers, PrepareError> {
    if inputs.params.contains_key("customer") {
        return Ok(Customers::Id(id(inputs.required("customer")?)?));
    }
    if let Some(wanted) = table(inputs, by) {
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        let whole: Option<BTreeMap<String, String>> = wanted.iter().map(text).collect();
        let whole = whole.filter(|wanted| !wanted.is_empty());
        let empty = || PrepareError(format!("{by} came out empty, at least in part, and would fit other customers"));
        return whole.map(Customers::Metadata).ok_or_else(empty);
    }
    let data = inputs.data();
    let user = data["id"].as_str().filter(|id| !id.is_empty() && inputs.event.kind.starts_with("user."));
    let user = user.ok_or_else(|| {
        PrepareError(format!("neither customer nor {by} is given, and the event is not about a user with an id"))
    })?;
    Ok(Customers::Metadata([(USER.to_owned(), user.to_owned())].into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_request_keeps_its_form() {
        let retire = |kind, target| StoredRequest::Retire(Retire { kind, target, at: 7 });
        let metadata = Customers::Metadata([("a".to_owned(), "b".to_owned())].into());
        let update = Update { target: Customers::Id("cus_1".to_owned()), form: "name=a".to_owned(), at: 7 };
        let make = Make { path: "/v1/customers".to_owned(), form: "email=a".to_owned(), since: Some(7) };
        for (request, stored) in [
            (StoredRequest::Make(make), r#"{"path":"/v1/customers","form":"email=a","since":7}"#),
            (
                retire(RetireKind::Subscription, Customers::Id("sub_1".to_owned())),
                r#"{"retire":"Subscription","of":{"Id":"sub_1"},"at":7}"#,
            ),
            (
                retire(RetireKind::Subscriptions, Customers::Id("cus_1".to_owned())),
                r#"{"retire":"Subscriptions","of":{"Id":"cus_1"},"at":7}"#,
            ),
            (StoredRequest::Update(update), r#"{"update":{"Id":"cus_1"},"form":"name=a","at":7}"#),
            (retire(RetireKind::Customer, metadata), r#"{"retire":"Customer","of":{"Metadata":{"a":"b"}},"at":7}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).expect("JSON"), stored);
            let read: StoredRequest = serde_json::from_str(stored).expect("it reads back");
            assert_eq!(serde_json::to_string(&read).expect("JSON"), stored);
        }
    }
}
