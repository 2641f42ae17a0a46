//! Tests of operators' actions: recorded with who and when, and bounded by what was confirmed.

use axum::http::StatusCode;
use serde_json::json;
use usher_engine::RunState;

use super::support::{console_with, reference};

#[tokio::test]
async fn a_pause_has_its_operator_and_reason_and_is_ended_once() {
    let console = console_with(&[]).await;
    console.fill().await;
    // Nobody runs the flows here, so nobody confirms.
    console.leave().await;
    let paused =
        console.post_json("/api/v1/flow/pause", &json!({"flow": "email", "why": "  new prices\n at three "})).await;
    assert_eq!(paused.status, StatusCode::OK, "{}", paused.text);
    let record = console.store.pause_records().await.expect("read").remove("email").expect("paused");
    assert_eq!((record.who.as_str(), record.why.as_deref()), ("ann", Some("new prices at three")));
    let twice = console.post_json("/api/v1/flow/pause", &json!({"flow": "email"})).await;
    assert!(twice.status == StatusCode::CONFLICT && twice.text.contains("is paused already"), "{}", twice.text);
    assert_eq!(console.post_json("/api/v1/flow/resume", &json!({"flow": "email"})).await.status, StatusCode::OK);
    assert_eq!(console.post_json("/api/v1/flow/resume", &json!({"flow": "email"})).await.status, StatusCode::CONFLICT);
    assert_eq!(console.post_json("/api/v1/flow/pause", &json!({"flow": "none"})).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_redrive_takes_up_what_was_confirmed_and_nothing_that_died_later() {
    let console = console_with(&[]).await;
    console.fill().await;
    let plan = console.get("/api/v1/dead-letters/redrive?flow=email").await.json();
    assert_eq!((&plan["matching"], &plan["runs"], &plan["too_often"]), (&json!(2), &json!(2), &json!(0)));
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    console.ended("email", "msg_later", "user_1", 1, RunState::Dead).await;
    assert_eq!(console.get("/api/v1/dead-letters/redrive?flow=email").await.json()["runs"], 3);

    let without = console.post_json("/api/v1/dead-letters/redrive", &json!({"flow": "email"})).await;
    assert!(without.status == StatusCode::BAD_REQUEST && without.text.contains("until"), "{}", without.text);
    let unsure = json!({"flow": "email", "until": plan["until"], "runs": 5});
    let unsure = console.post_json("/api/v1/dead-letters/redrive", &unsure).await;
    assert!(unsure.status == StatusCode::CONFLICT && unsure.text.contains("would be 2 now"), "{}", unsure.text);
    // No dispatcher runs here: the commands are in the log, and open.
    let sure = json!({"flow": "email", "until": plan["until"], "runs": 2});
    let came = console.post_json("/api/v1/dead-letters/redrive", &sure).await;
    assert_eq!(
        came.json(),
        json!({"taken_up": 0, "nothing": 0, "open": 2}),
        "the one that died later is not among them"
    );
    let misspelt = console.post_json("/api/v1/dead-letters/redrive", &json!({"flwo": "email"})).await;
    assert_eq!(misspelt.status, StatusCode::BAD_REQUEST, "a misspelt filter must not select everything");
}

#[tokio::test]
async fn a_command_about_a_run_that_cannot_take_it_says_why() {
    let console = console_with(&[]).await;
    console.fill().await;
    let run = |id: &str| json!({"flow": "email", "event": reference(id)});
    let ended = console.post_json("/api/v1/run/cancel", &run("msg_done")).await;
    assert!(ended.status == StatusCode::CONFLICT && ended.text.contains("ended already: done"), "{}", ended.text);
    let gone = console.post_json("/api/v1/run/rerun", &run("msg_done")).await;
    assert!(gone.status == StatusCode::CONFLICT && gone.text.contains("does not hold"), "{}", gone.text);
    assert_eq!(console.post_json("/api/v1/run/cancel", &run("msg_none")).await.status, StatusCode::NOT_FOUND);
    let open = json!({"flow": "trial", "event": reference("msg_open")});
    assert_eq!(
        console.post_json("/api/v1/run/cancel", &open).await.json()["came"],
        "open",
        "no process has carried it out"
    );
    let form = console.post_form("/run/cancel", &[("flow", "trial"), ("event", &reference("msg_open"))]).await;
    assert_eq!(
        (form.status, form.location()),
        (StatusCode::SEE_OTHER, "/event?ref=clerk/default/msg_open&said=cancel-open")
    );
}
