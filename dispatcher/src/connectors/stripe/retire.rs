//! Cancelling subscriptions and deleting customers. Each leaves the same when it is done again, so an attempt that got
//! half way is simply repeated, and what is gone already counts as done.

use serde_json::{Value, json};

use super::Stripe;
use super::find::id;
use super::kept::{Retire, What, Whose};
use crate::connectors::path::Path;
use crate::engine::{Effect, Outcome};

impl Stripe {
    /// `Err` is the outcome of a call that failed.
    pub(super) async fn retire(&self, retire: &Retire) -> Result<Outcome, Outcome> {
        match (retire.retire, &retire.of) {
            (What::Subscription, Whose::Id(subscription)) => {
                let cancelled = self.cancel(subscription).await?;
                let cancelled: Vec<&str> = cancelled.then_some(subscription.as_str()).into_iter().collect();
                Ok(done(subscription, json!({ "cancelled": cancelled })))
            }
            (What::Subscription | What::Subscriptions, _) => {
                let (customers, mut cancelled) = (self.customers_of(retire).await?, Vec::new());
                for customer in &customers {
                    for subscription in self.running(customer).await? {
                        if self.cancel(&subscription).await? {
                            cancelled.push(subscription);
                        }
                    }
                }
                Ok(done(first(&customers), json!({ "customers": customers, "cancelled": cancelled })))
            }
            (What::Customer, _) => {
                let (customers, mut deleted) = (self.customers_of(retire).await?, Vec::new());
                for customer in &customers {
                    // Cancels the customer's subscriptions at once, and cannot be undone.
                    if self.api.delete("/v1/customers", customer).await? {
                        deleted.push(customer);
                    }
                }
                Ok(done(first(&customers), json!({ "customers": customers, "deleted": deleted })))
            }
        }
    }

    /// The customer's subscriptions that can still be cancelled. The list leaves out canceled ones by itself.
    async fn running(&self, customer: &str) -> Result<Vec<String>, Outcome> {
        let runs = |object: &Value| !matches!(object["status"].as_str(), Some("canceled" | "incomplete_expired"));
        let listed = self.api.list(&Path::of("/v1/subscriptions"), &[("customer", customer)], runs).await?;
        Ok(listed.found.iter().filter_map(id).collect())
    }

    async fn cancel(&self, subscription: &str) -> Result<bool, Outcome> {
        self.api.delete("/v1/subscriptions", subscription).await
    }
}

/// The first id, for the record; `none` where there was nobody.
fn first(ids: &[String]) -> &str {
    ids.first().map_or("none", String::as_str)
}

fn done(id: &str, more: Value) -> Outcome {
    Outcome::Done(Effect::new(id, more))
}
