//! Nylas: sends mails from one's own mailboxes, over its API v3. A connected mailbox is called a grant.
//!
//! Facts: developer.nylas.com (sending, idempotency, errors, rate limits, listing messages, headers) and nylas-nodejs.
//! Its idempotency key is valid for an hour and preserves errors as well as successes: after a failure that certainly
//! had no effect the next attempt needs another key, and a replayed error contains no new information. Nylas itself
//! does not retry.
//!
//! Each mail carries the key in a header of its own, so that a mail whose answer was lost can be found among the
//! messages of the mailbox.
//!
//! Only Nylas can decide if a grant may send as `from`, when it receives the mail (402 or 422). At the start the domain
//! of `from` is compared with that of the mailbox. Providers limit how much a mailbox may send (Google 2,000 mails a
//! day, Microsoft 30 a minute): Nylas refuses mails beyond that with 429 on their behalf, and they wait.

mod mail;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use usher_engine::{Cause, Effect, Outcome};
use usher_proto::Reason;
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Html, Mailboxes, Sender, Table, Text};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, Idempotency, Lookup, Operation, PrepareError, StepInput, StepUse, optional,
    required, setting,
};

/// Time for which an idempotency key is relied on: an hour, less an allowance for clock skew.
const KEYS_LIVE: Duration = Duration::from_secs(55 * 60);
/// Time limit of a request. Sending takes seconds, occasionally a minute. Normally the step's `timeout` applies; this
/// limit is only a fallback.
const LONGEST: Duration = Duration::from_secs(300);
/// Time limit for querying a mailbox's address at the start.
const CHECK_DEADLINE: Duration = Duration::from_secs(5);
/// Variable that lists the mailboxes.
const GRANTS: &str = "NYLAS_GRANT_ID";
/// Nylas's name for Microsoft as the provider of a mailbox.
const MICROSOFT: &str = "microsoft";
/// Header of the mail that carries the idempotency key.
const HEADER: &str = "X-Usher-Key";
/// Time before the event's arrival from which a mail is looked for, in seconds: the provider's clock differs.
const EARLIER: i64 = 300;
/// Mails that are searched, at most. There are rarely more to one address, and Nylas recommends small pages.
const PAGE: &str = "50";

const OPERATIONS: &[Operation] = &[Operation {
    name: "send",
    params: &[
        required("to", Mailboxes),
        required("subject", Text),
        optional("from", Sender),
        optional("reply_to", Mailboxes),
        optional("html", Html),
        optional("text", Text),
        optional("headers", Table),
    ],
    takes_template: true,
    writes_to: &["to"],
}];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "nylas",
    settings: Some("NYLAS_"),
    operations: OPERATIONS,
    default_quota: None,
    announces_limits: true,
    repeats_unknown_outcomes: false,
    writes_to_database: false,
    placeholders: &[("NYLAS_API_KEY", "rehearsal"), ("NYLAS_GRANT_ID", "rehearsal")],
    open: |environment, _| Ok(Arc::new(Nylas::from_environment(environment)?)),
};

/// Connector for Nylas, with its settings.
pub(super) struct Nylas {
    client: HttpClient,
    base: String,
    key: Secret,
    /// Ids of the mailboxes; at least one.
    grants: Vec<String>,
}

impl Nylas {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let key = setting(environment, "NYLAS_API_KEY", "an API key (nyk_...) from Nylas's dashboard")?;
        let what = "the id of a connected mailbox, or several separated by spaces";
        let grants = setting(environment, GRANTS, what)?;
        let grants: Vec<String> = grants.split_whitespace().map(str::to_owned).collect();
        let unfit = |grant: &String| grant.contains('@') || of_grant(grant).is_err();
        if grants.is_empty() || grants.iter().any(unfit) {
            // An email address would appear in metrics and logs.
            return Err(ConfigError::new(GRANTS, format!("it is {what}")));
        }
        Ok(Self {
            client: client::build()?,
            // The EU region is https://api.eu.nylas.com.
            base: client::base_url(environment, "NYLAS_BASE_URL", "https://api.us.nylas.com")?,
            key: Secret::new(key),
            grants,
        })
    }

    /// Returns the mailbox for a recipient. It is always the same one, so that a conversation stays in one mailbox. The
    /// mailbox with the highest digest of mailbox and recipient is used, so most recipients keep theirs after a mailbox
    /// is added or removed.
    fn grant(&self, recipient: &str) -> &str {
        let weight = |grant: &&String| Sha256::digest(format!("{grant} {}", recipient.to_lowercase()).as_bytes());
        self.grants.iter().max_by_key(weight).map_or("", String::as_str)
    }

    fn request(&self, method: Method, path: &Path) -> Result<RequestBuilder, Outcome> {
        let request = self.client.request(method, &self.base, path)?;
        Ok(request.bearer_auth(self.key.expose()).timeout(LONGEST))
    }

    /// Queries Nylas about a mailbox.
    async fn ask(
        &self,
        path: Result<Path, PrepareError>,
        deadline: Duration,
        gate: &CallGate,
    ) -> Result<HttpAnswer, Outcome> {
        client::send(self.request(Method::GET, &path?)?.timeout(deadline), gate).await
    }

    /// Returns Nylas's description of a mailbox, or `None` if Nylas did not describe it. `None` is not an error: Nylas may be out
    /// of order, and one mailbox that has to be connected again must not stop the others or other flows.
    async fn told(&self, grant: &str) -> Option<Told> {
        match self.ask(of_grant(grant), CHECK_DEADLINE, &CallGate::open()).await {
            Ok(answer) if answer.status.is_success() => {
                let data = &answer.json()["data"];
                let domain = data["email"].as_str().and_then(mail::domain);
                Some(Told { domain, is_microsoft: data["provider"] == MICROSOFT })
            }
            Ok(answer) => {
                let error = answer.error(answer.json()["error"]["type"].as_str());
                tracing::warn!(
                    grant,
                    error,
                    "mailbox not checked: Nylas refused the query; mails from it may be refused"
                );
                None
            }
            Err(_) => {
                tracing::warn!(grant, "mailbox not checked: Nylas does not answer");
                None
            }
        }
    }

    /// Looks for the mail in its mailbox. It does not filter by folder: the Sent folder's id differs between providers.
    async fn find(&self, sent: &Sent, key: &str, gate: &CallGate) -> Lookup {
        let path = of_grant(&sent.grant).map(|grant| {
            let page = grant.then("/messages").query("fields", "include_headers").query("limit", PAGE);
            page.query("received_after", &sent.since.to_string()).query("to", &sent.to)
        });
        match self.ask(path, LONGEST, gate).await {
            Ok(answer) if answer.status.is_success() => found(&answer.json(), &sent.mail["subject"], key),
            other => client::no_lookup(other),
        }
    }
}

/// Nylas's description of a mailbox.
struct Told {
    /// Domain of its address.
    domain: Option<String>,
    is_microsoft: bool,
}

/// Returns a header of a step that a Microsoft mailbox may not send: learn.microsoft.com (message resource,
/// `internetMessageHeaders`) demands names that begin with `x-`. It is not confirmed that this applies to mails sent
/// through Nylas.
fn foreign_header<'a>(used: &'a StepUse<'_>) -> Option<&'a str> {
    let headers = used.params.get("headers")?.as_object()?;
    let is_own = |name: &str| name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"));
    headers.keys().map(String::as_str).find(|name| !is_own(name))
}

/// Returns the path of a mailbox.
fn of_grant(grant: &str) -> Result<Path, PrepareError> {
    Path::of("/v3/grants").segment("grant", grant)
}

/// A request as it is stored. The header with the key is added when the request is sent.
#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    grant: String,
    /// Address of the first recipient.
    to: String,
    /// Earliest time at which the mail can have been sent, in seconds.
    since: i64,
    mail: Map<String, Value>,
}

#[async_trait]
impl Connector for Nylas {
    fn idempotency(&self) -> Idempotency {
        Idempotency::KeyFor(KEYS_LIVE)
    }

    async fn check(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        let told = join_all(self.grants.iter().map(|grant| self.told(grant))).await;
        for (grant, _) in
            self.grants.iter().zip(&told).filter(|(_, told)| told.as_ref().is_some_and(|t| t.is_microsoft))
        {
            for (used, header) in uses.iter().filter_map(|used| Some((used, foreign_header(used)?))) {
                let StepUse { flow, step, .. } = used;
                tracing::warn!(
                    grant,
                    flow,
                    step,
                    header,
                    "this mailbox is Microsoft's, which may refuse or drop headers that do not begin with x-"
                );
            }
        }
        let mailboxes = self.grants.iter().zip(told).filter_map(|(grant, told)| Some((grant, told?.domain?)));
        for (grant, mailbox) in mailboxes {
            // Without a `from`, the mail is sent as its mailbox.
            for (used, from) in uses.iter().filter_map(|used| Some((used, mail::domain(used.text("from")?)?))) {
                if from != mailbox {
                    let why = format!(
                        "it is of {from}, but the mailbox {grant} is of {mailbox} and can only send as that: write an \
                         address of {mailbox}, leave it out, or let {GRANTS} name mailboxes of {from} only"
                    );
                    return Err(used.wrong("from", &why));
                }
            }
        }
        Ok(())
    }

    async fn lookup(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Lookup {
        match serde_json::from_slice(request) {
            Ok(sent) => self.find(&sent, idempotency_key, gate).await,
            Err(_) => Lookup::Unknown,
        }
    }

    fn sub_accounts(&self) -> Vec<String> {
        self.grants.clone()
    }

    fn sub_account(&self, request: &[u8]) -> Option<String> {
        serde_json::from_slice::<Sent>(request).ok().map(|sent| sent.grant)
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        let mail = mail::of(inputs)?;
        let to = mail["to"][0]["email"].as_str().unwrap_or_default().to_owned();
        let since = inputs.event.received_at.seconds() - EARLIER;
        let sent = Sent { grant: self.grant(&to).to_owned(), to, since, mail };
        serde_json::to_vec(&sent).map_err(|error| PrepareError(error.to_string()))
    }

    async fn attempt(&self, request: &[u8], idempotency_key: &str, gate: &CallGate) -> Outcome {
        let Ok(sent) = serde_json::from_slice::<Sent>(request) else {
            return Outcome::reject(Reason::FlowChanged, "the stored request cannot be read");
        };
        let mail = bearing(sent.mail.clone(), idempotency_key);
        let path = of_grant(&sent.grant).map(|grant| grant.then("/messages/send"));
        let request = match path.map_err(Outcome::from).and_then(|path| self.request(Method::POST, &path)) {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        let request = request
            .header("Idempotency-Key", idempotency_key)
            .header("Content-Type", "application/json")
            .body(Value::Object(mail).to_string());
        let answer = match client::send(request, gate).await {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        let outcome = classify(&answer);
        if !matches!(outcome, Outcome::Retry { .. }) || !answer.headers.contains_key("idempotent-response") {
            return outcome;
        }
        // An earlier attempt's error, replayed for the rest of the hour. The mailbox shows if that attempt sent the
        // mail; if it did not, only another key can send it.
        match self.find(&sent, idempotency_key, gate).await {
            Lookup::Found(effect) => Outcome::Done(effect),
            Lookup::Absent => Outcome::retry(Cause::Replayed),
            Lookup::Unknown | Lookup::Later(_) => outcome,
        }
    }
}

/// Returns the mail with the header by which it can be found.
fn bearing(mut mail: Map<String, Value>, key: &str) -> Map<String, Value> {
    let ours = json!({ "name": HEADER, "value": key });
    match mail.get_mut("custom_headers").and_then(Value::as_array_mut) {
        Some(headers) => headers.push(ours),
        None => drop(mail.insert("custom_headers".into(), json!([ours]))),
    }
    mail
}

fn classify(answer: &HttpAnswer) -> Outcome {
    let body = answer.json();
    if answer.status.is_success() {
        // IMAP mailboxes assign no id to a mail.
        let id = body["data"]["id"].as_str().or_else(|| body["request_id"].as_str());
        return match id {
            Some(id) => Outcome::Done(Effect::new(id, json!({}))),
            None => Outcome::retry(Cause::Interrupted),
        };
    }
    let kind = body["error"]["type"].as_str().unwrap_or_default();
    let error = answer.error(Some(kind));
    match (answer.status.as_u16(), kind) {
        (409, "api.invalid_idempotent_request") => Outcome::reject(Reason::IdempotencyConflict, error),
        (409, _) => answer.retry(Cause::Conflict),
        (408, _) => answer.retry(Cause::Timeout),
        (429, _) => answer.retry(Cause::Throttled),
        // It is unknown if the provider has sent the mail.
        (504, _) => answer.retry(Cause::Timeout),
        (500..=599, _) => answer.retry(Cause::Unavailable),
        // Blocked: this passes by itself, or an operator resolves it.
        (423, _) => answer.retry(Cause::Conflict),
        // The API key, the mailbox's own login, or a mailbox that does not exist: the path contains nothing else.
        (401 | 403 | 404, _) => Outcome::reject(Reason::Configuration, error),
        // 402: some of several recipients may have received the mail, so it must not be sent again automatically.
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}

/// Looks for the mail with this key in a page of the mailbox's messages.
fn found(page: &Value, subject: &Value, key: &str) -> Lookup {
    let Some(list) = page["data"].as_array() else { return Lookup::Unknown };
    let header = |message: &Value| {
        let headers = message["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ours = |header: &&Value| header["name"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(HEADER));
        headers.iter().find(ours).and_then(|header| header["value"].as_str()).map(str::to_owned)
    };
    if let Some(message) = list.iter().find(|message| header(message).as_deref() == Some(key)) {
        return Lookup::Found(Effect::new(message["id"].as_str().unwrap_or_default(), json!({})));
    }
    // Some providers do not return foreign headers: a mail with the same subject but no such header may be this one.
    let nameless = list.iter().any(|message| header(message).is_none() && message["subject"] == *subject);
    if nameless || page["next_cursor"].is_string() { Lookup::Unknown } else { Lookup::Absent }
}

#[cfg(test)]
mod tests;
