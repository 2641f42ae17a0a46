//! Filters of our own: those that `nulls` puts into expressions, and built-in ones that have to know of null and of
//! JSON that was sent.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value as Rendered, filters};
use serde_json::Value;
use usher_proto::Json;

use super::sent::{Digits, Sent};

/// Steps into metadata: null where there is nothing.
pub(super) const BELOW: &str = "_below";
/// The same for a value that is only printed.
pub(super) const PRINTED: &str = "_printed";
/// Filter on the right side of `in`.
pub(super) const MEMBERS: &str = "_members";
/// Filter on one side of `<` and `>`.
pub(super) const AT_MOST: &str = "_at_most";

pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter(BELOW, |value: &Rendered, key: &Rendered| below(value, key));
    environment.add_filter(PRINTED, printed);
    environment.add_filter(MEMBERS, members);
    environment.add_filter(AT_MOST, at_most);
    environment.add_filter("tojson", to_json);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
}

fn null() -> Rendered {
    Rendered::from(())
}

fn below(value: &Rendered, key: &Rendered) -> Rendered {
    let found = if value.is_undefined() { None } else { value.get_item(key).ok() };
    found.filter(|found| !found.is_undefined()).unwrap_or_else(null)
}

fn printed(value: &Rendered, key: &Rendered) -> Rendered {
    let found = below(value, key);
    let sent = value.downcast_object_ref::<Sent>().and_then(Sent::json);
    let json = sent.and_then(|json| match key.as_str() {
        Some(name) => json.get(name),
        None => json.items().nth(key.as_usize()?),
    });
    let digits = json.and_then(|json| json.number());
    digits.map_or(found, |digits| Rendered::from_object(Digits(digits.into())))
}

/// Nothing is in what holds nothing: null, a number, true. Below metadata every name is known, so their names are
/// listed.
fn members(value: &Rendered) -> Rendered {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => Rendered::from(Vec::<Rendered>::new()),
        ValueKind::Map if value.downcast_object_ref::<Sent>().is_some() => {
            value.try_iter().map_or_else(Rendered::from, Iterator::collect)
        }
        // Of what is undefined the engine says so.
        _ => value.clone(),
    }
}

/// Orders behind everything, and so is not less than anything.
#[derive(Debug)]
struct Beyond;

impl Object for Beyond {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Null is neither less nor greater than anything. The engine orders it before everything, which answers one side.
fn at_most(value: &Rendered) -> Rendered {
    if value.is_none() { Rendered::from_object(Beyond) } else { value.clone() }
}

/// Also for null: what is absent below metadata is.
fn default(value: &Rendered, other: Option<Rendered>, lax: Option<bool>, kwargs: Kwargs) -> Result<Rendered, Error> {
    let lax = lax.or(kwargs.get("boolean")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let is_missing = value.is_undefined() || value.is_none() || (lax && !value.is_true());
    Ok(if is_missing { other.unwrap_or_else(|| Rendered::from("")) } else { value.clone() })
}

/// JSON that was sent is written as it was, but for half surrogate pairs. In HTML it is safe in every place.
fn to_json(
    state: &State<'_, '_>,
    value: &Rendered,
    indent: Option<Rendered>,
    kwargs: Kwargs,
) -> Result<Rendered, Error> {
    let indented = indent.is_some() || kwargs.has("indent");
    if indented {
        return filters::tojson(value, indent, kwargs);
    }
    kwargs.assert_all_used()?;
    let mut text = String::new();
    write_json(&mut text, value, *state.auto_escape() != AutoEscape::None)?;
    Ok(Rendered::from_safe_string(text))
}

/// Writes a value as JSON: what was sent as it was, digit by digit, but for half surrogate pairs.
///
/// # Errors
///
/// It is no JSON.
pub(super) fn write_json(text: &mut String, value: &Rendered, in_html: bool) -> Result<(), Error> {
    if let Some(Digits(digits)) = value.downcast_object_ref() {
        text.push_str(digits);
    } else if let Some(json) = value.downcast_object_ref::<Sent>().and_then(Sent::json) {
        let json = json.well_formed();
        if in_html { write_for_html(text, &json) } else { text.push_str(&json) }
    } else if value.kind() == ValueKind::Map {
        text.push('{');
        for (index, name) in value.try_iter()?.enumerate() {
            text.push_str(if index == 0 { "" } else { ", " });
            write_json(text, &Rendered::from(name.to_string()), in_html)?;
            text.push_str(": ");
            write_json(text, &value.get_item(&name)?, in_html)?;
        }
        text.push('}');
    } else if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        text.push('[');
        for (index, item) in value.try_iter()?.enumerate() {
            text.push_str(if index == 0 { "" } else { ", " });
            write_json(text, &item, in_html)?;
        }
        text.push(']');
    } else if in_html {
        let none: [(&str, Rendered); 0] = [];
        text.push_str(&filters::tojson(value, None, Kwargs::from_iter(none))?.to_string());
    } else {
        let json = serde_json::to_string(value);
        text.push_str(
            &json.map_err(|error| Error::new(ErrorKind::BadSerialization, "it is no JSON").with_source(error))?,
        );
    }
    Ok(())
}

/// The value as a tree, in which a number that no tree has stands as the text that was sent; none where it is no JSON.
pub(super) fn to_tree(value: &Rendered) -> Option<Value> {
    let of_digits = |digits: &Digits| Json::read(&digits.0).map(Json::to_value);
    let of_sent = || value.downcast_object_ref::<Sent>().and_then(Sent::json).map(Json::to_value);
    value
        .downcast_object_ref::<Digits>()
        .and_then(of_digits)
        .or_else(of_sent)
        .or_else(|| serde_json::to_value(value).ok())
}

/// Characters that end a script or an attribute stand inside texts of JSON alone, and can be escaped there.
fn write_for_html(text: &mut String, json: &str) {
    for letter in json.chars() {
        match letter {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\'' => text.push_str("\\u0027"),
            other => text.push(other),
        }
    }
}
