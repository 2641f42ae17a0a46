//! What is to be asked of Stripe, as it is kept: with everything that sending it again and looking it up need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::connectors::path::Path;

use super::{
    CANCEL_SUBSCRIPTION, CANCEL_SUBSCRIPTIONS, CREATE_CUSTOMER, CREATE_SUBSCRIPTION, DELETE_CUSTOMER, MARK,
    PrepareError, StepInput,
};

/// The metadata by which a customer is found where a flow names neither customer nor metadata.
const USER: &str = "clerk_user_id";

/// A request as it is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Kept {
    /// Makes something.
    Make(Make),
    /// Cancels or deletes something.
    Retire(Retire),
}

/// Makes something: the path, and the form as it is sent, but for the mark.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Make {
    pub(super) path: String,
    form: String,
    /// When it was asked for, in seconds. Requests kept by earlier versions have none, and were sent without a mark: they
    /// must be repeated as they were.
    #[serde(default)]
    pub(super) since: Option<i64>,
}

/// Cancels or deletes something.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Retire {
    pub(super) retire: What,
    pub(super) of: Whose,
    /// When it was asked for, in seconds.
    pub(super) at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    Subscription,
    Subscriptions,
    Customer,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Whose {
    /// The object itself, or the customer.
    Id(String),
    /// Every customer with this metadata; never empty.
    Metadata(BTreeMap<String, String>),
}

impl Kept {
    pub(super) fn read(request: &[u8]) -> Option<Self> {
        serde_json::from_slice(request).ok()
    }
}

impl Make {
    /// The path, unless it could be read as another one.
    pub(super) fn path(&self) -> Option<Path> {
        Path::kept(self.path.clone())
    }

    /// The form to send under a key: the same for every attempt under it, as Stripe demands.
    pub(super) fn form_under(&self, key: &str) -> String {
        if self.since.is_none() {
            return self.form.clone();
        }
        let mark = serde_urlencoded::to_string([(format!("metadata[{MARK}]"), key)]).unwrap_or_default();
        let between = if self.form.is_empty() { "" } else { "&" };
        format!("{}{between}{mark}", self.form)
    }

    /// A field of the form.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let fields: Vec<(String, String)> = serde_urlencoded::from_str(&self.form).ok()?;
        fields.into_iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }
}

/// Makes the request of an operation. `price` is used where the flow gives none.
pub(super) fn prepare(inputs: &StepInput<'_>, price: Option<&str>) -> Result<Kept, PrepareError> {
    let at = inputs.event.received_at.seconds();
    let retire = |what, of| Kept::Retire(Retire { retire: what, of, at });
    Ok(match inputs.operation {
        CREATE_CUSTOMER => make("/v1/customers", customer(inputs)?, inputs, at)?,
        CREATE_SUBSCRIPTION => make("/v1/subscriptions", subscription(inputs, price)?, inputs, at)?,
        CANCEL_SUBSCRIPTION => retire(What::Subscription, Whose::Id(id(inputs.required("subscription")?)?)),
        CANCEL_SUBSCRIPTIONS => retire(What::Subscriptions, whose(inputs)?),
        DELETE_CUSTOMER => retire(What::Customer, whose(inputs)?),
        other => return Err(PrepareError(format!("stripe cannot {other}"))),
    })
}

fn text(inputs: &StepInput<'_>, name: &str) -> Option<String> {
    inputs.params.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn metadata<'a>(inputs: &'a StepInput<'_>) -> Option<&'a Map<String, Value>> {
    inputs.params.get("metadata").and_then(Value::as_object)
}

type Form = Vec<(String, String)>;

fn make(path: &str, mut form: Form, inputs: &StepInput<'_>, since: i64) -> Result<Kept, PrepareError> {
    for (name, value) in metadata(inputs).into_iter().flatten() {
        form.push((format!("metadata[{name}]"), value.as_str().unwrap_or_default().to_owned()));
    }
    let form = serde_urlencoded::to_string(form).map_err(|error| PrepareError(error.to_string()))?;
    Ok(Kept::Make(Make { path: path.to_owned(), form, since: Some(since) }))
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
        // Who never gave a card ends with the trial instead of getting an invoice that fails.
        form.push(("trial_settings[end_behavior][missing_payment_method]".into(), "cancel".into()));
    }
    Ok(form)
}

/// An id becomes part of a path: anything that is none could name something else.
fn id(value: &Value) -> Result<String, PrepareError> {
    let id = value.as_str().filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    id.map(str::to_owned).ok_or_else(|| PrepareError("the id of a Stripe object is letters, digits and _".into()))
}

/// Whose things are to go. What came out empty is refused: the rest would fit others, too.
fn whose(inputs: &StepInput<'_>) -> Result<Whose, PrepareError> {
    if let Some(customer) = inputs.params.get("customer") {
        return Ok(Whose::Id(id(customer)?));
    }
    if let Some(wanted) = metadata(inputs) {
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        let whole: Option<BTreeMap<String, String>> = wanted.iter().map(text).collect();
        let whole = whole.filter(|wanted| !wanted.is_empty());
        let empty = || PrepareError("metadata came out empty, at least in part, and would fit other customers".into());
        return whole.map(Whose::Metadata).ok_or_else(empty);
    }
    let user = inputs.data["id"].as_str().filter(|id| !id.is_empty() && inputs.event.kind.starts_with("user."));
    let user = user.ok_or_else(|| {
        PrepareError("neither customer nor metadata is given, and the event is not about a user with an id".into())
    })?;
    Ok(Whose::Metadata([(USER.to_owned(), user.to_owned())].into()))
}
