//! The double of Novu: `POST /v1/events/trigger`, the notifications of a transaction, and the [subscribers].
//!
//! Facts: docs.novu.co, Novu's OpenAPI document and the server's source. Responses are wrapped in `data`. A workflow
//! that is named after a status (`trigger_not_active`) answers 201 with that status and sends nothing. A workflow named
//! `missing` does not exist.
//!
//! `Idempotency-Key` is ignored, as it is unless Novu's support has enabled it for an account. A repeat is recognised
//! by its `transactionId`: it gets the first response again and makes no second notification. Novu's response to a
//! repeat with another body is not documented; here it is refused, as Novu documents it for idempotency keys.

mod subscribers;

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use self::subscribers::{SubscriberRoute, Subscribers};
use crate::answer::FakeResponse;
use crate::bounded::Bounded;
use crate::double::{Circumstances, DAY, Double, DoubleCall, DoubleRefusal, EffectSubject, ExpiringKey};
use crate::ids;
use crate::limits::RateWindow;
use crate::locked::Locked;
use crate::request::{BodyFormat, Request};

/// Maximum size of a request body, in bytes. Larger requests are refused.
const MOST_BYTES: usize = 512 * 1024;
/// Values of `status` in a 201 response besides `processed`. Nothing is sent in these cases.
const UNSENT: [&str; 6] = [
    "error",
    "trigger_not_active",
    "no_workflow_active_steps_defined",
    "no_workflow_steps_defined",
    "no_tenant_found",
    "invalid_recipients",
];

/// The double of one Novu environment, with its notifications.
pub(crate) struct NovuDouble {
    notifications: Arc<Locked<Notifications>>,
    subscribers: Arc<Locked<Subscribers>>,
}

/// Notifications by transaction id.
type Notifications = Bounded<String, Value>;

impl NovuDouble {
    pub(crate) fn holding(most: usize) -> Self {
        let subscribers = Arc::new(Locked::new(Bounded::new(most)));
        Self { notifications: Arc::new(Locked::new(Bounded::new(most))), subscribers }
    }
}

enum Route {
    Trigger,
    Notifications,
}

fn route(request: &Request) -> Option<Route> {
    match (&request.method, request.segments().as_slice()) {
        (&Method::POST, ["v1", "events", "trigger"]) => Some(Route::Trigger),
        (&Method::GET, ["v1", "notifications"]) => Some(Route::Notifications),
        _ => None,
    }
}

impl Double for NovuDouble {
    fn name(&self) -> &'static str {
        "novu"
    }

    fn describe(&self, request: &Request) -> EffectSubject {
        if let Some(route) = SubscriberRoute::of(request) {
            let to = request.body["email"].as_str().map(str::to_owned);
            return EffectSubject { operation: Some(route.operation()), user: route.whom(&request.body), to };
        }
        let operation = route(request).map(|route| match route {
            Route::Trigger => "events.trigger",
            Route::Notifications => "notifications.list",
        });
        // Of a list of recipients the first is recorded.
        let to = match &request.body["to"] {
            Value::Array(list) => list.first().unwrap_or(&Value::Null),
            one => one,
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        EffectSubject {
            operation,
            user: text(to).or_else(|| text(&to["subscriberId"])),
            to: text(&to["email"]).or_else(|| text(&to["phone"])),
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), FakeResponse> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match value.strip_prefix("ApiKey ") {
            Some(key) if !key.trim().is_empty() => Ok(()),
            Some(_) | None => Err(error(StatusCode::UNAUTHORIZED, "API Key not found")),
        }
    }

    fn read(&self, request: &Request, _: Timestamp) -> Result<DoubleCall, FakeResponse> {
        if let Some(route) = SubscriberRoute::of(request) {
            return route.call(request, self.subscribers.clone());
        }
        let notifications = self.notifications.clone();
        match route(request).ok_or_else(|| error(StatusCode::NOT_FOUND, "Cannot find this path"))? {
            Route::Notifications => {
                let wanted = request.query()["transactionId"].clone();
                let run = move |_| {
                    let fits = |made: &&Value| wanted.is_null() || made["transactionId"] == wanted;
                    let list: Vec<Value> = notifications.with(|all| all.newest_first().filter(fits).cloned().collect());
                    FakeResponse::done(json!({ "data": list, "hasMore": false, "page": 0, "pageSize": 10 }))
                };
                Ok(DoubleCall { key: None, changes: false, run: Box::new(run) })
            }
            Route::Trigger => {
                if request.raw().len() > MOST_BYTES {
                    return Err(error(StatusCode::PAYLOAD_TOO_LARGE, "request entity too large"));
                }
                if request.written != BodyFormat::Json || !request.body.is_object() {
                    return Err(error(StatusCode::BAD_REQUEST, "Unexpected token in JSON"));
                }
                trigger(request, notifications, self.subscribers.clone())
            }
        }
    }

    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse {
        match refusal {
            DoubleRefusal::Limited(quota) => error(StatusCode::TOO_MANY_REQUESTS, "API rate limit exceeded")
                .with("retry-after", quota.reset_seconds()),
            DoubleRefusal::KeyReused(_) => {
                error(StatusCode::UNPROCESSABLE_ENTITY, "Request with key \"lab\" is being reused for a different body")
            }
            DoubleRefusal::KeyInUse(_) => {
                error(StatusCode::CONFLICT, "Request with this key is being processed").with("retry-after", 1)
            }
            DoubleRefusal::Fault { status, name, retry_after } => {
                let answer = error(status, name.unwrap_or("The lab answers this on purpose."));
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }

    fn finish(&self, answer: &mut FakeResponse, circumstances: Circumstances) {
        if let Some(RateWindow { limit, remaining, reset }) = circumstances.quota {
            answer.set("ratelimit-limit", limit);
            answer.set("ratelimit-remaining", remaining);
            answer.set("ratelimit-reset", reset.as_secs());
        }
    }
}

fn trigger(
    request: &Request,
    notifications: Arc<Locked<Notifications>>,
    all: Arc<Locked<Subscribers>>,
) -> Result<DoubleCall, FakeResponse> {
    let body = &request.body;
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let subscribers = recipients(&body["to"]);
    let texts = ["transactionId"].iter().all(|field| body[*field].is_null() || body[*field].is_string());
    let objects = ["payload", "overrides"].iter().all(|field| body[*field].is_null() || body[*field].is_object());
    let mut wrong = Map::new();
    let mut is_wrong = |field: &str, why: &str| {
        wrong.insert(field.to_owned(), json!({ "messages": [format!("{field} {why}")], "value": body[field] }));
    };
    if name.is_empty() {
        is_wrong("name", "must be a string");
    }
    if subscribers.is_none() {
        is_wrong("to", "must be a subscriber, a topic, or an array of up to 100 of them");
    }
    if !texts {
        is_wrong("transactionId", "must be a string");
    }
    if !objects {
        is_wrong("payload", "must be an object");
    }
    let Some(subscribers) = subscribers.filter(|_| wrong.is_empty()) else {
        return Err(invalid(wrong));
    };
    if name == "missing" {
        return Err(error(StatusCode::UNPROCESSABLE_ENTITY, "workflow_not_found"));
    }
    let transaction = body["transactionId"].as_str().map_or_else(ids::uuid, str::to_owned);
    let answer = |status: &str, transaction: &str| {
        let data = json!({ "acknowledged": true, "status": status, "transactionId": transaction });
        FakeResponse::done(json!({ "data": data })).status(StatusCode::CREATED)
    };
    if let Some(status) = UNSENT.iter().find(|status| **status == name) {
        let status = *status;
        return Ok(DoubleCall { key: None, changes: false, run: Box::new(move |_| answer(status, &transaction)) });
    }
    let key = ExpiringKey { text: transaction.clone(), lasts: DAY };
    let payload = body["payload"].clone();
    let to = body["to"].clone();
    let run = move |now: Timestamp| {
        // A trigger creates or updates its subscribers.
        let to = if let Value::Array(list) = to { list } else { vec![to] };
        for to in to.iter().filter(|to| to["type"] != "Topic") {
            if let Some(id) = to.as_str().or_else(|| to["subscriberId"].as_str()) {
                all.with(|all| drop(subscribers::put(all, id, to, now)));
            }
        }
        let made = notification(&transaction, &name, &subscribers, payload, now);
        notifications.with(|all| drop(all.insert(transaction.clone(), made)));
        answer("processed", &transaction)
    };
    Ok(DoubleCall { key: Some(key), changes: true, run: Box::new(run) })
}

/// Maximum number of recipients in a list (docs.novu.co, trigger).
const MOST_RECIPIENTS: usize = 100;

/// Reads the recipients of a trigger: one or a list, each a subscriber id, an object with one, or a topic. Returns
/// `None` if they are invalid. Source: Novu's OpenAPI document, `TriggerEventRequestDto.to`.
fn recipients(to: &Value) -> Option<Vec<String>> {
    let one = |to: &Value| {
        let topic = || if to["type"] == "Topic" { to["topicKey"].as_str() } else { None };
        let id = to.as_str().or_else(|| to["subscriberId"].as_str()).or_else(topic)?;
        (!id.is_empty()).then(|| id.to_owned())
    };
    match to {
        Value::Array(list) if list.is_empty() || list.len() > MOST_RECIPIENTS => None,
        Value::Array(list) => list.iter().map(one).collect(),
        other => Some(vec![one(other)?]),
    }
}

/// Builds a notification as `/v1/notifications` shows it: every field that Novu's OpenAPI document requires
/// (`ActivityNotificationResponseDto`), and those that its libraries read.
fn notification(transaction: &str, workflow: &str, subscribers: &[String], payload: Value, now: Timestamp) -> Value {
    let at = now.to_string();
    let subscriber = subscribers.first().cloned().unwrap_or_default();
    json!({
        "_id": ids::prefixed("6", 23),
        "_environmentId": "lab-environment",
        "_organizationId": "lab-organization",
        "_subscriberId": format!("lab-{subscriber}"),
        "_templateId": format!("lab-{workflow}"),
        "transactionId": transaction,
        "createdAt": at,
        "updatedAt": at,
        "channels": [],
        "subscriber": { "_id": format!("lab-{subscriber}"), "subscriberId": subscriber },
        "template": { "_id": format!("lab-{workflow}"), "name": workflow, "triggers": [] },
        "jobs": [],
        "payload": payload,
        "tags": [],
    })
}

/// Builds the refusal of invalid fields, each with its messages and its value. Source: Novu's
/// OpenAPI document, `ValidationErrorDto`.
fn invalid(fields: Map<String, Value>) -> FakeResponse {
    let mut answer = body_of(StatusCode::UNPROCESSABLE_ENTITY, "Validation Error");
    answer["errors"] = Value::Object(fields);
    FakeResponse::refused(StatusCode::UNPROCESSABLE_ENTITY, answer)
}

fn error(status: StatusCode, message: &str) -> FakeResponse {
    FakeResponse::refused(status, body_of(status, message))
}

fn body_of(status: StatusCode, message: &str) -> Value {
    json!({
        "statusCode": status.as_u16(), "timestamp": usher_service::clock::now().to_string(),
        "path": "/", "message": message, "ctx": {}, "errorId": ids::uuid(),
    })
}
