//! A subscription with or without a trial: its parameters, and its form in responses. The end of a trial has no effect:
//! no invoice is made, and the status stays.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use super::account::Listed;
use super::error::StripeError;
use super::parameters::{Metadata, Page, Parameters};
use crate::double::USER;
use crate::ids;

const DAY_SECONDS: i64 = 24 * 60 * 60;
const TRIAL_DAYS: RangeInclusive<i64> = 1..=730;
const MOST_ITEMS: usize = 20;
const STATUSES: [&str; 9] =
    ["trialing", "active", "past_due", "unpaid", "canceled", "incomplete", "incomplete_expired", "paused", "all"];

/// The trial of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    None,
    Days(i64),
    Until(i64),
}

#[derive(Debug, Clone)]
struct Item {
    price: String,
    quantity: i64,
}

/// The parameters of a request that creates a subscription.
#[derive(Debug)]
pub(super) struct NewSubscription {
    pub(super) customer: String,
    items: Vec<Item>,
    trial: Trial,
    at_trial_end: String,
    collection_method: String,
    payable: bool,
    incomplete: bool,
    description: Option<String>,
    metadata: Metadata,
}

/// The filter of a list of subscriptions. Canceled ones are listed only if `status` requests them.
#[derive(Debug, Default)]
pub(super) struct SubscriptionFilter {
    pub(super) customer: Option<String>,
    status: Option<String>,
}

/// A subscription as stored in the account.
#[derive(Debug)]
pub(super) struct StripeSubscription {
    pub(super) id: String,
    pub(super) customer: String,
    status: &'static str,
    created: i64,
    trial_end: Option<i64>,
    canceled: Option<i64>,
    items: Vec<(String, Item)>,
    metadata: Map<String, Value>,
    latest_invoice: String,
    at_trial_end: String,
    collection_method: String,
    description: Option<String>,
}

impl NewSubscription {
    pub(super) fn read(parameters: &Parameters<'_>) -> Result<Self, StripeError> {
        parameters.only(&[
            "collection_method",
            "customer",
            "days_until_due",
            "default_payment_method",
            "description",
            "items",
            "metadata",
            "off_session",
            "payment_behavior",
            "payment_settings",
            "proration_behavior",
            "trial_end",
            "trial_period_days",
            "trial_settings",
        ])?;
        parameters.boolean("off_session")?;
        parameters.integer("days_until_due", 1..=730)?;
        if let Some(settings) = parameters.object("payment_settings")? {
            settings.one_of("save_default_payment_method", &["off", "on_subscription"])?;
        }
        let behaviors = ["allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"];
        let collection = parameters.one_of("collection_method", &["charge_automatically", "send_invoice"])?;
        Ok(Self {
            customer: parameters.required("customer")?.to_owned(),
            items: items(parameters)?,
            trial: trial(parameters)?,
            at_trial_end: at_trial_end(parameters)?.to_owned(),
            collection_method: collection.unwrap_or("charge_automatically").to_owned(),
            payable: parameters.text("default_payment_method")?.is_some(),
            incomplete: parameters.one_of("payment_behavior", &behaviors)? == Some("default_incomplete"),
            description: parameters.text("description")?.map(str::to_owned),
            metadata: parameters.metadata()?,
        })
    }
}

fn items(parameters: &Parameters<'_>) -> Result<Vec<Item>, StripeError> {
    let items = parameters.objects("items")?;
    if items.is_empty() {
        return Err(StripeError::missing_parameter("items"));
    }
    if items.len() > MOST_ITEMS {
        return Err(StripeError::invalid("items", "A subscription can have at most 20 items."));
    }
    let read = |item: &Parameters<'_>| {
        item.only(&["price", "quantity"])?;
        let quantity = item.integer("quantity", 0..=1_000_000)?.unwrap_or(1);
        Ok(Item { price: item.required("price")?.to_owned(), quantity })
    };
    items.iter().map(read).collect()
}

fn trial(parameters: &Parameters<'_>) -> Result<Trial, StripeError> {
    let days = parameters.integer("trial_period_days", TRIAL_DAYS)?;
    match (days, parameters.text("trial_end")?) {
        (None, None | Some("now")) => Ok(Trial::None),
        (Some(days), None) => Ok(Trial::Days(days)),
        (None, Some(_)) => Ok(parameters.integer("trial_end", 0..=i64::MAX)?.map_or(Trial::None, Trial::Until)),
        (Some(_), Some(_)) => {
            let message = "You may only specify one of these parameters: trial_end, trial_period_days.";
            Err(StripeError::invalid("trial_end", message))
        }
    }
}

fn at_trial_end<'a>(parameters: &Parameters<'a>) -> Result<&'a str, StripeError> {
    let Some(settings) = parameters.object("trial_settings")? else { return Ok("create_invoice") };
    settings.only(&["end_behavior"])?;
    let Some(end) = settings.object("end_behavior")? else { return Ok("create_invoice") };
    end.only(&["missing_payment_method"])?;
    let chosen = end.one_of("missing_payment_method", &["cancel", "create_invoice", "pause"])?;
    Ok(chosen.unwrap_or("create_invoice"))
}

/// Reads the filter (`customer`, `status`) and the page.
pub(super) fn read_list(parameters: &Parameters<'_>) -> Result<(SubscriptionFilter, Page), StripeError> {
    parameters.only(&["customer", "limit", "starting_after", "status"])?;
    let customer = parameters.text("customer")?.map(str::to_owned);
    let status = parameters.one_of("status", &STATUSES)?.map(str::to_owned);
    Ok((SubscriptionFilter { customer, status }, parameters.page()?))
}

impl SubscriptionFilter {
    pub(super) fn takes(&self, subscription: &StripeSubscription) -> bool {
        match self.status.as_deref() {
            None => subscription.status != "canceled",
            Some("all") => true,
            Some(status) => subscription.status == status,
        }
    }
}

impl StripeSubscription {
    /// Creates a subscription. `payable` is true if the customer could be charged.
    pub(super) fn new(order: NewSubscription, payable: bool, now: Timestamp) -> Result<Self, StripeError> {
        let now = now.seconds();
        if let Some((index, item)) = order.items.iter().enumerate().find(|(_, item)| !item.price.starts_with("price_"))
        {
            return Err(StripeError::no_such_in(&format!("items[{index}][price]"), "price", &item.price));
        }
        // An archived price: invertase/stripe-firebase-extensions#560.
        let inactive = |(_, item): &(usize, &Item)| item.price.starts_with("price_inactive");
        if let Some((index, _)) = order.items.iter().enumerate().find(inactive) {
            let message = "The price specified is inactive. This field only accepts active prices.";
            return Err(StripeError::invalid(format!("items[{index}][price]"), message));
        }
        let trial_end = match order.trial {
            Trial::None => None,
            Trial::Days(days) => Some(now + days * DAY_SECONDS),
            Trial::Until(end) if (now + 1..=now + TRIAL_DAYS.end() * DAY_SECONDS).contains(&end) => Some(end),
            Trial::Until(_) => {
                let message = "Invalid timestamp: it must lie in the future, at most two years ahead.";
                return Err(StripeError::invalid("trial_end", message));
            }
        };
        let status = match trial_end {
            Some(_) => "trialing",
            None if payable || order.payable || order.collection_method == "send_invoice" => "active",
            None if order.incomplete => "incomplete",
            None => {
                let message = "This customer has no attached payment source or default payment method.";
                return Err(StripeError::invalid("customer", message).code("resource_missing"));
            }
        };
        let mut metadata = Map::new();
        order.metadata.apply(&mut metadata)?;
        Ok(Self {
            id: ids::prefixed("sub_", 24),
            customer: order.customer,
            status,
            created: now,
            trial_end,
            canceled: None,
            items: order.items.into_iter().map(|item| (ids::prefixed("si_", 14), item)).collect(),
            metadata,
            latest_invoice: ids::prefixed("in_", 24),
            at_trial_end: order.at_trial_end,
            collection_method: order.collection_method,
            description: order.description,
        })
    }

    /// Returns the Clerk user id in the subscription's own metadata.
    pub(super) fn user(&self) -> Option<&str> {
        self.metadata.get(USER)?.as_str()
    }

    pub(super) fn is_canceled(&self) -> bool {
        self.canceled.is_some()
    }

    pub(super) fn cancel(&mut self, now: Timestamp) {
        self.status = "canceled";
        self.canceled = Some(now.seconds());
    }
}

impl Listed for StripeSubscription {
    const OBJECT: &'static str = "subscription";

    fn id(&self) -> &str {
        &self.id
    }

    /// Returns the subscription in the form of the API. The current period is on the items, as in recent API versions.
    fn show(&self) -> Value {
        let period_end = self.trial_end.unwrap_or(self.created + 30 * DAY_SECONDS);
        let item = |(id, item): &(String, Item)| {
            json!({
                "id": id,
                "object": "subscription_item",
                "billing_thresholds": null,
                "created": self.created,
                "current_period_start": self.created,
                "current_period_end": period_end,
                "discounts": [],
                "metadata": {},
                "price": price(&item.price, self.created),
                "quantity": item.quantity,
                "subscription": self.id,
                "tax_rates": [],
            })
        };
        let mut shown = unused();
        let used = json!({
            "id": self.id,
            "object": "subscription",
            "billing_cycle_anchor": period_end,
            "cancel_at": null,
            "cancel_at_period_end": false,
            "canceled_at": self.canceled,
            "cancellation_details": { "comment": null, "feedback": null, "reason": self.canceled.map(|_| "cancellation_requested") },
            "collection_method": self.collection_method,
            "created": self.created,
            "currency": "usd",
            "customer": self.customer,
            "description": self.description,
            "ended_at": self.canceled,
            "items": {
                "object": "list",
                "data": self.items.iter().map(item).collect::<Vec<_>>(),
                "has_more": false,
                "total_count": self.items.len(),
                "url": format!("/v1/subscription_items?subscription={}", self.id),
            },
            "latest_invoice": self.latest_invoice,
            "livemode": false,
            "metadata": self.metadata,
            "start_date": self.created,
            "status": self.status,
            "trial_end": self.trial_end,
            "trial_settings": { "end_behavior": { "missing_payment_method": self.at_trial_end } },
            "trial_start": self.trial_end.map(|_| self.created),
        });
        if let Value::Object(used) = used {
            shown.extend(used);
        }
        Value::Object(shown)
    }
}

/// Returns the further fields that Stripe's OpenAPI document requires of a subscription, with their default values.
fn unused() -> Map<String, Value> {
    let fields = json!({
        "application": null,
        "application_fee_percent": null,
        "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null },
        "billing_cycle_anchor_config": null,
        "billing_mode": { "type": "classic" },
        "billing_thresholds": null,
        "days_until_due": null,
        "default_payment_method": null,
        "default_source": null,
        "default_tax_rates": [],
        "discounts": [],
        "invoice_settings": { "account_tax_ids": null, "issuer": { "type": "self" } },
        "next_pending_invoice_item_invoice": null,
        "on_behalf_of": null,
        "pause_collection": null,
        "pending_invoice_item_interval": null,
        "pending_setup_intent": null,
        "pending_update": null,
        "schedule": null,
        "test_clock": null,
        "transfer_data": null,
        "payment_settings": {
            "payment_method_options": null, "payment_method_types": null, "save_default_payment_method": "off",
        },
    });
    fields.as_object().cloned().unwrap_or_default()
}

/// Returns a price with every field that Stripe's OpenAPI document requires, because its libraries read them.
fn price(id: &str, created: i64) -> Value {
    json!({
        "id": id,
        "object": "price",
        "active": true,
        "billing_scheme": "per_unit",
        "created": created,
        "currency": "usd",
        "custom_unit_amount": null,
        "livemode": false,
        "lookup_key": null,
        "metadata": {},
        "nickname": null,
        "product": "prod_lab",
        "recurring": {
            "interval": "month", "interval_count": 1, "meter": null, "trial_period_days": null, "usage_type": "licensed",
        },
        "tax_behavior": "unspecified",
        "tiers_mode": null,
        "transform_quantity": null,
        "type": "recurring",
        "unit_amount": 2000,
        "unit_amount_decimal": "2000",
    })
}
