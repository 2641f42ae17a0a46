//! Every request is valid according to the provider's OpenAPI document: method, path, query, headers and body, for
//! every operation and parameter, including hostile values. `USHER_TEST_SPECS` names a folder with the documents
//! `resend.json`, `novu.json`, `algolia-search.yml` and `clerk-bapi-2026-05-12.yml`; the providers publish them, and they
//! are not part of this project. If the variable is not set, the tests are ignored, even with `CI` set.

mod openapi;

use std::path::Path;

use serde_json::{Map, Value, json};
use usher_connectors::CallGate;
use usher_tests::backend::setting;
use usher_tests::needs;

use self::openapi::{Document, SpecRequest};
use super::paths::{make_compatible, value};
use super::server::{TestServer, answer};
use super::subject::{KEY, prepare, subject};

/// Names and texts that may come with an event, most of them hostile.
const HOSTILE: [&str; 12] = [
    "one",
    "Zo\u{eb} \u{1f600}",
    "O'Brien \"the\" \\ <b>&amp;",
    "a\r\nBcc: eve@evil.test",
    "{{ user.email }}",
    "../..%2e?a=b#c",
    "\u{202e}\u{0}\u{7f}",
    "=1+1",
    "null",
    "12345678901234567890",
    " ",
    "https://evil.test/?a[b]=c",
];

/// Accepted as an answer by all connectors. Its list is empty, so that lookups make all their requests.
const ANSWER: &str =
    r#"{"id":"x1","status":"processed","transactionId":"t","taskID":1,"unsubscribed":false,"data":[]}"#;

async fn judged(connector: &str, file: &str) {
    let document = Document::read(&Path::new(&setting("USHER_TEST_SPECS")).join(file));
    let subject = subject(connector);
    let operations = usher_connectors::spec(connector).unwrap().operations;
    let mut judged = 0;
    // An operation may first look for an object, and create it if there is none.
    for (operation, status) in operations.iter().flat_map(|operation| [(operation, 200), (operation, 404)]) {
        let server = TestServer::start(answer(status, &[], ANSWER)).await;
        let opened = subject.open(&server.url());
        let ask = async |params: Map<String, Value>, id: &str| {
            let before = server.requests().len();
            let data = json!({ "object": "user", "id": id, "first_name": id, "updated_at": 1_767_261_600_250_i64 });
            // Values that cannot be sent are refused earlier; other tests cover that.
            if let Ok(request) = prepare(&*opened, operation.name, &Value::Object(params), &data) {
                let _ = opened.attempt(&request, KEY, &CallGate::open()).await;
                let _ = opened.lookup(&request, KEY, &CallGate::open()).await;
            }
            server.requests()[before..].to_vec()
        };
        // All parameters with one hostile value, and the required parameters alone.
        let plain = |only_required: bool| -> Map<String, Value> {
            let all = operation.params.iter().filter(|param| !only_required || param.required);
            all.map(|param| (param.name.into(), value(param.name, param.shape, "one"))).collect()
        };
        let mut cases = vec![(plain(true), "one", "what must be given".to_owned())];
        for hostile in HOSTILE {
            for param in operation.params {
                let mut params = plain(false);
                params.insert(param.name.into(), value(param.name, param.shape, hostile));
                make_compatible(&mut params, param.name);
                cases.push((params, hostile, format!("{} = {hostile:?}", param.name)));
            }
        }
        let mut sent = 0;
        for (params, id, what) in cases {
            for request in ask(params, id).await {
                let wrong = document.complaints(&SpecRequest::read(&request));
                assert!(wrong.is_empty(), "{connector}.{}, {what}: {wrong:#?}\n{request}", operation.name);
                sent += 1;
            }
        }
        assert!(sent > 0, "{connector}.{} sends something", operation.name);
        judged += sent;
    }
    assert!(judged > 20, "{connector}: {judged}");
}

#[needs(specs)]
#[tokio::test]
async fn resends_document_knows_every_request() {
    judged("resend", "resend.json").await;
}

#[needs(specs)]
#[tokio::test]
async fn novus_document_knows_every_request() {
    judged("novu", "novu.json").await;
}

#[needs(specs)]
#[tokio::test]
async fn algolias_document_knows_every_request() {
    judged("algolia", "algolia-search.yml").await;
}

#[needs(specs)]
#[tokio::test]
async fn clerks_document_knows_every_request() {
    judged("clerk", "clerk-bapi-2026-05-12.yml").await;
}
