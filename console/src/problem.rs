//! Failures of a request, as a page or as JSON.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use usher_dispatcher::operator::OperatorError;
use usher_store::StoreError;

use crate::routes::RouteKind;

/// The reason why a request has no other answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsoleError {
    /// The store does not answer.
    #[error("the store does not answer")]
    Store(#[from] StoreError),
    /// A command could not be given.
    #[error("{0}")]
    Command(#[from] OperatorError),
    /// The console has no log.
    #[error("there is no log here to which a command could be written: say --log or USHER_LOG")]
    NoLog,
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// The action does not apply any more.
    #[error("{0}")]
    Conflict(String),
}

impl ConsoleError {
    /// Returns the status and the code of the answer. Failures of the store or the log are logged: they hold no personal
    /// data.
    pub(crate) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Store(error) => {
                tracing::warn!(%error, "console cannot read the store");
                (StatusCode::SERVICE_UNAVAILABLE, "store")
            }
            Self::Command(OperatorError::NotInLog(_)) => (StatusCode::CONFLICT, "not_in_log"),
            Self::Command(error) => {
                tracing::warn!(%error, "console cannot give a command");
                (StatusCode::SERVICE_UNAVAILABLE, "log")
            }
            Self::NoLog => (StatusCode::SERVICE_UNAVAILABLE, "no_log"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
        }
    }
}

/// Returns an answer in JSON, as everywhere in Usher: `{"error":{"code","message"}}`. Of pages and assets only the text.
pub(crate) fn answer(kind: RouteKind, status: StatusCode, code: &str, message: &str) -> Response {
    match kind {
        RouteKind::Api => (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response(),
        RouteKind::Page | RouteKind::Mail | RouteKind::Asset => (status, format!("{message}\n")).into_response(),
    }
}

/// Failure of a route of the API.
pub(crate) struct ApiProblem(pub(crate) ConsoleError);

impl<E: Into<ConsoleError>> From<E> for ApiProblem {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let (status, code) = self.0.status();
        answer(RouteKind::Api, status, code, &self.0.to_string())
    }
}
