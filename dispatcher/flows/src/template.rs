//! Rendering a step's parameters, templates and expressions.
//!
//! Undefined names are errors, so that a misspelt name is noticed. A null renders as nothing, and absent values below
//! metadata are null. Functions that depend on the clock or on chance are not offered, because a request that is
//! rendered again must be the same.

use std::sync::LazyLock;

use minijinja::value::ValueKind;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value as Rendered, escape_formatter,
};
use serde_json::{Map, Value};

mod json;

use usher_connectors::{AddressPart, ParamType, SECRETS, address_parts, data_placeholder};

use super::context::Sight;
use super::pieces::whole;
use super::{Call, Context, Flow, functions, greeting, nulls, plain_text, times};

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
/// Message about a text in a place where true or false is rendered.
const NO_FLAG: &str = "the result is neither true nor false: compare, such as {{ user.unsafe_metadata.plan == 'pro' }}";
/// Messages of Usher's own filters and formatter.
const OWN: [&str; 3] = [NO_TEXT, times::NO_TIME, times::NO_DURATION];

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
        // The texts of Usher's own errors have no values in them.
        if let Some(what) = error.detail().filter(|detail| OWN.contains(detail)) {
            return Self { place, what: what.to_owned() };
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

/// Returns the environment that renders all templates and expressions. There is one, because it is dear to make.
pub(super) fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(new_environment);
    &ENVIRONMENT
}

fn new_environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_formatter(|out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Rendered| match value.kind() {
        ValueKind::None => Ok(()),
        // It would be rendered in the engine's debug notation, with all its content.
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => Err(Error::new(ErrorKind::InvalidOperation, NO_TEXT)),
        _ => escape_formatter(out, state, value),
    });
    environment.add_filter(greeting::FILTER, |value: Rendered| greeting::as_name(&value));
    environment.add_filter(plain_text::FILTER, |value: Rendered| plain_text::text_of_html(&value));
    functions::add_to(&mut environment);
    times::add_to(&mut environment);
    environment.set_auto_escape_callback(|name| if name.ends_with(HTML) { AutoEscape::Html } else { AutoEscape::None });
    environment
}

/// Evaluates an expression. Returns `None` if its value is undefined, null or an empty string.
///
/// # Errors
///
/// The expression cannot be evaluated, for example because it uses an undefined name.
pub fn evaluate(expression: &str, context: &Context) -> Result<Option<Rendered>, Unrenderable> {
    evaluate_at(expression, expression, &nulls::expression(expression), context)
}

fn evaluate_at(
    place: &str,
    expression: &str,
    rewritten: &str,
    context: &Context,
) -> Result<Option<Rendered>, Unrenderable> {
    // The names are taken from the original expression, as it stands in the flow's file.
    let names =
        || environment().compile_expression(expression).map(|it| it.undeclared_variables(true)).unwrap_or_default();
    let compiled = environment()
        .compile_expression(rewritten)
        .map_err(|error| Unrenderable::new(place, &error, context, Vec::new()))?;
    let value =
        compiled.eval(context.rendered()).map_err(|error| Unrenderable::new(place, &error, context, names()))?;
    let empty = value.is_undefined() || value.is_none() || value.as_str() == Some("");
    Ok((!empty).then_some(value))
}

/// Returns the result of a template without expressions, blocks and comments: the text itself, without the end of its last
/// line, as the engine has it.
fn literal(template: &str) -> Option<&str> {
    let has_tags = template.as_bytes().windows(2).any(|two| matches!(two, b"{{" | b"{%" | b"{#"));
    let line = template.strip_suffix('\n').unwrap_or(template);
    (!has_tags).then(|| line.strip_suffix('\r').unwrap_or(line))
}

fn render_text(place: &str, kind: &str, template: &str, context: &Context) -> Result<String, Unrenderable> {
    if let Some(text) = literal(template) {
        return Ok(text.to_owned());
    }
    let names =
        || environment().template_from_str(template).map(|it| it.undeclared_variables(true)).unwrap_or_default();
    let rewritten = nulls::template(template);
    // The environment selects the escaping by the template's name.
    let compiled = environment()
        .template_from_named_str(kind, &rewritten)
        .map_err(|error| Unrenderable::new(place, &error, context, Vec::new()))?;
    compiled.render(context.rendered()).map_err(|error| Unrenderable::new(place, &error, context, names()))
}

/// Returns the value of a template: of its expression if it is a single `{{ expression }}`, which keeps its type, and else
/// of its text. Returns `None` if it is undefined, null or empty.
///
/// # Errors
///
/// The template cannot be rendered for this event.
pub(super) fn evaluate_template(
    place: &str,
    template: &str,
    context: &Context,
) -> Result<Option<Rendered>, Unrenderable> {
    match whole(template) {
        Some(expression) => match evaluate_at(place, expression, &nulls::printed(expression), context)? {
            Some(value) => Ok(Some(value)),
            // Printing tells an undefined name, which is an error, from null.
            None => render_text(place, TEXT, template, context).map(|_| None),
        },
        None => {
            let text = render_text(place, TEXT, template, context)?;
            Ok((!text.is_empty()).then(|| Rendered::from(text)))
        }
    }
}

/// Renders an address, with a placeholder for each value of the event: the connector escapes it, and sees where it stands.
fn render_address(place: &str, address: &str, context: &Context) -> Result<String, Unrenderable> {
    // The check of flow files accepts no other address.
    let Some(parts) = address_parts(address) else { return render_text(place, TEXT, address, context) };
    let mut rendered = String::new();
    for part in parts {
        match part {
            AddressPart::Literal(text) => rendered.push_str(text),
            AddressPart::Fixed(expression) => {
                rendered.push_str(&render_text(place, TEXT, &format!("{{{{ {expression} }}}}"), context)?);
            }
            AddressPart::Data(expression) => {
                let value = render_text(place, TEXT, &format!("{{{{ {expression} }}}}"), context)?;
                rendered.push_str(&data_placeholder(&value));
            }
        }
    }
    Ok(rendered)
}

/// Renders the parameters of a call, and `html` and `text` if it uses a template. A string that is rendered empty
/// is omitted, or null as a [`ParamType::Id`], in a [`ParamType::Record`] or a [`ParamType::Selector`], and in a parameter
/// that [clears](usher_connectors::Param::clears). A [`ParamType::Json`] is returned as JSON text.
///
/// # Errors
///
/// A parameter or template cannot be rendered for this event.
pub fn render(flow: &Flow, call: &Call, context: &Context) -> Result<Map<String, Value>, Unrenderable> {
    let mut rendered = render_those(call, context, |_| true)?;
    if let Some(template) = &call.template {
        for (field, extension) in [("html", "html"), ("text", "txt")] {
            let file = format!("{template}.{extension}");
            let Some(text) = flow.source.templates.get(&file) else { continue };
            let text = render_text(&file, &file, text, context)?;
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
    render_those(call, context, |name| names.contains(&name))
}

fn render_those(
    call: &Call,
    context: &Context,
    those: impl Fn(&str) -> bool,
) -> Result<Map<String, Value>, Unrenderable> {
    let mut rendered = Map::new();
    let operation = usher_connectors::operation(&call.connector, &call.operation);
    let params = operation.map_or(&[][..], |operation| operation.params);
    for (name, value) in call.params.iter().filter(|(name, _)| those(name)) {
        let param = params.iter().find(|param| param.name == name);
        let shape = param.map_or(ParamType::Text, |param| param.shape);
        let takes_secrets = param.is_some_and(|param| param.takes_secrets) && mentions_secrets(value);
        let with_secrets = takes_secrets.then(|| context.with_secrets());
        let empty = param.filter(|param| param.is_null_if_empty()).map(|_| Value::Null);
        let context = with_secrets.as_ref().unwrap_or(context);
        if let Some(value) = render_value(name, value, shape, context)?.or(empty) {
            rendered.insert(name.clone(), value);
        }
    }
    Ok(rendered)
}

/// True if a text in the value may name a secret. For all others the context is used as it is.
fn mentions_secrets(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(SECRETS),
        Value::Array(items) => items.iter().any(mentions_secrets),
        Value::Object(fields) => fields.values().any(mentions_secrets),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn render_value(
    place: &str,
    value: &Value,
    shape: ParamType,
    context: &Context,
) -> Result<Option<Value>, Unrenderable> {
    let empty = matches!(shape, ParamType::Record | ParamType::Selector).then_some(Value::Null);
    Ok(match value {
        _ if shape == ParamType::Json => json::render(place, value, context)?.map(Value::String),
        Value::String(text) if shape == ParamType::Address => {
            let text = render_address(place, text, context)?;
            (!text.is_empty()).then_some(Value::String(text))
        }
        Value::String(text) if shape == ParamType::Flag => {
            match render_text(place, TEXT, text, context)?.trim().to_ascii_lowercase().as_str() {
                "" => None,
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                _ => return Err(Unrenderable { place: place.to_owned(), what: NO_FLAG.to_owned() }),
            }
        }
        Value::String(text) => match whole(text).filter(|_| shape == ParamType::Record) {
            // The value keeps its type: a number stays a number, and a list or a table is passed on completely.
            Some(expression) => {
                let value = evaluate_at(place, expression, &nulls::printed(expression), context)?;
                let tree = |value: &Rendered| functions::to_tree(value).ok_or_else(|| json::not_json(place));
                value.as_ref().map(tree).transpose()?
            }
            None => {
                let kind = if shape == ParamType::Html { HTML } else { TEXT };
                let text = render_text(place, kind, text, context)?;
                (!text.is_empty()).then_some(Value::String(text))
            }
        },
        Value::Array(items) => {
            let items = items.iter().filter_map(|item| render_value(place, item, shape, context).transpose());
            Some(Value::Array(items.collect::<Result<_, _>>()?))
        }
        Value::Object(fields) => {
            let mut rendered = Map::new();
            for (name, field) in fields {
                let field = render_value(&format!("{place}.{name}"), field, shape, context)?;
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
mod tests;
