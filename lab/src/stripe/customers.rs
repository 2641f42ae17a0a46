//! A customer: its parameters, and its form in responses.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use super::account::Listed;
use super::error::StripeError;
use super::parameters::{Metadata, Page, Parameters};
use crate::double::USER;
use crate::ids;

const LONGEST_EMAIL: usize = 512;
/// Text parameters with their maximum length, by Stripe's OpenAPI document (`maxLength`). A report of the limit
/// of names: sagemathinc/cocalc#4656.
const TEXTS: [(&str, usize); 3] = [("description", 5000), ("name", 256), ("phone", 20)];
/// Parameters that are accepted without a check.
const OTHERS: [&str; 6] = ["address", "invoice_settings", "preferred_locales", "shipping", "tax_exempt", "test_clock"];
/// Parameters that are accepted and not shown on the customer.
const HIDDEN: [&str; 2] = ["payment_method", "tax"];

/// The parameters of a request that creates or updates a customer.
#[derive(Debug)]
pub(super) struct Details {
    /// Fields to set. `null` if an empty text clears the field.
    fields: Map<String, Value>,
    payment_method: bool,
    metadata: Metadata,
}

/// A customer as stored in the account.
#[derive(Debug)]
pub(super) struct Customer {
    pub(super) id: String,
    pub(super) deleted: bool,
    /// True if an invoice could be charged, because a payment method was given.
    pub(super) payable: bool,
    pub(super) created: i64,
    fields: Map<String, Value>,
    pub(super) metadata: Map<String, Value>,
}

impl Details {
    pub(super) fn read(parameters: &Parameters<'_>) -> Result<Self, StripeError> {
        let known: Vec<&str> = [&["email", "metadata"][..], &TEXTS.map(|(name, _)| name), &OTHERS, &HIDDEN].concat();
        parameters.only(&known)?;
        let mut fields = Map::new();
        let mut set = |name: &str, text: &str| {
            let value = if text.is_empty() { Value::Null } else { json!(text) };
            fields.insert(name.to_owned(), value);
        };
        if let Some(email) = parameters.text_up_to("email", LONGEST_EMAIL)? {
            if !email.is_empty() && !is_address(email) {
                return Err(
                    StripeError::invalid("email", format!("Invalid email address: {email}")).code("email_invalid")
                );
            }
            set("email", email);
        }
        for (name, longest) in TEXTS {
            if let Some(text) = parameters.text_up_to(name, longest)? {
                set(name, text);
            }
        }
        for name in OTHERS {
            if let Some(value) = parameters.get(name) {
                fields.insert(name.to_owned(), if value == "" { Value::Null } else { value.clone() });
            }
        }
        let payment_method = parameters.text("payment_method")?.is_some_and(|id| !id.is_empty());
        Ok(Self { fields, payment_method, metadata: parameters.metadata()? })
    }
}

/// The filter of a list of customers.
#[derive(Debug)]
pub(super) struct CustomerFilter {
    /// The exact address, case-sensitive.
    pub(super) email: Option<String>,
    created: RangeInclusive<i64>,
}

impl CustomerFilter {
    pub(super) fn takes(&self, customer: &Customer) -> bool {
        !customer.deleted && self.created.contains(&customer.created)
    }
}

/// Reads the filter (`email`, `created[…]`) and the page.
pub(super) fn read_list(parameters: &Parameters<'_>) -> Result<(CustomerFilter, Page), StripeError> {
    parameters.only(&["created", "email", "limit", "starting_after"])?;
    let email = parameters.text_up_to("email", LONGEST_EMAIL)?.map(str::to_owned);
    Ok((CustomerFilter { email, created: parameters.times("created")? }, parameters.page()?))
}

fn is_address(text: &str) -> bool {
    let (local, domain) = text.split_once('@').unwrap_or_default();
    !local.is_empty() && !domain.is_empty() && !domain.contains('@') && !text.contains(char::is_whitespace)
}

impl Customer {
    pub(super) fn new(details: Details, now: Timestamp) -> Result<Self, StripeError> {
        let mut customer = Self {
            id: ids::prefixed("cus_", 14),
            deleted: false,
            payable: false,
            created: now.seconds(),
            fields: Map::new(),
            metadata: Map::new(),
        };
        customer.update(details)?;
        Ok(customer)
    }

    pub(super) fn update(&mut self, details: Details) -> Result<(), StripeError> {
        details.metadata.apply(&mut self.metadata)?;
        self.fields.extend(details.fields);
        self.payable |= details.payment_method;
        Ok(())
    }

    pub(super) fn email(&self) -> Option<&str> {
        self.fields.get("email")?.as_str()
    }

    /// Returns the Clerk user id in the metadata.
    pub(super) fn user(&self) -> Option<&str> {
        self.metadata.get(USER)?.as_str()
    }
}

impl Listed for Customer {
    const OBJECT: &'static str = "customer";

    fn id(&self) -> &str {
        &self.id
    }

    /// Returns the customer in the form of the API. A deleted customer has only its id and `deleted`.
    fn show(&self) -> Value {
        if self.deleted {
            return json!({ "id": self.id, "object": "customer", "deleted": true });
        }
        let mut shown = json!({
            "id": self.id,
            "object": "customer",
            "address": null,
            "balance": 0,
            "created": self.created,
            "currency": null,
            "default_source": null,
            "delinquent": false,
            "description": null,
            "discount": null,
            "email": null,
            "invoice_prefix": self.id[self.id.len() - 8..].to_uppercase(),
            "invoice_settings": {
                "custom_fields": null, "default_payment_method": null, "footer": null, "rendering_options": null,
            },
            "livemode": false,
            "metadata": self.metadata,
            "name": null,
            "next_invoice_sequence": 1,
            "phone": null,
            "preferred_locales": [],
            "shipping": null,
            "tax_exempt": "none",
            "test_clock": null,
        });
        for (name, value) in &self.fields {
            shown[name] = value.clone();
        }
        shown
    }
}
