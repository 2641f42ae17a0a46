//! The HTTP interface of the lab: `/effects`, `/requests`, `/counts`, `/faults/<provider>`, `/limits/<provider>`,
//! `/keys/<provider>`; any other first segment names a double. This module only translates; [`crate::lab`]
//! implements the controls.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::ledger::{Entry, Filter};
use crate::{ControlError, Lab, UnknownProvider, request, smtp, webhook};

/// The reason why a control was refused. The body is `{"error":{"code","message"}}`, as everywhere in Usher.
enum Problem {
    UnknownProvider(UnknownProvider),
    Bad { code: &'static str, message: String },
    TooLarge,
    BodyIncomplete,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::UnknownProvider(unknown) => (StatusCode::NOT_FOUND, "unknown_provider", unknown.to_string()),
            Self::Bad { code, message } => (StatusCode::BAD_REQUEST, code, message),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than 40 MiB".into()),
            Self::BodyIncomplete => (StatusCode::BAD_REQUEST, "body_incomplete", "the body did not arrive".into()),
        };
        (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
    }
}

impl From<UnknownProvider> for Problem {
    fn from(unknown: UnknownProvider) -> Self {
        Self::UnknownProvider(unknown)
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Provider(unknown) => Self::UnknownProvider(unknown),
            ControlError::Fault(error) => Self::Bad { code: "invalid_fault", message: error.to_string() },
            ControlError::Limit(error) => Self::Bad { code: "invalid_limit", message: error.to_string() },
        }
    }
}

/// Default page size: the number of entries in one response.
const PAGE: usize = crate::KEEP;

type Asked = Result<Query<Filter>, QueryRejection>;

pub(crate) fn router(lab: Lab) -> Router {
    Router::new()
        .route("/", get(contents))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/effects", get(effects).delete(forget))
        .route("/requests", get(requests))
        .route("/counts", get(counts))
        .route("/faults/{provider}", get(faults).put(set_faults).delete(end_faults))
        .route("/keys/{provider}", delete(forget_keys))
        .route("/limits/{provider}", get(limit).put(set_limit).delete(end_limit))
        .fallback(double)
        .with_state(lab)
}

async fn contents(State(lab): State<Lab>) -> Response {
    let place = |name| if name == smtp::NAME { "on a port of its own".to_owned() } else { format!("/{name}") };
    let doubles: serde_json::Map<_, _> =
        lab.providers().into_iter().map(|name| (name.to_owned(), place(name).into())).collect();
    let body = json!({
        "name": "usher lab",
        "doubles": doubles,
        "controls": {
            "GET /effects[?provider=&key=&since=&limit=]": "what the doubles accepted, the newest of it; a page of 10000",
            "GET /requests[?provider=&key=&since=&limit=]": "the requests that arrived, likewise",
            "GET /counts": "how many there were of each double, also of those that are not kept any more",
            "DELETE /effects": "forget both lists and the counts",
            "GET|PUT|DELETE /faults/<provider>": [
                {"status": 503, "share": 1.0, "for_seconds": 30},
                [{"status": 503, "share": 0.2}, {"hang": true, "share": 0.02}],
                {"status": 504, "after_effect": true},
                {"status": 429, "beyond": 10},
            ],
            "DELETE /keys/<provider>": "forget the idempotency keys, as happens by itself after a day (an hour at Nylas)",
            "GET|PUT|DELETE /limits/<provider>": {"per_second": 10},
        },
    });
    Json(body).into_response()
}

async fn counts(State(lab): State<Lab>) -> Response {
    Json(lab.counts()).into_response()
}

async fn effects(State(lab): State<Lab>, asked: Asked) -> Result<Response, Problem> {
    Ok(list(lab.effects(&filter(asked)?)?).await)
}

async fn requests(State(lab): State<Lab>, asked: Asked) -> Result<Response, Problem> {
    Ok(list(lab.requests(&filter(asked)?)?).await)
}

fn filter(asked: Asked) -> Result<Filter, Problem> {
    let Query(mut filter) =
        asked.map_err(|rejection| Problem::Bad { code: "invalid_filter", message: rejection.body_text() })?;
    filter.limit.get_or_insert(PAGE);
    Ok(filter)
}

/// Serialises entries as JSON. Runs on a blocking thread, because a long list would stall the threads that
/// serve the doubles.
async fn list(entries: Vec<Arc<Entry>>) -> Response {
    let written = tokio::task::spawn_blocking(move || {
        serde_json::to_vec(&entries.iter().map(Arc::as_ref).collect::<Vec<&Entry>>())
    });
    match written.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn forget(State(lab): State<Lab>) -> StatusCode {
    lab.forget();
    StatusCode::NO_CONTENT
}

/// Returns `null` if no fault is in force, the fault itself if there is one, and a list if there are several.
async fn faults(State(lab): State<Lab>, Path(provider): Path<String>) -> Result<Response, Problem> {
    let faults = lab.faults(&provider)?;
    Ok(match faults.as_slice() {
        [] => Json(Value::Null).into_response(),
        [one] => Json(one).into_response(),
        several => Json(several).into_response(),
    })
}

async fn set_faults(State(lab): State<Lab>, Path(provider): Path<String>, body: Bytes) -> Result<Response, Problem> {
    lab.server(&provider)?;
    // The two forms are distinguished by hand: the error of an untagged serde enum would not name the wrong field.
    let list = body.trim_ascii_start().starts_with(b"[");
    let set = if list { read("invalid_fault", &body)? } else { vec![read("invalid_fault", &body)?] };
    lab.set_faults(&provider, set)?;
    faults(State(lab), Path(provider)).await
}

async fn end_faults(State(lab): State<Lab>, Path(provider): Path<String>) -> Result<StatusCode, Problem> {
    lab.end_fault(&provider)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn forget_keys(State(lab): State<Lab>, Path(provider): Path<String>) -> Result<StatusCode, Problem> {
    lab.forget_keys(&provider)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn limit(State(lab): State<Lab>, Path(provider): Path<String>) -> Result<Response, Problem> {
    Ok(Json(lab.limit(&provider)?).into_response())
}

async fn set_limit(State(lab): State<Lab>, Path(provider): Path<String>, body: Bytes) -> Result<Response, Problem> {
    lab.server(&provider)?;
    lab.set_limit(&provider, read("invalid_limit", &body)?)?;
    Ok(Json(lab.limit(&provider)?).into_response())
}

async fn end_limit(State(lab): State<Lab>, Path(provider): Path<String>) -> Result<StatusCode, Problem> {
    lab.end_limit(&provider)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads the body of a control as JSON and ignores its content type, because these requests are typed by hand.
fn read<T: DeserializeOwned>(code: &'static str, body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::Bad { code, message: error.to_string() })
}

/// Passes a request to the double that its path names.
async fn double(State(lab): State<Lab>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_start_matches('/');
    let (mut provider, mut rest) = path.split_once('/').unwrap_or((path, ""));
    // A request to the host of a service that has a double of its own.
    let (host, behind) = rest.split_once('/').unwrap_or((rest, ""));
    if let Some(name) = lab.serves_host(host).filter(|_| provider == webhook::NAME) {
        (provider, rest) = (name, behind);
    }
    let server = lab.server(provider)?.clone();
    let rest = format!("/{rest}");
    let read = request::Request::read(parts, body, rest).await.map_err(|error| match error {
        request::BodyError::TooLarge => Problem::TooLarge,
        request::BodyError::Incomplete => Problem::BodyIncomplete,
    })?;
    Ok(server.answer(read).await)
}
