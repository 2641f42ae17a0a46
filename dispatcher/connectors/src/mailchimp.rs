//! Mailchimp: members of an audience, which its API calls a list.
//!
//! Facts: mailchimp.com/developer/marketing (list members, methods and parameters, errors) and
//! mailchimp-marketing-python. A member is identified by the MD5 of the address in lower case. There is no idempotency
//! key; all operations leave the same state when they are repeated.
//!
//! Each operation depends on the member's state: see [`change`]. A PUT sends `status_if_new`: a `status` would
//! subscribe a person again who has unsubscribed. A person who may not be subscribed at all (unsubscribed before,
//! bounced, erased) is refused, and only that person can change this.

mod change;

use std::sync::Arc;

use async_trait::async_trait;
use md5::{Digest as _, Md5};
use reqwest::Method;
use serde_json::{Map, Value, json};
use usher_engine::{Cause, Outcome};
use usher_proto::Reason;
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use self::change::{MemberChange, State};
use super::ParamType::{Email, Record, Text, Texts};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, DefaultQuota, Idempotency, Operation, Param, PrepareError, StepInput, optional,
    optional_or, required, setting,
};

const PUT_MEMBER: &str = "put_member";
const UNSUBSCRIBE: &str = "unsubscribe";
const DELETE_MEMBER: &str = "delete_member";

const LIST: Param = optional_or("list", Text, LIST_VARIABLE);
const LIST_VARIABLE: &str = "MAILCHIMP_LIST_ID";
const NO_ID: &str = "is no id: it stands in the audience's settings";

const OPERATIONS: &[Operation] = &[
    Operation {
        name: PUT_MEMBER,
        params: &[
            required("email", Email),
            LIST,
            optional("status_if_new", Text),
            optional("merge_fields", Record),
            optional("tags", Texts),
            optional("former_email", Email),
        ],
        takes_template: false,
        writes_to: &["email"],
    },
    Operation { name: UNSUBSCRIBE, params: &[required("email", Email), LIST], takes_template: false, writes_to: &[] },
    Operation { name: DELETE_MEMBER, params: &[required("email", Email), LIST], takes_template: false, writes_to: &[] },
];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "mailchimp",
    settings: Some("MAILCHIMP_"),
    operations: OPERATIONS,
    // Mailchimp allows ten concurrent requests per key. Two are left for other programs that use the key.
    default_quota: Some(DefaultQuota { limit: "8 at once", is_assumed: false }),
    announces_limits: true,
    repeats_unknown_outcomes: false,
    writes_to_database: false,
    placeholders: &[("MAILCHIMP_API_KEY", "rehearsal-us1"), ("MAILCHIMP_LIST_ID", "abc")],
    open: |environment, _| Ok(Arc::new(Mailchimp::from_environment(environment)?)),
};

/// Connector for Mailchimp, with its settings.
pub(super) struct Mailchimp {
    client: HttpClient,
    base: String,
    key: Secret,
    list: Option<String>,
}

impl Mailchimp {
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let key = setting(environment, "MAILCHIMP_API_KEY", "an API key (...-us21) from Mailchimp's account page")?;
        // The suffix of the key is the data centre, which is part of the host name.
        let centre = key.rsplit_once('-').map(|(_, centre)| centre);
        let centre = centre.filter(|c| !c.is_empty() && c.bytes().all(|b| b.is_ascii_alphanumeric()));
        let centre = centre.ok_or_else(|| {
            ConfigError::new("MAILCHIMP_API_KEY", "it ends in its data centre, for instance -us21: copy it whole")
        })?;
        let own = format!("https://{centre}.api.mailchimp.com");
        let list = environment.get(LIST_VARIABLE)?;
        if list.as_deref().is_some_and(|list| !is_id(list)) {
            return Err(ConfigError::new(LIST_VARIABLE, format!("it {NO_ID}")));
        }
        Ok(Self {
            client: client::build()?,
            base: client::base_url(environment, "MAILCHIMP_BASE_URL", &own)?,
            list,
            key: Secret::new(key),
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: Path,
        body: Option<String>,
        gate: &CallGate,
    ) -> Result<HttpAnswer, Outcome> {
        // Mailchimp accepts any user name.
        let mut request = self.client.request(method, &self.base, &path)?.basic_auth("usher", Some(self.key.expose()));
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        client::send(request, gate).await
    }
}

fn is_id(list: &str) -> bool {
    !list.is_empty() && list.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Returns the path of an audience.
fn of_list(list: &str) -> Result<Path, PrepareError> {
    Path::of("/3.0/lists").segment("list", list)
}

#[async_trait]
impl Connector for Mailchimp {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        let text = |name: &str| inputs.params.get(name).and_then(Value::as_str);
        inputs.required("email")?;
        let email = inputs.email()?.unwrap_or_default();
        let list = text("list").or(self.list.as_deref());
        let list = list.ok_or_else(|| PrepareError("list is not given, and MAILCHIMP_LIST_ID is not set".into()))?;
        if !is_id(list) {
            return Err(PrepareError(format!("list {NO_ID}")));
        }
        let mut former = None;
        let mut tags = None;
        let body = match inputs.operation {
            PUT_MEMBER => {
                let status = text("status_if_new").unwrap_or(State::Subscribed.label());
                if !State::SAYABLE.iter().any(|state| state.label() == status) {
                    let states = State::SAYABLE.map(State::label);
                    return Err(PrepareError(format!("status_if_new may be {}", states.join(", "))));
                }
                let mut member = Map::new();
                member.insert("email_address".into(), json!(email));
                member.insert("status_if_new".into(), json!(status));
                if let Some(fields) = inputs.params.get("merge_fields").and_then(Value::as_object) {
                    // An omitted field keeps its value; an empty text clears it.
                    let written = |value: &Value| if value.is_null() { json!("") } else { value.clone() };
                    let fields = fields.iter().map(|(name, value)| (name.clone(), written(value))).collect();
                    member.insert("merge_fields".into(), Value::Object(fields));
                }
                // Tags in the body of a PUT are applied to new members only.
                tags = match inputs.params.get("tags") {
                    Some(Value::String(tag)) => Some(change::tags([tag.as_str()])),
                    Some(Value::Array(tags)) => Some(change::tags(tags.iter().filter_map(Value::as_str))),
                    Some(_) | None => None,
                };
                let before = inputs.mailboxes("former_email")?.pop().map(|mailbox| hash(&mailbox.address));
                former = before.filter(|before| *before != hash(&email));
                Some(Value::Object(member).to_string())
            }
            UNSUBSCRIBE | DELETE_MEMBER => None,
            other => return Err(PrepareError(format!("mailchimp cannot {other}"))),
        };
        let operation = inputs.operation.to_owned();
        let list = list.to_owned();
        let change = MemberChange { operation, list, hash: hash(&email), body, former, tags };
        serde_json::to_vec(&change).map_err(|error| PrepareError(error.to_string()))
    }

    async fn attempt(&self, request: &[u8], _: &str, gate: &CallGate) -> Outcome {
        let Ok(change) = serde_json::from_slice::<MemberChange>(request) else {
            return Outcome::reject(Reason::FlowChanged, "the stored request cannot be read");
        };
        let done = match change.operation.as_str() {
            PUT_MEMBER => self.put(&change, gate).await,
            UNSUBSCRIBE => self.unsubscribe(&change, gate).await,
            _ => self.archive(&change, gate).await,
        };
        done.unwrap_or_else(|outcome| outcome)
    }
}

/// Returns the member's id: the MD5, in lower-case hex, of the address in lower case. Mailchimp does not document how
/// letters beyond ASCII are lower-cased; Unicode's rule is the most likely one.
fn hash(email: &str) -> String {
    let digest = Md5::digest(email.to_lowercase().as_bytes());
    digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Documented titles of `application/problem+json` with the names for them. Other titles are not repeated.
const TITLES: [(&str, &str); 6] = [
    ("Invalid Resource", "invalid_resource"),
    ("Member Exists", "member_exists"),
    ("Member In Compliance State", "member_in_compliance_state"),
    ("Forgotten Email Not Subscribed", "forgotten_email_not_subscribed"),
    ("API Key Invalid", "api_key_invalid"),
    ("Resource Not Found", "resource_not_found"),
];

fn classify(answer: &HttpAnswer) -> Outcome {
    let body = answer.json();
    let title = body["title"].as_str();
    let error = answer.error(TITLES.iter().find(|(known, _)| Some(*known) == title).map(|(_, name)| *name));
    match answer.status.as_u16() {
        429 => answer.retry(Cause::Throttled),
        // Under load, Mailchimp's edge servers answer 403 without Mailchimp's error format.
        403 if title.is_none() => answer.retry(Cause::Throttled),
        401 | 403 => Outcome::reject(Reason::Configuration, error),
        408 => answer.retry(Cause::Timeout),
        500..=599 => answer.retry(Cause::Unavailable),
        404 => Outcome::reject(Reason::NotFound, error),
        _ => Outcome::reject(Reason::InvalidRequest, error),
    }
}

#[cfg(test)]
mod tests;
