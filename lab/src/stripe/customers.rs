//! A customer: what may be said about one, and how one is shown.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use super::account::Listed;
use super::error::Error;
use super::parameters::{Metadata, Page, Parameters};
use crate::double::USER;
use crate::ids;

const LONGEST_EMAIL: usize = 512;
/// With the longest that each may be, by Stripe's OpenAPI document (`maxLength`); sagemathinc/cocalc#4656 met that of
/// names.
const TEXTS: [(&str, usize); 3] = [("description", 5000), ("name", 256), ("phone", 20)];
/// Taken as they come.
const OTHERS: [&str; 6] = ["address", "invoice_settings", "preferred_locales", "shipping", "tax_exempt", "test_clock"];
/// Taken, and not shown on the customer.
const HIDDEN: [&str; 2] = ["payment_method", "tax"];

/// What a request says about a customer, for creating and updating alike.
#[derive(Debug)]
pub(super) struct Details {
    /// Fields to set; null where an empty text clears one.
    fields: Map<String, Value>,
    payment_method: bool,
    metadata: Metadata,
}

/// A customer.
#[derive(Debug)]
pub(super) struct Customer {
    pub(super) id: String,
    pub(super) deleted: bool,
    /// Whether an invoice could be charged.
    pub(super) payable: bool,
    pub(super) created: i64,
    fields: Map<String, Value>,
    pub(super) metadata: Map<String, Value>,
}

impl Details {
    pub(super) fn read(parameters: &Parameters<'_>) -> Result<Self, Error> {
        let known: Vec<&str> = [&["email", "metadata"][..], &TEXTS.map(|(name, _)| name), &OTHERS, &HIDDEN].concat();
        parameters.only(&known)?;
        let mut fields = Map::new();
        let mut set = |name: &str, text: &str| {
            let value = if text.is_empty() { Value::Null } else { json!(text) };
            fields.insert(name.to_owned(), value);
        };
        if let Some(email) = parameters.text_up_to("email", LONGEST_EMAIL)? {
            if !email.is_empty() && !is_address(email) {
                return Err(Error::invalid("email", format!("Invalid email address: {email}")).code("email_invalid"));
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

/// Which customers are listed.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Exactly this address, case included.
    pub(super) email: Option<String>,
    created: RangeInclusive<i64>,
}

impl Wanted {
    pub(super) fn takes(&self, customer: &Customer) -> bool {
        !customer.deleted && self.created.contains(&customer.created)
    }
}

/// `email` and `created[…]`, and which page.
pub(super) fn read_list(parameters: &Parameters<'_>) -> Result<(Wanted, Page), Error> {
    parameters.only(&["created", "email", "limit", "starting_after"])?;
    let email = parameters.text_up_to("email", LONGEST_EMAIL)?.map(str::to_owned);
    Ok((Wanted { email, created: parameters.times("created")? }, parameters.page()?))
}

fn is_address(text: &str) -> bool {
    let (local, domain) = text.split_once('@').unwrap_or_default();
    !local.is_empty() && !domain.is_empty() && !domain.contains('@') && !text.contains(char::is_whitespace)
}

impl Customer {
    pub(super) fn new(details: Details, now: Timestamp) -> Result<Self, Error> {
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

    pub(super) fn update(&mut self, details: Details) -> Result<(), Error> {
        details.metadata.apply(&mut self.metadata)?;
        self.fields.extend(details.fields);
        self.payable |= details.payment_method;
        Ok(())
    }

    pub(super) fn email(&self) -> Option<&str> {
        self.fields.get("email")?.as_str()
    }

    /// The Clerk user it stands for.
    pub(super) fn user(&self) -> Option<&str> {
        self.metadata.get(USER)?.as_str()
    }
}

impl Listed for Customer {
    const OBJECT: &'static str = "customer";

    fn id(&self) -> &str {
        &self.id
    }

    /// As the API shows it. Of a deleted one nothing is left but that.
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
