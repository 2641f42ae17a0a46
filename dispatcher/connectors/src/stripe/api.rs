//! Requests to Stripe over HTTP.

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use usher_engine::{Cause, Outcome};
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::classify::{classify, is_missing};
use crate::CallGate;
use crate::client::{self, HttpAnswer};
use crate::path::{HttpClient, Path};
use crate::setting;

/// API version, pinned because fields move between versions.
const API_VERSION: &str = "2026-07-29.dahlia";
/// Objects per page of a list; Stripe allows 100. Only a limited number of bytes of an answer is read.
const PER_PAGE: &str = "50";
/// Pages of a list that are read, at most.
const PAGES: usize = 20;

pub(super) struct Api {
    client: HttpClient,
    base: String,
    key: Secret,
}

/// Result of reading a list.
pub(super) struct ListResult {
    /// The objects that match.
    pub(super) found: Vec<Value>,
    /// True if the list was read to its end.
    pub(super) whole: bool,
}

impl Api {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let key = setting(environment, "STRIPE_SECRET_KEY", "a secret key (sk_...) from Stripe's dashboard")?;
        Ok(Self {
            client: client::build()?,
            base: client::base_url(environment, "STRIPE_BASE_URL", "https://api.stripe.com")?,
            key: Secret::new(key),
        })
    }

    fn signed(&self, method: Method, path: &Path) -> Result<RequestBuilder, Outcome> {
        let request = self.client.request(method, &self.base, path)?;
        Ok(request.bearer_auth(self.key.expose()).header("Stripe-Version", API_VERSION))
    }

    /// Sends a form, under an idempotency key if one is given.
    pub(super) async fn post(
        &self,
        path: &Path,
        form: String,
        key: Option<&str>,
        gate: &CallGate,
    ) -> Result<HttpAnswer, Outcome> {
        let mut request = self.signed(Method::POST, path)?.header("Content-Type", "application/x-www-form-urlencoded");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        client::send(request.body(form), gate).await
    }

    /// Sets fields of one of the `objects`. Returns true if it exists. It has no idempotency key: a repetition sets the
    /// same values, and Stripe would replay a 500 of the first try for a day.
    pub(super) async fn set(
        &self,
        objects: &'static str,
        id: &str,
        form: &str,
        gate: &CallGate,
    ) -> Result<bool, Outcome> {
        let path = Path::of(objects).segment("id", id)?;
        existed(&self.post(&path, form.to_owned(), None, gate).await?)
    }

    /// Deletes one of the `objects`. Returns true if it existed. Stripe ignores idempotency keys here.
    pub(super) async fn delete(&self, objects: &'static str, id: &str, gate: &CallGate) -> Result<bool, Outcome> {
        let path = Path::of(objects).segment("id", id)?;
        existed(&client::send(self.signed(Method::DELETE, &path)?, gate).await?)
    }

    /// Returns the matching objects of a list, newest first. The list of an object that does not exist is empty.
    pub(super) async fn list(
        &self,
        path: &Path,
        query: &[(&str, &str)],
        fits: impl Fn(&Value) -> bool,
        gate: &CallGate,
    ) -> Result<ListResult, Outcome> {
        let mut listed = ListResult { found: Vec::new(), whole: true };
        let mut next: Option<(&str, String)> = None;
        for _ in 0..PAGES {
            let next_query = next.as_ref().map(|(name, value)| (*name, value.as_str()));
            let query = query.iter().copied().chain([("limit", PER_PAGE)]).chain(next_query);
            let page = query.fold(path.clone(), |page, (name, value)| page.query(name, value));
            let answer = client::send(self.signed(Method::GET, &page)?, gate).await?;
            if is_missing(&answer) {
                return Ok(listed);
            }
            if !answer.status.is_success() {
                return Err(classify(&answer));
            }
            let body = answer.json();
            let Some(objects) = body["data"].as_array() else { return Err(Outcome::retry(Cause::Interrupted)) };
            listed.found.extend(objects.iter().filter(|object| fits(object)).cloned());
            // The next page of a list starts after its last object; a search returns the next page's token.
            next = match (body["has_more"] == true, body["next_page"].as_str(), objects.last()) {
                (true, Some(page), _) => Some(("page", page.to_owned())),
                (true, None, Some(last)) => {
                    Some(("starting_after", last["id"].as_str().unwrap_or_default().to_owned()))
                }
                _ => return Ok(listed),
            };
        }
        listed.whole = false;
        Ok(listed)
    }
}

/// Reads the answer to a request about one object. Returns true if the object exists, false if it is gone.
fn existed(answer: &HttpAnswer) -> Result<bool, Outcome> {
    if answer.status.is_success() {
        Ok(true)
    } else if is_missing(answer) {
        Ok(false)
    } else {
        Err(classify(answer))
    }
}
