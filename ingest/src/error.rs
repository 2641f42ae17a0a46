//! The reasons for which a request is refused, and their HTTP responses: a status, a code and a sentence. A response
//! never repeats what was sent.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use usher_eventlog::AppendError;
use usher_proto::signature;

/// Value of the header `Retry-After`, in seconds. Svix has its own schedule; other senders use the header.
pub(crate) const RETRY_AFTER: &str = "2";

/// The reason for which a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The path is unknown.
    #[error("webhooks are posted to /webhooks/<source> or /webhooks/<source>/<instance>")]
    NoSuchPath,
    /// The source in the path is unknown.
    #[error("there is no such source")]
    NoSuchSource,
    /// No signing secret is configured for the instance.
    #[error("no signing secret is configured for this instance")]
    NoSuchInstance,
    /// The instance answers challenges, and has no signing secret yet.
    #[error("the signing secret of this endpoint is not configured yet")]
    NoSecretYet,
    /// The named header is missing.
    #[error("the header {0} is missing")]
    HeaderMissing(&'static str),
    /// The named header cannot be read.
    #[error("the header {0} cannot be read")]
    HeaderMalformed(&'static str),
    /// The signature or its timestamp is not valid.
    #[error("the request does not verify: {0}")]
    NotVerified(signature::SignatureRefusal),
    /// The body is not a JSON object with a type.
    #[error("the body is not a JSON object with a type")]
    BodyMalformed,
    /// The event is too large. Holds the size of the largest accepted body, in bytes.
    #[error("the body, with its headers, is larger than {0} bytes")]
    TooLarge(usize),
    /// The body did not arrive in time, or is incomplete.
    #[error("the body did not arrive")]
    BodyIncomplete,
    /// Too many requests are in flight.
    #[error("too many requests are under way")]
    Busy,
    /// The log cannot store the event now.
    #[error("the event cannot be kept now")]
    NotKept,
}

impl Refusal {
    /// Returns a refusal of every kind that is counted, for metrics that exist before they first count. Refusals with the
    /// same code are neighbours.
    pub(crate) const fn every() -> [Self; 14] {
        [
            Self::NoSuchSource,
            Self::NoSuchInstance,
            Self::NoSecretYet,
            Self::HeaderMissing(""),
            Self::HeaderMalformed(""),
            Self::NotVerified(signature::SignatureRefusal::MalformedTimestamp),
            Self::NotVerified(signature::SignatureRefusal::TooOld),
            Self::NotVerified(signature::SignatureRefusal::TooNew),
            Self::NotVerified(signature::SignatureRefusal::NoMatch),
            Self::BodyMalformed,
            Self::TooLarge(0),
            Self::BodyIncomplete,
            Self::Busy,
            Self::NotKept,
        ]
    }

    /// Returns the code that is used in the response and in metrics.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPath => "no_such_path",
            Self::NoSuchSource => "no_such_source",
            Self::NoSuchInstance => "no_such_instance",
            Self::NoSecretYet => "no_secret_yet",
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
            Self::NoSecretYet | Self::Busy | Self::NotKept => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<signature::SignatureRefusal> for Refusal {
    fn from(refusal: signature::SignatureRefusal) -> Self {
        match refusal {
            signature::SignatureRefusal::MalformedTimestamp => Self::HeaderMalformed("svix-timestamp"),
            signature::SignatureRefusal::TooOld
            | signature::SignatureRefusal::TooNew
            | signature::SignatureRefusal::NoMatch => Self::NotVerified(refusal),
        }
    }
}

impl Refusal {
    /// Returns the refusal for an error of the log. `largest` is the size of the largest body that the log
    /// accepts, in bytes.
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
