//! Builds the request of a step, in the form in which it is stored. Pure.

use std::borrow::Cow;

use reqwest::Method;
use reqwest::header::HeaderName;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use usher_engine::Outcome;
use usher_proto::Json;
use usher_proto::address::one_line;

use super::form;
use super::kept_answer::KeptAnswer;
use super::rules::Statuses;
use crate::placeholder::Pieces;
use crate::{Idempotency, KEYS_LIVE, PrepareError, StepInput, stored};

/// Methods that a flow may use.
pub(super) const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE"];
/// Headers that the connector or the client writes, each with what a flow says instead.
const OWN_HEADERS: [(&str, &str); 9] = [
    ("content-type", "write content_type = \"...\""),
    ("content-length", "it is computed"),
    ("transfer-encoding", "it is computed"),
    ("connection", "it concerns the connection alone"),
    ("host", "it is that of the url"),
    ("user-agent", "it is Usher's"),
    ("webhook-id", "write sign = true"),
    ("webhook-timestamp", "write sign = true"),
    ("webhook-signature", "write sign = true"),
];

/// A request as it is stored: secrets by their names. The signature is computed for each attempt, because it covers the
/// attempt's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HttpRequest {
    pub(super) method: String,
    pub(super) url: Pieces,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) query: Vec<(String, Pieces)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) headers: Vec<(String, Pieces)>,
    /// User and password of Basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) basic_auth: Option<(Pieces, Pieces)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<RequestBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signed: Option<SignedBy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) success_on: Option<Statuses>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_on: Option<Statuses>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) idempotency_header: Option<String>,
    pub(super) answer: KeptAnswer,
}

/// The body of a request. A secret in it is written as the format requires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RequestBody {
    /// JSON.
    Json(Pieces),
    /// A form.
    Form(Pieces),
    /// Any text.
    Text(Pieces),
}

/// The secret that signs a request, by the name that the flow gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SignedBy {
    pub(super) secret: Option<String>,
}

/// A stored request of this version, or of one that had `http.post` only.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnyStored {
    Request(Box<HttpRequest>),
    Post { url: String, secret: Option<String>, body: String },
}

impl RequestBody {
    pub(super) const fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json",
            Self::Form(_) => "application/x-www-form-urlencoded",
            Self::Text(_) => "text/plain; charset=utf-8",
        }
    }

    const fn pieces(&self) -> &Pieces {
        match self {
            Self::Json(pieces) | Self::Form(pieces) | Self::Text(pieces) => pieces,
        }
    }
}

impl HttpRequest {
    /// Reads a stored request. An error is the outcome of the attempt.
    pub(super) fn read(request: &[u8]) -> Result<Self, Outcome> {
        Ok(match stored::read(request)? {
            AnyStored::Request(request) => *request,
            AnyStored::Post { url, secret, body } => post(Pieces::of(&url), secret, Pieces::of(&body)),
        })
    }

    /// Returns the names of the secrets in the request.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let pairs = self.query.iter().chain(&self.headers).map(|(_, pieces)| pieces);
        let basic = self.basic_auth.iter().flat_map(|(user, password)| [user, password]);
        let body = self.body.iter().map(RequestBody::pieces);
        std::iter::once(&self.url).chain(pairs).chain(basic).chain(body).flat_map(Pieces::secrets)
    }
}

/// Returns how a repetition of a stored request is treated, without reading the rest of it: this is asked for every attempt.
pub(super) fn idempotency(request: &[u8]) -> Idempotency {
    #[derive(Deserialize)]
    struct Repeated<'a> {
        method: &'a str,
        idempotency_header: Option<IgnoredAny>,
    }
    match serde_json::from_slice(request) {
        Ok(Repeated { idempotency_header: Some(_), .. }) => Idempotency::KeyFor(KEYS_LIVE),
        // HTTP defines that a repeated request of these methods has the same effect (RFC 9110, 9.2.2).
        Ok(Repeated { method: "GET" | "PUT" | "DELETE", .. }) => Idempotency::Natural,
        // Nor is a request of the version that had `http.post` only, which stored no method.
        Ok(_) | Err(_) => Idempotency::None,
    }
}

fn post(url: Pieces, secret: Option<String>, body: Pieces) -> HttpRequest {
    HttpRequest {
        method: Method::POST.to_string(),
        url,
        query: Vec::new(),
        headers: Vec::new(),
        basic_auth: None,
        body: Some(RequestBody::Json(body)),
        content_type: None,
        signed: Some(SignedBy { secret }),
        success_on: None,
        retry_on: None,
        idempotency_header: None,
        answer: KeptAnswer::Status,
    }
}

/// Builds the request of a step from its parameters.
pub(super) fn prepare(inputs: &StepInput<'_>) -> Result<HttpRequest, PrepareError> {
    let text = |name: &str| inputs.params.get(name).and_then(Value::as_str);
    let url = Pieces::of(text("url").ok_or_else(|| PrepareError("url came out empty".into()))?);
    let secret = text("secret").map(str::to_owned);
    if inputs.operation == "post" {
        let body = match inputs.json("body") {
            Some(body) => Cow::Borrowed(body),
            None => Cow::Owned(event(inputs)),
        };
        return Ok(post(url, secret, Pieces::of(&body)));
    }
    let method = text("method").unwrap_or("POST");
    if !METHODS.contains(&method) {
        return Err(PrepareError(format!("method may be {}", METHODS.join(", "))));
    }
    let is_signed = secret.is_some() || inputs.params.get("sign").and_then(Value::as_bool) == Some(true);
    let idempotency_header = text("idempotency_header").map(str::to_owned);
    if let Some(name) = &idempotency_header {
        header_name("idempotency_header", name)?;
    }
    let statuses = |name: &str| match inputs.params.get(name) {
        None => Ok(None),
        Some(value) => match Statuses::read(value) {
            Some(statuses) => Ok(Some(statuses)),
            None => Err(PrepareError(format!("{name} is a list of statuses"))),
        },
    };
    let (success_on, retry_on) = (statuses("success_on")?, statuses("retry_on")?);
    if let Some(both) = success_on.as_ref().zip(retry_on.as_ref()).and_then(|(success, retry)| success.shared(retry)) {
        return Err(PrepareError(format!("success_on and retry_on both have {both}")));
    }
    let body = body(inputs, text)?;
    if method == "GET" && body.is_some() {
        return Err(PrepareError("method is GET, which sends no body: write query = { name = \"...\" }".into()));
    }
    let fields = |value: &Value| serde_json::from_value(value.clone());
    let answer = match inputs.params.get("answer") {
        None => KeptAnswer::All,
        Some(value) => {
            KeptAnswer::Fields(fields(value).map_err(|_| PrepareError("answer is a table of names and places".into()))?)
        }
    };
    Ok(HttpRequest {
        method: method.to_owned(),
        url,
        query: table(inputs, "query").into_iter().flatten().map(pair(str::to_owned)).collect(),
        headers: headers(inputs, idempotency_header.as_deref())?,
        basic_auth: basic_auth(inputs)?,
        body,
        content_type: text("content_type").map(str::to_owned),
        signed: is_signed.then_some(SignedBy { secret }),
        success_on,
        retry_on,
        idempotency_header,
        answer,
    })
}

fn table<'a>(inputs: &StepInput<'a>, name: &str) -> Option<&'a Map<String, Value>> {
    inputs.params.get(name).and_then(Value::as_object)
}

fn pair(change: fn(&str) -> String) -> impl Fn((&String, &Value)) -> (String, Pieces) {
    move |(name, value)| (name.clone(), Pieces::of(&change(value.as_str().unwrap_or_default())))
}

fn headers(inputs: &StepInput<'_>, idempotency_header: Option<&str>) -> Result<Vec<(String, Pieces)>, PrepareError> {
    let given = table(inputs, "headers");
    for name in given.into_iter().flat_map(Map::keys) {
        header_name("headers", name)?;
        if idempotency_header.is_some_and(|own| own.eq_ignore_ascii_case(name)) {
            return Err(PrepareError(format!("headers has {name:?}, which idempotency_header names")));
        }
    }
    Ok(given.into_iter().flatten().map(pair(one_line)).collect())
}

fn header_name(place: &str, name: &str) -> Result<(), PrepareError> {
    let lower = name.to_ascii_lowercase();
    if let Some((_, instead)) = OWN_HEADERS.iter().find(|(own, _)| *own == lower) {
        return Err(PrepareError(format!("{place} cannot set {name:?}: {instead}")));
    }
    HeaderName::try_from(name)
        .map(drop)
        .map_err(|_| PrepareError(format!("{place} cannot set {name:?}: no header is named so")))
}

fn basic_auth(inputs: &StepInput<'_>) -> Result<Option<(Pieces, Pieces)>, PrepareError> {
    let Some(given) = inputs.params.get("basic_auth") else { return Ok(None) };
    let is_known = |name: &String| matches!(name.as_str(), "user" | "password");
    let fields = given.as_object().filter(|fields| fields.keys().all(is_known));
    let fields = fields.ok_or_else(|| PrepareError("basic_auth is { user = \"...\", password = \"...\" }".into()))?;
    if table(inputs, "headers").is_some_and(|all| all.keys().any(|name| name.eq_ignore_ascii_case("authorization"))) {
        return Err(PrepareError("basic_auth is the header Authorization, which headers has, too".into()));
    }
    let part = |name: &str| Pieces::of(fields.get(name).and_then(Value::as_str).unwrap_or_default());
    Ok(Some((part("user"), part("password"))))
}

fn body<'a>(
    inputs: &StepInput<'a>,
    text: impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<RequestBody>, PrepareError> {
    let given: Vec<&str> =
        ["body", "form", "text"].into_iter().filter(|name| inputs.params.contains_key(*name)).collect();
    match given[..] {
        [] => Ok(None),
        ["body"] => Ok(inputs.json("body").map(Pieces::of).map(RequestBody::Json)),
        ["form"] => Ok(inputs.json("form").map(form::encode).map(RequestBody::Form)),
        ["text"] => Ok(text("text").map(Pieces::of).map(RequestBody::Text)),
        [..] => {
            Err(PrepareError(format!("a request has one of body, form and text, and this one {}", given.join(" and "))))
        }
    }
}

/// Returns the event in the form that Standard Webhooks recommends.
fn event(inputs: &StepInput<'_>) -> String {
    let event = inputs.event;
    let timestamp = event.occurred_at.to_string();
    // The data are passed on as they were sent, except for characters that strict parsers refuse.
    let data = inputs.sent().map_or(Cow::Borrowed("null"), Json::well_formed);
    let kind = Value::from(event.kind.as_str());
    format!(r#"{{"data":{data},"timestamp":"{timestamp}","type":{kind}}}"#)
}
