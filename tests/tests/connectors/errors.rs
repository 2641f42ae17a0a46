//! Every documented error of every destination, as it comes over the wire, and the outcome that it must have.

use std::time::Duration;

use usher_dispatcher::engine::Cause::{Conflict, Throttled, Timeout, Unavailable};
use usher_dispatcher::engine::{Cause, Outcome};
use usher_proto::Reason::{self, Configuration, IdempotencyConflict, InvalidRequest, NotFound, QuotaExhausted};

use super::log::assert_discreet;
use super::server::{Server, answer};
use super::subject::{ADDRESS, subject};

/// Status, the error's name, and what it comes to.
type Row = (u16, &'static str, Result<Cause, Reason>);

/// The body of an error of that name, with a message that repeats an address.
type Body = fn(u16, &str) -> String;

async fn check(name: &str, body: Body, rows: &[Row]) {
    for (status, error, expected) in rows {
        let server = Server::start(answer(*status, &[], &body(*status, error))).await;
        let outcome = subject(name).attempt(&server.url()).await;
        let found = match &outcome {
            Outcome::Retry { cause, .. } => Ok(*cause),
            Outcome::Reject { reason, .. } => Err(*reason),
            Outcome::Done(_) | Outcome::Overtaken => panic!("{name}: {status} {error}: {outcome:?}"),
        };
        assert_eq!(found, *expected, "{name}: {status} {error}");
        assert_discreet(&outcome, &format!("{name}: {status} {error}"));
    }
}

#[tokio::test]
async fn resend() {
    let body: Body =
        |status, name| format!(r#"{{"statusCode":{status},"name":"{name}","message":"{ADDRESS} is not allowed"}}"#);
    let rows = [
        (400, "validation_error", Err(InvalidRequest)),
        (400, "invalid_idempotency_key", Err(InvalidRequest)),
        (401, "missing_api_key", Err(Configuration)),
        (401, "restricted_api_key", Err(Configuration)),
        (403, "invalid_api_key", Err(Configuration)),
        (403, "suspended_api_key", Err(Configuration)),
        (403, "invalid_permission", Err(Configuration)),
        (403, "email_above_quota", Err(Configuration)),
        (403, "validation_error", Err(Configuration)),
        (404, "not_found", Err(NotFound)),
        (405, "method_not_allowed", Err(InvalidRequest)),
        (409, "resource_locked", Ok(Conflict)),
        (409, "invalid_idempotent_request", Err(IdempotencyConflict)),
        (409, "concurrent_idempotent_requests", Ok(Conflict)),
        (422, "invalid_attachment", Err(InvalidRequest)),
        (422, "invalid_parameter", Err(InvalidRequest)),
        (422, "missing_required_field", Err(InvalidRequest)),
        (422, "missing_required_fields", Err(InvalidRequest)),
        (422, "missing_required_parameter", Err(InvalidRequest)),
        (422, "validation_error", Err(InvalidRequest)),
        (422, "invalid_from_address", Err(InvalidRequest)),
        (422, "invalid_access", Err(InvalidRequest)),
        (422, "invalid_region", Err(InvalidRequest)),
        (429, "rate_limit_exceeded", Ok(Throttled)),
        (429, "daily_quota_exceeded", Ok(Throttled)),
        (429, "monthly_quota_exceeded", Err(QuotaExhausted)),
        (451, "security_error", Err(InvalidRequest)),
        (500, "application_error", Ok(Unavailable)),
        (500, "internal_server_error", Ok(Unavailable)),
        (500, "service_unavailable", Ok(Unavailable)),
        (503, "service_unavailable", Ok(Unavailable)),
    ];
    check("resend", body, &rows).await;
}

#[tokio::test]
async fn stripe() {
    let body: Body =
        |_, kind| format!(r#"{{"error":{{"type":"{kind}","code":"some_code","message":"No such: {ADDRESS}"}}}}"#);
    let rows = [
        (400, "invalid_request_error", Err(InvalidRequest)),
        (400, "idempotency_error", Err(IdempotencyConflict)),
        (401, "invalid_request_error", Err(Configuration)),
        (402, "card_error", Err(InvalidRequest)),
        (403, "invalid_request_error", Err(Configuration)),
        (404, "invalid_request_error", Err(NotFound)),
        (409, "idempotency_error", Ok(Conflict)),
        (424, "api_error", Ok(Conflict)),
        (429, "invalid_request_error", Ok(Throttled)),
        (500, "api_error", Ok(Unavailable)),
        (502, "api_error", Ok(Unavailable)),
        (503, "api_error", Ok(Unavailable)),
        (504, "api_error", Ok(Unavailable)),
    ];
    check("stripe", body, &rows).await;
}

#[tokio::test]
async fn http() {
    let body: Body = |_, _| format!("no such user: {ADDRESS}");
    let rows = [
        (400, "", Err(InvalidRequest)),
        (401, "", Err(Configuration)),
        (403, "", Err(Configuration)),
        (404, "", Err(NotFound)),
        (405, "", Err(InvalidRequest)),
        (408, "", Ok(Timeout)),
        (409, "", Err(InvalidRequest)),
        (410, "", Err(NotFound)),
        (413, "", Err(InvalidRequest)),
        (415, "", Err(InvalidRequest)),
        (422, "", Err(InvalidRequest)),
        (425, "", Ok(Timeout)),
        (429, "", Ok(Throttled)),
        (500, "", Ok(Unavailable)),
        (502, "", Ok(Unavailable)),
        (503, "", Ok(Unavailable)),
        (504, "", Ok(Unavailable)),
    ];
    check("http", body, &rows).await;
}

#[tokio::test]
async fn mailchimp() {
    let body: Body = |status, title| match title {
        "" => format!("<html>{ADDRESS}</html>"),
        title => format!(r#"{{"type":"x","title":"{title}","status":{status},"detail":"{ADDRESS} was deleted"}}"#),
    };
    let rows = [
        (400, "Invalid Resource", Err(InvalidRequest)),
        (400, "Member Exists", Err(InvalidRequest)),
        (400, "Member In Compliance State", Err(InvalidRequest)),
        (400, "Forgotten Email Not Subscribed", Err(InvalidRequest)),
        (401, "API Key Invalid", Err(Configuration)),
        (403, "Forbidden", Err(Configuration)),
        (403, "User Disabled", Err(Configuration)),
        (403, "", Ok(Throttled)),
        (404, "Resource Not Found", Err(NotFound)),
        (405, "Method Not Allowed", Err(InvalidRequest)),
        (414, "URI Too Long", Err(InvalidRequest)),
        (422, "Unprocessable", Err(InvalidRequest)),
        (426, "Upgrade Required", Err(InvalidRequest)),
        (429, "Too Many Requests", Ok(Throttled)),
        (429, "", Ok(Throttled)),
        (500, "Internal Server Error", Ok(Unavailable)),
        (503, "", Ok(Unavailable)),
    ];
    check("mailchimp", body, &rows).await;
}

#[tokio::test]
async fn novu() {
    let body: Body = |status, message| match status {
        201 => format!(r#"{{"data":{{"acknowledged":true,"status":"{message}","error":["{ADDRESS}"]}}}}"#),
        status => format!(r#"{{"statusCode":{status},"message":"{message}","ctx":{{"email":"{ADDRESS}"}}}}"#),
    };
    let rows = [
        (201, "error", Err(InvalidRequest)),
        (201, "trigger_not_active", Err(Configuration)),
        (201, "no_workflow_active_steps_defined", Err(Configuration)),
        (201, "no_workflow_steps_defined", Err(Configuration)),
        (201, "no_tenant_found", Err(Configuration)),
        (201, "invalid_recipients", Err(InvalidRequest)),
        (400, "payload is not valid", Err(InvalidRequest)),
        (401, "Unauthorized", Err(Configuration)),
        (403, "Forbidden", Err(Configuration)),
        (404, "Not Found", Err(NotFound)),
        (405, "", Err(InvalidRequest)),
        (408, "", Ok(Timeout)),
        (409, "", Ok(Conflict)),
        (413, "", Err(InvalidRequest)),
        (414, "", Err(InvalidRequest)),
        (415, "", Err(InvalidRequest)),
        (422, "workflow_not_found", Err(NotFound)),
        (422, "Validation Error", Err(InvalidRequest)),
        (429, "", Ok(Throttled)),
        (500, "", Ok(Unavailable)),
        (503, "", Ok(Unavailable)),
    ];
    check("novu", body, &rows).await;
}

#[tokio::test]
async fn algolia() {
    let body: Body = |status, _| format!(r#"{{"message":"{ADDRESS} is too big","status":{status}}}"#);
    let rows = [
        (400, "", Err(InvalidRequest)),
        (401, "", Err(Configuration)),
        (403, "", Err(Configuration)),
        (404, "", Err(NotFound)),
        (413, "", Err(InvalidRequest)),
        (429, "", Ok(Throttled)),
        (500, "", Ok(Unavailable)),
        (503, "", Ok(Unavailable)),
    ];
    check("algolia", body, &rows).await;
}

#[tokio::test]
async fn nylas() {
    let body: Body =
        |_, kind| format!(r#"{{"request_id":"r","error":{{"type":"{kind}","message":"cannot reach {ADDRESS}"}}}}"#);
    let rows = [
        (400, "invalid_request_error", Err(InvalidRequest)),
        (400, "api.invalid_idempotency_key", Err(InvalidRequest)),
        (401, "api.authentication_error", Err(Configuration)),
        (402, "provider_error", Err(InvalidRequest)),
        (403, "grant_error", Err(Configuration)),
        (404, "api.not_found_error", Err(Configuration)),
        (409, "api.invalid_idempotent_request", Err(IdempotencyConflict)),
        (409, "api.concurrent_idempotent_request", Ok(Conflict)),
        (422, "provider_error", Err(InvalidRequest)),
        (423, "blocked", Ok(Conflict)),
        (429, "nylas_rate_limit_exceeded", Ok(Throttled)),
        (429, "rate_limit_error", Ok(Throttled)),
        (500, "api.internal_error", Ok(Unavailable)),
        (502, "", Ok(Unavailable)),
        (503, "", Ok(Unavailable)),
        (504, "provider_error", Ok(Timeout)),
    ];
    check("nylas", body, &rows).await;
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_passed_on() {
    for subject in super::subject::SUBJECTS {
        for (status, text, expected) in
            [(429, "7", Some(7)), (503, "2", Some(2)), (503, "-1", None), (503, "soon", None), (429, "1e400", None)]
        {
            let server = Server::start(answer(status, &[("retry-after", text)], "{}")).await;
            let outcome = subject.attempt(&server.url()).await;
            let Outcome::Retry { after, .. } = outcome else { panic!("{}: {outcome:?}", subject.name) };
            assert_eq!(after, expected.map(Duration::from_secs), "{}: {status} {text}", subject.name);
        }
    }
}
