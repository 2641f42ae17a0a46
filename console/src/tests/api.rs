//! The API's description is held against the routes and against their answers.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::support::{ADDRESS, TestAnswer, console_with, reference};
use crate::api::DESCRIPTION;
use crate::routes::{self, RouteKind, RouteMethod};

fn description() -> Value {
    serde_json::from_str(DESCRIPTION).expect("JSON")
}

#[test]
fn the_description_has_every_route_of_the_api_and_no_other() {
    let described: BTreeSet<(String, String)> = description()["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(move |method| (path.clone(), method.clone()))
        })
        .collect();
    let of_api = |route: &routes::ConsoleRoute| route.kind == RouteKind::Api && route.path.starts_with("/api/");
    let served: BTreeSet<(String, String)> = routes::all()
        .iter()
        .filter(|route| of_api(route))
        .map(|route| {
            let method = match route.method {
                RouteMethod::Get => "get",
                RouteMethod::Post => "post",
            };
            (route.path.to_owned(), method.to_owned())
        })
        .collect();
    assert_eq!(described, served);
}

/// Asserts that an answer is as the description says.
fn assert_described(path: &str, method: &str, answer: &TestAnswer) {
    let all = description();
    let answers = &all["paths"][path][method]["responses"];
    let status = answer.status.as_u16().to_string();
    let described = answers.get(&status).unwrap_or(&answers["default"]);
    let mut schema = described["content"]["application/json"]["schema"].clone();
    assert!(schema.is_object(), "{method} {path} {status}");
    schema["components"] = all["components"].clone();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let found = answer.json();
    let errors: Vec<String> =
        validator.iter_errors(&found).map(|error| format!("{} at {}", error, error.instance_path())).collect();
    assert!(errors.is_empty(), "{method} {path} {status}: {errors:#?} in {found:#}");
}

#[tokio::test]
async fn every_answer_is_as_described() {
    let console = console_with(&[]).await;
    console.fill().await;
    console.leave().await;
    let now = usher_service::clock::now();
    console.store.set_paused("trial", true, "ann", Some("later"), now).await.expect("paused");
    let mut covered = BTreeSet::new();
    let event = format!("ref={}", reference("msg_done"));
    for (path, query) in [
        ("/api/v1/openapi.json", ""),
        ("/api/v1/overview", ""),
        ("/api/v1/events", ""),
        ("/api/v1/events", "state=nonsense"),
        ("/api/v1/event", event.as_str()),
        ("/api/v1/event", ""),
        ("/api/v1/event", "ref=none"),
        ("/api/v1/person", "id=clerk/default/user_dana"),
        ("/api/v1/dead-letters", "flow=email"),
        ("/api/v1/dead-letters", "flwo=email"),
        ("/api/v1/dead-letters/causes", ""),
        ("/api/v1/dead-letters/redrive", ""),
        ("/api/v1/dead-letters", "person=user_dana&within=7d"),
        ("/api/v1/dead-letters", "within=long"),
        ("/api/v1/dead-letters", "after=nowhere"),
        ("/api/v1/redrives", ""),
        ("/api/v1/redrive", "id=none"),
        ("/api/v1/flow", "name=trial"),
        ("/api/v1/flow", "name=none"),
    ] {
        let answer = console.get(&format!("{path}?{query}")).await;
        assert_described(path, "get", &answer);
        assert!(!answer.text.contains(ADDRESS) && !answer.text.contains("Dana"), "{path}: {}", answer.text);
        covered.insert(("get", path));
    }
    let until = console.get("/api/v1/dead-letters/redrive").await.json()["until"].clone();
    for (path, body) in [
        ("/api/v1/event/show", json!({"ref": reference("msg_dead1")})),
        ("/api/v1/person/show", json!({"id": "clerk/default/user_dana"})),
        ("/api/v1/dead-letters/redrive", json!({"until": until, "runs": 99})),
        ("/api/v1/dead-letters/redrive", json!({"until": until, "cause": "none", "runs": 0})),
        ("/api/v1/dead-letters/redrive", json!({"until": until, "flow": "email", "runs": 2, "rate": 10})),
        ("/api/v1/redrive/stop", json!({"id": "none"})),
        ("/api/v1/flow/pause", json!({"flow": "email", "why": "a test"})),
        ("/api/v1/flow/resume", json!({"flow": "email"})),
        ("/api/v1/run/cancel", json!({"flow": "trial", "event": reference("msg_open")})),
        ("/api/v1/run/wake", json!({"flow": "trial", "event": reference("msg_open")})),
        ("/api/v1/run/rerun", json!({"flow": "email", "event": reference("msg_done")})),
    ] {
        let answer = console.post_json(path, &body).await;
        assert_described(path, "post", &answer);
        covered.insert(("post", path));
    }
    let redrives = console.get("/api/v1/redrives").await;
    assert_described("/api/v1/redrives", "get", &redrives);
    let id = redrives.json()["redrives"][0]["id"].as_str().expect("an id").to_owned();
    assert_described("/api/v1/redrive", "get", &console.get(&format!("/api/v1/redrive?id={id}")).await);
    assert_described(
        "/api/v1/redrive/stop",
        "post",
        &console.post_json("/api/v1/redrive/stop", &json!({"id": id})).await,
    );
    let api = routes::all().iter().filter(|route| route.path.starts_with("/api/")).count();
    assert_eq!(covered.len(), api, "every route is covered: {covered:?}");
}

#[tokio::test]
async fn a_program_without_a_token_shows_that_it_is_one() {
    let console = console_with(&[]).await;
    console.fill().await;
    let headers = [("content-type", "application/json")];
    let body = json!({"flow": "email"}).to_string();
    let answer = console.send("POST", "/api/v1/flow/pause", &headers, &body).await;
    assert!(answer.status == StatusCode::FORBIDDEN && answer.json()["error"]["code"] == "no_proof", "{}", answer.text);
    let odd = console.send("POST", "/api/v1/flow/pause", &[("x-usher-client", "test")], "{").await;
    assert!(odd.status == StatusCode::BAD_REQUEST && odd.json()["error"]["code"] == "bad_request", "{}", odd.text);
}
