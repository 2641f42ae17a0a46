//! The double of a workflow of Microsoft Teams that posts what a webhook sends.
//!
//! Facts: support.microsoft.com, "Create incoming webhooks with Workflows for Microsoft Teams", and
//! learn.microsoft.com, "Create and send messages" (a message with an attachment of the type of adaptive cards). The
//! address has its authorization in `sig`; 202 is the answer of the trigger, whatever the workflow does afterwards. The refusals
//! are those of the HTTP trigger of Logic Apps; their texts are not documented, and nothing reads them.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::FakeResponse;
use crate::receiver::{Accepted, ReceiverRules, object, text};
use crate::request::Request;

/// The address of the lab's workflow.
pub(crate) const TEAMS_URL: &str = "https://lab.westus.logic.azure.com/workflows/lab/triggers/manual/paths/invoke?api-version=2016-06-01&sig=labWorkflowOfUsher00000000000";
/// The type of an attachment that is a card.
const CARD: &str = "application/vnd.microsoft.card.adaptive";

pub(crate) const TEAMS: ReceiverRules =
    ReceiverRules { name: "teams", hosts: &[".logic.azure.com", ".environment.api.powerplatform.com"], judge, refusal };

fn refusal(status: StatusCode, code: &str) -> FakeResponse {
    FakeResponse::refused(status, json!({ "error": { "code": code, "message": "the lab refuses this" } }))
}

fn judge(request: &Request) -> Result<Accepted, FakeResponse> {
    let ["workflows", workflow, "triggers", "manual", "paths", "invoke"] = request.segments()[..] else {
        return Err(refusal(StatusCode::NOT_FOUND, "WorkflowNotFound"));
    };
    let wanted = TEAMS_URL.rsplit('&').next().unwrap_or_default();
    if !request.query.as_deref().is_some_and(|query| query.split('&').any(|pair| pair == wanted)) {
        return Err(refusal(StatusCode::UNAUTHORIZED, "DirectApiAuthorizationRequired"));
    }
    if request.method != Method::POST {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"));
    }
    let is_card = |attachment: &Value| {
        let card = &attachment["content"];
        let is_card = attachment["contentType"] == CARD && card["type"] == "AdaptiveCard";
        is_card
            && text(&card["version"]).is_some()
            && card["body"].as_array().is_some_and(|body| body.iter().all(is_element))
    };
    let attachments = object(request).and_then(|body| body["attachments"].as_array());
    if !attachments.is_some_and(|list| !list.is_empty() && list.iter().all(is_card)) {
        return Err(refusal(StatusCode::BAD_REQUEST, "TriggerInputSchemaMismatch"));
    }
    let answer = FakeResponse::done(Value::Null).status(StatusCode::ACCEPTED);
    Ok(Accepted::new("workflows.run", answer).to(&workflow.into()))
}

fn is_element(element: &Value) -> bool {
    match element["type"].as_str() {
        Some("TextBlock") => text(&element["text"]).is_some(),
        Some(kind) => !kind.is_empty(),
        None => false,
    }
}
