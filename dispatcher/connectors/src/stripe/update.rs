//! Sets fields of customers. Repeating it leaves the same state, so an attempt that stopped half-way is simply repeated, and
//! a customer who no longer exists has nothing to update.

use serde_json::json;
use usher_engine::Outcome;

use super::Stripe;
use super::request::Update;
use super::retire::{done, first};
use crate::CallGate;

impl Stripe {
    /// Updates the customers of a request. `Err` is the outcome of a request to Stripe that failed.
    pub(super) async fn update(&self, update: &Update, gate: &CallGate) -> Result<Outcome, Outcome> {
        let customers = self.customers_of(&update.target, update.at, gate).await?;
        let mut updated = Vec::new();
        for customer in customers.iter().filter(|_| !update.form.is_empty()) {
            if self.api.set("/v1/customers", customer, &update.form, gate).await? {
                updated.push(customer);
            }
        }
        Ok(done(first(&customers), json!({ "customers": customers, "updated": updated })))
    }
}
