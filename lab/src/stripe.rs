//! The double of Stripe's v1 API: customers and subscriptions, with trials.
//!
//! Facts: docs.stripe.com (idempotent requests, low-level errors, rate limits, customers, subscriptions) and stripe-node.
//! There is one account, in test mode, and every key of the right shape opens it. Any `price_…` exists. Lists are as fresh
//! as the last write; the search index follows after a moment.
//!
//! Of the answers that a fault gives, 402 and 500 count as outcomes of an execution: an idempotency key keeps them and
//! replays them for a day, as Stripe documents. 429, 502, 503 and the rest come from before it and are not kept.

mod customers;
mod error;
mod expand;
mod parameters;
mod search;
mod subscriptions;

mod account;

use std::sync::Arc;

use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use usher_proto::Timestamp;

use crate::answer::Answer;
use crate::double::{Call, Circumstances, DAY, Double, Key, Refusal, Subject, USER};
use crate::ids;
use crate::locked::Locked;
use crate::request::{Request, Written};
use account::{Person, StripeAccount};
use customers::Details;
use error::Error;
use parameters::Parameters;
use subscriptions::Order;

const LONGEST_KEY: usize = 255;

/// One account.
pub(crate) struct Stripe {
    account: Arc<Locked<StripeAccount>>,
}

impl Stripe {
    pub(crate) fn holding(most: usize) -> Self {
        Self { account: Arc::new(Locked::new(StripeAccount::holding(most))) }
    }
}

/// The paths that this double has.
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

impl Double for Stripe {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn describe(&self, request: &Request) -> Subject {
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
        let Person { user, email } = stored.unwrap_or_default();
        Subject {
            operation: route.map(|route| route.operation()),
            user: text(&request.body["metadata"][USER]).or(user),
            to: text(&request.body["email"]).or(email),
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Err(Error::no_key().into()) };
        let key = header.to_str().ok().and_then(key_of).ok_or_else(Error::wrong_key)?;
        let secret = key.strip_prefix("sk_").or_else(|| key.strip_prefix("rk_"));
        match secret {
            Some(rest) if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => Ok(()),
            Some(_) | None => Err(Error::wrong_key().into()),
        }
    }

    fn read(&self, request: &Request, _now: Timestamp) -> Result<Call, Answer> {
        let route = Route::of(request).ok_or_else(|| Error::no_such_path(&request.method, &request.path))?;
        match request.written {
            Written::Not | Written::Form => {}
            Written::Json | Written::Unreadably => return Err(Error::not_a_form().into()),
        }
        let key = match request.idempotency_key() {
            Some(key) if request.method == Method::POST => {
                if key.is_empty() || key.chars().count() > LONGEST_KEY {
                    return Err(Error::key_length().into());
                }
                Some(Key { text: key.to_owned(), lasts: DAY })
            }
            // Reading and deleting are idempotent by nature; Stripe passes over the key.
            Some(_) | None => None,
        };
        let parameters = Parameters::of(request)?;
        Ok(Call { key, changes: request.method != Method::GET, run: self.operation(route, &parameters)? })
    }

    fn refuse(&self, refusal: Refusal<'_>) -> Answer {
        match refusal {
            Refusal::Limited(_) => error::rate_limited(),
            Refusal::KeyReused(key) => Error::key_reused(key).into(),
            Refusal::KeyInUse(key) => Error::key_in_use(key).into(),
            Refusal::Fault { status, name, retry_after } => {
                let answer = error::on_purpose(status, name);
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }

    /// Each answer has an id of its own. A replay also names the request that it repeats.
    fn finish(&self, answer: &mut Answer, circumstances: Circumstances) {
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

impl Stripe {
    /// Checks the parameters of one operation, and gives what remains to be done.
    fn operation(
        &self,
        route: Route,
        parameters: &Parameters<'_>,
    ) -> Result<Box<dyn FnOnce(Timestamp) -> Answer + Send>, Error> {
        let account = Shown { account: self.account.clone(), expand: parameters.expand()? };
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
                let order = Order::read(parameters)?;
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

/// The account's account, and what of an answer is to be shown whole.
struct Shown {
    account: Arc<Locked<StripeAccount>>,
    expand: Vec<String>,
}

/// What is found wrong while running is an outcome too, and is kept like one.
fn on(
    shown: Shown,
    work: impl FnOnce(&mut StripeAccount, Timestamp) -> Result<Value, Error> + Send + 'static,
) -> Box<dyn FnOnce(Timestamp) -> Answer + Send> {
    let Shown { account, expand } = shown;
    let run = move |account: &mut StripeAccount, now| {
        let mut body = work(account, now)?;
        expand::expand(&mut body, &expand, account)?;
        Ok::<_, Error>(body)
    };
    Box::new(move |now| match account.with(|account| run(account, now)) {
        Ok(body) => Answer::done(body).with(error::REQUEST_ID, ids::prefixed("req_", 14)),
        Err(error) => Answer::from(error).kept(),
    })
}

/// The key in `Bearer sk_…`, or the user name in `Basic …`.
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
