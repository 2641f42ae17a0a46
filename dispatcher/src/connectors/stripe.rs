//! Stripe: customers and trial subscriptions over its v1 API.
//!
//! Facts: docs.stripe.com (idempotent requests, errors, free trials) and stripe-node's `RequestSender`. Requests are
//! form-encoded. Its idempotency key holds at least 24 hours and keeps errors, too; `Stripe-Should-Retry` overrides the
//! status.

use async_trait::async_trait;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use usher_proto::Reason;
use usher_service::Secret;
use usher_service::exit::BadSetting;
use usher_service::options::Environment;

use super::Shape::{Number, Table, Text};
use super::http::{self, Answer};
use super::{CannotPrepare, Connector, Inputs, Operation, optional, optional_or, required, setting};
use crate::engine::{Cause, Effect, Outcome};

/// Pinned, because fields move between versions.
const API_VERSION: &str = "2026-07-29.dahlia";

const CREATE_CUSTOMER: &str = "create_customer";
const CREATE_SUBSCRIPTION: &str = "create_subscription";

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: CREATE_CUSTOMER,
        params: &[
            optional("email", Text),
            optional("full_name", Text),
            optional("phone", Text),
            optional("metadata", Table),
        ],
        takes_template: false,
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
    },
];

/// The connector.
pub(super) struct Stripe {
    client: Client,
    base: String,
    key: Secret,
    price: Option<String>,
}

impl Stripe {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, BadSetting> {
        let key = setting(environment, "STRIPE_SECRET_KEY", "a secret key (sk_...) from Stripe's dashboard")?;
        Ok(Self {
            client: http::client()?,
            base: http::base_url(environment, "STRIPE_BASE_URL", "https://api.stripe.com")?,
            key: Secret::new(key),
            price: environment.get("STRIPE_PRICE_ID")?,
        })
    }
}

/// A request as it is kept: the path, and the form exactly as it is sent.
#[derive(Serialize, Deserialize)]
struct Post {
    path: String,
    form: String,
}

#[async_trait]
impl Connector for Stripe {
    fn prepare(&self, inputs: &Inputs<'_>) -> Result<Vec<u8>, CannotPrepare> {
        let text = |name: &str| inputs.params.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut form: Vec<(String, String)> = Vec::new();
        let path = match inputs.operation {
            CREATE_CUSTOMER => {
                for (param, field) in [("email", "email"), ("full_name", "name"), ("phone", "phone")] {
                    form.extend(text(param).map(|value| (field.to_owned(), value)));
                }
                "/v1/customers"
            }
            CREATE_SUBSCRIPTION => {
                let customer = inputs.required("customer")?.as_str().unwrap_or_default();
                let price = text("price").or_else(|| self.price.clone());
                let price =
                    price.ok_or_else(|| CannotPrepare("price is not given, and STRIPE_PRICE_ID is not set".into()))?;
                form.push(("customer".into(), customer.into()));
                form.push(("items[0][price]".into(), price));
                if let Some(days) = inputs.params.get("trial_days").and_then(Value::as_u64) {
                    form.push(("trial_period_days".into(), days.to_string()));
                    // Who never gave a card ends with the trial instead of getting an invoice that fails.
                    form.push(("trial_settings[end_behavior][missing_payment_method]".into(), "cancel".into()));
                }
                "/v1/subscriptions"
            }
            other => return Err(CannotPrepare(format!("stripe cannot {other}"))),
        };
        for (name, value) in inputs.params.get("metadata").and_then(Value::as_object).into_iter().flatten() {
            form.push((format!("metadata[{name}]"), value.as_str().unwrap_or_default().to_owned()));
        }
        let form = serde_urlencoded::to_string(form).map_err(|error| CannotPrepare(error.to_string()))?;
        serde_json::to_vec(&Post { path: path.into(), form }).map_err(|error| CannotPrepare(error.to_string()))
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str) -> Outcome {
        let Ok(Post { path, form }) = serde_json::from_slice(request) else {
            return Outcome::reject(Reason::FlowChanged, "the kept request cannot be read");
        };
        let request = self
            .client
            .post(format!("{}{path}", self.base))
            .bearer_auth(self.key.expose())
            .header("Stripe-Version", API_VERSION)
            .header("Idempotency-Key", idempotency_key)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form);
        match http::send(request).await {
            Ok(answer) => classify(&answer),
            Err(outcome) => outcome,
        }
    }
}

fn classify(answer: &Answer) -> Outcome {
    let body = answer.json();
    let status = answer.status.as_u16();
    if answer.status.is_success() {
        return match body["id"].as_str() {
            Some(id) => {
                Outcome::Done(Effect { id: id.to_owned(), result: json!({ "id": id, "status": body["status"] }) })
            }
            None => Outcome::retry(Cause::Interrupted),
        };
    }
    let word = |field: &str| {
        let text = body["error"][field].as_str()?;
        text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then(|| text.to_owned())
    };
    let (kind, code) = (word("type").unwrap_or_default(), word("code").unwrap_or_default());
    let error = [status.to_string(), kind.clone(), code]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let told = answer.headers.get("stripe-should-retry").and_then(|value| value.to_str().ok());
    match (told, status) {
        (Some("true"), 429) | (None, 429) => answer.retry(Cause::Throttled),
        (Some("true"), _) | (None, 409 | 424) => answer.retry(Cause::Conflict),
        (None, 500..=599) => answer.retry(Cause::Unavailable),
        (_, 401 | 403) => Outcome::reject(Reason::Configuration, error),
        (_, 404) => Outcome::reject(Reason::NotFound, error),
        _ if kind == "idempotency_error" => Outcome::reject(Reason::IdempotencyConflict, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;

    fn of(status: u16, kind: &str, should_retry: Option<&'static str>) -> Outcome {
        let mut headers = HeaderMap::new();
        if let Some(told) = should_retry {
            headers.insert("stripe-should-retry", HeaderValue::from_static(told));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        let body = format!(r#"{{"error":{{"type":"{kind}","message":"No such customer: a@b.test"}}}}"#).into_bytes();
        classify(&Answer { status, headers, body })
    }

    #[test]
    fn every_documented_error_has_its_outcome() {
        for (status, kind, told, expected) in [
            (400, "invalid_request_error", None, Err(Reason::InvalidRequest)),
            (400, "idempotency_error", None, Err(Reason::IdempotencyConflict)),
            (401, "invalid_request_error", None, Err(Reason::Configuration)),
            (402, "card_error", None, Err(Reason::InvalidRequest)),
            (403, "invalid_request_error", None, Err(Reason::Configuration)),
            (404, "invalid_request_error", None, Err(Reason::NotFound)),
            (409, "invalid_request_error", None, Ok(Cause::Conflict)),
            (424, "api_error", None, Ok(Cause::Conflict)),
            (429, "invalid_request_error", None, Ok(Cause::Throttled)),
            (500, "api_error", None, Ok(Cause::Unavailable)),
            (503, "api_error", None, Ok(Cause::Unavailable)),
            (500, "api_error", Some("false"), Err(Reason::InvalidRequest)),
            (400, "api_error", Some("true"), Ok(Cause::Conflict)),
        ] {
            let outcome = of(status, kind, told);
            super::super::assert_outcome(&outcome, expected, &format!("{status} {kind} {told:?}"));
            assert!(!format!("{outcome:?}").contains("a@b.test"), "the message is not repeated");
        }
    }
}
