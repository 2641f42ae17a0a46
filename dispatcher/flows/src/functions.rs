//! Usher's own template filters: the ones that `nulls` inserts into expressions, and replacements of built-in filters
//! that must handle null and JSON values as they were sent.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value as Rendered, filters};
use serde_json::Value;
use usher_proto::Json;

use super::sent::{Digits, SentJson};

/// Filter that accesses a field below metadata. The result is null if the field does not exist.
pub(super) const BELOW: &str = "_below";
/// The same filter for a value that is only printed. A number keeps the digits that were sent.
pub(super) const PRINTED: &str = "_printed";
/// Filter for the right operand of `in`.
pub(super) const MEMBERS: &str = "_members";
/// Filter for the smaller operand of `<`, `<=`, `>` and `>=`, for which null needs special treatment.
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
    let sent = value.downcast_object_ref::<SentJson>().map(SentJson::json);
    let json = sent.and_then(|json| match key.as_str() {
        Some(name) => json.get(name),
        None => json.items().nth(key.as_usize()?),
    });
    let digits = json.and_then(|json| json.number());
    digits.map_or(found, |digits| Rendered::from_object(Digits(digits.into())))
}

/// Returns the members that `in` searches. Null, a number and a boolean have none. An object that was sent, such as
/// metadata, is replaced by the list of its names, because a lookup below metadata finds every name.
fn members(value: &Rendered) -> Rendered {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => Rendered::from(Vec::<Rendered>::new()),
        ValueKind::Map if value.downcast_object_ref::<SentJson>().is_some() => {
            value.try_iter().map_or_else(Rendered::from, Iterator::collect)
        }
        // The engine reports an undefined value itself.
        _ => value.clone(),
    }
}

/// A value that is ordered after every other value, so it is not less than any of them.
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

/// Replaces null by [`Beyond`]. Null must be neither less nor greater than any value. The engine orders null before
/// every value, so only the comparisons in which null would be less need this.
fn at_most(value: &Rendered) -> Rendered {
    if value.is_none() { Rendered::from_object(Beyond) } else { value.clone() }
}

/// The filter `default`. It also replaces null, because an absent value below metadata is null.
fn default(value: &Rendered, other: Option<Rendered>, lax: Option<bool>, kwargs: Kwargs) -> Result<Rendered, Error> {
    let lax = lax.or(kwargs.get("boolean")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let is_missing = value.is_undefined() || value.is_none() || (lax && !value.is_true());
    Ok(if is_missing { other.unwrap_or_else(|| Rendered::from("")) } else { value.clone() })
}

/// The filter `tojson`. JSON that was sent is written unchanged, except for unpaired surrogates. In HTML the result is
/// safe in every place.
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

/// Writes a value as JSON. JSON that was sent is written unchanged, digit by digit, except for unpaired surrogates.
///
/// # Errors
///
/// The value has no JSON representation.
pub(super) fn write_json(text: &mut String, value: &Rendered, in_html: bool) -> Result<(), Error> {
    if let Some(Digits(digits)) = value.downcast_object_ref() {
        text.push_str(digits);
    } else if let Some(json) = value.downcast_object_ref::<SentJson>().map(SentJson::json) {
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

/// Converts a value to a JSON tree; `None` if it has no JSON representation. A number that a tree cannot represent
/// becomes a string with the digits that were sent.
pub(super) fn to_tree(value: &Rendered) -> Option<Value> {
    let of_digits = |digits: &Digits| Json::read(&digits.0).map(Json::to_value);
    let of_sent = || value.downcast_object_ref::<SentJson>().map(SentJson::json).map(Json::to_value);
    value
        .downcast_object_ref::<Digits>()
        .and_then(of_digits)
        .or_else(of_sent)
        .or_else(|| serde_json::to_value(value).ok())
}

/// Writes JSON with the characters escaped that could end a script or an attribute. They occur only inside of JSON
/// strings, where they can be escaped.
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
