//! The subscribers of a Novu environment, and the effect of each request.
//!
//! Sources: Novu's OpenAPI document (`/v2/subscribers`), and the server's source
//! (`subscribers-v2/usecases/patch-subscriber`): a PATCH changes the fields that it names, and null clears one; there is a
//! 404 where there is no subscriber. A deletion of an absent one is a 404: novuhq/novu#2090. It is not documented what a
//! POST does to the fields that it omits; here it leaves them.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use super::{error, invalid};
use crate::answer::FakeResponse;
use crate::bounded::Bounded;
use crate::double::DoubleCall;
use crate::form;
use crate::ids;
use crate::locked::Locked;
use crate::request::{BodyFormat, Request};

/// Subscribers by id.
pub(super) type Subscribers = Bounded<String, Map<String, Value>>;

const TEXTS: [&str; 7] = ["email", "firstName", "lastName", "phone", "avatar", "locale", "timezone"];

/// A request about subscribers.
pub(super) enum SubscriberRoute {
    Create,
    Get(String),
    Update(String),
    Remove(String),
}

impl SubscriberRoute {
    /// Finds the route. `None` if the path is not one of subscribers.
    pub(super) fn of(request: &Request) -> Option<Self> {
        match (&request.method, request.segments().as_slice()) {
            (&Method::POST, ["v2", "subscribers"]) => Some(Self::Create),
            (&Method::GET, ["v2", "subscribers", id]) => Some(Self::Get(form::decoded(id))),
            (&Method::PATCH, ["v2", "subscribers", id]) => Some(Self::Update(form::decoded(id))),
            (&Method::DELETE, ["v2", "subscribers", id]) => Some(Self::Remove(form::decoded(id))),
            _ => None,
        }
    }

    pub(super) const fn operation(&self) -> &'static str {
        match self {
            Self::Create => "subscribers.create",
            Self::Get(_) => "subscribers.get",
            Self::Update(_) => "subscribers.update",
            Self::Remove(_) => "subscribers.remove",
        }
    }

    /// Returns the id of the subscriber that the request concerns.
    pub(super) fn whom(&self, body: &Value) -> Option<String> {
        match self {
            Self::Create => body["subscriberId"].as_str().map(str::to_owned),
            Self::Get(id) | Self::Update(id) | Self::Remove(id) => Some(id.clone()),
        }
    }

    /// Checks the request, and returns what it does.
    pub(super) fn call(self, request: &Request, all: Arc<Locked<Subscribers>>) -> Result<DoubleCall, FakeResponse> {
        let creates = matches!(self, Self::Create);
        if creates || matches!(self, Self::Update(_)) {
            if request.written != BodyFormat::Json || !request.body.is_object() {
                return Err(error(StatusCode::BAD_REQUEST, "Unexpected token in JSON"));
            }
            check(&request.body, creates)?;
        }
        let changes = !matches!(self, Self::Get(_));
        let must_be_new = request.query()["failIfExists"] == "true";
        let body = request.body.clone();
        let run = move |now| all.with(|all| self.run(all, &body, must_be_new, now));
        Ok(DoubleCall { key: None, changes, run: Box::new(run) })
    }

    fn run(&self, all: &mut Subscribers, body: &Value, must_be_new: bool, now: Timestamp) -> FakeResponse {
        match self {
            Self::Create => {
                let id = body["subscriberId"].as_str().unwrap_or_default();
                if must_be_new && all.contains_key(id) {
                    return error(StatusCode::CONFLICT, "Subscriber exists");
                }
                shown(&put(all, id, body, now)).status(StatusCode::CREATED)
            }
            Self::Get(id) => all.get(id).map_or_else(absent, shown),
            Self::Update(id) if !all.contains_key(id) => absent(),
            Self::Update(id) => shown(&put(all, id, body, now)),
            Self::Remove(id) => match all.remove(id) {
                Some(_) => FakeResponse::done(json!({ "data": { "acknowledged": true, "status": "deleted" } })),
                None => absent(),
            },
        }
    }
}

/// Creates a subscriber, or changes the fields that `body` names.
pub(super) fn put(all: &mut Subscribers, id: &str, body: &Value, now: Timestamp) -> Map<String, Value> {
    let at = now.to_string();
    let made = json!({
        "_id": ids::prefixed("6", 23), "subscriberId": id, "_organizationId": "lab-organization",
        "_environmentId": "lab-environment", "deleted": false, "createdAt": at,
    });
    let mut subscriber = all.get(id).cloned().unwrap_or_else(|| made.as_object().cloned().unwrap_or_default());
    subscriber.insert("updatedAt".to_owned(), json!(at));
    for field in TEXTS.into_iter().chain(["data"]) {
        match body.get(field) {
            None => {}
            Some(Value::Null) => drop(subscriber.remove(field)),
            Some(value) => drop(subscriber.insert(field.to_owned(), value.clone())),
        }
    }
    all.insert(id.to_owned(), subscriber.clone());
    subscriber
}

fn check(body: &Value, creates: bool) -> Result<(), FakeResponse> {
    let mut wrong = Map::new();
    let mut is_wrong = |field: &str, why: &str| {
        wrong.insert(field.to_owned(), json!({ "messages": [format!("{field} {why}")], "value": body[field] }));
    };
    if creates && body["subscriberId"].as_str().is_none_or(str::is_empty) {
        is_wrong("subscriberId", "should not be empty");
    }
    for field in TEXTS {
        if !(body[field].is_null() || body[field].is_string()) {
            is_wrong(field, "must be a string");
        }
    }
    if body["email"].as_str().is_some_and(|email| !email.contains('@')) {
        is_wrong("email", "must be an email");
    }
    if !(body["data"].is_null() || body["data"].is_object()) {
        is_wrong("data", "must be an object");
    }
    if wrong.is_empty() { Ok(()) } else { Err(invalid(wrong)) }
}

fn shown(subscriber: &Map<String, Value>) -> FakeResponse {
    FakeResponse::done(json!({ "data": subscriber }))
}

fn absent() -> FakeResponse {
    error(StatusCode::NOT_FOUND, "Subscriber was not found")
}
