//! Statuses in flow files: `"404"`, or `"5xx"` for all of a hundred.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A set of statuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Statuses(Vec<String>);

impl Statuses {
    /// Reads a status or a list of statuses. `None` if one of them is none.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let texts = match value {
            Value::Array(items) => items.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?,
            other => vec![other.as_str()?],
        };
        let are_statuses = !texts.is_empty() && texts.iter().all(|text| is_status(text));
        are_statuses.then(|| Self(texts.into_iter().map(str::to_owned).collect()))
    }

    /// True if the status is in the set.
    pub(super) fn has(&self, status: u16) -> bool {
        let text = status.to_string();
        self.0.iter().any(|own| *own == text || own.strip_suffix("xx").is_some_and(|first| text.starts_with(first)))
    }

    /// Returns a status that is in both sets by the same name.
    pub(super) fn shared<'a>(&'a self, other: &Self) -> Option<&'a str> {
        self.0.iter().find(|own| other.0.contains(own)).map(String::as_str)
    }
}

fn is_status(text: &str) -> bool {
    let bytes = text.as_bytes();
    let first = bytes.first().is_some_and(|b| (b'2'..=b'5').contains(b));
    first && bytes.len() == 3 && (text.ends_with("xx") || bytes[1..].iter().all(u8::is_ascii_digit))
}

/// True if a value from a flow file is a status or a list of statuses.
pub(crate) fn are_statuses(value: &Value) -> bool {
    Statuses::read(value).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_are_numbers_or_hundreds() {
        let set = Statuses::read(&json!(["2xx", "404", "5xx"])).expect("statuses");
        for (status, is_in) in [(200, true), (299, true), (301, false), (404, true), (405, false), (503, true)] {
            assert_eq!(set.has(status), is_in, "{status}");
        }
        assert_eq!(Statuses::read(&json!("409")), Some(Statuses(vec!["409".into()])));
        for bad in
            [json!([]), json!("x"), json!("99"), json!(404), json!("1xx"), json!("2x0"), json!("{{ x }}"), json!([404])]
        {
            assert_eq!(Statuses::read(&bad), None, "{bad}");
        }
        assert_eq!(set.shared(&Statuses::read(&json!(["429", "5xx"])).expect("statuses")), Some("5xx"));
    }
}
