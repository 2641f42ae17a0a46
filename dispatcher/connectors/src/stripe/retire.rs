//! Cancels subscriptions and deletes customers. Repeating either leaves the same state, so an attempt that stopped
//! half-way is simply repeated, and an object that is already gone counts as done.

use serde_json::{Value, json};
use usher_engine::{Effect, Outcome};

use super::Stripe;
use super::lookup::id;
use super::request::{Customers, Retire, RetireKind};
use crate::CallGate;
use crate::path::Path;

impl Stripe {
    /// Cancels or deletes the objects of a request. `Err` is the outcome of a request to Stripe that failed.
    pub(super) async fn retire(&self, retire: &Retire, gate: &CallGate) -> Result<Outcome, Outcome> {
        match (retire.kind, &retire.target) {
            (RetireKind::Subscription, Customers::Id(subscription)) => {
                let cancelled = self.cancel(subscription, gate).await?;
                let cancelled: Vec<&str> = cancelled.then_some(subscription.as_str()).into_iter().collect();
                Ok(done(subscription, json!({ "cancelled": cancelled })))
            }
            (RetireKind::Subscription | RetireKind::Subscriptions, _) => {
                let customers = self.customers_of(&retire.target, retire.at, gate).await?;
                let mut cancelled = Vec::new();
                for customer in &customers {
                    for subscription in self.running(customer, gate).await? {
                        if self.cancel(&subscription, gate).await? {
                            cancelled.push(subscription);
                        }
                    }
                }
                Ok(done(first(&customers), json!({ "customers": customers, "cancelled": cancelled })))
            }
            (RetireKind::Customer, _) => {
                let customers = self.customers_of(&retire.target, retire.at, gate).await?;
                let mut deleted = Vec::new();
                for customer in &customers {
                    // Also cancels the customer's subscriptions at once. It cannot be undone.
                    if self.api.delete("/v1/customers", customer, gate).await? {
                        deleted.push(customer);
                    }
                }
                Ok(done(first(&customers), json!({ "customers": customers, "deleted": deleted })))
            }
        }
    }

    /// Returns the customer's subscriptions that can still be cancelled. Stripe's list omits cancelled ones by default.
    async fn running(&self, customer: &str, gate: &CallGate) -> Result<Vec<String>, Outcome> {
        let runs = |object: &Value| !matches!(object["status"].as_str(), Some("canceled" | "incomplete_expired"));
        let listed = self.api.list(&Path::of("/v1/subscriptions"), &[("customer", customer)], runs, gate).await?;
        Ok(listed.found.iter().filter_map(id).collect())
    }

    async fn cancel(&self, subscription: &str, gate: &CallGate) -> Result<bool, Outcome> {
        self.api.delete("/v1/subscriptions", subscription, gate).await
    }
}

/// Returns the first id, for the record of the effect, or `none` if there is no customer.
pub(super) fn first(ids: &[String]) -> &str {
    ids.first().map_or("none", String::as_str)
}

pub(super) fn done(id: &str, more: Value) -> Outcome {
    Outcome::Done(Effect::new(id, more))
}
