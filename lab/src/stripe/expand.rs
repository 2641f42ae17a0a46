//! The parameter `expand[]`: replaces ids in a response by their objects.
//!
//! Facts: docs.stripe.com/expand: paths are dotted, at most four levels deep; in lists they begin with `data.`. A
//! property that cannot be expanded is refused. The lab has the objects of customers only, and of invoices a stub of a
//! first invoice of amount 0.

use serde_json::{Value, json};

use super::account::StripeAccount;
use super::error::StripeError;

const DEEPEST: usize = 4;
/// Properties that hold an id or `null` in the objects of the lab.
const EXPANDABLE: [&str; 7] = [
    "customer",
    "default_payment_method",
    "default_source",
    "latest_invoice",
    "pending_setup_intent",
    "schedule",
    "test_clock",
];

/// Expands the properties that `paths` name in a response.
pub(super) fn expand(answer: &mut Value, paths: &[String], account: &StripeAccount) -> Result<(), StripeError> {
    for path in paths {
        let names: Vec<&str> = path.split('.').collect();
        if names.len() > DEEPEST {
            return Err(StripeError::invalid(
                "expand",
                format!("You cannot expand more than 4 levels of a property: {path}."),
            ));
        }
        let listed = answer["data"].is_array();
        let Some(name) = expandable(&names, listed) else {
            return Err(StripeError::invalid("expand", format!("This property cannot be expanded ({path}).")));
        };
        match answer["data"].as_array_mut() {
            Some(objects) => objects.iter_mut().for_each(|object| one(object, name, account)),
            None => one(answer, name, account),
        }
    }
    Ok(())
}

/// Returns the property that a path names. Returns `None` if it cannot be expanded.
fn expandable<'a>(names: &[&'a str], listed: bool) -> Option<&'a str> {
    match (names, listed) {
        ([name], false) | (["data", name], true) if EXPANDABLE.contains(name) => Some(name),
        _ => None,
    }
}

fn one(object: &mut Value, name: &str, account: &StripeAccount) {
    let Some(id) = object[name].as_str().map(str::to_owned) else { return };
    let whole = match name {
        "customer" => account.retrieve_customer(&id).ok(),
        "latest_invoice" => Some(json!({
            "id": id, "object": "invoice", "amount_due": 0, "amount_paid": 0, "currency": "usd", "customer": object["customer"],
            "livemode": false, "status": "paid", "total": 0,
        })),
        _ => None,
    };
    if let Some(whole) = whole {
        object[name] = whole;
    }
}
