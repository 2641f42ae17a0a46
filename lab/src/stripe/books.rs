//! The account's customers and subscriptions, and what each operation does to them. Says nothing of HTTP.

use std::collections::HashMap;

use serde_json::{Value, json};
use usher_proto::Timestamp;

use super::customers::{self, Customer, Details};
use super::error::Error;
use super::parameters::Page;
use super::search::{INDEX_LAG, Query};
use super::subscriptions::{Order, Subscription, Wanted};

/// Everything, by id, with the orders and indexes that lists need: an account may grow to many thousands in a test.
#[derive(Debug, Default)]
pub(super) struct Books {
    customers: HashMap<String, Customer>,
    subscriptions: HashMap<String, Subscription>,
    customers_by_age: Vec<String>,
    customers_by_email: HashMap<String, Vec<String>>,
    subscriptions_by_age: Vec<String>,
    subscriptions_by_customer: HashMap<String, Vec<String>>,
}

/// Whom an object stands for.
#[derive(Debug, Default)]
pub(super) struct Person {
    pub(super) user: Option<String>,
    pub(super) email: Option<String>,
}

impl Books {
    /// Whom a customer stands for.
    pub(super) fn person(&self, customer: &str) -> Option<Person> {
        let customer = self.customers.get(customer)?;
        Some(Person { user: customer.user().map(Into::into), email: customer.email().map(Into::into) })
    }

    /// Whom a subscription is for: whom its own metadata names, else its customer.
    pub(super) fn subscriber(&self, subscription: &str) -> Option<Person> {
        let subscription = self.subscriptions.get(subscription)?;
        let person = self.person(&subscription.customer).unwrap_or_default();
        Some(Person { user: subscription.user().map(Into::into).or(person.user), ..person })
    }

    pub(super) fn create_customer(&mut self, details: Details, now: Timestamp) -> Result<Value, Error> {
        let customer = Customer::new(details, now)?;
        let shown = customer.show();
        self.customers_by_age.push(customer.id.clone());
        self.list_under_email(&customer.id, customer.email());
        self.customers.insert(customer.id.clone(), customer);
        Ok(shown)
    }

    pub(super) fn update_customer(&mut self, id: &str, details: Details) -> Result<Value, Error> {
        let customer = self.living(id).ok_or_else(|| Error::no_such("customer", id))?;
        let before = customer.email().map(str::to_owned);
        customer.update(details)?;
        let (after, shown) = (customer.email().map(str::to_owned), customer.show());
        if before != after {
            self.unlist_under_email(id, before.as_deref());
            self.list_under_email(id, after.as_deref());
        }
        Ok(shown)
    }

    pub(super) fn retrieve_customer(&self, id: &str) -> Result<Value, Error> {
        self.customers.get(id).map(Customer::show).ok_or_else(|| Error::no_such("customer", id))
    }

    /// Deletes a customer, which cancels its subscriptions at once. It can still be retrieved, as deleted.
    pub(super) fn delete_customer(&mut self, id: &str, now: Timestamp) -> Result<Value, Error> {
        let customer = self.living(id).ok_or_else(|| Error::no_such("customer", id))?;
        customer.deleted = true;
        let (email, shown) = (customer.email().map(str::to_owned), customer.show());
        self.unlist_under_email(id, email.as_deref());
        for subscription in self.subscriptions_by_customer.get(id).into_iter().flatten() {
            if let Some(subscription) = self.subscriptions.get_mut(subscription).filter(|found| !found.is_canceled()) {
                subscription.cancel(now);
            }
        }
        Ok(shown)
    }

    /// Newest first.
    pub(super) fn list_customers(&self, wanted: &customers::Wanted, page: &Page) -> Result<Value, Error> {
        let ids = match wanted.email.as_deref() {
            Some(email) => self.customers_by_email.get(email).map(Vec::as_slice).unwrap_or_default(),
            None => &self.customers_by_age,
        };
        let found = ids.iter().rev().filter_map(|id| self.customers.get(id)).filter(|customer| wanted.takes(customer));
        list(page, |id| self.customers.contains_key(id), found)
    }

    /// Newest first, and only those that have come into the index.
    pub(super) fn search_customers(&self, query: &Query, now: Timestamp) -> Result<Value, Error> {
        let indexed = |customer: &&Customer| !customer.deleted && customer.created + INDEX_LAG <= now.seconds();
        let all = self.customers_by_age.iter().rev().filter_map(|id| self.customers.get(id)).filter(indexed);
        let mut found = all.filter(|customer| query.takes(&customer.metadata)).skip(query.skip);
        let data: Vec<Value> = found.by_ref().take(query.limit).map(Customer::show).collect();
        let next = found.next().map(|_| (query.skip + data.len()).to_string());
        let (url, more) = ("/v1/customers/search", next.is_some());
        Ok(json!({ "object": "search_result", "url": url, "has_more": more, "next_page": next, "data": data }))
    }

    pub(super) fn create_subscription(&mut self, order: Order, now: Timestamp) -> Result<Value, Error> {
        let id = order.customer.clone();
        let customer = self.living(&id).ok_or_else(|| Error::no_such_in("customer", "customer", &id))?;
        let payable = customer.payable;
        let subscription = Subscription::new(order, payable, now)?;
        let shown = subscription.show();
        self.subscriptions_by_age.push(subscription.id.clone());
        self.subscriptions_by_customer.entry(id).or_default().push(subscription.id.clone());
        self.subscriptions.insert(subscription.id.clone(), subscription);
        Ok(shown)
    }

    pub(super) fn retrieve_subscription(&self, id: &str) -> Result<Value, Error> {
        self.subscriptions.get(id).map(Subscription::show).ok_or_else(|| Error::no_such("subscription", id))
    }

    /// What is canceled cannot be canceled again.
    pub(super) fn cancel_subscription(&mut self, id: &str, now: Timestamp) -> Result<Value, Error> {
        let running = self.subscriptions.get_mut(id).filter(|subscription| !subscription.is_canceled());
        let subscription = running.ok_or_else(|| Error::no_such("subscription", id))?;
        subscription.cancel(now);
        Ok(subscription.show())
    }

    /// Newest first.
    pub(super) fn list_subscriptions(&self, wanted: &Wanted, page: &Page) -> Result<Value, Error> {
        let ids = match &wanted.customer {
            Some(customer) if !self.customers.contains_key(customer) => {
                return Err(Error::no_such_in("customer", "customer", customer));
            }
            Some(customer) => self.subscriptions_by_customer.get(customer).map(Vec::as_slice).unwrap_or_default(),
            None => &self.subscriptions_by_age,
        };
        let found = ids.iter().rev().filter_map(|id| self.subscriptions.get(id)).filter(|found| wanted.takes(found));
        list(page, |id| self.subscriptions.contains_key(id), found)
    }

    fn living(&mut self, customer: &str) -> Option<&mut Customer> {
        self.customers.get_mut(customer).filter(|customer| !customer.deleted)
    }

    fn list_under_email(&mut self, customer: &str, email: Option<&str>) {
        if let Some(email) = email {
            self.customers_by_email.entry(email.to_owned()).or_default().push(customer.to_owned());
        }
    }

    fn unlist_under_email(&mut self, customer: &str, email: Option<&str>) {
        if let Some(ids) = email.and_then(|email| self.customers_by_email.get_mut(email)) {
            ids.retain(|id| id != customer);
        }
    }
}

/// An object that stands in lists.
pub(super) trait Listed {
    /// Its name in the singular.
    const OBJECT: &'static str;

    fn id(&self) -> &str;
    fn show(&self) -> Value;
}

/// One page of a list.
fn list<'a, T: Listed + 'a>(
    page: &Page,
    exists: impl Fn(&str) -> bool,
    mut found: impl Iterator<Item = &'a T>,
) -> Result<Value, Error> {
    if let Some(after) = &page.starting_after {
        if !exists(after) {
            return Err(Error::no_such_in("starting_after", T::OBJECT, after));
        }
        // Stops behind the object, or at the end where a filter leaves it out.
        found.by_ref().find(|object| object.id() == after);
    }
    let data: Vec<Value> = found.by_ref().take(page.limit).map(T::show).collect();
    let url = format!("/v1/{}s", T::OBJECT);
    Ok(json!({ "object": "list", "url": url, "has_more": found.next().is_some(), "data": data }))
}
