//! Resend's errors: status, name and message, `{"statusCode","name","message"}`.

use std::borrow::Cow;

use axum::http::StatusCode;
use serde_json::json;

use crate::answer::FakeResponse;

/// An error as Resend writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResendError {
    status: StatusCode,
    name: Cow<'static, str>,
    message: Cow<'static, str>,
}

/// The documented errors. If a status has several, a fault with that status answers with the first.
const DOCUMENTED: &[ResendError] = &[
    new(StatusCode::BAD_REQUEST, "validation_error", "The request could not be read. Check its fields."),
    ResendError::INVALID_IDEMPOTENCY_KEY,
    new(StatusCode::UNAUTHORIZED, "restricted_api_key", "This API key is restricted to only send emails."),
    ResendError::MISSING_API_KEY,
    ResendError::INVALID_API_KEY,
    new(StatusCode::FORBIDDEN, "suspended_api_key", "This API key is suspended."),
    new(StatusCode::FORBIDDEN, "invalid_permission", "This API key lacks the permission for this."),
    new(StatusCode::FORBIDDEN, "email_above_quota", "The account has sent more emails than its plan allows."),
    ResendError::FOREIGN_RECIPIENT,
    ResendError::NOT_FOUND,
    ResendError::METHOD_NOT_ALLOWED,
    new(StatusCode::CONFLICT, "resource_locked", "The resource is being changed by another request. Try again."),
    ResendError::INVALID_IDEMPOTENT_REQUEST,
    ResendError::CONCURRENT_IDEMPOTENT_REQUESTS,
    new(StatusCode::UNPROCESSABLE_ENTITY, "validation_error", "A field of the request is not valid."),
    new(StatusCode::UNPROCESSABLE_ENTITY, "missing_required_field", "A required field is missing."),
    new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_attachment", "An attachment has neither content nor path."),
    new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_parameter", "A parameter is not valid."),
    ResendError::RATE_LIMIT_EXCEEDED,
    new(StatusCode::TOO_MANY_REQUESTS, "daily_quota_exceeded", "You have reached your daily email sending quota."),
    new(StatusCode::TOO_MANY_REQUESTS, "monthly_quota_exceeded", "You have reached your monthly email sending quota."),
    new(StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, "security_error", "A security issue was found with the request."),
    new(StatusCode::INTERNAL_SERVER_ERROR, "application_error", "An unexpected error occurred."),
    new(StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error", "An unexpected error occurred."),
    new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "The service is temporarily unavailable."),
];

const fn new(status: StatusCode, name: &'static str, message: &'static str) -> ResendError {
    ResendError { status, name: Cow::Borrowed(name), message: Cow::Borrowed(message) }
}

impl ResendError {
    pub(super) const MISSING_API_KEY: Self =
        new(StatusCode::UNAUTHORIZED, "missing_api_key", "Missing API key in the authorization header.");
    pub(super) const INVALID_API_KEY: Self = new(StatusCode::FORBIDDEN, "invalid_api_key", "The API key is not valid.");
    pub(super) const NOT_FOUND: Self =
        new(StatusCode::NOT_FOUND, "not_found", "The requested endpoint does not exist.");
    pub(super) const NO_CONTACT: Self = new(StatusCode::NOT_FOUND, "not_found", "Contact not found");
    pub(super) const METHOD_NOT_ALLOWED: Self =
        new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This endpoint does not support this method.");
    pub(super) const NOT_JSON: Self =
        new(StatusCode::BAD_REQUEST, "validation_error", "The body must be a JSON object, sent as application/json.");
    pub(super) const FOREIGN_RECIPIENT: Self = new(
        StatusCode::FORBIDDEN,
        "validation_error",
        "onboarding@resend.dev can only send to your own address. To send to others, verify a domain.",
    );
    pub(super) const INVALID_IDEMPOTENCY_KEY: Self =
        new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", "The key must be between 1 and 256 characters.");
    pub(super) const INVALID_IDEMPOTENT_REQUEST: Self = new(
        StatusCode::CONFLICT,
        "invalid_idempotent_request",
        "This idempotency key was used with a different request payload.",
    );
    pub(super) const CONCURRENT_IDEMPOTENT_REQUESTS: Self = new(
        StatusCode::CONFLICT,
        "concurrent_idempotent_requests",
        "The first request with this idempotency key is still in progress.",
    );
    pub(super) const RATE_LIMIT_EXCEEDED: Self = new(
        StatusCode::TOO_MANY_REQUESTS,
        "rate_limit_exceeded",
        "Too many requests. The headers say when to try again.",
    );

    /// Creates the error of a missing field.
    pub(super) fn missing(field: &str) -> Self {
        Self {
            message: format!("Missing {field} field.").into(),
            ..new(StatusCode::UNPROCESSABLE_ENTITY, "missing_required_field", "")
        }
    }

    /// Creates the error of an invalid field.
    pub(super) fn invalid(field: &str, why: &str) -> Self {
        Self {
            message: format!("Invalid `{field}` field. {why}").into(),
            ..new(StatusCode::UNPROCESSABLE_ENTITY, "validation_error", "")
        }
    }

    /// Creates the error of a field with a character that is not allowed in it.
    pub(super) fn not_allowed(field: &str, character: &str) -> Self {
        Self {
            message: format!("The `{character}` is not allowed in the `{field}` field.").into(),
            ..new(StatusCode::UNPROCESSABLE_ENTITY, "validation_error", "")
        }
    }

    /// Creates the error of an id that names nothing.
    pub(super) const fn absent(what: &'static str) -> Self {
        new(StatusCode::NOT_FOUND, "not_found", what)
    }

    /// Creates the error of an id that is no UUID.
    pub(super) fn no_uuid(field: &str) -> Self {
        Self {
            message: format!("The `{field}` must be a valid UUID.").into(),
            ..new(StatusCode::UNPROCESSABLE_ENTITY, "validation_error", "")
        }
    }

    /// Creates the error of an invalid attachment.
    pub(super) fn invalid_attachment(why: &'static str) -> Self {
        new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_attachment", why)
    }

    /// Returns the documented error of a status, and of a name if one is given. A name that is not documented is used
    /// as it is, because clients must cope with new names.
    pub(super) fn of(status: StatusCode, name: Option<&str>) -> Self {
        let fits = |error: &&Self| error.status == status && name.is_none_or(|name| error.name == name);
        let undocumented = || {
            let usual = if status.is_server_error() { "internal_server_error" } else { "validation_error" };
            Self {
                name: name.unwrap_or(usual).to_owned().into(),
                ..new(status, "", "The lab answers this on purpose.")
            }
        };
        DOCUMENTED.iter().find(fits).cloned().unwrap_or_else(undocumented)
    }
}

impl From<ResendError> for FakeResponse {
    fn from(error: ResendError) -> Self {
        let body = json!({ "statusCode": error.status.as_u16(), "name": error.name, "message": error.message });
        Self::refused(error.status, body)
    }
}
