//! The double of Clerk's Backend API: users and organizations, and the merge of their metadata.
//!
//! Facts: Clerk's OpenAPI document (paths, the merge, `ClerkErrors`), clerk.com/docs (metadata: 8 KB; errors of the Backend
//! API) and clerk/javascript, `packages/backend`. The double refuses unknown fields, as the document does, and metadata that
//! are too large after the merge; it is unconfirmed if 8 KB are 8,000 or 8,192 bytes.
//!
//! The double cannot know the users that `usher send` makes up, so it takes every id of the right form (`user_…`, `org_…`) for
//! an object that exists, with nothing but its metadata. Ids that begin with `user_missing` or `org_missing`, and of objects
//! that were deleted here, do not exist. Users and organizations that are created here are whole, and for these the
//! [`hooks`](self::hooks) send what Clerk would send of each change.

pub(crate) mod hooks;
mod objects;

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, header};
use hooks::Hooks;
use objects::{ClerkObjects, Kind};
use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use crate::answer::FakeResponse;
use crate::double::{Double, DoubleCall, DoubleRefusal, EffectSubject};
use crate::ids;
use crate::locked::Locked;
use crate::request::{BodyFormat, Request};

/// The double of one Clerk instance.
pub(crate) struct ClerkDouble {
    objects: Arc<Locked<ClerkObjects>>,
    hooks: Hooks,
}

impl ClerkDouble {
    /// Creates a double that stores up to `most` objects of a kind and reports their changes to `hooks`.
    pub(crate) fn holding(most: usize, hooks: Hooks) -> Self {
        Self { objects: Arc::new(Locked::new(ClerkObjects::holding(most))), hooks }
    }
}

/// The requests that this double supports, each with the kind of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route {
    Create(Kind),
    Get(Kind, String),
    Merge(Kind, String),
    Delete(Kind, String),
}

impl Route {
    fn of(request: &Request) -> Option<Self> {
        let segments = request.segments();
        let ["v1", objects, rest @ ..] = segments.as_slice() else { return None };
        let kind = Kind::of(objects)?;
        match (&request.method, rest) {
            (&Method::POST, []) => Some(Self::Create(kind)),
            (&Method::GET, [id]) => Some(Self::Get(kind, (*id).into())),
            (&Method::PATCH, [id, "metadata"]) => Some(Self::Merge(kind, (*id).into())),
            (&Method::DELETE, [id]) => Some(Self::Delete(kind, (*id).into())),
            _ => None,
        }
    }

    fn operation(&self) -> &'static str {
        match self {
            Self::Create(Kind::User) => "users.create",
            Self::Get(Kind::User, _) => "users.get",
            Self::Merge(Kind::User, _) => "users.metadata",
            Self::Delete(Kind::User, _) => "users.delete",
            Self::Create(Kind::Organization) => "organizations.create",
            Self::Get(Kind::Organization, _) => "organizations.get",
            Self::Merge(Kind::Organization, _) => "organizations.metadata",
            Self::Delete(Kind::Organization, _) => "organizations.delete",
        }
    }
}

impl Double for ClerkDouble {
    fn name(&self) -> &'static str {
        "clerk"
    }

    fn describe(&self, request: &Request) -> EffectSubject {
        let Some(route) = Route::of(request) else { return EffectSubject::default() };
        let operation = Some(route.operation());
        match route {
            Route::Get(Kind::User, id) | Route::Merge(Kind::User, id) | Route::Delete(Kind::User, id) => {
                EffectSubject { operation, user: Some(id), to: None }
            }
            Route::Get(_, id) | Route::Merge(_, id) | Route::Delete(_, id) => {
                EffectSubject { operation, user: None, to: Some(id) }
            }
            Route::Create(_) => {
                let to = request.body["email_address"][0].as_str().or_else(|| request.body["name"].as_str());
                EffectSubject { operation, user: None, to: to.map(str::to_owned) }
            }
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), FakeResponse> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let key = value.strip_prefix("Bearer ").map(str::trim).unwrap_or_default();
        let secret = key.strip_prefix("sk_test_").or_else(|| key.strip_prefix("sk_live_"));
        match secret {
            Some(secret) if !secret.is_empty() => Ok(()),
            Some(_) | None => {
                Err(error(StatusCode::UNAUTHORIZED, "clerk_key_invalid", "The secret key is invalid", None))
            }
        }
    }

    fn read(&self, request: &Request, _: Timestamp) -> Result<DoubleCall, FakeResponse> {
        let route = Route::of(request).ok_or_else(|| {
            error(StatusCode::NOT_FOUND, "resource_not_found", "The lab's double has no such path", None)
        })?;
        let body = body(request, &route)?;
        let changes = !matches!(route, Route::Get(..));
        let (objects, hooks) = (self.objects.clone(), self.hooks.clone());
        let run = move |now: Timestamp| {
            let (answer, event) = objects.with(|objects| carry_out(objects, route, &body, now));
            if let Some((kind, data)) = event {
                hooks.report(kind, &data, now);
            }
            answer
        };
        // Clerk has no idempotency keys.
        Ok(DoubleCall { key: None, changes, run: Box::new(run) })
    }

    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse {
        match refusal {
            DoubleRefusal::Limited(quota) => {
                error(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests", None)
                    .with("retry-after", quota.reset_seconds())
            }
            DoubleRefusal::KeyReused(_) | DoubleRefusal::KeyInUse(_) => {
                error(StatusCode::CONFLICT, "conflict", "Clerk has no idempotency keys", None)
            }
            DoubleRefusal::Fault { status, name, retry_after } => {
                let answer = error(status, name.unwrap_or("on_purpose"), "The lab answers this on purpose", None);
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }
}

/// The type and the data of an event.
type HookEvent = (&'static str, Value);

/// Carries a request out. Returns the response, and the event that Clerk would send.
fn carry_out(
    objects: &mut ClerkObjects,
    route: Route,
    body: &Map<String, Value>,
    now: Timestamp,
) -> (FakeResponse, Option<HookEvent>) {
    let result = match route {
        Route::Create(kind) => Ok((objects.create(kind, body, now), Some("created"))),
        Route::Get(kind, id) => objects.get(kind, &id).map(|object| (object, None)),
        Route::Merge(kind, id) => objects.merge(kind, &id, body, now).map(|(object, is_whole)| {
            let event = is_whole.then_some("updated");
            (object, event)
        }),
        Route::Delete(kind, id) => objects.delete(kind, &id).map(|object| (object, Some("deleted"))),
    };
    match result {
        Ok((object, None)) => (FakeResponse::done(object), None),
        Ok((object, Some(what))) => {
            let kind = match (object["object"].as_str(), what) {
                (Some("organization"), "created") => "organization.created",
                (Some("organization"), "updated") => "organization.updated",
                (Some("organization"), _) => "organization.deleted",
                (_, "created") => "user.created",
                (_, "updated") => "user.updated",
                _ => "user.deleted",
            };
            (FakeResponse::done(object.clone()), Some((kind, object)))
        }
        Err(refused) => (refused, None),
    }
}

/// Reads the fields of a body, and refuses those that the operation does not have.
fn body(request: &Request, route: &Route) -> Result<Map<String, Value>, FakeResponse> {
    let known: &[&str] = match route {
        Route::Get(..) | Route::Delete(..) => return Ok(Map::new()),
        Route::Merge(Kind::User, _) => &["public_metadata", "private_metadata", "unsafe_metadata"],
        Route::Merge(Kind::Organization, _) => &["public_metadata", "private_metadata"],
        Route::Create(Kind::User) => {
            &["email_address", "first_name", "last_name", "public_metadata", "private_metadata", "unsafe_metadata"]
        }
        Route::Create(Kind::Organization) => &["name", "created_by", "public_metadata", "private_metadata"],
    };
    let body = match (request.written, &*request.body) {
        (BodyFormat::Json, Value::Object(body)) => body.clone(),
        _ => return Err(error(StatusCode::BAD_REQUEST, "request_body_invalid", "The body is not a JSON object", None)),
    };
    if let Some(name) = body.keys().find(|name| !known.contains(&name.as_str())) {
        let message = format!("{name} is not a valid parameter for this request.");
        return Err(error(StatusCode::UNPROCESSABLE_ENTITY, "form_param_unknown", &message, Some(name)));
    }
    let wrong = body.iter().find(|(name, value)| name.ends_with("_metadata") && !value.is_object());
    if let Some((name, _)) = wrong {
        let message = format!("{name} must be an object.");
        return Err(error(StatusCode::UNPROCESSABLE_ENTITY, "form_param_type_invalid", &message, Some(name)));
    }
    Ok(body)
}

/// Builds a refusal in the form of Clerk's OpenAPI document, `ClerkErrors`.
fn error(status: StatusCode, code: &str, message: &str, param: Option<&str>) -> FakeResponse {
    let meta = param.map_or_else(|| json!({}), |name| json!({ "param_name": name }));
    let told = json!({ "code": code, "message": message, "long_message": message, "meta": meta });
    FakeResponse::refused(status, json!({ "errors": [told], "clerk_trace_id": ids::uuid() }))
}
