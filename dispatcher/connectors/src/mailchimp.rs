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
mod classify;
mod member;
mod request;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use usher_engine::Outcome;
use usher_service::ConfigError;
use usher_service::Secret;
use usher_service::options::Environment;

use super::ParamType::{Email, Record, Text, Texts};
use super::client::{self, HttpAnswer};
use super::path::{HttpClient, Path};
use super::{
    CallGate, Connector, ConnectorSpec, DefaultQuota, Idempotency, Operation, Param, PrepareError, StepInput, optional,
    optional_or, required, setting, stored,
};

const PUT_MEMBER: &str = "put_member";
const UNSUBSCRIBE: &str = "unsubscribe";
const DELETE_MEMBER: &str = "delete_member";
const TAG_MEMBER: &str = "tag_member";
const ERASE_MEMBER: &str = "erase_member";

const LIST: Param = optional_or("list", Text, LIST_VARIABLE);
const LIST_VARIABLE: &str = "MAILCHIMP_LIST_ID";

const OPERATIONS: &[Operation] = &[
    Operation {
        name: PUT_MEMBER,
        params: &[
            required("email", Email),
            LIST,
            optional("status_if_new", Text),
            optional("merge_fields", Record),
            optional("tags", Texts),
            optional("remove_tags", Texts),
            optional("former_email", Email),
        ],
        takes_template: false,
        writes_to: &["email"],
    },
    Operation { name: UNSUBSCRIBE, params: &[required("email", Email), LIST], takes_template: false, writes_to: &[] },
    Operation { name: DELETE_MEMBER, params: &[required("email", Email), LIST], takes_template: false, writes_to: &[] },
    Operation {
        name: TAG_MEMBER,
        params: &[required("email", Email), LIST, optional("tags", Texts), optional("remove_tags", Texts)],
        takes_template: false,
        writes_to: &[],
    },
    Operation { name: ERASE_MEMBER, params: &[required("email", Email), LIST], takes_template: false, writes_to: &[] },
];

pub(super) const SPEC: ConnectorSpec = ConnectorSpec {
    name: "mailchimp",
    settings: Some("MAILCHIMP_"),
    operations: OPERATIONS,
    // Mailchimp allows ten concurrent requests per key. Two are left for other programs that use the key.
    default_quota: Some(DefaultQuota { limit: "8 at once", is_assumed: false }),
    announces_limits: true,
    repeats_unknown_outcomes: &[],
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
        if list.as_deref().is_some_and(|list| !request::is_list_id(list)) {
            return Err(ConfigError::new(LIST_VARIABLE, format!("it {}", request::NO_LIST_ID)));
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

#[async_trait]
impl Connector for Mailchimp {
    fn idempotency(&self) -> Idempotency {
        Idempotency::Natural
    }

    fn prepare(&self, inputs: &StepInput<'_>) -> Result<Vec<u8>, PrepareError> {
        stored::write(&request::prepare(inputs, self.list.as_deref())?)
    }

    async fn attempt(&self, request: &[u8], _: &str, gate: &CallGate) -> Outcome {
        self.apply(request, gate).await.unwrap_or_else(|outcome| outcome)
    }
}
