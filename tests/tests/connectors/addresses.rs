//! Every address parameter of every operation is parsed equally strictly, whatever its source.

use serde_json::{Map, Value, json};
use usher_connectors::{Operation, ParamType};
use usher_flows::{Flow, FlowSource};
use usher_service::options::Environment;

use super::paths::make_compatible;
use super::subject::{SUBJECTS, database, prepare};

/// Values that are no address, several addresses, or an address with additional content.
const ODD: [&str; 13] = [
    "nobody",
    "@work.test",
    "dana@",
    "dana@work.test, eve@evil.test",
    "dana@work.test;eve@evil.test",
    "dana@work.test eve@evil.test",
    "Dana <dana@work.test",
    "Dana <dana@work.test>\r\nBcc: eve@evil.test",
    "Dana\r\nBcc: eve@evil.test <dana@work.test>",
    "Dana\n<eve@evil.test>\n <dana@work.test>",
    "Dana\u{2028}Eve <dana@work.test>",
    "dana@work.test\r\nBcc: eve@evil.test",
    "Dana\0 <dana@work.test>",
];
/// Additional invalid values for senders, whose names must not contain an address.
const ODD_SENDERS: [&str; 4] = [
    "Dana <dana@work.test>, Eve <eve@evil.test>",
    "dana@work.test, Eve <eve@evil.test>",
    "\"dana@work.test\" <eve@evil.test>",
    "<dana@work.test> <eve@evil.test>",
];

fn odd(shape: ParamType) -> Vec<&'static str> {
    let more = if shape == ParamType::Sender { &ODD_SENDERS[..] } else { &[] };
    ODD.iter().chain(more).copied().collect()
}

/// Returns a value that the operation accepts.
fn good(param: &str, shape: ParamType) -> Value {
    match shape {
        _ if param == "status_if_new" => json!("pending"),
        _ if param == "topics" => json!({ "a": "opt_in" }),
        _ if param == "attachments" => json!(["main.rs"]),
        _ if param == "scheduled_at" => json!("2026-01-31T09:00:00Z"),
        ParamType::Text | ParamType::Id | ParamType::Html | ParamType::Texts => json!("one"),
        ParamType::Sender | ParamType::Mailboxes => json!("Dana <dana@work.test>"),
        ParamType::Email => json!("dana@work.test"),
        ParamType::Number => json!(7),
        ParamType::Flag => json!(true),
        ParamType::Json => json!(r#"{"a":"one"}"#),
        ParamType::Table | ParamType::Record | ParamType::Selector => json!({ "a": "one" }),
        ParamType::Address => json!("https://billing.test/hook"),
        ParamType::Name | ParamType::Literal => json!("billing"),
        ParamType::Choice(choices) => json!(choices[choices.len() - 1]),
        ParamType::Switch => json!(false),
        ParamType::Statuses => json!("2xx"),
        ParamType::Places => json!({ "a": "b" }),
    }
}

fn params(operation: &Operation) -> Map<String, Value> {
    let all = operation.params.iter().map(|param| (param.name.to_owned(), good(param.name, param.shape)));
    let mut params = all.collect();
    make_compatible(&mut params, "");
    params
}

/// Returns every address parameter of every operation.
fn addresses() -> impl Iterator<Item = (&'static str, &'static Operation, &'static str, ParamType)> {
    let all = usher_connectors::operations();
    all.flat_map(|(connector, operation)| {
        let addresses = operation.params.iter().filter(move |param| {
            let is_address = matches!(param.shape, ParamType::Sender | ParamType::Mailboxes | ParamType::Email);
            let named = ["to", "from", "reply_to", "cc", "bcc", "email", "former_email"].contains(&param.name);
            assert_eq!(is_address, named, "{connector}.{}: {}", operation.name, param.name);
            is_address
        });
        addresses.map(move |param| (connector, operation, param.name, param.shape))
    })
}

fn environment() -> Environment {
    let all = SUBJECTS.iter().flat_map(|subject| subject.settings.iter().copied());
    all.fold(Environment::from_vars([("SMTP_URL", "smtp://127.0.0.1:1")]), |all, (name, value)| all.with(name, value))
}

#[tokio::test]
async fn an_address_that_is_none_or_more_than_one_is_refused_by_every_operation() {
    usher_service::telemetry::install_tls();
    let mut tried = 0;
    for (connector, operation, name, shape) in addresses() {
        let case = format!("{connector}.{}, {name}", operation.name);
        let opened = usher_connectors::open(&[connector], &environment(), database()).unwrap();
        let ask = |value: Value| {
            let mut params = params(operation);
            params.insert(name.into(), value);
            prepare(&*opened[connector], operation.name, &Value::Object(params), &Value::Null)
        };
        ask(good(name, shape)).unwrap_or_else(|error| panic!("{case}: {error}"));
        for odd in odd(shape) {
            let lists =
                if shape == ParamType::Mailboxes { vec![json!([odd]), json!(["a@work.test", odd])] } else { vec![] };
            for value in std::iter::once(json!(odd)).chain(lists) {
                let error = ask(value.clone()).expect_err(&format!("{case}: {value}")).to_string();
                assert!(error.starts_with(&format!("{name} is no address")), "{case}: {value}: {error}");
                assert!(!error.contains("evil"), "{case}: {error}");
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

/// Returns all texts in a value.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => vec![],
    }
}

#[tokio::test]
async fn a_line_end_in_a_subject_or_a_header_begins_no_other() {
    usher_service::telemetry::install_tls();
    let with_headers = |operation: &&Operation| operation.takes_template && operation.takes_headers();
    let all = usher_connectors::operations();
    let mails: Vec<_> = all.filter(|(_, operation)| with_headers(operation)).collect();
    assert_eq!(mails.len(), 3, "resend, nylas and smtp");
    for (connector, operation) in mails {
        let opened = usher_connectors::open(&[connector], &environment(), database()).unwrap();
        let ask = |subject: &str, headers: Value| {
            let mut params = params(operation);
            params.insert("subject".into(), json!(subject));
            params.insert("headers".into(), headers);
            prepare(&*opened[connector], operation.name, &Value::Object(params), &Value::Null)
        };
        let line = "Hi Dana\r\nBcc: eve@evil.test\u{85}\0";
        let request = ask(line, json!({ "X-Name": line })).unwrap_or_else(|error| panic!("{connector}: {error}"));
        let request: Value = serde_json::from_slice(&request).unwrap();
        let texts = texts(&request);
        assert!(texts.iter().any(|text| text.contains("Hi Dana")), "{connector}: {request}");
        assert!(!texts.iter().any(|text| text.contains("\nBcc")), "{connector}: {request}");
        for name in ["", "X\r\nBcc", "X: y", "X Y", "\u{e9}"] {
            let error = ask("Hi", json!({ name: "one" })).expect_err(name).to_string();
            assert!(error.contains("headers cannot set"), "{connector}: {error}");
        }
    }
}

#[test]
fn a_flow_with_an_address_that_is_none_is_refused_when_it_is_checked() {
    for (connector, operation, name, shape) in addresses() {
        let toml = |value: &str| {
            let own = params(operation);
            let given = operation.params.iter().filter(|param| own.contains_key(param.name));
            let params = given.map(|param| match param.shape {
                _ if param.name == name => format!("{name} = {}\n", json!(value)),
                _ if param.name == "topics" => "topics = { a = \"opt_in\" }\n".to_owned(),
                ParamType::Table | ParamType::Json | ParamType::Record | ParamType::Selector => {
                    format!("{} = {{ a = \"one\" }}\n", param.name)
                }
                shape => format!("{} = {}\n", param.name, good(param.name, shape)),
            });
            let step = format!("use = \"{connector}.{}\"\n{}", operation.name, params.collect::<String>());
            format!("on = [\"clerk/user.created\"]\n[[step]]\nname = \"one\"\n{step}")
        };
        let check = |value: &str| {
            let name = "test".into();
            let file = "test.toml".into();
            let templates = Default::default();
            Flow::check(FlowSource { name, file, toml: toml(value), templates })
        };
        let case = format!("{connector}.{}, {name}", operation.name);
        for good in ["dana@work.test", "{{ user.email }}", "Dana <{{ user.email }}>"] {
            assert!(check(good).is_ok(), "{case}: {good}: {:?}", check(good).err());
        }
        // TOML and JSON encode these values identically.
        for odd in odd(shape).into_iter().filter(|odd| !odd.contains(['\0', '\u{2028}'])) {
            let problems = check(odd).err().unwrap_or_else(|| panic!("{case}: {odd:?} is refused"));
            let told = problems[0].to_string();
            assert!(
                told.contains(&format!("{name} is an address such as")) && !told.contains("evil"),
                "{case}: {told}"
            );
        }
    }
}

#[tokio::test]
async fn the_senders_setting_is_read_at_the_start() {
    usher_service::telemetry::install_tls();
    for connector in ["resend", "smtp"] {
        for odd in odd(ParamType::Sender) {
            let environment = environment().with("USHER_FROM", odd);
            let error = usher_connectors::open(&[connector], &environment, database()).err().expect(odd).to_string();
            assert!(error.starts_with("USHER_FROM: it is no address such as") && !error.contains("evil"), "{error}");
        }
    }
}

/// Names come from users and may contain anything. A name is always sent as a name.
#[tokio::test]
async fn a_name_is_sent_as_a_name() {
    usher_service::telemetry::install_tls();
    for connector in ["resend", "smtp", "nylas"] {
        let opened = usher_connectors::open(&[connector], &environment(), database()).unwrap();
        let mail = json!({ "to": "Eve, eve@evil.test <dana@work.test>", "subject": "Hi", "text": "Hi" });
        let request = prepare(&*opened[connector], "send", &mail, &Value::Null).unwrap();
        let text = String::from_utf8(request).unwrap();
        let quoted = [
            r#"\"Eve, eve@evil.test\" <dana@work.test>"#,
            r#""email":"dana@work.test","name":"Eve, eve@evil.test""#,
            // The same name, base64-encoded.
            "To: =?utf-8?b?RXZlLCBldmVAZXZpbC50ZXN0?= <dana@work.test>",
        ];
        assert!(quoted.iter().any(|quoted| text.contains(quoted)), "{connector}: {text}");
    }
}
