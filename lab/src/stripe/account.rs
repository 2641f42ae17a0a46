//! The account's customers and subscriptions, and the effect of each operation on them. Independent of HTTP.

use std::collections::HashMap;

use serde_json::{Value, json};
use usher_proto::Timestamp;

use super::customers::{self, Customer, Details};
use super::error::StripeError;
use super::parameters::Page;
use super::search::{INDEX_LAG, Query};
use super::subscriptions::{NewSubscription, StripeSubscription, SubscriptionFilter};
use crate::bounded::Bounded;

/// The newest objects by id, with the indexes that lists need, because an account may grow to many thousands of objects
/// in a test.
#[derive(Debug)]
pub(super) struct StripeAccount {
    customers: Bounded<String, Customer>,
    subscriptions: Bounded<String, StripeSubscription>,
    customers_by_email: HashMap<String, Vec<String>>,
    subscriptions_by_customer: HashMap<String, Vec<String>>,
}

/// The person that an object stands for.
#[derive(Debug, Default)]
pub(super) struct CustomerRecord {
    pub(super) user: Option<String>,
    pub(super) email: Option<String>,
}

impl StripeAccount {
    pub(super) fn holding(most: usize) -> Self {
        Self {
            customers: Bounded::new(most),
            subscriptions: Bounded::new(most),
            customers_by_email: HashMap::new(),
            subscriptions_by_customer: HashMap::new(),
        }
    }

    /// Returns the person that a customer stands for. Returns `None` if there is no such customer.
    pub(super) fn person(&self, customer: &str) -> Option<CustomerRecord> {
        let customer = self.customers.get(customer)?;
        Some(CustomerRecord { user: customer.user().map(Into::into), email: customer.email().map(Into::into) })
    }

    /// Returns the person of a subscription: the user in its own metadata, else that of its customer. Returns `None` if
    /// there is no such subscription.
    pub(super) fn subscriber(&self, subscription: &str) -> Option<CustomerRecord> {
        let subscription = self.subscriptions.get(subscription)?;
        let person = self.person(&subscription.customer).unwrap_or_default();
        Some(CustomerRecord { user: subscription.user().map(Into::into).or(person.user), ..person })
    }

    pub(super) fn create_customer(&mut self, details: Details, now: Timestamp) -> Result<Value, StripeError> {
        let customer = Customer::new(details, now)?;
        let shown = customer.show();
        list_under(&mut self.customers_by_email, customer.email(), &customer.id);
        if let Some((id, forgotten)) = self.customers.insert(customer.id.clone(), customer) {
            unlist(&mut self.customers_by_email, forgotten.email(), &id);
            for subscription in self.subscriptions_by_customer.remove(&id).into_iter().flatten() {
                self.subscriptions.remove(&subscription);
            }
        }
        Ok(shown)
    }

    pub(super) fn update_customer(&mut self, id: &str, details: Details) -> Result<Value, StripeError> {
        let customer = self.living(id).ok_or_else(|| StripeError::no_such("customer", id))?;
        let before = customer.email().map(str::to_owned);
        customer.update(details)?;
        let after = customer.email().map(str::to_owned);
        let shown = customer.show();
        if before != after {
            unlist(&mut self.customers_by_email, before.as_deref(), id);
            list_under(&mut self.customers_by_email, after.as_deref(), id);
        }
        Ok(shown)
    }

    pub(super) fn retrieve_customer(&self, id: &str) -> Result<Value, StripeError> {
        self.customers.get(id).map(Customer::show).ok_or_else(|| StripeError::no_such("customer", id))
    }

    /// Deletes a customer, which cancels its subscriptions at once. The customer can still be retrieved, as deleted.
    pub(super) fn delete_customer(&mut self, id: &str, now: Timestamp) -> Result<Value, StripeError> {
        let customer = self.living(id).ok_or_else(|| StripeError::no_such("customer", id))?;
        customer.deleted = true;
        let email = customer.email().map(str::to_owned);
        let shown = customer.show();
        unlist(&mut self.customers_by_email, email.as_deref(), id);
        for subscription in self.subscriptions_by_customer.get(id).into_iter().flatten() {
            if let Some(subscription) = self.subscriptions.get_mut(subscription).filter(|found| !found.is_canceled()) {
                subscription.cancel(now);
            }
        }
        Ok(shown)
    }

    pub(super) fn list_customers(&self, wanted: &customers::CustomerFilter, page: &Page) -> Result<Value, StripeError> {
        let all: Box<dyn Iterator<Item = &Customer>> = match wanted.email.as_deref() {
            Some(email) => {
                let ids = self.customers_by_email.get(email).map(Vec::as_slice).unwrap_or_default();
                Box::new(ids.iter().rev().filter_map(|id| self.customers.get(id)))
            }
            None => Box::new(self.customers.newest_first()),
        };
        let found = all.filter(|customer| wanted.takes(customer));
        list(page, |id| self.customers.contains_key(id), found)
    }

    /// Searches the customers that are in the index already, newest first.
    pub(super) fn search_customers(&self, query: &Query, now: Timestamp) -> Result<Value, StripeError> {
        let indexed = |customer: &&Customer| !customer.deleted && customer.created + INDEX_LAG <= now.seconds();
        let all = self.customers.newest_first().filter(indexed);
        let mut found = all.filter(|customer| query.takes(&customer.metadata)).skip(query.skip);
        let data: Vec<Value> = found.by_ref().take(query.limit).map(Customer::show).collect();
        let next = found.next().map(|_| (query.skip + data.len()).to_string());
        let url = "/v1/customers/search";
        let more = next.is_some();
        Ok(json!({ "object": "search_result", "url": url, "has_more": more, "next_page": next, "data": data }))
    }

    pub(super) fn create_subscription(&mut self, order: NewSubscription, now: Timestamp) -> Result<Value, StripeError> {
        let id = order.customer.clone();
        let customer = self.living(&id).ok_or_else(|| StripeError::no_such_in("customer", "customer", &id))?;
        let payable = customer.payable;
        let subscription = StripeSubscription::new(order, payable, now)?;
        let shown = subscription.show();
        list_under(&mut self.subscriptions_by_customer, Some(&id), &subscription.id);
        if let Some((id, forgotten)) = self.subscriptions.insert(subscription.id.clone(), subscription) {
            unlist(&mut self.subscriptions_by_customer, Some(&forgotten.customer), &id);
        }
        Ok(shown)
    }

    pub(super) fn retrieve_subscription(&self, id: &str) -> Result<Value, StripeError> {
        self.subscriptions.get(id).map(StripeSubscription::show).ok_or_else(|| StripeError::no_such("subscription", id))
    }

    /// Cancels a subscription. A canceled subscription cannot be canceled again.
    pub(super) fn cancel_subscription(&mut self, id: &str, now: Timestamp) -> Result<Value, StripeError> {
        let running = self.subscriptions.get_mut(id).filter(|subscription| !subscription.is_canceled());
        let subscription = running.ok_or_else(|| StripeError::no_such("subscription", id))?;
        subscription.cancel(now);
        Ok(subscription.show())
    }

    pub(super) fn list_subscriptions(&self, wanted: &SubscriptionFilter, page: &Page) -> Result<Value, StripeError> {
        let all: Box<dyn Iterator<Item = &StripeSubscription>> = match &wanted.customer {
            Some(customer) if !self.customers.contains_key(customer) => {
                return Err(StripeError::no_such_in("customer", "customer", customer));
            }
            Some(customer) => {
                let ids = self.subscriptions_by_customer.get(customer).map(Vec::as_slice).unwrap_or_default();
                Box::new(ids.iter().rev().filter_map(|id| self.subscriptions.get(id)))
            }
            None => Box::new(self.subscriptions.newest_first()),
        };
        let found = all.filter(|found| wanted.takes(found));
        list(page, |id| self.subscriptions.contains_key(id), found)
    }

    fn living(&mut self, customer: &str) -> Option<&mut Customer> {
        self.customers.get_mut(customer).filter(|customer| !customer.deleted)
    }
}

/// Adds an id to an index under `name`. Does nothing if there is no name.
fn list_under(index: &mut HashMap<String, Vec<String>>, name: Option<&str>, id: &str) {
    if let Some(name) = name {
        index.entry(name.to_owned()).or_default().push(id.to_owned());
    }
}

/// Removes an id from an index.
fn unlist(index: &mut HashMap<String, Vec<String>>, name: Option<&str>, id: &str) {
    let Some(name) = name else { return };
    if let Some(ids) = index.get_mut(name) {
        ids.retain(|listed| listed != id);
        if ids.is_empty() {
            index.remove(name);
        }
    }
}

/// An object that can be listed.
pub(super) trait Listed {
    /// The name of its type, in the singular.
    const OBJECT: &'static str;

    fn id(&self) -> &str;
    fn show(&self) -> Value;
}

/// Builds one page of a list.
fn list<'a, T: Listed + 'a>(
    page: &Page,
    exists: impl Fn(&str) -> bool,
    mut found: impl Iterator<Item = &'a T>,
) -> Result<Value, StripeError> {
    if let Some(after) = &page.starting_after {
        if !exists(after) {
            return Err(StripeError::no_such_in("starting_after", T::OBJECT, after));
        }
        // Skips to the position after the object, or to the end if a filter excludes the object.
        found.by_ref().find(|object| object.id() == after);
    }
    let data: Vec<Value> = found.by_ref().take(page.limit).map(T::show).collect();
    let url = format!("/v1/{}s", T::OBJECT);
    Ok(json!({ "object": "list", "url": url, "has_more": found.next().is_some(), "data": data }))
}
