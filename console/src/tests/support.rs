//! A console on a store in a temporary folder, with some events, and the requests of the tests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use usher_dispatcher::operator::OperatorCommands;
use usher_engine::arrival::{Arrival, Batch};
use usher_engine::story::{DestinationAnswer, StoryEntry};
use usher_engine::{Change, ChangeKind, Effect, RunState, StepEffect};
use usher_eventlog::{EmbeddedLog, Log, LogLayout, LogRetention};
use usher_flows::builtin;
use usher_lab::Lab;
use usher_proto::{
    Epoch, Event, EventId, Instance, Key, Offset, Partition, Reason, Snapshot, Source, SubjectId, Timestamp, Topics,
};
use usher_service::clock;
use usher_service::options::Environment;
use usher_sql::{Database, DatabaseAddress};
use usher_store::{FlowStore as _, RunStore as _, SqlStore};

use crate::{Console, ConsoleConfig, ConsoleLinks, routes};

pub(super) const OPERATOR: &str = "operator-token-0123456789";
pub(super) const READER: &str = "reader-token-0123456789";
/// The host by which the tests call.
pub(super) const HOST: &str = "127.0.0.1:8081";
/// The address of the person in the store, which no masked answer may hold.
pub(super) const ADDRESS: &str = "dana@work.test";
const PARTITIONS: i32 = 4;

/// A console of one test.
pub(crate) struct TestConsole {
    pub(crate) console: Console,
    pub(super) store: Arc<SqlStore>,
    pub(super) router: Router,
    pub(super) stop: CancellationToken,
    offset: std::sync::atomic::AtomicI64,
    _folder: TempDir,
}

/// An answer.
pub(super) struct TestAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl TestAnswer {
    pub(super) fn location(&self) -> &str {
        self.headers[header::LOCATION].to_str().expect("text")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// Returns a console on an empty store with these settings, bound to loopback.
pub(crate) async fn console_with(settings: &[(&str, &str)]) -> TestConsole {
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("sqlite:{}", folder.path().join("store.db").display());
    let address = DatabaseAddress::parse("USHER_STORE", &address).expect("an address");
    let store = SqlStore::open(Database::open(&address).expect("a pool"), PARTITIONS).await.expect("a store");
    let store = Arc::new(store);
    let log = EmbeddedLog::open(&folder.path().join("log.db"), LogRetention::default()).await.expect("a log");
    let layout = LogLayout { topics: "usher".parse::<Topics>().expect("a prefix"), partitions: PARTITIONS };
    log.ensure(&[layout.events()]).await.expect("a topic");
    let environment = settings.iter().fold(Environment::from_vars([]), |all, (name, value)| all.with(name, *value));
    let config = ConsoleConfig::new(HOST.parse().expect("an address"), &environment).expect("settings");
    let commands = OperatorCommands::new(Arc::new(log), layout, store.clone());
    let stop = CancellationToken::new();
    let links = ConsoleLinks { commands: Some(commands), lab: Some(Lab::new(100, &stop)) };
    let console = Console::new(config, store.clone(), links, stop.clone());
    let router = routes::router(console.clone());
    TestConsole { console, store, router, stop, offset: Default::default(), _folder: folder }
}

/// Returns a console with tokens for both roles.
pub(super) async fn console_with_tokens(more: &[(&str, &str)]) -> TestConsole {
    let tokens = [("USHER_CONSOLE_TOKEN", OPERATOR), ("USHER_CONSOLE_READ_TOKEN", READER)];
    console_with(&tokens.into_iter().chain(more.iter().copied()).collect::<Vec<_>>()).await
}

impl TestConsole {
    /// Sends a request, with the right host unless another one is given.
    pub(super) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TestAnswer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", HOST);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let is_stream = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        let text = if is_stream { Vec::new() } else { to_bytes(body, usize::MAX).await.expect("a body").to_vec() };
        let text = String::from_utf8(text).expect("UTF-8");
        TestAnswer { status: parts.status, headers: parts.headers, text }
    }

    pub(super) async fn get(&self, path: &str) -> TestAnswer {
        self.send("GET", path, &[], "").await
    }

    /// Posts a form as the page of a visit would.
    pub(super) async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> TestAnswer {
        let cookie = "a-visit";
        let token = crate::access::form_token(cookie);
        let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("csrf", token.as_str())]).collect();
        let body = serde_urlencoded::to_string(fields).expect("a form");
        let cookie = format!("usher_console={cookie}");
        let headers = [
            ("cookie", cookie.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", "http://127.0.0.1:8081"),
            ("sec-fetch-site", "same-origin"),
        ];
        self.send("POST", path, &headers, &body).await
    }

    /// Posts JSON as a program on loopback does.
    pub(super) async fn post_json(&self, path: &str, body: &serde_json::Value) -> TestAnswer {
        let headers = [("content-type", "application/json"), ("x-usher-client", "test"), ("x-usher-by", "ann")];
        self.send("POST", path, &headers, &body.to_string()).await
    }

    /// Stores the versions of the built-in flows that the events below are of.
    async fn keep(&self, flow: &str) -> String {
        let source = builtin().into_iter().find(|source| source.name == flow).expect("a built-in flow");
        let text = serde_json::to_string(&source).expect("JSON");
        self.store.keep_flow(flow, &source.version(), &text).await.expect("a version");
        source.version()
    }

    async fn own(&self, flow: &str) -> Epoch {
        self.store.acquire(flow, &[Partition(0)], "me").await.expect("owned")[0].epoch
    }

    /// Admits an event for a flow, received so many seconds ago.
    pub(super) async fn admit(&self, flow: &str, id: &str, user: &str, ago: i64) -> (Epoch, SubjectId) {
        let flow_version = self.keep(flow).await;
        let epoch = self.own(flow).await;
        let offset = Offset(self.offset.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        let received_at = Timestamp::from_millis(clock::now().millis() - ago * 1000);
        let subject = SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(user));
        let data = serde_json::json!({
            "id": user, "first_name": "Dana", "primary_email_address_id": "idn_1",
            "email_addresses": [{"id": "idn_1", "email_address": ADDRESS}],
        });
        let body = serde_json::json!({"type": "user.created", "object": "event", "data": data}).to_string();
        let event = Event {
            id: EventId::new(id),
            kind: "user.created".into(),
            source: Source::Clerk,
            subject: subject.clone(),
            occurred_at: received_at,
            received_at,
            provenance: Vec::new(),
            body: body.into(),
        };
        let snapshot = usher_proto::Snapshot {
            updated_at: received_at.millis(),
            occurred_at: received_at.millis(),
            data: Some(data.to_string()),
        };
        let arrival = Arrival { snapshot: Some(Snapshot { ..snapshot }), ..Arrival::starting(offset, event) };
        let batch = Batch {
            partition: Partition(0),
            epoch,
            frontier: offset.next(),
            arrivals: vec![arrival],
            refused: Vec::new(),
            flow_version,
            connector: Some("resend".to_owned()),
            begins: BTreeSet::new(),
        };
        self.store.admit(flow, &batch).await.expect("admitted");
        (epoch, subject)
    }

    /// Admits an event and ends its run in this state.
    pub(super) async fn ended(&self, flow: &str, id: &str, user: &str, ago: i64, state: RunState) {
        let (epoch, key) = self.admit(flow, id, user, ago).await;
        let effect = (state == RunState::Done).then(|| StepEffect {
            step: 0,
            name: "welcome".to_owned(),
            connector: "resend".to_owned(),
            attempt: 1,
            took: Some(Duration::from_millis(12)),
            effect: Effect::new("mail_1", serde_json::json!({})),
        });
        let error = format!("422 validation_error: `to` {ADDRESS} of {id} is refused");
        let verdict = (state == RunState::Dead).then_some((Reason::InvalidRequest, error));
        let message = format!("the address {ADDRESS} is refused");
        let answer = (state == RunState::Dead)
            .then(|| DestinationAnswer::new(Some(422), Some("validation_error"), Some(&message)));
        let story = vec![StoryEntry {
            pass: 0,
            step: 0,
            name: "welcome".to_owned(),
            number: 1,
            at: clock::now(),
            took: std::time::Duration::from_millis(12),
            outcome: if answer.is_some() { "reject" } else { "done" },
            answer,
            next_at: None,
            sent: Some(format!("{{\"to\":\"{ADDRESS}\"}}").into_bytes()),
        }];
        let change = Change {
            event: reference(id).parse().expect("a reference"),
            key,
            partition: Partition(0),
            epoch,
            kind: ChangeKind::End { state, effect, note: None, verdict, in_doubt: false },
            story: story.into(),
        };
        self.store.change(flow, &[change]).await.expect("ended");
    }

    /// Ends the process that owns the flows.
    pub(super) async fn leave(&self) {
        usher_store::QuotaStore::leave(&*self.store, "me").await.expect("left");
    }

    /// Fills the store: two flows, a person, runs that are open, done and dead.
    pub(super) async fn fill(&self) {
        self.ended("email", "msg_done", "user_dana", 300, RunState::Done).await;
        self.ended("email", "msg_dead1", "user_dana", 200, RunState::Dead).await;
        self.ended("email", "msg_dead2", "user_zoe", 100, RunState::Dead).await;
        self.admit("trial", "msg_done", "user_dana", 300).await;
        self.admit("trial", "msg_open", "user_zoe", 50).await;
    }
}

/// Returns the reference of an event.
pub(super) fn reference(id: &str) -> String {
    format!("clerk/default/{id}")
}
