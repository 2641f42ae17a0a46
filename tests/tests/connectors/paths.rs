//! Requests only go to the operation's own path, whatever its parameters contain. The test inspects the bytes sent.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use usher_connectors::{CallGate, Connector, Operation, ParamType};

use super::server::{TestServer, answer};
use super::subject::{KEY, SUBJECTS, prepare};

/// Values that a parser might read as several path segments or as something other than a segment.
const ODD: [&str; 34] = [
    ".",
    "..",
    "%2e",
    "%2E%2e",
    ".%2E",
    "%2e.",
    "%252e",
    "%25252e.",
    "./",
    "../",
    "../..",
    "a/..",
    "../a",
    "a//b",
    "/",
    "//",
    "\\",
    "..\\",
    "a\\..\\b",
    "%5c..",
    ".\t",
    "\t.\n.",
    ". ",
    " ",
    "\0.",
    "..;a",
    "%2e%2e%2f",
    "\r\nX: y",
    "..?a=b",
    "..#a",
    "a?b#c",
    "\u{ff0e}\u{ff0e}",
    "@x.test/",
    "a HTTP/1.1",
];

/// Parameters that a request cannot have beside `body`, and one whose names are fixed.
const EXCLUSIVE: [&str; 3] = ["form", "text", "basic_auth"];

/// Accepted as an answer by every connector. The objects in its lists have invalid ids.
const ANSWER: &str = r#"{"id":"..","request_id":"r","status":"subscribed","taskID":1,"unsubscribed":false,
    "data":[{"id":"..","status":"active","metadata":{}},{"id":"%2e","status":"active","metadata":{}}]}"#;

/// Returns a value for a parameter that contains `text` if its type allows.
pub(super) fn value(param: &str, shape: ParamType, text: &str) -> Value {
    match shape {
        _ if param == "status_if_new" => json!("pending"),
        // It cannot have the statuses of success.
        _ if param == "retry_on" => json!("5xx"),
        _ if param == "scheduled_at" => json!("2026-01-31T09:00:00Z"),
        // A file that is there; the texts of other tests are none.
        _ if param == "attachments" && text.bytes().all(|b| b.is_ascii_lowercase()) => json!(["main.rs"]),
        // The names are ids, and there are two values.
        _ if param == "topics" => json!({ text: "opt_out" }),
        // Must differ from the current address; otherwise no request is made for it.
        _ if param == "former_email" => json!(format!("{text}@former.test")),
        ParamType::Text | ParamType::Id | ParamType::Html | ParamType::Texts => json!(text),
        ParamType::Sender | ParamType::Mailboxes | ParamType::Email => json!(format!("{text}@work.test")),
        ParamType::Number => json!(7),
        ParamType::Flag => json!(true),
        ParamType::Json => json!(json!({ "a": text }).to_string()),
        ParamType::Table | ParamType::Record | ParamType::Selector => json!({ "a": text }),
        ParamType::Address => {
            json!(format!("https://billing.test/hook/{}/x", usher_connectors::data_placeholder(text)))
        }
        ParamType::Name => json!("billing"),
        ParamType::Literal => json!("X-Key"),
        ParamType::Choice(choices) => json!(choices[choices.len() - 1]),
        ParamType::Switch => json!(true),
        ParamType::Statuses => json!("2xx"),
        ParamType::Places => json!({ "a": "b" }),
    }
}

/// Parameters of which a mail has one half or the other: its own content, or a template of Resend's.
const CONTENTS: [[&str; 2]; 2] = [["html", "text"], ["hosted_template", "variables"]];

/// Removes what cannot be given together with the parameter `tried`.
pub(super) fn make_compatible(params: &mut Map<String, Value>, tried: &str) {
    let excluded = if CONTENTS[1].contains(&tried) { CONTENTS[0] } else { CONTENTS[1] };
    params.retain(|name, _| !excluded.contains(&name.as_str()));
}

/// An operation, and the server that it sends its requests to.
struct Asked {
    operation: &'static Operation,
    connector: Arc<dyn Connector>,
    server: TestServer,
}

impl Asked {
    /// Returns the first lines of the requests made with these parameters.
    async fn lines(&self, mut params: Map<String, Value>, id: &str, tried: &str) -> Vec<String> {
        make_compatible(&mut params, tried);
        let before = self.server.requests().len();
        let data = json!({ "object": "user", "id": id });
        if let Ok(request) = prepare(&*self.connector, self.operation.name, &Value::Object(params), &data) {
            // The result is covered by other tests.
            let _ = self.connector.attempt(&request, KEY, &CallGate::open()).await;
            let _ = self.connector.lookup(&request, KEY, &CallGate::open()).await;
        }
        let first = |request: &String| request.lines().next().unwrap_or_default().to_owned();
        self.server.requests()[before..].iter().map(first).collect()
    }

    /// Returns the parameters, all with the same text if possible.
    fn params(&self, text: &str) -> Map<String, Value> {
        let params = self.operation.params.iter().filter(|it| !EXCLUSIVE.contains(&it.name));
        params.map(|it| (it.name.into(), value(it.name, it.shape, text))).collect()
    }
}

/// Returns method and path segments of a request line.
fn place(line: &str) -> Vec<String> {
    let (method, rest) = line.split_once(' ').unwrap();
    let path = rest.strip_suffix(" HTTP/1.1").unwrap().split('?').next().unwrap();
    assert!(!path.contains(' ') && path.starts_with('/'), "{line:?}");
    let parsed = reqwest::Url::parse(&format!("http://x.test{path}")).unwrap();
    assert_eq!(parsed.path(), path, "every parser reads {line:?} as it stands");
    std::iter::once(method).chain(path.split('/').skip(1)).map(str::to_owned).collect()
}

#[tokio::test]
async fn no_value_sends_a_request_to_another_path_than_the_operations_own() {
    for subject in SUBJECTS {
        let operations = usher_connectors::spec(subject.name).unwrap().operations;
        for operation in operations {
            let case = format!("{}.{}", subject.name, operation.name);
            let server = TestServer::start(answer(200, &[], ANSWER)).await;
            let asked = Asked { operation, connector: subject.open(&server.url()), server };
            let one = asked.lines(asked.params("one"), "one", "").await;
            let two = asked.lines(asked.params("two"), "two", "").await;
            assert!(!one.is_empty(), "{case} sends something");
            // Segments that differ contain a value.
            let own: Vec<Vec<Option<String>>> = one
                .iter()
                .zip(&two)
                .map(|(one, two)| place(one).into_iter().zip(place(two)).map(|(a, b)| (a == b).then_some(a)).collect())
                .collect();
            for param in operation.params {
                for odd in ODD {
                    let case = format!("{case}, {} = {odd:?}", param.name);
                    let mut params = asked.params("plain");
                    params.insert(param.name.into(), value(param.name, param.shape, odd));
                    for line in asked.lines(params, odd, param.name).await {
                        let place = place(&line);
                        let fits = |own: &Vec<Option<String>>| {
                            own.len() == place.len()
                                && own.iter().zip(&place).all(|(own, found)| match own {
                                    Some(own) => own == found,
                                    None => !found.is_empty(),
                                })
                        };
                        assert!(own.iter().any(fits), "{case}: {line}");
                    }
                }
            }
        }
    }
}
