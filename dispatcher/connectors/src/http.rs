//! `http`: posts signed JSON to any receiver.
//!
//! Facts: the Standard Webhooks specification (github.com/standard-webhooks/standard-webhooks,
//! spec/standard-webhooks.md): the headers `webhook-id`, `webhook-timestamp` (of the attempt) and `webhook-signature`,
//! HMAC-SHA256 over `{id}.{timestamp}.{body}`, several signatures while a secret is exchanged, and the meaning of a
//! receiver's status.
//!
//! `webhook-id` is the same for every attempt, so a receiver that remembers ids processes each message once. No
//! receiver is required to remember them, so the idempotency counts as none. A flow whose receiver remembers ids can
//! set `on_unknown_outcome = "send"`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::signature::SigningSecret;
use usher_proto::{Json as Sent, Reason};
use usher_service::ConfigError;
use usher_service::clock;
use usher_service::options::Environment;

use super::ParamType::{Address, Json, Name};
use super::client::{self, HttpAnswer};
use super::path::{self, HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, Idempotency, Operation, PrepareError, StepInput, StepUse, is_template,
    optional, optional_or, required,
};

/// Secret for receivers for which a flow names no other. With the suffix `_NAME`, the secret of `secret = "name"`.
const SECRET: &str = "HTTP_SIGNING_SECRET";
/// A valid secret that signs nothing.
pub(super) const REHEARSAL_SECRET: &str = "whsec_cmVoZWFyc2FsLXJlaGVhcnNhbC1yZWhlYXJzYWw=";
const ALLOW_PLAIN: &str = "HTTP_ALLOW_PLAIN";

const OPERATIONS: &[Operation] = &[Operation {
    name: "post",
    params: &[required("url", Address), optional("body", Json), optional_or("secret", Name, SECRET)],
    takes_template: false,
    writes_to: &[],
}];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "http",
    settings: None,
    operations: OPERATIONS,
    default_quota: None,
    // There is a different receiver behind each address, so the limits of one do not apply to the others.
    announces_limits: false,
    // Receivers of Standard Webhooks must recognise a repeated message by its id, and a 503 of theirs must not end the run.
    repeats_unknown_outcomes: true,
    writes_to_database: false,
    placeholders: &[
        ("HTTP_SIGNING_SECRET", REHEARSAL_SECRET),
        // Allows `http://`, so that such an address is judged by its host alone.
        ("HTTP_ALLOW_PLAIN", "true"),
    ],
    open: |environment, _| Ok(Arc::new(SignedPost::from_environment(environment)?)),
};

/// Connector for `http`, with its settings.
pub(super) struct SignedPost {
    client: HttpClient,
    /// Base URL that replaces the scheme, host and port of every request; the original host and path follow it. Used
    /// for a lab, or a proxy that lets only known hosts pass.
    base: Option<String>,
    /// Secrets by name. The secret without a name has the empty name.
    secrets: BTreeMap<String, Vec<SigningSecret>>,
    allow_plain: bool,
}

impl SignedPost {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let mut secrets = BTreeMap::new();
        if let Some(text) = environment.get(SECRET)? {
            secrets.insert(String::new(), read(SECRET, &text)?);
        }
        for (name, text) in environment.with_prefix(&format!("{SECRET}_"))? {
            secrets.insert(name.to_ascii_lowercase(), read(&format!("{SECRET}_{name}"), &text)?);
        }
        let allow_plain = match environment.get(ALLOW_PLAIN)?.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(ConfigError::new(ALLOW_PLAIN, "it may be true or false")),
        };
        let base = match environment.get("HTTP_BASE_URL")? {
            None => None,
            Some(_) => Some(client::base_url(environment, "HTTP_BASE_URL", "http://127.0.0.1:8090/http")?),
        };
        Ok(Self { client: client::build()?, base, secrets, allow_plain })
    }

    fn secrets(&self, name: Option<&str>) -> Result<&[SigningSecret], PrepareError> {
        let found = self.secrets.get(name.unwrap_or_default());
        found.map(Vec::as_slice).ok_or_else(|| PrepareError(format!("{} is not set", variable(name))))
    }

    /// Bodies are personal data: without TLS they must not leave this machine or a private network.
    fn check_scheme(&self, url: &Url) -> Result<(), PrepareError> {
        if url.scheme() == "http" && !(self.allow_plain && is_near(url)) {
            let why = format!("url is http://, which {ALLOW_PLAIN} can allow to loopback and private addresses only");
            return Err(PrepareError(why));
        }
        Ok(())
    }

    /// Returns the base and path that a request to `url` is really sent to.
    fn target(&self, url: &Url) -> (String, Path) {
        match &self.base {
            None => (format!("{}://{}", url.scheme(), url.authority()), Path::of_address("", url)),
            Some(base) => (base.clone(), Path::of_address(&format!("/{}", url.authority()), url)),
        }
    }
}

/// Returns the variable that holds the secret of this name.
fn variable(secret: Option<&str>) -> String {
    secret.map_or_else(|| SECRET.to_owned(), |name| format!("{SECRET}_{}", name.to_ascii_uppercase()))
}

/// Returns the variables of the secrets that steps name, each step with its connector's name.
pub(super) fn named_secrets(uses: &[(&str, StepUse<'_>)]) -> impl Iterator<Item = String> {
    let of_ours = uses.iter().filter(|(connector, _)| *connector == SPEC.name);
    of_ours.filter_map(|(_, used)| used.text("secret")).map(|secret| variable(Some(secret)))
}

/// Parses the secrets in a variable, separated by spaces. Both sign while one replaces another.
fn read(variable: &str, text: &str) -> Result<Vec<SigningSecret>, ConfigError> {
    SigningSecret::parse_list(text).map_err(|error| ConfigError::new(variable, error))
}

/// True if a flow may use the text as an address.
pub(super) fn is_address(text: &str) -> bool {
    let is_fit = |url: Url| {
        let anonymous = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && anonymous
    };
    !is_template(text) && path::is_unambiguous(text) && text.parse().is_ok_and(is_fit)
}

/// True if a host is this machine or in a private network, judged by its name or address alone.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        // Names of a single label, such as those of containers, do not exist in public DNS.
        Err(_) => !host.contains('.') || [".localhost", ".internal", ".local"].iter().any(|end| host.ends_with(end)),
    }
}

/// A request as it is stored. The signature is computed again for each attempt, because it covers the attempt's time.
#[derive(Serialize, Deserialize)]
struct Post {
    url: String,
    secret: Option<String>,
    body: String,
}

#[async_trait]
impl Connector for SignedPost {
    fn idempotency(&self) -> Idempotency {
        Idempotency::None
    }

    async fn check(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        for used in uses {
            let secret = used.text("secret");
            if self.secrets(secret).is_err() {
                let variable = variable(secret);
                let StepUse { flow, step, .. } = used;
                let why = format!("not set, and step {step} of flow {flow} signs with it: it is whsec_ and base64");
                return Err(ConfigError::new(&variable, why));
            }
            if let Some(Err(error)) =
                used.text("url").and_then(|url| url.parse().ok()).map(|url| self.check_scheme(&url))
            {
                return Err(used.wrong("url", &error.0));
            }
        }
        Ok(())
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        let text = |name: &str| inputs.params.get(name).and_then(Value::as_str);
        let url = text("url").filter(|url| is_address(url));
        let url = url.and_then(|url| Url::parse(url).ok()).ok_or_else(|| PrepareError("url is no address".into()))?;
        self.check_scheme(&url)?;
        let secret = text("secret");
        self.secrets(secret)?;
        let body = match inputs.json("body") {
            Some(body) => body.to_owned(),
            // The payload that the specification recommends.
            None => {
                let event = inputs.event;
                let timestamp = event.occurred_at.to_string();
                // The data are passed on as they were sent, except for characters that strict parsers refuse.
                let data = inputs.sent().map_or(Cow::Borrowed("null"), Sent::well_formed);
                let kind = Value::from(event.kind.as_str());
                format!(r#"{{"data":{data},"timestamp":"{timestamp}","type":{kind}}}"#)
            }
        };
        let post = Post { url: url.into(), secret: secret.map(str::to_owned), body };
        serde_json::to_vec(&post).map_err(|error| PrepareError(error.to_string()))
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        let kept = serde_json::from_slice::<Post>(request).ok().and_then(|post| {
            let url = Url::parse(&post.url).ok()?;
            Some((post, url))
        });
        let Some((Post { secret, body, .. }, url)) = kept else {
            return Outcome::reject(Reason::FlowChanged, "the stored request cannot be read");
        };
        let Ok(secrets) = self.secrets(secret.as_deref()) else {
            return Outcome::reject(Reason::Configuration, "its signing secret is not set any more");
        };
        // A full stop in the id would allow the signed text to be split at another place.
        let id = idempotency_key.replace('.', "_");
        let timestamp = clock::wall().seconds().to_string();
        let signatures: Vec<String> =
            secrets.iter().map(|secret| secret.sign(&id, &timestamp, body.as_bytes())).collect();
        let (base, path) = self.target(&url);
        let request = match self.client.request(Method::POST, &base, &path) {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        let request = request
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures.join(" "))
            .header("Content-Type", "application/json")
            .body(body);
        match client::send_for_status(request, gate).await {
            Ok(answer) => classify(&answer, id),
            Err(outcome) => outcome,
        }
    }
}

/// Classifies an answer by the specification's table. A status that the specification only calls a failure is a
/// permanent rejection if HTTP attributes it to the request.
fn classify(answer: &HttpAnswer, id: String) -> Outcome {
    let status = answer.status.as_u16();
    let error = answer.error(None);
    match status {
        200..=299 => Outcome::Done(Effect::new(id, json!({ "status": status }))),
        // The server timed out waiting for the request (408), or wants it later (425). Both are temporary, like a 503.
        408 | 425 => answer.retry(Cause::Timeout),
        429 => answer.retry(Cause::Throttled),
        500..=599 => answer.retry(Cause::Unavailable),
        // Redirects are not followed: the operator must correct the address.
        300..=399 | 401 | 403 => Outcome::reject(Reason::Configuration, error),
        // 410: the receiver wants no more messages, which an operator has to act upon.
        404 | 410 => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}

#[cfg(test)]
mod tests;
