//! Finds the notifications of a transaction.

use reqwest::Method;
use serde_json::json;
use usher_engine::{Effect, Outcome};

use super::Novu;
use crate::client::{self, HttpAnswer};
use crate::path::Path;
use crate::{CallGate, Lookup};

impl Novu {
    /// Queries Novu for the notifications of a transaction, whose id is the idempotency key.
    pub(super) async fn look_up(&self, transaction: &str, gate: &CallGate) -> Lookup {
        match self.notifications(transaction, gate).await {
            Ok(answer) if answer.status.is_success() => found(&answer, transaction),
            other => client::no_lookup(other),
        }
    }

    async fn notifications(&self, transaction: &str, gate: &CallGate) -> Result<HttpAnswer, Outcome> {
        let path = Path::of("/v1/notifications").query("transactionId", transaction);
        client::send(self.request(Method::GET, &path)?, gate).await
    }
}

/// Reads Novu's list of the notifications of a transaction. Novu would ignore a filter that it does not support, so the
/// id is compared as well.
pub(super) fn found(answer: &HttpAnswer, transaction: &str) -> Lookup {
    let body = answer.json();
    let Some(list) = body["data"].as_array().or_else(|| body.as_array()) else { return Lookup::Unknown };
    let mine = list.iter().find(|notification| notification["transactionId"] == transaction);
    match mine {
        Some(_) => Lookup::Found(Effect::new(transaction, json!({ "status": "processed" }))),
        None if list.is_empty() => Lookup::Absent,
        None => Lookup::Unknown,
    }
}
