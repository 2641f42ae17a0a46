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
    let sure = json!({"flow": "email", "until": plan["until"], "runs": 2});
    let came = console.post_json("/api/v1/dead-letters/redrive", &sure).await;
    assert_eq!(came.status, StatusCode::ACCEPTED, "{}", came.text);
    let redrive = came.json();
    assert_eq!(
        (&redrive["runs"], &redrive["standing"], &redrive["who"]),
        (&json!(2), &json!("running"), &json!("ann"))
    );
    assert_eq!(redrive["new_since"]["count"], 1, "the one that died later is told apart: {redrive}");
    let again = console.post_json("/api/v1/dead-letters/redrive", &sure).await;
    assert_eq!(again.json()["id"], redrive["id"], "an order that is sent twice begins once");
    assert_eq!(console.get("/api/v1/redrives").await.json()["redrives"].as_array().map(Vec::len), Some(1));
    let misspelt = console.post_json("/api/v1/dead-letters/redrive", &json!({"flwo": "email"})).await;
    assert_eq!(misspelt.status, StatusCode::BAD_REQUEST, "a misspelt filter must not select everything");
}

#[tokio::test]
async fn a_large_redrive_is_confirmed_by_its_number_and_chosen_ones_are_the_only_ones() {
    let console = console_with(&[]).await;
    for number in 0..100 {
        console.ended("email", &format!("msg_{number}"), "user_1", 1, RunState::Dead).await;
    }
    let plan = console.get("/dead/redrive?flow=email").await.text;
    assert!(plan.contains("Redrive all 100 matching runs") && plan.contains("Type 100 to confirm"), "{plan}");
    let until =
        plan.split_once("name=\"until\" value=\"").expect("a time").1.split('"').next().expect("an end").to_owned();
    let form = |typed: &'static str| {
        [("flow", "email"), ("until", until.as_str()), ("runs", "100"), ("typed", typed)].to_vec()
    };
    for typed in ["", "99", "many"] {
        let unsure = console.post_form("/dead/redrive", &form(typed)).await;
        assert_eq!(unsure.status, StatusCode::BAD_REQUEST, "{typed}: {}", unsure.text);
    }
    let list = console.get("/dead?list=1").await.text;
    let picks: Vec<&str> = list
        .split("name=\"pick\" value=\"")
        .skip(1)
        .take(3)
        .map(|rest| rest.split('"').next().expect("an end"))
        .collect();
    let chosen = format!("/dead/redrive?chosen=1&pick={}", picks.join("&pick="));
    let plan = console.get(&chosen).await.text;
    assert!(plan.contains("Redrive these 3 chosen runs"), "{plan}");
    let none = console.get("/dead/redrive?chosen=1").await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST, "nothing ticked is not everything: {}", none.text);
    let mut order = vec![("until", until.as_str()), ("runs", "3")];
    order.extend(picks.iter().map(|pick| ("pick", *pick)));
    let begun = console.post_form("/dead/redrive", &order).await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.text);
    let page = console.get(begun.location()).await.text;
    assert!(page.contains("0 of 3 are over") && page.contains("3 chosen"), "{page}");
}

#[tokio::test]
async fn a_redrive_goes_on_in_the_server_until_it_is_stopped() {
    let console = console_with(&[]).await;
    for number in 0..7 {
        console.ended("email", &format!("msg_{number}"), "user_1", 1, RunState::Dead).await;
    }
    let plan = console.get("/api/v1/dead-letters/redrive").await.json();
    let order = json!({"until": plan["until"], "runs": 7, "rate": 2});
    let id =
        console.post_json("/api/v1/dead-letters/redrive", &order).await.json()["id"].as_str().expect("id").to_owned();
    let runner = console.console.0.redrives.clone().expect("a runner");
    let stopping = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(runner.run(stopping.clone()));
    let at = format!("/api/v1/redrive?id={id}");
    let begun = async {
        while console.get(&at).await.json()["counts"]["asked"].as_i64() < Some(2) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), begun).await.expect("some are asked for");
    let stopped = console.post_form("/redrive/stop", &[("id", &id)]).await;
    assert_eq!(stopped.status, StatusCode::SEE_OTHER, "{}", stopped.text);
    let counts = console.get(&at).await.json()["counts"].clone();
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let after = console.get(&at).await.json();
    assert!(after["counts"]["left"].as_i64() >= counts["left"].as_i64().map(|left| left - 1), "{after}");
    assert!(after["counts"]["left"].as_i64() > Some(0) && after["standing"] == "stopping", "{after}");
    assert_eq!(console.post_form("/redrive/stop", &[("id", &id)]).await.status, StatusCode::CONFLICT);
    stopping.cancel();
    running.await.expect("it ends");
    // No dispatcher runs here. Another process would ask for nothing that was asked for already.
    let page = console.get(&format!("/redrive?id={id}&came=left")).await.text;
    assert!(page.contains("the redrive was stopped before") && page.contains("Stopped by console"), "{page}");
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
    let queued = console.post_json("/api/v1/run/wake", &open).await;
    assert!(
        queued.status == StatusCode::CONFLICT && queued.text.contains("does not wait: it is queued"),
        "{}",
        queued.text
    );
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
