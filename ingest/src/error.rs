//! Why a request is not kept, and how that is said: a status, a code and a sentence, never an echo of what was sent.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use usher_eventlog::AppendError;
use usher_proto::signature;

/// Seconds after which a sender may try again. Svix has a schedule of its own; others read this.
pub(crate) const RETRY_AFTER: &str = "2";

/// A request that is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no such path.
    #[error("webhooks are posted to /webhooks/<source> or /webhooks/<source>/<instance>")]
    NoSuchPath,
    /// There is no such source.
    #[error("there is no such source")]
    NoSuchSource,
    /// No secret is configured for the instance.
    #[error("no signing secret is configured for this instance")]
    NoSuchInstance,
    /// A header is missing.
    #[error("the header {0} is missing")]
    HeaderMissing(&'static str),
    /// A header cannot be read.
    #[error("the header {0} cannot be read")]
    HeaderMalformed(&'static str),
    /// The signature or its time does not hold.
    #[error("the request does not verify: {0}")]
    NotVerified(signature::Refusal),
    /// The body is not what the source sends.
    #[error("the body is not a JSON object with a type")]
    BodyMalformed,
    /// The event is larger than this.
    #[error("the body, with its headers, is larger than {0} bytes")]
    TooLarge(usize),
    /// The body did not arrive in time, or not whole.
    #[error("the body did not arrive")]
    BodyIncomplete,
    /// Too many requests are under way.
    #[error("too many requests are under way")]
    Busy,
    /// The log cannot keep it now.
    #[error("the event cannot be kept now")]
    NotKept,
}

impl Refusal {
    /// The word for it, in the answer and in metrics.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPath => "no_such_path",
            Self::NoSuchSource => "no_such_source",
            Self::NoSuchInstance => "no_such_instance",
            Self::HeaderMissing(_) => "header_missing",
            Self::HeaderMalformed(_) => "header_malformed",
            Self::NotVerified(_) => "not_verified",
            Self::BodyMalformed => "body_malformed",
            Self::TooLarge(_) => "too_large",
            Self::BodyIncomplete => "body_incomplete",
            Self::Busy => "busy",
            Self::NotKept => "not_kept",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath | Self::NoSuchSource | Self::NoSuchInstance => StatusCode::NOT_FOUND,
            Self::HeaderMissing(_) | Self::HeaderMalformed(_) | Self::BodyMalformed | Self::BodyIncomplete => {
                StatusCode::BAD_REQUEST
            }
            Self::NotVerified(_) => StatusCode::UNAUTHORIZED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy | Self::NotKept => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<signature::Refusal> for Refusal {
    fn from(refusal: signature::Refusal) -> Self {
        match refusal {
            signature::Refusal::MalformedTimestamp => Self::HeaderMalformed("svix-timestamp"),
            signature::Refusal::TooOld | signature::Refusal::TooNew | signature::Refusal::NoMatch => {
                Self::NotVerified(refusal)
            }
        }
    }
}

impl Refusal {
    /// Why the log does not keep an event. `largest` is the size of the largest body that it keeps.
    pub(crate) const fn of(error: &AppendError, largest: usize) -> Self {
        match error {
            AppendError::TooLarge => Self::TooLarge(largest),
            AppendError::Full(_) | AppendError::Unavailable(_) => Self::NotKept,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": { "code": self.code(), "message": self.to_string() } });
        let status = self.status();
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}
