//! Every documented error of every destination, as sent over the wire, and the outcome it must have. The tables follow
//! the destinations' documentation, status by status and name by name.

use std::time::Duration;

use serde_json::{Value, json};
use usher_connectors::CallGate;
use usher_engine::Cause::{Conflict, Throttled, Timeout, Unavailable};
use usher_engine::{Cause, Outcome};
use usher_proto::Reason::{self, Configuration, IdempotencyConflict, InvalidRequest, NotFound, QuotaExhausted};
use usher_service::options::Environment;

use super::log::assert_discreet;
use super::server::{TestServer, answer};
use super::subject::{ADDRESS, ConnectorSubject, KEY, OTHERS, SUBJECTS, other, prepare, subject};

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Outcome of one error response, and its error text.
struct Seen {
    outcome: Outcome,
    found: Result<Cause, Reason>,
    error: String,
}

async fn see(name: &str, status: u16, headers: Headers<'_>, body: &str) -> Seen {
    see_of(subject(name), status, headers, body).await
}

async fn see_of(subject: &ConnectorSubject, status: u16, headers: Headers<'_>, body: &str) -> Seen {
    let name = subject.name;
    let server = TestServer::start(answer(status, headers, body)).await;
    let outcome = subject.attempt(&server.url()).await;
    assert_discreet(&outcome, &format!("{name}: {status} {body}"));
    let (found, error) = match &outcome {
        Outcome::Retry { cause, .. } => (Ok(*cause), String::new()),
        Outcome::Reject { reason, error } => (Err(*reason), error.clone()),
        Outcome::Done(_) | Outcome::Overtaken => panic!("{name}: {status} {body}: {outcome:?}"),
    };
    Seen { outcome, found, error }
}

/// Status, name of the error, and expected outcome.
type Row = (u16, &'static str, Result<Cause, Reason>);

/// Returns the body of an error with that name and with a message that contains an address.
type Body = fn(u16, &str) -> String;

/// Returns the text of a dead letter after the status: the name, if it is one.
type Says = fn(&str) -> String;

async fn check(name: &str, body: Body, says: Says, rows: &[Row]) {
    check_of(subject(name), body, says, rows).await;
}

async fn check_of(subject: &ConnectorSubject, body: Body, says: Says, rows: &[Row]) {
    for (status, error, expected) in rows {
        let case = format!("{}.{}: {status} {error}", subject.name, subject.operation);
        let seen = see_of(subject, *status, &[], &body(*status, error)).await;
        assert_eq!(seen.found, *expected, "{case}");
        if expected.is_err() {
            assert_eq!(seen.error, format!("{status} {}", says(error)).trim_end(), "{case}");
        }
    }
}

fn status_alone(_: &str) -> String {
    String::new()
}

#[tokio::test]
async fn resend() {
    let body: Body =
        |status, name| format!(r#"{{"statusCode":{status},"name":"{name}","message":"{ADDRESS} is not allowed"}}"#);
    let rows = [
        // Idempotency.
        (400, "invalid_idempotency_key", Err(InvalidRequest)),
        (409, "invalid_idempotent_request", Err(IdempotencyConflict)),
        (409, "concurrent_idempotent_requests", Ok(Conflict)),
        // Errors.
        (400, "validation_error", Err(InvalidRequest)),
        (401, "missing_api_key", Err(Configuration)),
        (401, "restricted_api_key", Err(Configuration)),
        (401, "invalid_api_key", Err(Configuration)),
        (403, "invalid_api_key", Err(Configuration)),
        (403, "suspended_api_key", Err(Configuration)),
        (403, "invalid_permission", Err(Configuration)),
        (403, "email_above_quota", Err(Configuration)),
        (403, "validation_error", Err(Configuration)),
        (404, "not_found", Err(NotFound)),
        (405, "method_not_allowed", Err(InvalidRequest)),
        (409, "resource_locked", Ok(Conflict)),
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
        // For an unknown name the status decides.
        (418, "named_tomorrow", Err(InvalidRequest)),
        (429, "named_tomorrow", Ok(Throttled)),
        (520, "named_tomorrow", Ok(Unavailable)),
    ];
    check("resend", body, str::to_owned, &rows).await;
}

#[tokio::test]
async fn contacts_of_resend() {
    let body: Body =
        |status, name| format!(r#"{{"statusCode":{status},"name":"{name}","message":"{ADDRESS} is not allowed"}}"#);
    for operation in ["put_contact", "delete_contact"] {
        let rows = [
            (400, "validation_error", Err(InvalidRequest)),
            (401, "missing_api_key", Err(Configuration)),
            // A key that may only send.
            (401, "restricted_api_key", Err(Configuration)),
            (403, "invalid_api_key", Err(Configuration)),
            (405, "method_not_allowed", Err(InvalidRequest)),
            (409, "resource_locked", Ok(Conflict)),
            (422, "validation_error", Err(InvalidRequest)),
            (422, "invalid_parameter", Err(InvalidRequest)),
            (429, "rate_limit_exceeded", Ok(Throttled)),
            (500, "internal_server_error", Ok(Unavailable)),
            (503, "service_unavailable", Ok(Unavailable)),
        ];
        check_of(other(operation), body, str::to_owned, &rows).await;
    }
}

#[tokio::test]
async fn subscribers_of_novu() {
    let body: Body = |status, message| format!(r#"{{"statusCode":{status},"message":"{message}","ctx":"{ADDRESS}"}}"#);
    for operation in ["put_subscriber", "delete_subscriber"] {
        let rows = [
            (400, "Invalid subscriberId", Err(InvalidRequest)),
            (401, "API Key not found", Err(Configuration)),
            (403, "Forbidden resource", Err(Configuration)),
            (408, "", Ok(Timeout)),
            (409, "Request is currently being processed", Ok(Conflict)),
            (413, "", Err(InvalidRequest)),
            (422, "Validation Error", Err(InvalidRequest)),
            (429, "", Ok(Throttled)),
            (500, "", Ok(Unavailable)),
            (503, "", Ok(Unavailable)),
        ];
        check_of(other(operation), body, status_alone, &rows).await;
    }
}

#[tokio::test]
async fn tags_and_erasures_of_mailchimp() {
    let body: Body =
        |status, title| format!(r#"{{"type":"x","title":"{title}","status":{status},"detail":"{ADDRESS}"}}"#);
    let says: Says = |title| title.to_lowercase().replace(' ', "_");
    for operation in ["tag_member", "erase_member"] {
        let rows = [
            (400, "Invalid Resource", Err(InvalidRequest)),
            (401, "API Key Invalid", Err(Configuration)),
            // The audience.
            (404, "Resource Not Found", Err(NotFound)),
            (429, "Too Many Requests", Ok(Throttled)),
            (500, "Internal Server Error", Ok(Unavailable)),
        ];
        check_of(other(operation), body, says, &rows).await;
    }
}

#[tokio::test]
async fn the_quotas_of_resend_say_when_to_come_again() {
    for (name, headers, expected) in [
        ("rate_limit_exceeded", &[("retry-after", "2")][..], Some(Duration::from_secs(2))),
        ("rate_limit_exceeded", &[], None),
        ("daily_quota_exceeded", &[("retry-after", "41200")], Some(Duration::from_secs(41_200))),
        ("daily_quota_exceeded", &[], Some(Duration::from_secs(3600))),
    ] {
        let seen = see("resend", 429, headers, &format!(r#"{{"statusCode":429,"name":"{name}"}}"#)).await;
        assert_eq!(seen.outcome, Outcome::Retry { cause: Throttled, after: expected }, "{name} {headers:?}");
    }
}

/// Status, type, code, value of `Stripe-Should-Retry`, and expected outcome.
type StripeRow = (u16, &'static str, &'static str, Option<&'static str>, Result<Cause, Reason>);

#[tokio::test]
async fn stripe() {
    let rows: [StripeRow; 29] = [
        // Idempotency.
        (400, "idempotency_error", "", None, Err(IdempotencyConflict)),
        (409, "idempotency_error", "idempotency_key_in_use", None, Ok(Conflict)),
        // Errors, by status.
        (400, "invalid_request_error", "parameter_missing", None, Err(InvalidRequest)),
        (401, "invalid_request_error", "", None, Err(Configuration)),
        (402, "card_error", "card_declined", None, Err(InvalidRequest)),
        (403, "invalid_request_error", "", None, Err(Configuration)),
        (404, "invalid_request_error", "resource_missing", None, Err(NotFound)),
        (409, "invalid_request_error", "", None, Ok(Conflict)),
        (424, "api_error", "", None, Ok(Conflict)),
        (429, "invalid_request_error", "rate_limit", None, Ok(Throttled)),
        (429, "invalid_request_error", "lock_timeout", None, Ok(Conflict)),
        (500, "api_error", "", None, Ok(Unavailable)),
        (502, "api_error", "", None, Ok(Unavailable)),
        (503, "api_error", "", None, Ok(Unavailable)),
        (504, "api_error", "", None, Ok(Unavailable)),
        // `Stripe-Should-Retry` overrides all of the above.
        (400, "api_error", "", Some("true"), Ok(Conflict)),
        (402, "card_error", "", Some("true"), Ok(Conflict)),
        (404, "invalid_request_error", "", Some("true"), Ok(Conflict)),
        (409, "invalid_request_error", "", Some("true"), Ok(Conflict)),
        (429, "invalid_request_error", "rate_limit", Some("true"), Ok(Throttled)),
        (429, "invalid_request_error", "lock_timeout", Some("true"), Ok(Conflict)),
        (500, "api_error", "", Some("true"), Ok(Unavailable)),
        (401, "invalid_request_error", "", Some("false"), Err(Configuration)),
        (404, "invalid_request_error", "", Some("false"), Err(NotFound)),
        (409, "idempotency_error", "idempotency_key_in_use", Some("false"), Err(IdempotencyConflict)),
        (424, "api_error", "", Some("false"), Err(InvalidRequest)),
        (429, "invalid_request_error", "rate_limit", Some("false"), Err(InvalidRequest)),
        (500, "api_error", "", Some("false"), Err(InvalidRequest)),
        (503, "api_error", "", Some("false"), Err(InvalidRequest)),
    ];
    for (status, kind, code, told, expected) in rows {
        let case = format!("stripe: {status} {kind} {code} {told:?}");
        let body = format!(r#"{{"error":{{"type":"{kind}","code":"{code}","message":"No such: {ADDRESS}"}}}}"#);
        let header = told.map(|told| ("stripe-should-retry", told));
        let seen = see("stripe", status, header.as_slice(), &body).await;
        assert_eq!(seen.found, expected, "{case}");
        if expected.is_err() {
            assert_eq!(seen.error, format!("{status} {kind} {code}").trim_end(), "{case}");
        }
    }
}

/// A header names the kind of rate limit. All kinds mean the same: slow down.
#[tokio::test]
async fn every_rate_limit_of_stripe_is_a_throttle() {
    for kind in ["global-rate", "global-concurrency", "endpoint-rate", "endpoint-concurrency", "resource-specific"] {
        let headers = [("stripe-rate-limited-reason", kind)];
        let body = r#"{"error":{"type":"invalid_request_error","code":"rate_limit"}}"#;
        assert_eq!(see("stripe", 429, &headers, body).await.found, Ok(Throttled), "{kind}");
    }
}

#[tokio::test]
async fn http() {
    let body: Body = |_, _| format!("no such user: {ADDRESS}");
    let rows = [
        (301, "", Err(Configuration)),
        (302, "", Err(Configuration)),
        (307, "", Err(Configuration)),
        (308, "", Err(Configuration)),
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
    check("http", body, status_alone, &rows).await;
}

/// A receiver that repeats what it was sent tells nothing of it to logs, errors and operators.
#[tokio::test]
async fn secrets_of_a_flow() {
    const VALUE: &str = "key-LEAKYSECRET-1";
    for status in [301, 400, 401, 429, 503] {
        let echo = format!(r#"{{"message":"Bearer {VALUE} is not allowed","code":"{VALUE}"}}"#);
        let server = TestServer::start(answer(status, &[], &echo)).await;
        let connector =
            subject("http").open_in(&Environment::from_vars([("ACME_KEY", VALUE)]).with("HTTP_BASE_URL", server.url()));
        let secret = usher_connectors::secret_placeholder("ACME_KEY");
        let params = json!({
            "url": "https://acme.test/x", "headers": { "Authorization": format!("Bearer {secret}") },
            "query": { "key": secret }, "body": json!({ "key": secret }).to_string(),
        });
        let request = prepare(&*connector, "request", &params, &Value::Null).unwrap();
        let gate = CallGate::open();
        let outcome = connector.attempt(&request, KEY, &gate).await;
        assert!(server.requests()[0].contains(VALUE), "{:?}", server.requests());
        assert_discreet(&outcome, &format!("{status}"));
        let seen = gate.into_observed().answer.unwrap();
        let message = seen.message.unwrap_or_default();
        assert!(message.contains("[secret ACME_KEY]") && !message.contains(VALUE), "{message}");
        assert_eq!(seen.name, None, "a name that is a secret is none");
    }
}

#[tokio::test]
async fn mailchimp() {
    let body: Body = |status, title| match title {
        // The edge servers answer without Mailchimp's error format when under load.
        "" => format!("<html>{ADDRESS}</html>"),
        title => format!(r#"{{"type":"x","title":"{title}","status":{status},"detail":"{ADDRESS} was deleted"}}"#),
    };
    let says: Says = |title| match title {
        // Titles that are not documented as names are not repeated in the dead letter.
        "Forbidden" | "User Disabled" | "Method Not Allowed" | "URI Too Long" | "Unprocessable"
        | "Upgrade Required" => String::new(),
        title => title.to_lowercase().replace(' ', "_"),
    };
    let rows = [
        (400, "Invalid Resource", Err(InvalidRequest)),
        (400, "Member Exists", Err(InvalidRequest)),
        (400, "Member In Compliance State", Err(InvalidRequest)),
        (400, "Forgotten Email Not Subscribed", Err(InvalidRequest)),
        (400, "", Err(InvalidRequest)),
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
        (500, "", Ok(Unavailable)),
        (503, "Compliance Related", Ok(Unavailable)),
        (503, "", Ok(Unavailable)),
    ];
    check("mailchimp", body, says, &rows).await;
}

#[tokio::test]
async fn novu() {
    let body: Body = |status, message| match status {
        201 => format!(r#"{{"data":{{"acknowledged":true,"status":"{message}","error":["{ADDRESS}"]}}}}"#),
        status => format!(r#"{{"statusCode":{status},"message":"{message}","ctx":{{"email":"{ADDRESS}"}}}}"#),
    };
    // A message is repeated only if it is a single word.
    let says: Says = |message| if message.contains(' ') { String::new() } else { message.to_owned() };
    let reused = r#"Request with key \"k\" is being reused for a different body"#;
    let too_long = r#"idempotencyKey \"k\" has exceeded the maximum allowed length of 255 characters"#;
    let rows = [
        // Status 201, but nothing was sent.
        (201, "error", Err(InvalidRequest)),
        (201, "trigger_not_active", Err(Configuration)),
        (201, "no_workflow_active_steps_defined", Err(Configuration)),
        (201, "no_workflow_steps_defined", Err(Configuration)),
        (201, "no_tenant_found", Err(Configuration)),
        (201, "invalid_recipients", Err(InvalidRequest)),
        (201, "named_tomorrow", Err(InvalidRequest)),
        // Errors.
        (400, "payload is not valid", Err(InvalidRequest)),
        (400, too_long, Err(InvalidRequest)),
        (401, "API Key not found", Err(Configuration)),
        (403, "Forbidden resource", Err(Configuration)),
        (404, "Cannot POST", Err(NotFound)),
        (405, "", Err(InvalidRequest)),
        (408, "", Ok(Timeout)),
        (409, "Request is currently being processed", Ok(Conflict)),
        (413, "", Err(InvalidRequest)),
        (414, "", Err(InvalidRequest)),
        (415, "", Err(InvalidRequest)),
        (422, "workflow_not_found", Err(NotFound)),
        (422, reused, Err(IdempotencyConflict)),
        (422, "Validation Error", Err(InvalidRequest)),
        (429, "", Ok(Throttled)),
        (500, "", Ok(Unavailable)),
        (503, "", Ok(Unavailable)),
    ];
    check("novu", body, says, &rows).await;
    // Older servers and the OpenAPI file do not wrap the answer in `data`.
    let seen = see("novu", 201, &[], r#"{"acknowledged":true,"status":"trigger_not_active"}"#).await;
    assert_eq!((seen.found, seen.error.as_str()), (Err(Configuration), "201 trigger_not_active"));
}

#[tokio::test]
async fn algolia() {
    let body: Body = |status, message| format!(r#"{{"message":"{ADDRESS}: {message}","status":{status}}}"#);
    let rows = [
        (400, "Record is too big", Err(InvalidRequest)),
        (401, "", Err(Configuration)),
        (403, "Invalid Application-ID or API key", Err(Configuration)),
        (404, "Index does not exist", Err(NotFound)),
        (405, "", Err(InvalidRequest)),
        (408, "", Ok(Timeout)),
        (413, "", Err(InvalidRequest)),
        // The official clients leave these errors to the caller.
        (429, "Too many jobs", Ok(Throttled)),
        (429, "Job queue too large", Ok(Throttled)),
        (500, "", Ok(Unavailable)),
        (502, "", Ok(Unavailable)),
        (503, "", Ok(Unavailable)),
    ];
    check("algolia", body, status_alone, &rows).await;
}

#[tokio::test]
async fn nylas() {
    let body: Body =
        |_, kind| format!(r#"{{"request_id":"r","error":{{"type":"{kind}","message":"cannot reach {ADDRESS}"}}}}"#);
    let rows = [
        // Idempotency.
        (400, "api.invalid_idempotency_key", Err(InvalidRequest)),
        (409, "api.invalid_idempotent_request", Err(IdempotencyConflict)),
        (409, "api.concurrent_idempotent_request", Ok(Conflict)),
        // Errors.
        (400, "invalid_request_error", Err(InvalidRequest)),
        (401, "api.authentication_error", Err(Configuration)),
        // Part of the mail may have been sent, so it is never repeated automatically.
        (402, "provider_error", Err(InvalidRequest)),
        (403, "grant.unauthenticated", Err(Configuration)),
        (404, "api.not_found_error", Err(Configuration)),
        (422, "provider_error", Err(InvalidRequest)),
        (423, "blocked", Ok(Conflict)),
        (429, "nylas_rate_limit_exceeded", Ok(Throttled)),
        (429, "rate_limit_error", Ok(Throttled)),
        (500, "api.internal_error", Ok(Unavailable)),
        (502, "", Ok(Unavailable)),
        (503, "", Ok(Unavailable)),
        // It is unknown if the mail was sent.
        (504, "provider_error", Ok(Timeout)),
    ];
    check("nylas", body, str::to_owned, &rows).await;
}

#[tokio::test]
async fn clerk() {
    let body: Body = |_, code| {
        let meta = r#"{"param_name":"private_metadata"}"#;
        let error =
            format!(r#"{{"code":"{code}","message":"not {ADDRESS}","long_message":"{ADDRESS}","meta":{meta}}}"#);
        format!(r#"{{"errors":[{error}],"clerk_trace_id":"0af7651916cd43dd8448eb211c80319c"}}"#)
    };
    let rows = [
        // Errors of the Backend API, by status.
        (400, "request_body_invalid", Err(InvalidRequest)),
        (401, "clerk_key_invalid", Err(Configuration)),
        (401, "authentication_invalid", Err(Configuration)),
        (402, "unsupported_subscription_plan_features", Err(Configuration)),
        (403, "authorization_invalid", Err(Configuration)),
        (404, "resource_not_found", Err(NotFound)),
        (405, "", Err(InvalidRequest)),
        (408, "", Ok(Timeout)),
        (409, "conflict", Ok(Conflict)),
        (413, "", Err(InvalidRequest)),
        (422, "form_param_exceeds_allowed_size", Err(InvalidRequest)),
        (422, "form_param_unknown", Err(InvalidRequest)),
        (429, "too_many_requests", Ok(Throttled)),
        (500, "internal_clerk_error", Ok(Unavailable)),
        (502, "", Ok(Unavailable)),
        (503, "maintenance_mode", Ok(Unavailable)),
        (504, "", Ok(Unavailable)),
        // For an unknown code the status decides.
        (410, "named_tomorrow", Err(InvalidRequest)),
    ];
    check("clerk", body, str::to_owned, &rows).await;
}

#[tokio::test]
async fn a_redirect_and_a_status_that_nobody_knows_are_given_up() {
    for subject in SUBJECTS.iter().chain(OTHERS) {
        for status in [302, 418] {
            let seen = see_of(subject, status, &[], "{}").await;
            assert!(seen.found.is_err() && seen.error.starts_with(&status.to_string()), "{}: {status}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_passed_on() {
    for subject in SUBJECTS.iter().chain(OTHERS) {
        for (status, text, expected) in
            [(429, "7", Some(7)), (503, "2", Some(2)), (503, "-1", None), (503, "soon", None), (429, "1e400", None)]
        {
            let seen = see_of(subject, status, &[("retry-after", text)], "{}").await;
            let Outcome::Retry { after, .. } = seen.outcome else { panic!("{}: {:?}", subject.name, seen.outcome) };
            assert_eq!(after, expected.map(Duration::from_secs), "{}: {status} {text}", subject.name);
        }
    }
}
