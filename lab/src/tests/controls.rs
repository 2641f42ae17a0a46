//! The lab's own HTTP interface.

use axum::http::Method;
use serde_json::{Value, json};

use super::support::{LabBench, LabReply, mail};

async fn ask(bench: &LabBench, method: Method, path: &str, body: &str) -> LabReply {
    bench.ask(method, path, &[], body).await
}

async fn get(bench: &LabBench, path: &str) -> LabReply {
    ask(bench, Method::GET, path, "").await
}

fn seqs(list: &Value) -> Vec<u64> {
    list.as_array().expect("a list").iter().filter_map(|entry| entry["seq"].as_u64()).collect()
}

#[tokio::test]
async fn an_effect_has_the_documented_fields() {
    let bench = LabBench::new().await;
    bench.mail("k1", &mail("a@work.test")).await;
    let effects = get(&bench, "/effects").await;
    assert_eq!(effects.header("content-type"), Some("application/json"));
    let effect = effects.body[0].as_object().expect("an effect").clone();
    let fields = ["seq", "at", "provider", "operation", "idempotency_key", "replayed", "status", "user", "to", "body"];
    for field in fields.iter().chain(&["result"]) {
        assert!(effect.contains_key(*field), "{field}");
    }
    assert_eq!(effect.len(), fields.len() + 1);
    assert!(effect["at"].as_str().is_some_and(|at| at.ends_with('Z') && at.len() == 24), "{}", effect["at"]);

    let requests = get(&bench, "/requests").await;
    assert_eq!(requests.body[0].as_object().map(serde_json::Map::len), Some(fields.len()));
}

#[tokio::test]
async fn effects_are_filtered_and_forgotten_while_objects_stay() {
    let bench = LabBench::new().await;
    let made = bench.post("/v1/customers", "k1", "name=Dana").await;
    bench.mail("k1", &mail("a@work.test")).await;
    bench.mail("k2", &mail("a@work.test")).await;
    bench.mail("", &mail("")).await;
    assert_eq!(seqs(&get(&bench, "/effects").await.body), [1, 2, 3]);
    assert_eq!(seqs(&get(&bench, "/effects?provider=resend").await.body), [2, 3]);
    assert_eq!(seqs(&get(&bench, "/effects?provider=resend&key=k1").await.body), [2]);
    assert_eq!(seqs(&get(&bench, "/effects?since=2").await.body), [3]);
    assert_eq!(seqs(&get(&bench, "/requests?provider=resend").await.body), [2, 3, 4]);

    assert_eq!(ask(&bench, Method::DELETE, "/effects", "").await.status, 204);
    assert_eq!(get(&bench, "/effects").await.body, json!([]));
    assert_eq!(get(&bench, "/requests").await.body, json!([]));
    assert_eq!(bench.post("/v1/customers", "k1", "name=Dana").await.body, made.body);
    assert_eq!(seqs(&get(&bench, "/effects").await.body), [4]);
}

#[tokio::test]
async fn a_fault_is_set_shown_and_ended() {
    let bench = LabBench::new().await;
    assert_eq!(get(&bench, "/faults/resend").await.body, Value::Null);
    let body = r#"{"status":503,"for_seconds":30,"retry_after":2,"match":"dana"}"#;
    let set = ask(&bench, Method::PUT, "/faults/resend", body).await;
    assert_eq!((set.status, &set.body["status"], &set.body["share"]), (200, &json!(503), &json!(1.0)));
    assert_eq!((&set.body["match"], &set.body["struck"]), (&json!("dana"), &json!(0)));
    bench.mail("", &mail("dana@work.test")).await;
    assert_eq!(get(&bench, "/faults/resend").await.body["struck"], 1);
    assert_eq!(get(&bench, "/faults/stripe").await.body, Value::Null);
    assert_eq!(ask(&bench, Method::DELETE, "/faults/resend", "").await.status, 204);
    assert_eq!(get(&bench, "/faults/resend").await.body, Value::Null);
    assert_eq!(bench.mail("", &mail("dana@work.test")).await.status, 200);
}

#[tokio::test]
async fn several_faults_are_set_shown_and_ended_together() {
    let bench = LabBench::new().await;
    let body = r#" [{"status":503,"match":"dana"}, {"status":429,"match":"lee"}]"#;
    let set = ask(&bench, Method::PUT, "/faults/resend", body).await;
    assert_eq!((set.status, &set.body[0]["status"], &set.body[1]["status"]), (200, &json!(503), &json!(429)));
    let sent = async |to: &str| bench.mail("", &mail(to)).await.status;
    assert_eq!(
        [sent("dana@work.test").await, sent("lee@work.test").await, sent("ann@work.test").await],
        [503, 429, 200]
    );
    let shown = get(&bench, "/faults/resend").await;
    assert_eq!((&shown.body[0]["struck"], &shown.body[1]["struck"]), (&json!(1), &json!(1)));
    assert_eq!(ask(&bench, Method::PUT, "/faults/resend", "[]").await.body, Value::Null);
    assert_eq!(sent("dana@work.test").await, 200);
}

#[tokio::test]
async fn a_double_that_has_forgotten_its_keys_does_it_again() {
    let bench = LabBench::new().await;
    for key in ["k1", "k1"] {
        bench.mail(key, &mail("a@work.test")).await;
        bench.post("/v1/customers", key, "name=Dana").await;
    }
    let done = || bench.effects().iter().filter(|effect| !effect.replayed).count();
    assert_eq!(done(), 2);
    assert_eq!(ask(&bench, Method::DELETE, "/keys/resend", "").await.status, 204);
    bench.mail("k1", &mail("a@work.test")).await;
    bench.post("/v1/customers", "k1", "name=Dana").await;
    assert_eq!(done(), 3);
}

#[tokio::test]
async fn a_limit_is_set_shown_and_ended() {
    let bench = LabBench::new().await;
    assert_eq!(get(&bench, "/limits/stripe").await.body, Value::Null);
    let set = ask(&bench, Method::PUT, "/limits/stripe", r#"{"per_second":10}"#).await;
    assert_eq!((set.status, set.body), (200, json!({"per_second": 10})));
    assert_eq!(get(&bench, "/limits/stripe").await.body, json!({"per_second": 10}));
    assert_eq!(ask(&bench, Method::DELETE, "/limits/stripe", "").await.status, 204);
    assert_eq!(get(&bench, "/limits/stripe").await.body, Value::Null);
}

#[tokio::test]
async fn bad_controls_say_what_would_be_right() {
    let bench = LabBench::new().await;
    let cases = [
        (Method::PUT, "/faults/resend", r#"{"status":200}"#, 400, "400 to 599"),
        (Method::PUT, "/faults/resend", r#"{"statsu":503}"#, 400, "drop_after_effect"),
        (Method::PUT, "/faults/resend", "{}", 400, "give status, latency_ms, hang or drop_after_effect"),
        (Method::PUT, "/faults/resend", "", 400, "EOF"),
        (Method::PUT, "/faults/resend", r#"[{"status":503},{"statsu":503}]"#, 400, "drop_after_effect"),
        (Method::DELETE, "/keys/mailgun", "", 404, "resend or"),
        (Method::PUT, "/limits/resend", r#"{"per_second":0}"#, 400, "1 to"),
        (Method::PUT, "/limits/resend", r#"{"per_minute":9}"#, 400, "per_second"),
        (Method::PUT, "/faults/mailgun", "", 404, "resend or"),
        (Method::GET, "/limits/mailgun", "", 404, "resend or"),
        (Method::GET, "/effects?provider=mailgun", "", 404, "resend or"),
        (Method::GET, "/effects?since=yesterday", "", 400, "since"),
        (Method::GET, "/effects?user=user_1", "", 400, "provider"),
        (Method::POST, "/mailgun/v3/messages", "", 404, "resend or"),
    ];
    for (method, path, body, status, says) in cases {
        let reply = ask(&bench, method, path, body).await;
        let message = reply.body["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(reply.status, status, "{path} {body}");
        assert!(message.contains(says), "{path} {body}: {message}");
        assert!(reply.body["error"]["code"].is_string());
    }
}

#[tokio::test]
async fn the_front_page_lists_what_there_is() {
    let bench = LabBench::new().await;
    let page = get(&bench, "/").await;
    assert_eq!(page.body["doubles"]["resend"], json!("/resend"));
    assert_eq!(page.body["doubles"]["smtp"], "on a port of its own");
    assert_eq!(page.body["doubles"].as_object().map(serde_json::Map::len), Some(bench.lab().providers().len()));
    assert_eq!(get(&bench, "/healthz").await.status, 200);
}
