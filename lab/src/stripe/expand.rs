//! `expand[]`: objects in the place of their ids.
//!
//! Facts: docs.stripe.com/expand: paths with dots, up to four deep; in lists they begin with `data.`. What cannot be
//! expanded is refused. Of the objects behind ids there are only customers here, and invoices as far as a first one of
//! nothing goes.

use serde_json::{Value, json};

use super::account::StripeAccount;
use super::error::Error;

const DEEPEST: usize = 4;
/// Ids of these stand in the objects here, or null does.
const EXPANDABLE: [&str; 7] = [
    "customer",
    "default_payment_method",
    "default_source",
    "latest_invoice",
    "pending_setup_intent",
    "schedule",
    "test_clock",
];

/// Expands what `paths` name in an answer.
pub(super) fn expand(answer: &mut Value, paths: &[String], account: &StripeAccount) -> Result<(), Error> {
    for path in paths {
        let names: Vec<&str> = path.split('.').collect();
        if names.len() > DEEPEST {
            return Err(Error::invalid(
                "expand",
                format!("You cannot expand more than 4 levels of a property: {path}."),
            ));
        }
        let listed = answer["data"].is_array();
        let Some(name) = expandable(&names, listed) else {
            return Err(Error::invalid("expand", format!("This property cannot be expanded ({path}).")));
        };
        match answer["data"].as_array_mut() {
            Some(objects) => objects.iter_mut().for_each(|object| one(object, name, account)),
            None => one(answer, name, account),
        }
    }
    Ok(())
}

/// The field that a path names.
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
