//! Rendering of parameters that may be any JSON, to JSON text. In a text, numbers keep the digits that were sent; a
//! tree of doubles would round them.

use serde_json::Value;

use super::{TEXT, Unrenderable, evaluate_at, functions, nulls, render_text, whole};
use crate::Context;

/// Returns the error for a value that has no JSON representation.
pub(super) fn not_json(place: &str) -> Unrenderable {
    Unrenderable { place: place.to_owned(), what: "it is no JSON".to_owned() }
}

/// Renders a value to JSON text. A string that is exactly one expression has the type of the expression. A string that
/// is rendered empty is `None`, and is omitted from lists and tables.
pub(super) fn render(place: &str, value: &Value, context: &Context) -> Result<Option<String>, Unrenderable> {
    Ok(match value {
        Value::String(text) => match whole(text) {
            Some(expression) => {
                let value = evaluate_at(place, expression, &nulls::printed(expression), context)?;
                let Some(value) = value else { return Ok(None) };
                let mut json = String::new();
                functions::write_json(&mut json, &value, false).map_err(|_| not_json(place))?;
                Some(json)
            }
            None => {
                let text = render_text(place, TEXT, text, context)?;
                (!text.is_empty()).then(|| Value::String(text).to_string())
            }
        },
        Value::Array(items) => {
            let items = items.iter().filter_map(|item| render(place, item, context).transpose());
            Some(format!("[{}]", items.collect::<Result<Vec<_>, _>>()?.join(",")))
        }
        Value::Object(fields) => {
            let mut members = Vec::new();
            for (name, field) in fields {
                if let Some(json) = render(&format!("{place}.{name}"), field, context)? {
                    members.push(format!("{}:{json}", Value::from(name.as_str())));
                }
            }
            Some(format!("{{{}}}", members.join(",")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SENT: &str = r#"{"first_name":"<b>\"","public_metadata":{"n":12345678901234567890123,"x":0.10,"huge":1e400,"e":9007199254740993.0,"list":[1.0,2E+3],"half":"\ud83d"}}"#;

    fn rendered(value: &Value) -> Option<String> {
        let context = Context::of_texts(&[("user", SENT)]);
        render("body", value, &context).expect("it renders")
    }

    #[test]
    fn numbers_keep_their_digits_however_they_are_passed_on() {
        for (name, json) in [
            ("n", "12345678901234567890123"),
            ("x", "0.10"),
            ("huge", "1e400"),
            ("e", "9007199254740993.0"),
            ("list", "[1.0,2E+3]"),
            ("half", "\"\u{fffd}\""),
        ] {
            let text = format!("{{{{ user.public_metadata.{name} }}}}");
            assert_eq!(rendered(&json!({ "a": [text] })), Some(format!(r#"{{"a":[{json}]}}"#)), "{name}");
        }
        let whole = rendered(&json!({ "all": "{{ user.public_metadata }}" })).expect("it is something");
        let sent = SENT.split_once("data\":").expect("metadata").1.replace("\\ud83d", "\\ufffd");
        assert_eq!(whole, format!(r#"{{"all":{sent}"#));
    }

    #[test]
    fn what_the_file_gives_keeps_its_type_and_what_is_empty_is_left_out() {
        let given = json!({ "b": true, "n": 3, "x": 0.5, "none": "{{ user.public_metadata.none }}", "t": "{{ user.first_name }}" });
        assert_eq!(rendered(&given).as_deref(), Some(r#"{"b":true,"n":3,"t":"<b>\"","x":0.5}"#));
        assert_eq!(rendered(&json!(["a {{ user.public_metadata.none }}b", ""])).as_deref(), Some(r#"["a b"]"#));
    }
}
