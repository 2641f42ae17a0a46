//! Rendering a step's parameters, templates and expressions.
//!
//! Undefined names are errors, so that a misspelt name is noticed. A null renders as nothing, and absent values below
//! metadata are null. Functions that depend on the clock or on chance are not offered, because a request that is
//! rendered again must be the same.

use minijinja::value::ValueKind;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value as Rendered, escape_formatter,
};
use serde_json::{Map, Value};

mod json;

use usher_connectors::ParamType;

use super::context::Sight;
use super::pieces::whole;
use super::{Call, Context, Flow, functions, greeting, nulls};

/// A template or an expression could not be rendered for this event. The text names the place, not the values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Unrenderable {
    /// The parameter, template or expression.
    pub place: String,
    /// The problem, without values of the event.
    pub what: String,
}

/// Message about a table or list in a place where a string is rendered.
const NO_TEXT: &str = "a table or a list is no text: write | tojson, or | join(', ')";

impl Unrenderable {
    /// Creates the error. `names` are the names that the text uses.
    fn new(place: &str, error: &Error, context: &Context, names: impl IntoIterator<Item = String>) -> Self {
        let place = place.to_owned();
        if error.kind() == ErrorKind::UndefinedError {
            let mut names: Vec<String> = names.into_iter().collect();
            names.sort();
            if let Some(what) = names.iter().find_map(|name| missing(context, name)) {
                return Self { place, what };
            }
        }
        if error.detail() == Some(NO_TEXT) {
            return Self { place, what: NO_TEXT.to_owned() };
        }
        // The detail of an error may quote a value, which may be personal; its kind never does.
        let line = error.line().map_or_else(String::new, |line| format!(" in line {line}"));
        Self { place, what: format!("{}{line}", error.kind()) }
    }
}

/// Returns a message such as `user has no emial` if the name does not exist. Names come from the flow's file, so they
/// are not personal data.
fn missing(context: &Context, name: &str) -> Option<String> {
    match context.look(name) {
        Sight::Missing { owner, field, .. } if owner.is_empty() => Some(format!("there is no {field}")),
        Sight::Missing { owner, field, .. } => Some(format!("{owner} has no {field}")),
        Sight::There(_) | Sight::Open => None,
    }
}

/// Suffix of the names of templates whose result is HTML.
const HTML: &str = ".html";
/// Name of unnamed templates whose result is not HTML.
const TEXT: &str = ".txt";

/// Returns the environment that renders all templates and expressions of a flow.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_formatter(|out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Rendered| match value.kind() {
        ValueKind::None => Ok(()),
        // It would be rendered in the engine's debug notation, with all its content.
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => Err(Error::new(ErrorKind::InvalidOperation, NO_TEXT)),
        _ => escape_formatter(out, state, value),
    });
    environment.add_filter(greeting::FILTER, |value: Rendered| greeting::as_name(&value));
    functions::add_to(&mut environment);
    environment.set_auto_escape_callback(|name| if name.ends_with(HTML) { AutoEscape::Html } else { AutoEscape::None });
    environment
}

/// Evaluates an expression. Returns `None` if its value is undefined, null or an empty string.
///
/// # Errors
///
/// The expression cannot be evaluated, for example because it uses an undefined name.
pub fn evaluate(expression: &str, context: &Context) -> Result<Option<Rendered>, Unrenderable> {
    evaluate_at(&environment(), expression, expression, &nulls::expression(expression), context)
}

fn evaluate_at(
    environment: &Environment<'_>,
    place: &str,
    expression: &str,
    rewritten: &str,
    context: &Context,
) -> Result<Option<Rendered>, Unrenderable> {
    // The names are taken from the original expression, as it stands in the flow's file.
    let names =
        || environment.compile_expression(expression).map(|it| it.undeclared_variables(true)).unwrap_or_default();
    let compiled = environment
        .compile_expression(rewritten)
        .map_err(|error| Unrenderable::new(place, &error, context, Vec::new()))?;
    let value =
        compiled.eval(context.rendered()).map_err(|error| Unrenderable::new(place, &error, context, names()))?;
    let empty = value.is_undefined() || value.is_none() || value.as_str() == Some("");
    Ok((!empty).then_some(value))
}

fn render_text(
    environment: &Environment<'_>,
    place: &str,
    kind: &str,
    template: &str,
    context: &Context,
) -> Result<String, Unrenderable> {
    let names = || environment.template_from_str(template).map(|it| it.undeclared_variables(true)).unwrap_or_default();
    let rewritten = nulls::template(template);
    // The environment selects the escaping by the template's name.
    let compiled = environment
        .template_from_named_str(kind, &rewritten)
        .map_err(|error| Unrenderable::new(place, &error, context, Vec::new()))?;
    compiled.render(context.rendered()).map_err(|error| Unrenderable::new(place, &error, context, names()))
}

/// Renders the parameters of a call, and `html` and `text` if it uses a template. A string that is rendered empty
/// is omitted, or null in a [`ParamType::Record`] and a [`ParamType::Selector`]. A [`ParamType::Json`] is returned
/// as JSON text.
///
/// # Errors
///
/// A parameter or template cannot be rendered for this event.
pub fn render(flow: &Flow, call: &Call, context: &Context) -> Result<Map<String, Value>, Unrenderable> {
    let environment = environment();
    let mut rendered = render_those(&environment, call, context, |_| true)?;
    if let Some(template) = &call.template {
        for (field, extension) in [("html", "html"), ("text", "txt")] {
            let file = format!("{template}.{extension}");
            let Some(text) = flow.source.templates.get(&file) else { continue };
            let text = render_text(&environment, &file, &file, text, context)?;
            rendered.insert(field.to_owned(), Value::String(text));
        }
    }
    Ok(rendered)
}

/// Renders only the parameters of a call that `names` lists.
///
/// # Errors
///
/// A parameter cannot be rendered for this event.
pub fn render_some(call: &Call, names: &[&str], context: &Context) -> Result<Map<String, Value>, Unrenderable> {
    render_those(&environment(), call, context, |name| names.contains(&name))
}

fn render_those(
    environment: &Environment<'_>,
    call: &Call,
    context: &Context,
    those: impl Fn(&str) -> bool,
) -> Result<Map<String, Value>, Unrenderable> {
    let mut rendered = Map::new();
    let operation = usher_connectors::operation(&call.connector, &call.operation);
    let params = operation.map_or(&[][..], |operation| operation.params);
    for (name, value) in call.params.iter().filter(|(name, _)| those(name)) {
        let shape = params.iter().find(|param| param.name == name).map_or(ParamType::Text, |param| param.shape);
        if let Some(value) = render_value(environment, name, value, shape, context)? {
            rendered.insert(name.clone(), value);
        }
    }
    Ok(rendered)
}

fn render_value(
    environment: &Environment<'_>,
    place: &str,
    value: &Value,
    shape: ParamType,
    context: &Context,
) -> Result<Option<Value>, Unrenderable> {
    let empty = matches!(shape, ParamType::Record | ParamType::Selector).then_some(Value::Null);
    Ok(match value {
        _ if shape == ParamType::Json => json::render(environment, place, value, context)?.map(Value::String),
        Value::String(text) => match whole(text).filter(|_| shape == ParamType::Record) {
            // The value keeps its type: a number stays a number, and a list or a table is passed on completely.
            Some(expression) => {
                let value = evaluate_at(environment, place, expression, &nulls::printed(expression), context)?;
                let tree = |value: &Rendered| functions::to_tree(value).ok_or_else(|| json::not_json(place));
                value.as_ref().map(tree).transpose()?
            }
            None => {
                let kind = if shape == ParamType::Html { HTML } else { TEXT };
                let text = render_text(environment, place, kind, text, context)?;
                (!text.is_empty()).then_some(Value::String(text))
            }
        },
        Value::Array(items) => {
            let items =
                items.iter().filter_map(|item| render_value(environment, place, item, shape, context).transpose());
            Some(Value::Array(items.collect::<Result<_, _>>()?))
        }
        Value::Object(fields) => {
            let mut rendered = Map::new();
            for (name, field) in fields {
                let field = render_value(environment, &format!("{place}.{name}"), field, shape, context)?;
                if let Some(field) = field.or_else(|| empty.clone()) {
                    rendered.insert(name.clone(), field);
                }
            }
            Some(Value::Object(rendered))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.clone()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::FlowSource;

    /// Returns the parameters of an operation as TOML, each with the same text in it where its type allows that.
    fn everywhere(operation: &usher_connectors::Operation, text: &str) -> String {
        let value = |param: &usher_connectors::Param| match param.shape {
            ParamType::Number => "7".to_owned(),
            ParamType::Table | ParamType::Json | ParamType::Record | ParamType::Selector => {
                format!("{{ a = \"{text}\" }}")
            }
            ParamType::Texts | ParamType::Mailboxes => format!("[\"{text}\"]"),
            ParamType::Address => "\"https://a.test/x\"".to_owned(),
            ParamType::Name => "\"billing\"".to_owned(),
            ParamType::Text | ParamType::Html | ParamType::Sender | ParamType::Email => format!("\"{text}\""),
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
                        let json =
                            value.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
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
        let text = render_value(&environment(), "text", &value, ParamType::Text, context)
            .map_err(|error| error.to_string())?;
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
        let metadata =
            r#"{"z": 117.63331139400017,"e":9007199254740991.0, "huge":1e400,"half":"\ud83d","it":"it's <b>"}"#;
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
}
