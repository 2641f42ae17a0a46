//! Parses forms with nested names, `items[0][price]=p&metadata[a]=b`, into JSON. Pure; every value is a string.

use serde_json::{Map, Value};

/// Maximum nesting of a name. No parameter is nested deeper, and deeper names would only use up stack.
const DEEPEST: usize = 8;

/// The error of a text that is not a form, or whose names contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it is not form-encoded")]
    Encoding,
    #[error("a name is empty or nested too deeply")]
    Name,
    #[error("a name is used both for a value and for what is nested in it")]
    Contradiction,
}

/// Parses a form. `a[]=x` appends. Names that count `0, 1, 2, …` become an array, except inside `metadata`, where names
/// are chosen by the caller. If a name occurs twice, the last value is used.
pub(crate) fn parse(text: &[u8]) -> Result<Value, Malformed> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(text).map_err(|_| Malformed::Encoding)?;
    let mut root = Map::new();
    for (name, value) in pairs {
        insert(&mut root, &path(&name)?, value)?;
    }
    Ok(settle("", Value::Object(root)))
}

/// Decodes one segment of a path.
pub(crate) fn decoded(segment: &str) -> String {
    let query = format!("v={}", segment.replace('+', "%2B"));
    parse(query.as_bytes()).ok().and_then(|read| read["v"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Splits a name into segments: `a[b][]` into `a`, `b`, and an empty segment. A name with unbalanced brackets
/// is one segment.
fn path(name: &str) -> Result<Vec<&str>, Malformed> {
    let segments: Vec<&str> = match name.split_once('[') {
        Some((first, rest)) if rest.ends_with(']') => {
            let inner = &rest[..rest.len() - 1];
            std::iter::once(first).chain(inner.split("][")).collect()
        }
        Some(_) | None => vec![name],
    };
    if segments.first().is_none_or(|first| first.is_empty()) || segments.len() > DEEPEST {
        return Err(Malformed::Name);
    }
    Ok(segments)
}

fn insert(into: &mut Map<String, Value>, path: &[&str], value: String) -> Result<(), Malformed> {
    let Some((first, rest)) = path.split_first() else { return Err(Malformed::Name) };
    let name = if first.is_empty() { into.len().to_string() } else { (*first).to_owned() };
    if rest.is_empty() {
        return match into.insert(name, Value::String(value)) {
            Some(Value::Object(_)) => Err(Malformed::Contradiction),
            Some(_) | None => Ok(()),
        };
    }
    match into.entry(name).or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(inner) => insert(inner, rest, value),
        _ => Err(Malformed::Contradiction),
    }
}

/// Turns objects whose names count up from 0 into arrays.
fn settle(name: &str, value: Value) -> Value {
    let Value::Object(mut fields) = value else { return value };
    let counted: Option<Vec<Value>> = (0..fields.len()).map(|index| fields.get(&index.to_string()).cloned()).collect();
    match counted {
        Some(items) if !items.is_empty() && name != "metadata" => {
            Value::Array(items.into_iter().map(|item| settle("", item)).collect())
        }
        Some(_) | None => {
            for (name, field) in &mut fields {
                *field = settle(name, field.take());
            }
            Value::Object(fields)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn brackets_nest_and_numbers_count() {
        let form = b"customer=cus_1&items[0][price]=p&items[1][price]=q&trial_settings[end_behavior][x]=cancel";
        assert_eq!(
            parse(form),
            Ok(json!({
                "customer": "cus_1",
                "items": [{"price": "p"}, {"price": "q"}],
                "trial_settings": {"end_behavior": {"x": "cancel"}},
            }))
        );
    }

    #[test]
    fn escapes_are_decoded_in_names_and_values() {
        assert_eq!(parse(b"metadata%5Bfull+name%5D=Zo%C3%AB+B"), Ok(json!({"metadata": {"full name": "Zoë B"}})));
    }

    #[test]
    fn empty_brackets_append_in_order() {
        assert_eq!(parse(b"expand[]=customer&expand[]=items"), Ok(json!({"expand": ["customer", "items"]})));
    }

    #[test]
    fn more_than_ten_items_keep_their_order() {
        let form: Vec<String> = (0..12).map(|n| format!("a[{n}]={n}")).collect();
        let expected: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(parse(form.join("&").as_bytes()), Ok(json!({"a": expected})));
    }

    #[test]
    fn names_in_metadata_are_never_counted() {
        assert_eq!(parse(b"metadata[0]=x"), Ok(json!({"metadata": {"0": "x"}})));
    }

    #[test]
    fn the_last_value_of_a_name_holds() {
        assert_eq!(parse(b"a=1&a=2"), Ok(json!({"a": "2"})));
    }

    #[test]
    fn a_name_cannot_be_value_and_parent() {
        assert_eq!(parse(b"a=1&a[b]=2"), Err(Malformed::Contradiction));
        assert_eq!(parse(b"a[b]=2&a=1"), Err(Malformed::Contradiction));
    }

    #[test]
    fn depth_is_bounded() {
        let name = format!("a{}=1", "[b]".repeat(DEEPEST));
        assert_eq!(parse(name.as_bytes()), Err(Malformed::Name));
        assert_eq!(parse(b"[b]=1"), Err(Malformed::Name));
    }
}
