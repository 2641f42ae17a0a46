//! The connectors under test, each with a request and an answer that it accepts as done.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use usher_connectors::{CallGate, Connector, PrepareError, StepInput};
use usher_engine::Outcome;
use usher_proto::{Event, EventId, Instance, Key, Source, SubjectId, Timestamp};
use usher_service::options::Environment;
use usher_sql::{Database, DatabaseAddress};

use super::log;

/// `LEAKYSECRET`, which is part of every key, as a signing secret.
const SIGNING: &str = "whsec_TEVBS1lTRUNSRVRMRUFLWVNFQ1JFVCEh";
/// Recipient of every request.
pub(crate) const ADDRESS: &str = "dana.leaky@work.test";
/// Texts that must not appear in logs and errors: the secret, the secret in the two encodings in which it is sent or
/// stored, the address, and the address in a query.
pub(crate) const PRIVATE: [&str; 5] =
    ["LEAKYSECRET", "TEVBS1lTRUNSRVRMRUFLWVNFQ1JFV", "dXNoZXI6TEVBS1lTRUNSRVQ", ADDRESS, "dana%2Eleaky"];
pub(crate) const KEY: &str = "usher/suite/step/msg_1/0";

/// A connector and its test data.
pub(crate) struct ConnectorSubject {
    pub(crate) name: &'static str,
    /// Variable for the URL of its destination.
    pub(crate) base: &'static str,
    pub(crate) settings: &'static [(&'static str, &'static str)],
    pub(crate) operation: &'static str,
    pub(crate) params: fn() -> Value,
    /// Status and body of an answer that means done.
    pub(crate) done: (u16, &'static str),
    /// True if the body of the answer is evaluated; otherwise the status alone decides.
    pub(crate) reads: bool,
    /// True if the connector can look up what a request has done.
    pub(crate) looks_up: bool,
}

pub(crate) const SUBJECTS: &[ConnectorSubject] = &[
    ConnectorSubject {
        name: "resend",
        base: "RESEND_BASE_URL",
        settings: &[
            ("RESEND_API_KEY", "re_LEAKYSECRET"),
            ("USHER_FROM", "h@acme.test"),
            ("USHER_ATTACHMENTS", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/connectors")),
        ],
        operation: "send",
        params: || json!({ "to": ADDRESS, "subject": "Hi", "text": "Hello" }),
        done: (200, r#"{"id":"m1"}"#),
        reads: true,
        looks_up: false,
    },
    ConnectorSubject {
        name: "stripe",
        base: "STRIPE_BASE_URL",
        settings: &[("STRIPE_SECRET_KEY", "sk_test_LEAKYSECRET")],
        operation: "create_customer",
        params: || json!({ "email": ADDRESS }),
        done: (200, r#"{"id":"cus_1"}"#),
        reads: true,
        looks_up: true,
    },
    ConnectorSubject {
        name: "http",
        base: "HTTP_BASE_URL",
        settings: &[("HTTP_SIGNING_SECRET", SIGNING), ("HTTP_SIGNING_SECRET_BILLING", SIGNING)],
        operation: "post",
        params: || json!({ "url": "https://billing.test/hook", "body": json!({ "email": ADDRESS }).to_string() }),
        done: (204, ""),
        reads: false,
        looks_up: false,
    },
    ConnectorSubject {
        name: "mailchimp",
        base: "MAILCHIMP_BASE_URL",
        settings: &[("MAILCHIMP_API_KEY", "LEAKYSECRET-us1"), ("MAILCHIMP_LIST_ID", "1ab")],
        operation: "put_member",
        params: || json!({ "email": ADDRESS, "merge_fields": { "CLERKID": "user_1" } }),
        done: (200, r#"{"id":"x","status":"subscribed"}"#),
        reads: true,
        looks_up: false,
    },
    ConnectorSubject {
        name: "novu",
        base: "NOVU_BASE_URL",
        settings: &[("NOVU_SECRET_KEY", "LEAKYSECRET")],
        operation: "trigger",
        params: || json!({ "workflow": "welcome", "subscriber_id": "user_1", "email": ADDRESS }),
        done: (201, r#"{"data":{"status":"processed","transactionId":"t"}}"#),
        reads: true,
        looks_up: true,
    },
    ConnectorSubject {
        name: "algolia",
        base: "ALGOLIA_BASE_URL",
        settings: &[("ALGOLIA_APP_ID", "APP"), ("ALGOLIA_API_KEY", "LEAKYSECRET"), ("ALGOLIA_INDEX", "users")],
        operation: "save",
        params: || json!({ "object_id": "user_1", "fields": { "email": ADDRESS } }),
        done: (200, r#"{"taskID":1,"objectID":"user_1"}"#),
        reads: true,
        looks_up: false,
    },
    ConnectorSubject {
        name: "nylas",
        base: "NYLAS_BASE_URL",
        settings: &[("NYLAS_API_KEY", "nyk_LEAKYSECRET"), ("NYLAS_GRANT_ID", "g1 g2")],
        operation: "send",
        params: || json!({ "to": ADDRESS, "subject": "Hi", "text": "Hello" }),
        done: (200, r#"{"request_id":"r","data":{"id":"m1"}}"#),
        reads: true,
        looks_up: true,
    },
    ConnectorSubject {
        name: "clerk",
        base: "CLERK_BASE_URL",
        settings: &[("CLERK_SECRET_KEY", "sk_test_LEAKYSECRET")],
        operation: "set_metadata",
        params: || json!({ "user_id": "user_1", "private": { "email": ADDRESS } }),
        done: (200, r#"{"id":"user_1","object":"user"}"#),
        reads: true,
        looks_up: false,
    },
];

/// Operations that answer otherwise than the first one of their connector.
pub(crate) const OTHERS: &[ConnectorSubject] = &[
    ConnectorSubject {
        operation: "put_contact",
        params: || json!({ "email": ADDRESS, "first_name": "Dana" }),
        done: (200, r#"{"id":"c1","unsubscribed":false}"#),
        ..SUBJECTS[0]
    },
    ConnectorSubject {
        operation: "delete_contact",
        params: || json!({ "email": ADDRESS }),
        done: (200, "{}"),
        reads: false,
        ..SUBJECTS[0]
    },
    ConnectorSubject {
        operation: "tag_member",
        params: || json!({ "email": ADDRESS, "tags": "trial", "remove_tags": ["b"] }),
        ..SUBJECTS[3]
    },
    ConnectorSubject { operation: "erase_member", params: || json!({ "email": ADDRESS }), ..SUBJECTS[3] },
    ConnectorSubject {
        operation: "put_subscriber",
        params: || json!({ "subscriber_id": "user_1", "email": ADDRESS, "phone": null }),
        done: (200, "{}"),
        reads: false,
        looks_up: false,
        ..SUBJECTS[4]
    },
    ConnectorSubject {
        operation: "delete_subscriber",
        params: || json!({ "subscriber_id": "user_1" }),
        done: (200, "{}"),
        reads: false,
        looks_up: false,
        ..SUBJECTS[4]
    },
];

/// Returns one of [`OTHERS`].
pub(crate) fn other(operation: &str) -> &'static ConnectorSubject {
    OTHERS.iter().find(|subject| subject.operation == operation).unwrap()
}

pub(crate) fn subject(name: &str) -> &'static ConnectorSubject {
    SUBJECTS.iter().find(|subject| subject.name == name).unwrap()
}

impl ConnectorSubject {
    /// Returns the connector with its destination at `url`.
    pub(crate) fn open(&self, url: &str) -> Arc<dyn Connector> {
        let all = self.settings.iter().fold(Environment::from_vars([]), |all, (name, value)| all.with(name, *value));
        self.open_in(&all.with(self.base, url))
    }

    /// Returns the connector for this environment.
    pub(crate) fn open_in(&self, environment: &Environment) -> Arc<dyn Connector> {
        log::listen();
        usher_service::telemetry::install_tls();
        let opened = usher_connectors::open(&[self.name], environment, database()).unwrap();
        opened[self.name].clone()
    }

    pub(crate) fn prepare(&self, connector: &dyn Connector) -> Vec<u8> {
        prepare(connector, self.operation, &(self.params)(), &Value::Null).unwrap()
    }

    /// Makes one attempt of its request against a destination at `url`.
    pub(crate) async fn attempt(&self, url: &str) -> Outcome {
        let connector = self.open(url);
        let request = self.prepare(&*connector);
        connector.attempt(&request, KEY, &CallGate::open()).await
    }
}

/// Prepares the request of an event that was just received.
pub(crate) fn prepare(
    connector: &dyn Connector,
    operation: &str,
    params: &Value,
    data: &Value,
) -> Result<Vec<u8>, PrepareError> {
    prepare_rerun(connector, operation, params, data, 0)
}

/// Prepares the request of a run that was rerun `rerun` times.
pub(crate) fn prepare_rerun(
    connector: &dyn Connector,
    operation: &str,
    params: &Value,
    data: &Value,
    rerun: u32,
) -> Result<Vec<u8>, PrepareError> {
    let event = Event {
        id: EventId::new("msg_1"),
        kind: "user.created".into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
        occurred_at: Timestamp::from_millis(1_767_261_600_250),
        received_at: Timestamp::from_millis(1_767_261_601_000),
        provenance: Vec::new(),
        body: Bytes::from(json!({ "type": "user.created", "data": data }).to_string()),
    };
    let params = params.as_object().unwrap();
    connector.prepare(&StepInput { operation, params, event: &event, known: None, rerun })
}

/// An empty database. Only the database connector uses it, and that one has its own suite.
pub(crate) fn database() -> &'static Database {
    static DATABASE: OnceLock<(Database, TempDir)> = OnceLock::new();
    let made = DATABASE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("sqlite:{}", folder.path().join("unused.db").display());
        let address = DatabaseAddress::parse("DATABASE_URL", &address).unwrap();
        (Database::open(&address).unwrap(), folder)
    });
    &made.0
}
