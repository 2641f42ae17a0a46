//! Sends a stored request: the secrets are filled in here, and nowhere else.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use usher_engine::{Effect, Outcome};
use usher_proto::Reason;
use usher_service::clock;

use super::HttpConnector;
use super::address::resolve;
use super::classify::classify;
use super::request::{HttpRequest, RequestBody, SignedBy};
use super::secret_store::{Redaction, form_encoded};
use crate::path::Path;
use crate::placeholder::SecretValues;
use crate::{CallGate, client};

/// Longest idempotency key in a header, in characters. Loops refuses longer ones.
const LONGEST_KEY: usize = 100;

impl HttpConnector {
    /// Signs and sends a stored request. `Err` is the outcome if it was not sent or not answered.
    pub(super) async fn send(&self, request: &[u8], key: &str, gate: &CallGate) -> Result<Outcome, Outcome> {
        let request = HttpRequest::read(request)?;
        let not_set = |error: usher_service::ConfigError| Outcome::reject(Reason::Configuration, error.to_string());
        let secrets = self.secrets.all(request.secrets()).map_err(not_set)?;
        let credentials = request.basic_auth.as_ref().map(|(user, password)| {
            let filled = |pieces: &crate::placeholder::Pieces| pieces.fill(&secrets, str::to_owned);
            format!("{}:{}", filled(user), filled(password))
        });
        let redaction = Redaction::of(&secrets, credentials.as_deref());
        let url = resolve(&request.url, &secrets, self.plain_http)?;
        // A full stop in the id would allow the signed text to be split at another place.
        let id = key.replace('.', "_");
        let built = self.build(&request, &url, &secrets)?;
        let built = with_key(built, &request, key);
        let built = match credentials {
            None => built,
            Some(credentials) => {
                built.header(AUTHORIZATION, secret_header(&format!("Basic {}", BASE64_STANDARD.encode(credentials)))?)
            }
        };
        let body = request.body.as_ref().map(|body| filled_body(body, &secrets)).unwrap_or_default();
        let built = self.signed(built, &request, &id, &body)?;
        let clean = |text: &str| redaction.text(text);
        let built = if request.body.is_some() { built.body(body) } else { built };
        let answer = match request.answer.is_needed() {
            true => client::send_clean(built, gate, &clean).await?,
            false => client::send_clean_for_status(built, gate, &clean).await?,
        };
        let status = answer.status.as_u16();
        Ok(classify(&answer, &request, || effect(&id, request.answer.of(status, redaction.json(answer.json())))))
    }

    fn build(&self, request: &HttpRequest, url: &Url, secrets: &SecretValues) -> Result<RequestBuilder, Outcome> {
        let method = Method::from_bytes(request.method.as_bytes()).map_err(|_| crate::stored::unreadable())?;
        let (base, path) = self.target(url);
        let path = request
            .query
            .iter()
            .fold(path, |path, (name, value)| path.query(name, &value.fill(secrets, str::to_owned)));
        let mut built = self.client.request(method, &base, &path)?;
        for (name, value) in &request.headers {
            let value = secret_header(&value.fill(secrets, str::to_owned))?;
            let name = HeaderName::try_from(name.as_str()).map_err(|_| crate::stored::unreadable())?;
            built = built.header(name, value);
        }
        if let Some(body) = &request.body {
            built = built.header(CONTENT_TYPE, request.content_type.as_deref().unwrap_or(body.content_type()));
        }
        Ok(built)
    }

    /// Returns the base and path that a request to `url` is really sent to.
    pub(super) fn target(&self, url: &Url) -> (String, Path) {
        match &self.base {
            None => (format!("{}://{}", url.scheme(), url.authority()), Path::of_address("", url)),
            Some(base) => (base.clone(), Path::of_address(&format!("/{}", url.authority()), url)),
        }
    }

    fn signed(
        &self,
        built: RequestBuilder,
        request: &HttpRequest,
        id: &str,
        body: &str,
    ) -> Result<RequestBuilder, Outcome> {
        let Some(SignedBy { secret }) = &request.signed else { return Ok(built) };
        let missing = |_| Outcome::reject(Reason::Configuration, "its signing secret is not set any more");
        let keys = self.signing.get(secret.as_deref()).map_err(missing)?;
        let timestamp = clock::wall().seconds().to_string();
        let signatures: Vec<String> = keys.iter().map(|key| key.sign(id, &timestamp, body.as_bytes())).collect();
        Ok(built
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures.join(" ")))
    }
}

/// Adds the idempotency key in the header that the flow names.
fn with_key(built: RequestBuilder, request: &HttpRequest, key: &str) -> RequestBuilder {
    match &request.idempotency_header {
        None => built,
        Some(name) if key.len() <= LONGEST_KEY => built.header(name, key),
        Some(name) => built.header(name, format!("usher-{}", hex::encode(Sha256::digest(key.as_bytes())))),
    }
}

/// Returns the value of a header that may hold a secret: it is not shown in traces of the client.
fn secret_header(value: &str) -> Result<HeaderValue, Outcome> {
    let refused =
        |_| Outcome::reject(Reason::InvalidRequest, "a header has a line end or another control character in it");
    let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(refused)?;
    value.set_sensitive(true);
    Ok(value)
}

fn filled_body(body: &RequestBody, secrets: &SecretValues) -> String {
    match body {
        RequestBody::Json(pieces) => pieces.fill(secrets, json_encoded),
        RequestBody::Form(pieces) => pieces.fill(secrets, form_encoded),
        RequestBody::Text(pieces) => pieces.fill(secrets, str::to_owned),
    }
}

/// Returns a text as JSON has it between the quotes.
fn json_encoded(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Returns the effect of a request: its id is the receiver's own, if the answer has one.
fn effect(id: &str, kept: Value) -> Effect {
    let own = match &kept["id"] {
        Value::String(own) if !own.is_empty() => Some(own.clone()),
        Value::Number(own) => Some(own.to_string()),
        _ => None,
    };
    Effect::with_answer(own.as_deref().unwrap_or(id), kept)
}
