//! The double of Stripe's v1 API: customers and subscriptions, with trials.
//!
//! Facts: docs.stripe.com (idempotent requests, low-level errors, rate limits, customers, subscriptions) and
//! stripe-node. There is one account, in test mode, and every key of the right format opens it. Any `price_…` exists.
//! Lists reflect every write at once; the search index follows after a short delay.
//!
//! Of the responses of a fault, 402 and 500 count as outcomes of an execution: an idempotency key stores them
//! and replays them for a day, as Stripe documents. 429, 502, 503 and the rest come from before the execution
//! and are not stored.

mod customers;
mod error;
mod expand;
mod parameters;
mod search;
mod subscriptions;

mod account;

use std::sync::Arc;

use account::{CustomerRecord, StripeAccount};
use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use customers::Details;
use error::StripeError;
use parameters::Parameters;
use serde_json::Value;
use subscriptions::NewSubscription;
use usher_proto::Timestamp;

use crate::answer::FakeResponse;
use crate::double::{Circumstances, DAY, Double, DoubleCall, DoubleRefusal, EffectSubject, ExpiringKey, USER};
use crate::ids;
use crate::locked::Locked;
use crate::request::{BodyFormat, Request};

const LONGEST_KEY: usize = 255;

/// The double of one Stripe account.
pub(crate) struct StripeDouble {
    account: Arc<Locked<StripeAccount>>,
}

impl StripeDouble {
    pub(crate) fn holding(most: usize) -> Self {
        Self { account: Arc::new(Locked::new(StripeAccount::holding(most))) }
    }
}

/// The requests that this double supports.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route {
    CreateCustomer,
    ListCustomers,
    SearchCustomers,
    RetrieveCustomer(String),
    UpdateCustomer(String),
    DeleteCustomer(String),
    CreateSubscription,
    ListSubscriptions,
    RetrieveSubscription(String),
    CancelSubscription(String),
}

impl Route {
    fn of(request: &Request) -> Option<Self> {
        match (&request.method, request.segments().as_slice()) {
            (&Method::POST, ["v1", "customers"]) => Some(Self::CreateCustomer),
            (&Method::GET, ["v1", "customers"]) => Some(Self::ListCustomers),
            (&Method::GET, ["v1", "customers", "search"]) => Some(Self::SearchCustomers),
            (&Method::GET, ["v1", "customers", id]) => Some(Self::RetrieveCustomer((*id).into())),
            (&Method::POST, ["v1", "customers", id]) => Some(Self::UpdateCustomer((*id).into())),
            (&Method::DELETE, ["v1", "customers", id]) => Some(Self::DeleteCustomer((*id).into())),
            (&Method::POST, ["v1", "subscriptions"]) => Some(Self::CreateSubscription),
            (&Method::GET, ["v1", "subscriptions"]) => Some(Self::ListSubscriptions),
            (&Method::GET, ["v1", "subscriptions", id]) => Some(Self::RetrieveSubscription((*id).into())),
            (&Method::DELETE, ["v1", "subscriptions", id]) => Some(Self::CancelSubscription((*id).into())),
            _ => None,
        }
    }

    fn operation(&self) -> &'static str {
        match self {
            Self::CreateCustomer => "customers.create",
            Self::ListCustomers => "customers.list",
            Self::SearchCustomers => "customers.search",
            Self::RetrieveCustomer(_) => "customers.retrieve",
            Self::UpdateCustomer(_) => "customers.update",
            Self::DeleteCustomer(_) => "customers.delete",
            Self::CreateSubscription => "subscriptions.create",
            Self::ListSubscriptions => "subscriptions.list",
            Self::RetrieveSubscription(_) => "subscriptions.retrieve",
            Self::CancelSubscription(_) => "subscriptions.cancel",
        }
    }
}

impl Double for StripeDouble {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn describe(&self, request: &Request) -> EffectSubject {
        let route = Route::of(request);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let stored = self.account.with(|account| match &route {
            Some(Route::RetrieveCustomer(id) | Route::UpdateCustomer(id) | Route::DeleteCustomer(id)) => {
                account.person(id)
            }
            Some(Route::RetrieveSubscription(id) | Route::CancelSubscription(id)) => account.subscriber(id),
            Some(Route::CreateSubscription | Route::ListSubscriptions) => {
                request.body["customer"].as_str().and_then(|id| account.person(id))
            }
            Some(Route::CreateCustomer | Route::ListCustomers | Route::SearchCustomers) | None => None,
        });
        let CustomerRecord { user, email } = stored.unwrap_or_default();
        EffectSubject {
            operation: route.map(|route| route.operation()),
            user: text(&request.body["metadata"][USER]).or(user),
            to: text(&request.body["email"]).or(email),
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), FakeResponse> {
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Err(StripeError::no_key().into()) };
        let key = header.to_str().ok().and_then(key_of).ok_or_else(StripeError::wrong_key)?;
        let secret = key.strip_prefix("sk_").or_else(|| key.strip_prefix("rk_"));
        match secret {
            Some(rest) if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => Ok(()),
            Some(_) | None => Err(StripeError::wrong_key().into()),
        }
    }

    fn read(&self, request: &Request, _now: Timestamp) -> Result<DoubleCall, FakeResponse> {
        let route = Route::of(request).ok_or_else(|| StripeError::no_such_path(&request.method, &request.path))?;
        match request.written {
            BodyFormat::Not | BodyFormat::Form => {}
            BodyFormat::Json | BodyFormat::Unreadably => return Err(StripeError::not_a_form().into()),
        }
        let key = match request.idempotency_key() {
            Some(key) if request.method == Method::POST => {
                if key.is_empty() || key.chars().count() > LONGEST_KEY {
                    return Err(StripeError::key_length().into());
                }
                Some(ExpiringKey { text: key.to_owned(), lasts: DAY })
            }
            // Reading and deleting are idempotent by nature; Stripe ignores the key.
            Some(_) | None => None,
        };
        let parameters = Parameters::of(request)?;
        Ok(DoubleCall { key, changes: request.method != Method::GET, run: self.operation(route, &parameters)? })
    }

    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse {
        match refusal {
            DoubleRefusal::Limited(_) => error::rate_limited(),
            DoubleRefusal::KeyReused(key) => StripeError::key_reused(key).into(),
            DoubleRefusal::KeyInUse(key) => StripeError::key_in_use(key).into(),
            DoubleRefusal::Fault { status, name, retry_after } => {
                let answer = error::on_purpose(status, name);
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }

    /// Adds the request id, which differs on each response. A replay also names the original request.
    fn finish(&self, answer: &mut FakeResponse, circumstances: Circumstances) {
        if circumstances.replayed {
            if let Some(original) = answer.take(error::REQUEST_ID) {
                answer.set("original-request", original);
            }
            answer.set("idempotent-replayed", "true");
        }
        let id = answer.take(error::REQUEST_ID).unwrap_or_else(|| ids::prefixed("req_", 14));
        answer.set(error::REQUEST_ID, id);
    }
}

impl StripeDouble {
    /// Checks the parameters of one operation, and returns its execution.
    fn operation(
        &self,
        route: Route,
        parameters: &Parameters<'_>,
    ) -> Result<Box<dyn FnOnce(Timestamp) -> FakeResponse + Send>, StripeError> {
        let account = Expansion { account: self.account.clone(), expand: parameters.expand()? };
        Ok(match route {
            Route::CreateCustomer => {
                let details = Details::read(parameters)?;
                on(account, move |account, now| account.create_customer(details, now))
            }
            Route::UpdateCustomer(id) => {
                let details = Details::read(parameters)?;
                on(account, move |account, _| account.update_customer(&id, details))
            }
            Route::ListCustomers => {
                let (wanted, page) = customers::read_list(parameters)?;
                on(account, move |account, _| account.list_customers(&wanted, &page))
            }
            Route::SearchCustomers => {
                let query = search::read(parameters)?;
                on(account, move |account, now| account.search_customers(&query, now))
            }
            Route::RetrieveCustomer(id) => {
                parameters.only(&[])?;
                on(account, move |account, _| account.retrieve_customer(&id))
            }
            Route::DeleteCustomer(id) => {
                parameters.only(&[])?;
                on(account, move |account, now| account.delete_customer(&id, now))
            }
            Route::CreateSubscription => {
                let order = NewSubscription::read(parameters)?;
                on(account, move |account, now| account.create_subscription(order, now))
            }
            Route::ListSubscriptions => {
                let (wanted, page) = subscriptions::read_list(parameters)?;
                on(account, move |account, _| account.list_subscriptions(&wanted, &page))
            }
            Route::RetrieveSubscription(id) => {
                parameters.only(&[])?;
                on(account, move |account, _| account.retrieve_subscription(&id))
            }
            Route::CancelSubscription(id) => {
                parameters.only(&["cancellation_details", "invoice_now", "prorate"])?;
                on(account, move |account, now| account.cancel_subscription(&id, now))
            }
        })
    }
}

/// The account, and the paths to expand in a response.
struct Expansion {
    account: Arc<Locked<StripeAccount>>,
    expand: Vec<String>,
}

/// Builds the execution of an operation. An error during the execution is an outcome too, and is stored as one.
fn on(
    shown: Expansion,
    work: impl FnOnce(&mut StripeAccount, Timestamp) -> Result<Value, StripeError> + Send + 'static,
) -> Box<dyn FnOnce(Timestamp) -> FakeResponse + Send> {
    let Expansion { account, expand } = shown;
    let run = move |account: &mut StripeAccount, now| {
        let mut body = work(account, now)?;
        expand::expand(&mut body, &expand, account)?;
        Ok::<_, StripeError>(body)
    };
    Box::new(move |now| match account.with(|account| run(account, now)) {
        Ok(body) => FakeResponse::done(body).with(error::REQUEST_ID, ids::prefixed("req_", 14)),
        Err(error) => FakeResponse::from(error).kept(),
    })
}

/// Returns the key in `Bearer sk_…`, or the user name in `Basic …` with an empty password.
fn key_of(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Some(rest.trim().to_owned())
    } else if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        pair.split_once(':').filter(|(_, password)| password.is_empty()).map(|(user, _)| user.to_owned())
    } else {
        None
    }
}
