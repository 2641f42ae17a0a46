//! Rendering a step's parameters, templates and expressions.
//!
//! Undefined names are errors, so that a misspelt one is noticed; a null renders as nothing. What depends on the clock or
//! on chance is not offered, for a request must come out the same when it is rendered again.

use minijinja::value::ValueKind;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value as Rendered, escape_formatter,
};
use serde_json::{Map, Value};

use super::context::Sight;
use super::tokens::whole;
use super::{Call, Context, Flow, greeting};
use crate::connectors::{self, Shape};

/// A template or an expression could not be rendered for this event. The text names the place, not the values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub(crate) struct Unrenderable {
    /// Which parameter or template.
    pub(crate) place: String,
    /// What went wrong.
    pub(crate) what: String,
}

/// Said of a table or list where a text is made.
const NO_TEXT: &str = "a table or a list is no text: write | tojson, or | join(', ')";

impl Unrenderable {
    /// `names` are those that the text uses.
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

/// `user has no emial`, if that is so. Names stand in the flow's file, and are nobody's secret.
fn missing(context: &Context, name: &str) -> Option<String> {
    match context.look(name) {
        Sight::Missing { owner, field, .. } if owner.is_empty() => Some(format!("there is no {field}")),
        Sight::Missing { owner, field, .. } => Some(format!("{owner} has no {field}")),
        Sight::There(_) | Sight::Open => None,
    }
}

/// How the names of templates end whose result is HTML.
const HTML: &str = ".html";
/// The name of all others that have none of their own.
const TEXT: &str = ".txt";

/// The environment in which everything of a flow is rendered.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_formatter(|out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Rendered| match value.kind() {
        ValueKind::None => Ok(()),
        // It would come out in the notation of another language, with everything that is in it.
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => Err(Error::new(ErrorKind::InvalidOperation, NO_TEXT)),
        _ => escape_formatter(out, state, value),
    });
    environment.add_filter(greeting::FILTER, |value: Rendered| greeting::as_name(&value));
    environment.set_auto_escape_callback(|name| if name.ends_with(HTML) { AutoEscape::Html } else { AutoEscape::None });
    environment
}

/// The value of an expression. None where it is undefined, null or an empty text.
pub(crate) fn evaluate(expression: &str, context: &Context) -> Result<Option<Rendered>, Unrenderable> {
    evaluate_at(&environment(), expression, expression, context)
}

fn evaluate_at(
    environment: &Environment<'_>,
    place: &str,
    expression: &str,
    context: &Context,
) -> Result<Option<Rendered>, Unrenderable> {
    let compiled = environment
        .compile_expression(expression)
        .map_err(|error| Unrenderable::new(place, &error, context, Vec::new()))?;
    let value = compiled
        .eval(context.rendered())
        .map_err(|error| Unrenderable::new(place, &error, context, compiled.undeclared_variables(true)))?;
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
    // The environment escapes by the name.
    let compiled = environment
        .template_from_named_str(kind, template)
        .map_err(|error| Unrenderable::new(place, &error, context, Vec::new()))?;
    compiled
        .render(context.rendered())
        .map_err(|error| Unrenderable::new(place, &error, context, compiled.undeclared_variables(true)))
}

/// The parameters of a call with everything rendered, and `html` and `text` where it uses a template. A text that comes
/// out empty is left out, or null in a [`Shape::Record`].
pub(crate) fn render(flow: &Flow, call: &Call, context: &Context) -> Result<Map<String, Value>, Unrenderable> {
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

/// Some of the parameters of a call, rendered.
pub(crate) fn render_some(call: &Call, names: &[&str], context: &Context) -> Result<Map<String, Value>, Unrenderable> {
    render_those(&environment(), call, context, |name| names.contains(&name))
}

fn render_those(
    environment: &Environment<'_>,
    call: &Call,
    context: &Context,
    those: impl Fn(&str) -> bool,
) -> Result<Map<String, Value>, Unrenderable> {
    let mut rendered = Map::new();
    let operation = connectors::operation(&call.connector, &call.operation);
    let params = operation.map_or(&[][..], |operation| operation.params);
    for (name, value) in call.params.iter().filter(|(name, _)| those(name)) {
        let shape = params.iter().find(|param| param.name == name).map_or(Shape::Text, |param| param.shape);
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
    shape: Shape,
    context: &Context,
) -> Result<Option<Value>, Unrenderable> {
    let empty = (shape == Shape::Record).then_some(Value::Null);
    Ok(match value {
        Value::String(text) => match whole(text).filter(|_| matches!(shape, Shape::Json | Shape::Record)) {
            // It keeps its type: a number stays one, and a list or a table goes along whole.
            Some(expression) => match evaluate_at(environment, place, expression, context)? {
                Some(value) => {
                    let what = "it is no JSON".to_owned();
                    Some(serde_json::to_value(value).map_err(|_| Unrenderable { place: place.to_owned(), what })?)
                }
                None => None,
            },
            None => {
                let kind = if shape == Shape::Html { HTML } else { TEXT };
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
    use crate::flows::FlowSource;

    /// The parameters of an operation, each with the same text in it.
    fn everywhere(operation: &connectors::Operation, text: &str) -> String {
        let value = |param: &connectors::Param| match param.shape {
            Shape::Number => "7".to_owned(),
            Shape::Table | Shape::Json | Shape::Record => format!("{{ a = \"{text}\" }}"),
            Shape::Texts | Shape::Mailboxes => format!("[\"{text}\"]"),
            Shape::Address => "\"https://a.test/x\"".to_owned(),
            Shape::Name => "\"billing\"".to_owned(),
            Shape::Text | Shape::Html | Shape::Sender | Shape::Email => format!("\"{text}\""),
        };
        operation.params.iter().map(|param| format!("{} = {}\n", param.name, value(param))).collect()
    }

    #[test]
    fn what_is_html_is_escaped_in_every_operation_and_nothing_else_is() {
        let name = r#"<a href="x">&'"#;
        let context = Context::of(json!({ "user": { "name": name, "list": [name] } }));
        let mut escaped = Vec::new();
        for (connector, operations) in connectors::OPERATIONS {
            for operation in *operations {
                let rendered = |text: &str| {
                    let step = format!("use = \"{connector}.{}\"\n{}", operation.name, everywhere(operation, text));
                    let toml = format!("on = [\"clerk/user.updated\"]\n[[step]]\nname = \"one\"\n{step}");
                    let (name, file) = ("test".to_owned(), "test.toml".to_owned());
                    let source = FlowSource { name, file, toml, templates: BTreeMap::new() };
                    let flow = Flow::read(source).unwrap_or_else(|problems| panic!("{problems:?}"));
                    let super::super::Action::Call(call) = &flow.steps[0].action else { panic!("a call") };
                    render(&flow, call, &context).expect("it renders")
                };
                for text in ["{{ user.name }}", "{% for name in user.list %}{{ name }}{% endfor %}"] {
                    for (param, value) in rendered(text) {
                        let is_html = param.contains("html") || param == "body" && value.is_string();
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
        assert_eq!(rendered(1)["body"], json!({ "name": "Ann" }));
    }
}
