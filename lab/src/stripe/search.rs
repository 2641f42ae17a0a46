//! The search for customers. Of Stripe's query language it supports only `metadata['name']:'value'`, joined by `AND`.
//!
//! Facts: docs.stripe.com, search. The index lags behind the lists, usually by less than a minute.

use serde_json::{Map, Value};

use super::error::StripeError;
use super::parameters::Parameters;

/// Delay of the index, in seconds. It is long enough that a search right after a write does not find the new object.
pub(super) const INDEX_LAG: i64 = 2;

/// A search query. All pairs must match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    pub(super) limit: usize,
    pub(super) skip: usize,
}

pub(super) fn read(parameters: &Parameters<'_>) -> Result<Query, StripeError> {
    parameters.only(&["limit", "page", "query"])?;
    let text = parameters.required("query")?;
    let pairs = text.split(" AND ").map(pair).collect::<Option<Vec<_>>>();
    let pairs = pairs.ok_or_else(|| {
        StripeError::invalid("query", "The lab searches for metadata['name']:'value' only, several joined by AND.")
    })?;
    let skip = parameters.text("page")?.map_or(Some(0), |page| page.parse().ok());
    let skip = skip.ok_or_else(|| StripeError::invalid("page", "Invalid page"))?;
    Ok(Query { pairs, limit: parameters.page()?.limit, skip })
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, rest) = quoted(text.trim().strip_prefix("metadata[")?)?;
    let (value, rest) = quoted(rest.strip_prefix("]:")?)?;
    rest.is_empty().then_some((name, value))
}

/// Parses a quoted text. Returns it with the remaining input.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut inner = String::new();
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            c if escaped => {
                inner.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            c if c == quote => return Some((inner, &text[index + 1..])),
            c => inner.push(c),
        }
    }
    None
}

impl Query {
    pub(super) fn takes(&self, metadata: &Map<String, Value>) -> bool {
        self.pairs.iter().all(|(name, value)| metadata.get(name).is_some_and(|have| have == value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_inside_a_value_are_escaped() {
        assert_eq!(pair(r"metadata['a']:'it\'s'"), Some(("a".into(), "it's".into())));
        assert_eq!(pair(r#"metadata["a"]:"x""#), Some(("a".into(), "x".into())));
        assert_eq!(pair("metadata['a']:'x' OR name:'y'"), None);
        assert_eq!(pair("email:'a@b.test'"), None);
    }
}
