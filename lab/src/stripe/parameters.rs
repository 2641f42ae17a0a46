//! Reads Stripe's parameters: refuses unknown parameters and checks the types of known ones. Pure.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::StripeError;
use crate::request::Request;

/// Default maximum length of a text, in characters.
const LONGEST_TEXT: usize = 5000;
/// The parameter that requests objects in place of their ids.
const EXPAND: &str = "expand";
const MOST_PAIRS: usize = 50;
const LONGEST_METADATA_KEY: usize = 40;
const LONGEST_METADATA_VALUE: usize = 500;

/// The parameters of a request, or of one object in it.
pub(super) struct Parameters<'a> {
    fields: Option<&'a Map<String, Value>>,
    /// Path of the enclosing object for messages, such as `items[0]`. Empty at the top level.
    within: String,
}

/// The change that a request makes to an object's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Metadata {
    /// The parameter is absent; the metadata stays.
    #[default]
    Untouched,
    /// `metadata=`: all pairs are removed.
    Cleared,
    /// These pairs are set. An empty value removes its key.
    Merged(Map<String, Value>),
}

/// The requested page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) limit: usize,
    pub(super) starting_after: Option<String>,
}

impl<'a> Parameters<'a> {
    pub(super) fn of(request: &'a Request) -> Result<Self, StripeError> {
        match &*request.body {
            Value::Null => Ok(Self { fields: None, within: String::new() }),
            Value::Object(fields) => Ok(Self { fields: Some(fields), within: String::new() }),
            _ => Err(StripeError::not_a_form()),
        }
    }

    /// Refuses every parameter that is not in `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), StripeError> {
        // At the top level every request may contain `expand`.
        let known = |name: &str| known.contains(&name) || (self.within.is_empty() && name == EXPAND);
        match self.fields.into_iter().flat_map(Map::keys).find(|name| !known(name)) {
            Some(name) => Err(StripeError::unknown_parameter(&self.name(name))),
            None => Ok(()),
        }
    }

    fn name(&self, name: &str) -> String {
        if self.within.is_empty() { name.to_owned() } else { format!("{}[{name}]", self.within) }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields?.get(name)
    }

    /// Reads a text, which may be empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, StripeError> {
        self.text_up_to(name, LONGEST_TEXT)
    }

    pub(super) fn text_up_to(&self, name: &str, longest: usize) -> Result<Option<&'a str>, StripeError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let param = self.name(name);
        let Some(text) = value.as_str() else {
            return Err(StripeError::invalid(&param, format!("Invalid string for {param}: a nested value was given.")));
        };
        if text.chars().count() > longest {
            let message = format!("Invalid string for {param}: it must be at most {longest} characters.");
            return Err(StripeError::invalid(&param, message).code("parameter_invalid_string"));
        }
        Ok(Some(text))
    }

    /// Reads a text that must be present and not empty.
    pub(super) fn required(&self, name: &str) -> Result<&'a str, StripeError> {
        let missing = || StripeError::missing_parameter(&self.name(name));
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(missing)
    }

    pub(super) fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, StripeError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let param = self.name(name);
        let wrong = |message| StripeError::invalid(&param, message).code("parameter_invalid_integer");
        let number: i64 = text.parse().map_err(|_| wrong(format!("Invalid integer: {text}")))?;
        if !range.contains(&number) {
            let message = format!("Invalid {param}: it must be between {} and {}.", range.start(), range.end());
            return Err(wrong(message));
        }
        Ok(Some(number))
    }

    /// Reads a range of times in Unix seconds from `name[gt]`, `name[gte]`, `name[lt]` and `name[lte]`. Returns the
    /// range of all times if the parameter is absent.
    pub(super) fn times(&self, name: &str) -> Result<RangeInclusive<i64>, StripeError> {
        let Some(bounds) = self.object(name)? else { return Ok(0..=i64::MAX) };
        bounds.only(&["gt", "gte", "lt", "lte"])?;
        let bound = |name| bounds.integer(name, 0..=i64::MAX - 1);
        let from = bound("gte")?.max(bound("gt")?.map(|time| time + 1)).unwrap_or(0);
        let before = bound("lt")?.map(|time| time - 1);
        let until = bound("lte")?;
        Ok(from..=before.into_iter().chain(until).min().unwrap_or(i64::MAX))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, StripeError> {
        Ok(self.one_of(name, &["true", "false"])?.map(|text| text == "true"))
    }

    pub(super) fn one_of(&self, name: &str, allowed: &[&str]) -> Result<Option<&'a str>, StripeError> {
        match self.text(name)? {
            Some(text) if !allowed.contains(&text) => {
                let param = self.name(name);
                Err(StripeError::invalid(&param, format!("Invalid {param}: must be one of {}", allowed.join(", "))))
            }
            found => Ok(found),
        }
    }

    /// Reads a nested object.
    pub(super) fn object(&self, name: &str) -> Result<Option<Parameters<'a>>, StripeError> {
        let within = self.name(name);
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Parameters { fields: Some(fields), within })),
            Some(_) => Err(StripeError::invalid(&within, "Invalid object")),
        }
    }

    /// Reads a list of nested objects.
    pub(super) fn objects(&self, name: &str) -> Result<Vec<Parameters<'a>>, StripeError> {
        let within = self.name(name);
        let items = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(StripeError::invalid(&within, "Invalid array")),
        };
        let read = |(index, item): (usize, &'a Value)| match item {
            Value::Object(fields) => Ok(Parameters { fields: Some(fields), within: format!("{within}[{index}]") }),
            _ => Err(StripeError::invalid(format!("{within}[{index}]"), "Invalid object")),
        };
        items.iter().enumerate().map(read).collect()
    }

    /// Reads the paths to expand in the response, such as `customer`, or `data.customer` in a list.
    pub(super) fn expand(&self) -> Result<Vec<String>, StripeError> {
        let items = match self.get(EXPAND) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(StripeError::invalid(EXPAND, "Invalid array")),
        };
        let text = |item: &Value| {
            item.as_str().map(str::to_owned).ok_or_else(|| StripeError::invalid(EXPAND, "Invalid array"))
        };
        items.iter().map(text).collect()
    }

    pub(super) fn metadata(&self) -> Result<Metadata, StripeError> {
        match self.get("metadata") {
            None => Ok(Metadata::Untouched),
            Some(Value::String(text)) if text.is_empty() => Ok(Metadata::Cleared),
            Some(Value::Object(pairs)) => {
                for (key, value) in pairs {
                    pair(key, value)?;
                }
                Ok(Metadata::Merged(pairs.clone()))
            }
            Some(_) => Err(StripeError::invalid("metadata", "Invalid object")),
        }
    }

    /// Reads `limit` (1 to 100, default 10) and `starting_after`.
    pub(super) fn page(&self) -> Result<Page, StripeError> {
        let limit = self.integer("limit", 1..=100)?.unwrap_or(10);
        Ok(Page {
            limit: usize::try_from(limit).unwrap_or(10),
            starting_after: self.text("starting_after")?.map(str::to_owned),
        })
    }
}

fn pair(key: &str, value: &Value) -> Result<(), StripeError> {
    let param = format!("metadata[{key}]");
    let Some(text) = value.as_str() else {
        return Err(StripeError::invalid(param, "Metadata values must be strings."));
    };
    if key.chars().count() > LONGEST_METADATA_KEY || key.contains(['[', ']']) {
        let message = "Metadata keys can have up to 40 characters, without square brackets.";
        return Err(StripeError::invalid(param, message));
    }
    if text.chars().count() > LONGEST_METADATA_VALUE {
        return Err(StripeError::invalid(param, "Metadata values can have up to 500 characters."));
    }
    Ok(())
}

impl Metadata {
    /// Applies the change to `metadata`. Refuses more than 50 pairs and then changes nothing.
    pub(super) fn apply(self, metadata: &mut Map<String, Value>) -> Result<(), StripeError> {
        match self {
            Self::Untouched => {}
            Self::Cleared => metadata.clear(),
            Self::Merged(pairs) => {
                let mut merged = metadata.clone();
                for (key, value) in pairs {
                    if value == "" {
                        merged.remove(&key);
                    } else {
                        merged.insert(key, value);
                    }
                }
                if merged.len() > MOST_PAIRS {
                    return Err(StripeError::invalid("metadata", "You can have at most 50 metadata keys."));
                }
                *metadata = merged;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => panic!("no object: {value}"),
        }
    }

    #[test]
    fn metadata_merges_removes_and_clears() {
        let mut metadata = map(json!({"a": "1", "b": "2"}));
        Metadata::Merged(map(json!({"a": "", "c": "3"}))).apply(&mut metadata).expect("it merges");
        assert_eq!(metadata, map(json!({"b": "2", "c": "3"})));
        Metadata::Untouched.apply(&mut metadata).expect("nothing to do");
        assert_eq!(metadata.len(), 2);
        Metadata::Cleared.apply(&mut metadata).expect("it clears");
        assert!(metadata.is_empty());
    }

    #[test]
    fn the_fifty_first_pair_is_refused_and_changes_nothing() {
        let pairs = |from: usize, to: usize| (from..to).map(|n| (n.to_string(), json!("x"))).collect();
        let mut metadata: Map<String, Value> = pairs(0, 50);
        assert!(Metadata::Merged(pairs(50, 51)).apply(&mut metadata).is_err());
        assert_eq!(metadata.len(), 50);
    }
}
