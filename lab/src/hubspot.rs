//! The double of HubSpot's contacts: `POST /crm/v3/objects/contacts/batch/upsert`.
//!
//! Facts: developers.hubspot.com, "Contacts" (batch upsert: up to 100 inputs, each with `id`, `idProperty` and `properties`,
//! values are texts; the response's `status` and `results`), "Error handling" (`{ "status": "error", "message", "category" }`; 401
//! `INVALID_AUTHENTICATION`, 429 `RATE_LIMITS`).

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::FakeResponse;
use crate::ids;
use crate::receiver::{Accepted, ReceiverRules, bearer, object, text};
use crate::request::Request;

/// Maximum number of contacts in a request.
const MOST_INPUTS: usize = 100;

pub(crate) const HUBSPOT: ReceiverRules = ReceiverRules { name: "hubspot", hosts: &["api.hubapi.com"], judge, refusal };

fn refusal(status: StatusCode, message: &str) -> FakeResponse {
    let category = match status.as_u16() {
        401 => "INVALID_AUTHENTICATION",
        404 => "OBJECT_NOT_FOUND",
        429 => "RATE_LIMITS",
        _ => "VALIDATION_ERROR",
    };
    let id = ids::uuid();
    FakeResponse::refused(
        status,
        json!({ "status": "error", "message": message, "category": category, "correlationId": id }),
    )
}

fn judge(request: &Request) -> Result<Accepted, FakeResponse> {
    let bad = |message: &str| refusal(StatusCode::BAD_REQUEST, message);
    if bearer(&request.headers).is_none() {
        return Err(refusal(StatusCode::UNAUTHORIZED, "Authentication credentials not found."));
    }
    if request.segments()[..] != ["crm", "v3", "objects", "contacts", "batch", "upsert"] {
        return Err(refusal(StatusCode::NOT_FOUND, "resource not found"));
    }
    if request.method != Method::POST {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
    }
    let inputs = object(request).and_then(|body| body["inputs"].as_array());
    let inputs =
        inputs.filter(|inputs| (1..=MOST_INPUTS).contains(&inputs.len())).ok_or_else(|| bad("inputs: 1 to 100"))?;
    for input in inputs {
        if input["idProperty"] != "email" || text(&input["id"]).is_none_or(|id| !id.contains('@')) {
            return Err(bad("id and idProperty name a contact by a unique property"));
        }
        let properties = input["properties"].as_object();
        if properties.is_none_or(|properties| properties.values().any(|value| !value.is_string())) {
            return Err(bad("properties is a table of texts"));
        }
    }
    let result = |input: &Value| json!({ "id": ids::prefixed("1", 9), "properties": input["properties"], "new": true });
    let results: Vec<Value> = inputs.iter().map(result).collect();
    let answer = FakeResponse::done(json!({ "status": "COMPLETE", "results": results }));
    Ok(Accepted::new("contacts.upsert", answer).to(&inputs[0]["id"]))
}
