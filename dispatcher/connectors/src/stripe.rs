//! Stripe: creates customers and subscriptions over its v1 API, updates customers, and cancels or deletes both.
//!
//! Facts: docs.stripe.com (idempotent requests, low-level errors, metadata, search, free trials) and stripe-node's
//! `RequestSender`. Requests are form-encoded. A key is valid for at least 24 hours, for POST only, and preserves the
//! first execution's answer, including errors and a 500; a repeated answer carries `Idempotent-Replayed: true`.
//!
//! A created object carries its idempotency key as metadata ([`MARK`]), so that it can be looked up when the key cannot
//! reveal the outcome. Updating, cancelling and deleting need no key: repeating them leaves the same state, and an object
//! that is already gone counts as done.

mod api;
mod classify;
mod lookup;
mod make;
mod request;
mod retire;
mod update;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::Api;
use async_trait::async_trait;
use request::StoredRequest;
use usher_engine::Outcome;
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::ParamType::{Email, Id, Number, Selector, Table, Text};
use super::{
    CallGate, Connector, ConnectorSpec, DefaultQuota, Idempotency, KEYS_LIVE, Lookup, Operation, PrepareError,
    StepInput, optional, optional_or, required, stored,
};

const CREATE_CUSTOMER: &str = "create_customer";
const UPDATE_CUSTOMER: &str = "update_customer";
const CREATE_SUBSCRIPTION: &str = "create_subscription";
const CANCEL_SUBSCRIPTION: &str = "cancel_subscription";
const CANCEL_SUBSCRIPTIONS: &str = "cancel_subscriptions";
const DELETE_CUSTOMER: &str = "delete_customer";

/// Metadata name that holds the idempotency key under which an object was created. Stripe allows names of up to 40
/// characters without brackets, and values of up to 500. Usher's value contains no personal data.
pub(super) const MARK: &str = "usher_key";

const OPERATIONS: &[Operation] = &[
    Operation {
        name: CREATE_CUSTOMER,
        params: &[
            optional("email", Email),
            optional("full_name", Text),
            optional("phone", Text),
            optional("metadata", Table),
        ],
        takes_template: false,
        writes_to: &[],
    },
    Operation {
        name: UPDATE_CUSTOMER,
        params: &[
            optional("customer", Id),
            optional("found_by", Selector),
            optional("email", Email),
            optional("full_name", Text),
            optional("phone", Text),
            optional("metadata", Table),
        ],
        takes_template: false,
        writes_to: &[],
    },
    Operation {
        name: CREATE_SUBSCRIPTION,
        params: &[
            required("customer", Text),
            optional_or("price", Text, "STRIPE_PRICE_ID"),
            optional("trial_days", Number),
            optional("metadata", Table),
        ],
        takes_template: false,
        writes_to: &[],
    },
    Operation {
        name: CANCEL_SUBSCRIPTION,
        params: &[required("subscription", Text)],
        takes_template: false,
        writes_to: &[],
    },
    Operation {
        name: CANCEL_SUBSCRIPTIONS,
        params: &[optional("customer", Id), optional("metadata", Selector)],
        takes_template: false,
        writes_to: &[],
    },
    Operation {
        name: DELETE_CUSTOMER,
        params: &[optional("customer", Id), optional("metadata", Selector)],
        takes_template: false,
        writes_to: &[],
    },
];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "stripe",
    settings: Some("STRIPE_"),
    operations: OPERATIONS,
    // Each endpoint allows 25 requests per second. The whole of a live account allows four times as many.
    default_quota: Some(DefaultQuota { limit: "20/s", is_assumed: false }),
    announces_limits: true,
    repeats_unknown_outcomes: &[],
    writes_to_database: false,
    placeholders: &[("STRIPE_SECRET_KEY", "sk_test_rehearsal"), ("STRIPE_PRICE_ID", "price_rehearsal")],
    open: |environment, _| Ok(Arc::new(Stripe::from_environment(environment)?)),
};

/// Connector for Stripe, with its settings.
pub(super) struct Stripe {
    api: Api,
    price: Option<String>,
}

impl Stripe {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self { api: Api::from_environment(environment)?, price: environment.get("STRIPE_PRICE_ID")? })
    }
}

#[async_trait]
impl Connector for Stripe {
    fn idempotency(&self) -> Idempotency {
        Idempotency::KeyFor(KEYS_LIVE)
    }

    async fn lookup(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Lookup {
        match stored::read(request) {
            Ok(StoredRequest::Make(make)) => self.look_up_made(&make, idempotency_key, gate).await,
            // Repeating it leaves the same state, whether or not it was done before.
            Ok(StoredRequest::Retire(_) | StoredRequest::Update(_)) => Lookup::Absent,
            Err(_) => Lookup::Unknown,
        }
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        stored::write(&request::prepare(inputs, self.price.as_deref())?)
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        match stored::read(request) {
            Ok(StoredRequest::Make(make)) => self.make(&make, idempotency_key, gate).await,
            Ok(StoredRequest::Retire(retire)) => self.retire(&retire, gate).await.unwrap_or_else(|outcome| outcome),
            Ok(StoredRequest::Update(update)) => self.update(&update, gate).await.unwrap_or_else(|outcome| outcome),
            Err(outcome) => outcome,
        }
    }
}
