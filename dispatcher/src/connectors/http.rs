//! What connectors over HTTP share: one client each that follows no redirect, and one reading of what went wrong.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use usher_service::exit::BadSetting;
use usher_service::options::Environment;

use super::ATTEMPT_DEADLINE;
use crate::engine::{Cause, Outcome};

/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How much of an answer is read. The destinations' answers are a few kilobytes.
const MAX_ANSWER: usize = 256 * 1024;

/// A client for one destination. Redirects are not followed: they would carry the key to another place.
pub(super) fn client() -> Result<Client, BadSetting> {
    Client::builder()
        .user_agent(concat!("usher/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(ATTEMPT_DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| BadSetting::new("TLS", error))
}

/// The address of a destination: `variable`, or its own. Paths are appended to it.
pub(super) fn base_url(environment: &Environment, variable: &str, default: &str) -> Result<String, BadSetting> {
    let text = environment.get(variable)?.unwrap_or_else(|| default.to_owned());
    let url: Url = text
        .parse()
        .map_err(|error| BadSetting::new(variable, format!("{error}; it is an address such as {default}")))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(BadSetting::new(variable, format!("it is an address such as {default}")))
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Seconds that the destination asks to wait. A date, which the header may also hold, is not used by any of them.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds: f64 = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The outcome to repeat, for this cause, when the destination asks for it.
    pub(super) fn retry(&self, cause: Cause) -> Outcome {
        Outcome::Retry { cause, after: self.retry_after() }
    }
}

/// Sends a request and reads the whole answer, or says why there is none.
pub(super) async fn send(request: RequestBuilder) -> Result<Answer, Outcome> {
    let mut response = request.send().await.map_err(|error| Outcome::retry(cause(&error)))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => body.extend_from_slice(&chunk),
            // The status is known, and what is needed of the body stands at its beginning.
            Ok(_) => return Ok(Answer { status, headers, body }),
            Err(error) => return Err(Outcome::retry(cause(&error))),
        }
    }
}

fn cause(error: &reqwest::Error) -> Cause {
    if error.is_connect() {
        Cause::Unreachable
    } else if error.is_timeout() {
        Cause::Timeout
    } else {
        Cause::Interrupted
    }
}
