//! Tests of requests as they arrive, and that no secret is kept of them or of what comes back.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::secret_store::form_encoded;
use super::*;
use crate::path::escape;

/// A receiver that repeats each request in its answer, and what it has received.
struct Echo {
    url: String,
    received: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    /// Starts the receiver. It answers each request with this status.
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = received.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read(&mut stream).await;
                let (head, body) = request.split_once("\r\n\r\n").unwrap_or_default();
                let answer =
                    json!({ "message": head, "echo": { "body": body, "lines": head.lines().collect::<Vec<_>>() } });
                kept.lock().expect("no panic").push(request.clone());
                let answer = answer.to_string();
                let length = answer.len();
                let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                let _ = stream.write_all(format!("{head}{answer}").as_bytes()).await;
            }
        });
        Self { url, received }
    }

    fn last(&self) -> String {
        self.received.lock().expect("no panic").last().cloned().expect("a request")
    }
}

/// Reads one request to its end.
async fn read(stream: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap_or_default();
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let length = |head: &str| {
            let line = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
            line.and_then(|length| length.trim().parse::<usize>().ok()).unwrap_or_default()
        };
        let is_whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= length(head));
        if count == 0 || is_whole {
            return text;
        }
    }
}

/// Returns a connector whose requests go to `url`, with a secret.
fn to(url: &str, secret: &str) -> HttpConnector {
    usher_service::telemetry::install_tls();
    let environment = Environment::from_vars([("HTTP_BASE_URL", url), ("SECRET_KEY", secret), (SECRET, ONE)]);
    HttpConnector::from_environment(&environment).expect("good settings")
}

/// Sends a request. Returns its stored form, the outcome, and what operators see of the answer.
async fn sent(connector: &HttpConnector, params: &Value) -> (String, Outcome, String) {
    let stored = prepare(connector, "request", params, &json!({ "id": "user_1" })).expect("a request");
    let gate = CallGate::open();
    let outcome = connector.attempt(&stored, "usher/flow/step/msg_1/0", &gate).await;
    let stored = String::from_utf8(stored).expect("JSON");
    (stored, outcome, format!("{:?}", gate.into_observed().answer))
}

#[tokio::test]
async fn a_request_arrives_as_the_flow_writes_it() {
    let echo = Echo::start(200).await;
    let connector = to(&echo.url, "sekret\"key&1");
    let key = secret_placeholder("SECRET_KEY");
    let params = json!({
        "url": format!("https://a.test/users/{}", data_placeholder("user 1")),
        "method": "PATCH",
        "query": { "q": "a b", "key": key },
        "headers": { "X-Key": format!("Bearer {key}"), "X-Name": "Nell\r\nX-Evil: 1" },
        "body": format!(r#"{{"n":12345678901234567890123,"key":"{key}"}}"#),
        "content_type": "application/vnd.api+json",
        "idempotency_header": "Idempotency-Key",
        "sign": true,
    });
    let (_, outcome, _) = sent(&connector, &params).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let request = echo.last();
    let (head, body) = request.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("PATCH /a.test/users/user%201?key=sekret%22key%261&q=a%20b HTTP/1.1\r\n"), "{head}");
    for line in [
        "x-key: Bearer sekret\"key&1",
        "x-name: Nell  X-Evil: 1",
        "content-type: application/vnd.api+json",
        "idempotency-key: usher/flow/step/msg_1/0",
        "webhook-id: usher/flow/step/msg_1/0",
    ] {
        assert!(head.lines().any(|found| found.eq_ignore_ascii_case(line) || found == line), "{line}: {head}");
    }
    assert_eq!(body, r#"{"n":12345678901234567890123,"key":"sekret\"key&1"}"#);

    let form = json!({ "url": "https://a.test/x", "form": format!(r#"{{"a":{{"b":[1]}},"key":"{key}"}}"#),
        "basic_auth": { "user": "site", "password": key } });
    let (..) = sent(&connector, &form).await;
    let request = echo.last();
    assert!(request.ends_with("\r\n\r\na%5Bb%5D%5B%5D=1&key=sekret%22key%261"), "{request}");
    assert!(request.contains("content-type: application/x-www-form-urlencoded"), "{request}");
    assert!(request.contains(&format!("Basic {}", BASE64_STANDARD.encode("site:sekret\"key&1"))), "{request}");

    let (..) = sent(&connector, &json!({ "url": "https://a.test/x", "method": "GET" })).await;
    let request = echo.last();
    assert!(request.starts_with("GET /a.test/x HTTP/1.1\r\n") && !request.contains("webhook-"), "{request}");
    assert!(!request.contains("content-type"), "{request}");
}

#[tokio::test]
async fn a_long_key_is_sent_as_its_digest() {
    let echo = Echo::start(200).await;
    let connector = to(&echo.url, "sekretkey");
    let params = json!({ "url": "https://a.test/x", "idempotency_header": "Idempotency-Key" });
    let stored = prepare(&connector, "request", &params, &Value::Null).expect("a request");
    let _ = connector.attempt(&stored, &"k".repeat(101), &CallGate::open()).await;
    let request = echo.last();
    let line = request.lines().find(|line| line.starts_with("idempotency-key: usher-")).expect("a header");
    assert_eq!(line.len(), "idempotency-key: usher-".len() + 64);
}

#[tokio::test]
async fn later_steps_have_the_fields_that_the_flow_names() {
    let url = crate::testing::serve(vec![(200, "x: y", r#"{"id":7,"text":"Hello\nNell","more":[1,2]}"#)]).await;
    let connector = to(&url, "sekretkey");
    let result = async |params: Value| match sent(&connector, &params).await.1 {
        Outcome::Done(effect) => (effect.id, effect.result),
        other => panic!("{other:?}"),
    };
    let all = json!({ "id": "7", "text": "Hello\nNell", "more": [1, 2] });
    assert_eq!(result(json!({ "url": "https://a.test/x" })).await, ("7".into(), all));
    let named = json!({ "url": "https://a.test/x", "answer": { "text": "text", "second": "/more/1" } });
    let id = "usher/flow/step/msg_1/0";
    assert_eq!(result(named).await, (id.into(), json!({ "text": "Hello\nNell", "second": 2, "id": id })));
}

#[tokio::test]
async fn a_secret_that_is_gone_or_not_set_is_told_by_its_name() {
    let connector = with([("SECRET_KEY", "sekretkey")]);
    let params = json!({ "url": "https://a.test/x", "headers": { "X-Key": secret_placeholder("SECRET_KEY") } });
    let stored = prepare(&connector, "request", &params, &Value::Null).expect("a request");
    let outcome = with([]).attempt(&stored, "key", &CallGate::open()).await;
    assert_eq!(outcome, Outcome::reject(Reason::Configuration, "SECRET_KEY: not set"));

    let used = StepUse { flow: "f", step: "tell", operation: "request", params: &Default::default() };
    let params = json!({ "url": "{{ secret.SLACK_URL }}", "headers": { "X-Key": "Bearer {{ secret.SECRET_KEY }}" } });
    let used = StepUse { params: params.as_object().expect("a table"), ..used };
    let error = connector.check(&[used]).await.expect_err("not set").to_string();
    assert_eq!(error, "SLACK_URL: not set; step tell of flow f uses it as a secret");
    let plain = with([("SLACK_URL", "http://hooks.test/x"), ("SECRET_KEY", "sekretkey")]);
    let error = plain.check(&[used]).await.expect_err("without TLS").to_string();
    assert!(error.starts_with("flow f, step tell, url: url is http://") && !error.contains("hooks.test"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the secret and wherever it stands: it arrives, and neither the stored request nor anything of the answer has
    /// it, although the receiver repeats the whole request.
    #[test]
    fn no_secret_is_kept(secret in "[!-~\u{e9}]([ -~\u{e9}]{10,40})[!-~\u{e9}]", in_path in "[A-Za-z0-9_-]{12,40}", status in prop_oneof![Just(200_u16), Just(401), Just(503)]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let echo = Echo::start(status).await;
            let connector = to(&echo.url, &secret);
            let placed = secret_placeholder("SECRET_KEY");
            for params in [
                json!({ "url": "https://a.test/x", "headers": { "X-Key": format!("Bearer {placed}") } }),
                json!({ "url": "https://a.test/x", "query": { "key": placed } }),
                json!({ "url": "https://a.test/x", "basic_auth": { "user": placed } }),
                json!({ "url": "https://a.test/x", "basic_auth": { "user": "site", "password": placed } }),
                json!({ "url": "https://a.test/x", "body": format!(r#"{{"key":"a {placed}"}}"#) }),
                json!({ "url": "https://a.test/x", "form": format!(r#"{{"key":"a {placed}"}}"#) }),
                json!({ "url": "https://a.test/x", "text": format!("a {placed}"), "answer": { "all": "" } }),
            ] {
                check(&connector, &echo, &params, &secret).await;
            }
            let connector = to(&echo.url, &format!("https://hooks.test/services/{in_path}"));
            let params = json!({ "url": placed });
            check(&connector, &echo, &params, &in_path).await;
        });
    }
}

async fn check(connector: &HttpConnector, echo: &Echo, params: &Value, secret: &str) {
    let forms = [
        secret.to_owned(),
        Value::from(secret).to_string().trim_matches('"').to_owned(),
        escape(secret),
        form_encoded(secret),
        BASE64_STANDARD.encode(format!("{secret}:")),
        BASE64_STANDARD.encode(format!("site:{secret}")),
    ];
    let (stored, outcome, seen) = sent(connector, params).await;
    let mut kept = stored;
    let _ = write!(kept, "{outcome:?}{seen}");
    if let Outcome::Done(effect) = &outcome {
        kept.push_str(&effect.result.to_string());
    }
    let arrived = echo.last();
    assert!(forms.iter().any(|form| arrived.contains(form)), "{params}: {arrived}");
    for form in &forms {
        assert!(!kept.contains(form), "{params}: {form:?} is in {kept}");
    }
}
