//! Tests of what templates and expressions render to.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::FlowSource;

/// Returns the parameters of an operation as TOML, each with the same text in it where its type allows that.
fn everywhere(operation: &usher_connectors::Operation, text: &str) -> String {
    let value = |param: &usher_connectors::Param| match param.shape {
        ParamType::Number => "7".to_owned(),
        ParamType::Flag => "true".to_owned(),
        ParamType::Table | ParamType::Json | ParamType::Record | ParamType::Selector => {
            format!("{{ a = \"{text}\" }}")
        }
        ParamType::Texts | ParamType::Mailboxes => format!("[\"{text}\"]"),
        ParamType::Address => "\"https://a.test/x\"".to_owned(),
        ParamType::Name | ParamType::Literal => "\"billing\"".to_owned(),
        ParamType::Choice(choices) => format!("\"{}\"", choices[0]),
        ParamType::Switch => "true".to_owned(),
        ParamType::Statuses => "[\"2xx\"]".to_owned(),
        ParamType::Places => "{ a = \"b\" }".to_owned(),
        ParamType::Text | ParamType::Id | ParamType::Html | ParamType::Sender | ParamType::Email => {
            format!("\"{text}\"")
        }
    };
    operation.params.iter().map(|param| format!("{} = {}\n", param.name, value(param))).collect()
}

#[test]
fn what_is_html_is_escaped_in_every_operation_and_nothing_else_is() {
    let name = r#"<a href="x">&'"#;
    let context = Context::of(json!({ "user": { "name": name, "list": [name] } }));
    let mut escaped = Vec::new();
    for usher_connectors::ConnectorSpec { name: connector, operations, .. } in usher_connectors::CONNECTORS {
        for operation in *operations {
            let rendered = |text: &str| {
                let step = format!("use = \"{connector}.{}\"\n{}", operation.name, everywhere(operation, text));
                let toml = format!("on = [\"clerk/user.updated\"]\n[[step]]\nname = \"one\"\n{step}");
                let name = "test".to_owned();
                let file = "test.toml".to_owned();
                let source = FlowSource { name, file, toml, templates: BTreeMap::new() };
                let flow = Flow::read(source).unwrap_or_else(|problems| panic!("{problems:?}"));
                let super::super::Action::Call(call) = &flow.steps[0].action else { panic!("a call") };
                render(&flow, call, &context).expect("it renders")
            };
            for text in ["{{ user.name }}", "{% for name in user.list %}{{ name }}{% endfor %}"] {
                for (param, value) in rendered(text) {
                    let is_html = param.contains("html");
                    // A parameter of type JSON is rendered to a text.
                    let json = value.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
                    let value = json.map_or(value, Value::Object);
                    let inner = match &value {
                        Value::Object(fields) => &fields["a"],
                        Value::Array(items) => &items[0],
                        other => other,
                    };
                    let Some(inner) = inner.as_str().filter(|inner| inner.contains("href")) else { continue };
                    assert_eq!(inner != name, is_html, "{connector}.{}: {param}: {inner}", operation.name);
                    if is_html {
                        assert_eq!(inner, "&lt;a href=&quot;x&quot;&gt;&amp;&#x27;");
                        escaped.push(*connector);
                    }
                }
            }
            assert!(rendered("{{ user.name | safe }}").get("html").is_none_or(|html| html == name));
        }
    }
    escaped.dedup();
    assert_eq!(escaped, ["resend", "smtp", "nylas"]);
}

/// A number stays a number in a parameter of any JSON, and is a string in one that selects the affected objects.
#[test]
fn one_expression_keeps_its_type_only_where_any_json_is_sent() {
    let context = Context::of(json!({ "user": { "public_metadata": { "n": 7 } } }));
    let rendered = |step: &str| {
        let toml = format!("on = [\"clerk/user.updated\"]\n[[step]]\n{step}");
        let name = "test".to_owned();
        let file = "test.toml".to_owned();
        let flow = Flow::read(FlowSource { name, file, toml, templates: BTreeMap::new() }).expect("it can run");
        let super::super::Action::Call(call) = &flow.steps[0].action else { panic!("a call") };
        Value::Object(render(&flow, call, &context).expect("it renders"))
    };
    let n = "{ n = \"{{ user.public_metadata.n }}\" }";
    let body = rendered(&format!("use = \"http.post\"\nurl = \"https://a.test/x\"\nbody = {n}"));
    assert_eq!(body["body"], r#"{"n":7}"#);
    for operation in ["cancel_subscriptions", "delete_customer", "create_customer"] {
        let metadata = rendered(&format!("use = \"stripe.{operation}\"\nmetadata = {n}"));
        assert_eq!(metadata["metadata"], json!({ "n": "7" }), "{operation}");
    }
}

#[test]
fn what_comes_out_empty_is_left_out_and_emptied_where_it_is_written_over() {
    let toml = r#"
on = ["clerk/user.updated"]
[[step]]
name = "index"
use = "algolia.save"
object_id = "{{ event.data.id }}"
index = "{{ user.none }}"
fields = { name = "{{ user.name }}", nick = "{{ user.nick }}" }
[[step]]
name = "tell"
use = "http.post"
url = "https://a.test/x"
body = { name = "{{ user.name }}", nick = "{{ user.nick }}" }
"#;
    let source =
        FlowSource { name: "test".into(), file: "test.toml".into(), toml: toml.into(), templates: BTreeMap::new() };
    let flow = Flow::read(source).expect("it can run");
    let context = Context::of(json!({
        "user": { "name": "Ann", "nick": null, "none": null }, "event": { "data": { "id": "user_1" } },
    }));
    let rendered = |step: usize| {
        let super::super::Action::Call(call) = &flow.steps[step].action else { panic!("a call") };
        Value::Object(render(&flow, call, &context).expect("it renders"))
    };
    assert_eq!(rendered(0), json!({ "object_id": "user_1", "fields": { "name": "Ann", "nick": null } }));
    assert_eq!(rendered(1)["body"], r#"{"name":"Ann"}"#);
}

fn context(user: &str) -> Context {
    let user = usher_proto::Json::read(user).expect("JSON");
    Context::of_texts(&[("user", user.as_str()), ("event", r#"{"type":"user.created","data":{}}"#)])
}

fn holds(expression: &str, context: &Context) -> Result<bool, String> {
    let value = evaluate(expression, context).map_err(|error| error.to_string())?;
    Ok(value.is_some_and(|value| value.is_true()))
}

fn printed(template: &str, context: &Context) -> Result<String, String> {
    let value = Value::from(template);
    let text = render_value("text", &value, ParamType::Text, context).map_err(|error| error.to_string())?;
    Ok(text.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default())
}

const METADATA: [&str; 3] = ["public_metadata", "private_metadata", "unsafe_metadata"];

#[test]
fn absent_metadata_is_null_at_every_depth() {
    for metadata in METADATA {
        for user in [
            "{}".to_owned(),
            format!(r#"{{"{metadata}":null}}"#),
            format!(r#"{{"{metadata}":{{}}}}"#),
            format!(r#"{{"{metadata}":{{"plan":null}}}}"#),
            format!(r#"{{"{metadata}":[]}}"#),
            format!(r#"{{"{metadata}":7}}"#),
        ] {
            for path in ["plan", "plan.tier", "plan.tier.name", "plan['tier']", "plan[0]", "plan.tier[0].name"] {
                let value = format!("user.{metadata}.{path}");
                for (expression, expected) in [
                    ("X == 'pro'", false),
                    ("X != 'pro'", true),
                    ("X == true", false),
                    ("X is none", true),
                    ("X == none", true),
                    ("X > 5", false),
                    ("X >= 5", false),
                    ("X < 5", false),
                    ("X <= 5", false),
                    ("5 > X", false),
                    ("5 < X", false),
                    ("'a' > X", false),
                    ("'beta' in X", false),
                    ("'beta' not in X", true),
                    ("X in ['pro', 'team']", false),
                    ("X", false),
                    ("not X", true),
                    ("X or user", user != "{}"),
                    ("(X or 'free') == 'free'", true),
                    ("X | default('free') == 'free'", true),
                    ("X == 'pro' or X == 'team'", false),
                    ("'a' if X == 'pro' else ''", false),
                ] {
                    let expression = expression.replace('X', &value);
                    assert_eq!(holds(&expression, &context(&user)), Ok(expected), "{user}: {expression}");
                }
                for (template, expected) in [
                    ("a{{ X }}b", "ab"),
                    ("{{ X | tojson }}", "null"),
                    ("{% if X == 'pro' %}yes{% else %}no{% endif %}", "no"),
                    ("{% for item in X %}{{ item }}{% endfor %}", ""),
                    ("{% if 'beta' in X %}yes{% endif %}", ""),
                ] {
                    let template = template.replace('X', &value);
                    assert_eq!(printed(&template, &context(&user)).as_deref(), Ok(expected), "{user}: {template}");
                }
            }
        }
    }
}

#[test]
fn metadata_that_is_there_counts_as_what_it_is() {
    let user = r#"{"unsafe_metadata":{"newsletter":true,"age":30,"plan":{"tier":"pro"},"tags":["beta",{"a":1}]}}"#;
    for (expression, expected) in [
        ("user.unsafe_metadata.newsletter == true", true),
        ("user.unsafe_metadata.age > 18 and user.unsafe_metadata.age < 31", true),
        ("user.unsafe_metadata.age >= 31", false),
        ("user.unsafe_metadata.plan.tier in ['pro']", true),
        ("'beta' in user.unsafe_metadata.tags", true),
        ("user.unsafe_metadata.tags[1].a == 1", true),
        ("user.unsafe_metadata.tags | length == 2", true),
        ("'plan' in user.unsafe_metadata", true),
        ("'plans' in user.unsafe_metadata", false),
        ("user.unsafe_metadata.plan == {'tier': 'pro'}", true),
        ("user.public_metadata is none", true),
    ] {
        assert_eq!(holds(expression, &context(user)), Ok(expected), "{expression}");
    }
}

#[test]
fn a_misspelt_name_elsewhere_is_still_an_error() {
    let context = context(r#"{"email":"a@b.test","public_metadata":{}}"#);
    for expression in
        ["user.emial == 'x'", "user.emial > 5", "'x' in user.emial", "user.emial in ['x']", "user.public_metdata.a"]
    {
        assert!(holds(expression, &context).is_err(), "{expression}");
    }
    assert!(printed("{{ user.emial }}", &context).is_err());
    // An expression may test if a name exists.
    assert_eq!(holds("user.emial", &context), Ok(false));
    assert_eq!(holds("user.emial is defined", &context), Ok(false));
}

#[test]
fn what_is_printed_as_json_keeps_its_bytes() {
    let metadata = r#"{"z": 117.63331139400017,"e":9007199254740991.0, "huge":1e400,"half":"\ud83d","it":"it's <b>"}"#;
    let context = context(&format!(r#"{{"public_metadata":{metadata}}}"#));
    let sent = metadata.replace("ud83d", "ufffd");
    for (template, expected) in [
        ("{{ user.public_metadata | tojson }}", sent.as_str()),
        ("{{ user.public_metadata.huge | tojson }}", "1e400"),
        ("{{ user.public_metadata.huge }}", "1e400"),
        ("{{ user.public_metadata.e }}", "9007199254740991.0"),
        ("{{ user.public_metadata.half }}", "\u{fffd}"),
        ("{{ [user.public_metadata.z, 'a'] | tojson }}", "[117.63331139400017, \"a\"]"),
        ("{{ {'m': user.public_metadata} | tojson }}", &format!("{{\"m\": {sent}}}")),
    ] {
        assert_eq!(printed(template, &context).as_deref(), Ok(expected), "{template}");
    }
    assert_eq!(holds("user.public_metadata.huge > 5", &context), Ok(true));
    let html = environment().render_named_str("x.html", "{{ user.public_metadata | tojson }}", context.rendered());
    assert!(html.is_ok_and(|html| html.contains("it\\u0027s \\u003cb\\u003e") && html.contains("1e400")));
}

#[test]
fn no_depth_and_no_type_of_what_is_not_asked_for_matters() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let context = context(&format!(r#"{{"first_name":"Ann","public_metadata":{{"deep":{deep},"plan":"pro"}}}}"#));
    assert_eq!(printed("{{ user.first_name }}", &context).as_deref(), Ok("Ann"));
    assert_eq!(holds("user.public_metadata.plan == 'pro'", &context), Ok(true));
    assert!(printed("{{ user.public_metadata | tojson }}", &context).is_ok_and(|text| text.contains(&deep)));
    assert!(printed("{{ user | tojson(indent=1) }}", &context).is_ok_and(|text| text.contains("[[")));
}

#[test]
fn a_text_without_tags_is_what_the_engine_makes_of_it() {
    for text in [
        "",
        "Hello",
        "\n",
        "a\n",
        "a\n\n",
        "a\r\n",
        "a\r",
        "a\n\r\n",
        "{ } %} }} #}",
        "a{",
        "{\n{",
        "\u{e4}\u{1f600}\n",
    ] {
        let rendered = environment().render_named_str(TEXT, text, ()).expect("it renders");
        assert_eq!(literal(text), Some(rendered.as_str()), "{text:?}");
    }
    for text in ["{{ 1 }}", "a{% if true %}b{% endif %}", "{# c #}", "\u{e4}{{ 1 }}"] {
        assert_eq!(literal(text), None, "{text:?}");
    }
}

#[test]
fn an_id_that_comes_out_empty_is_null_and_selects_nothing_else() {
    let toml = "on = [\"clerk/user.updated\"]\n[[step]]\nuse = \"stripe.update_customer\"\n\
                customer = \"{{ user.public_metadata.customer }}\"\nemail = \"{{ user.public_metadata.email }}\"\n";
    let source = FlowSource { name: "f".into(), file: "f.toml".into(), toml: toml.into(), templates: BTreeMap::new() };
    let flow = Flow::read(source).expect("it can run");
    let crate::Action::Call(call) = &flow.steps[0].action else { panic!("a call") };
    let context = Context::of(json!({ "user": { "public_metadata": {} } }));
    let rendered = render(&flow, call, &context).expect("it renders");
    assert_eq!(Value::Object(rendered), json!({ "customer": null }), "an empty address is left out");
}

#[test]
fn a_secret_is_rendered_as_its_place_and_data_in_an_address_apart_from_it() {
    let toml = r#"
on = ["clerk/user.updated"]
[[step]]
use = "http.request"
url = "https://a.test/{{ secret.SLACK_PATH }}/users/{{ user.id }}/{{ user.first_name | lower }}"
headers = { Authorization = "Bearer {{ secret.LOOPS_KEY }}" }
body = { key = "{{ secret.LOOPS_KEY }}", id = "{{ user.id }}" }
"#;
    let source =
        FlowSource { name: "test".into(), file: "test.toml".into(), toml: toml.into(), templates: BTreeMap::new() };
    let flow = Flow::read(source).expect("it can run");
    let super::super::Action::Call(call) = &flow.steps[0].action else { panic!("a call") };
    let hostile = "{{ secret.LOOPS_KEY }}";
    let context = Context::of(json!({ "user": { "id": hostile, "first_name": "A/B" } }));
    let rendered = render(&flow, call, &context).expect("it renders");
    let secret = usher_connectors::secret_placeholder;
    let data = usher_connectors::data_placeholder;
    let url = format!("https://a.test/{}/users/{}/{}", secret("SLACK_PATH"), data(hostile), data("a/b"));
    assert_eq!(rendered["url"], url);
    assert_eq!(rendered["headers"]["Authorization"], format!("Bearer {}", secret("LOOPS_KEY")));
    let body = serde_json::from_str::<Value>(rendered["body"].as_str().expect("a text")).expect("JSON");
    assert_eq!(body, json!({ "key": secret("LOOPS_KEY"), "id": hostile }));
    let error = evaluate("secret.LOOPS_KEY", &context).expect_err("not known elsewhere");
    assert_eq!(error.what, "there is no secret");
}

#[test]
fn a_flag_is_true_or_false_and_a_text_that_is_cleared_is_null() {
    let of = |step: &str, user: Value| {
        let toml = format!("on = [\"clerk/user.updated\"]\n[[step]]\nname = \"one\"\n{step}");
        let (name, file) = ("test".to_owned(), "test.toml".to_owned());
        let flow = Flow::read(FlowSource { name, file, toml, templates: BTreeMap::new() }).expect("it reads");
        let super::super::Action::Call(call) = &flow.steps[0].action else { panic!("a call") };
        render(&flow, call, &Context::of(json!({ "user": user }))).map_err(|error| error.to_string())
    };
    let contact = "use = \"resend.put_contact\"\nemail = \"a@b.test\"\nunsubscribed = ";
    for (written, user, expected) in [
        ("true", json!({}), Some(json!(true))),
        ("\"{{ user.left }}\"", json!({ "left": false }), Some(json!(false))),
        ("\"{{ not user.left }}\"", json!({ "left": false }), Some(json!(true))),
        ("\"{{ user.left }}\"", json!({ "left": null }), None),
    ] {
        let params = of(&format!("{contact}{written}"), user).expect("it renders");
        assert_eq!(params.get("unsubscribed"), expected.as_ref(), "{written}");
    }
    let error =
        of(&format!("{contact}\"{{{{ user.left }}}}\""), json!({ "left": "dana@work.test" })).expect_err("a text");
    assert!(
        error.starts_with("unsubscribed: the result is neither true nor false") && !error.contains("dana"),
        "{error}"
    );

    let subscriber = "use = \"novu.put_subscriber\"\nsubscriber_id = \"u\"\nphone = \"{{ user.phone }}\"";
    assert_eq!(of(subscriber, json!({ "phone": null })).expect("it renders")["phone"], Value::Null);
    let trigger = "use = \"novu.trigger\"\nworkflow = \"w\"\nsubscriber_id = \"u\"\nphone = \"{{ user.phone }}\"";
    assert!(!of(trigger, json!({ "phone": null })).expect("it renders").contains_key("phone"), "left out");
}
