//! The places of secrets, and of data of an event in an address, within rendered texts.
//!
//! A text of a flow is rendered before the request is built, and the request is stored before it is sent. A secret is
//! therefore rendered as a placeholder, and so is data of an event in an address, of which only the connector knows how it
//! is to be escaped. Placeholders contain a random number of the process: whatever an event contains, it cannot contain
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// Begins and ends each placeholder. Letters and digits only, so that no encoding of a text changes it.
static MARK: LazyLock<String> = LazyLock::new(|| format!("usher{:032x}", rand::random::<u128>()));
/// The letters after the first mark.
const SECRET: &str = "s";
const DATA: &str = "d";

/// Returns the text that stands for the value of the secret `name` until the request is sent.
pub fn secret_placeholder(name: &str) -> String {
    format!("{}{SECRET}{name}{}", *MARK, *MARK)
}

/// Returns the text that stands for data of an event within an address.
pub fn data_placeholder(value: &str) -> String {
    format!("{}{DATA}{value}{}", *MARK, *MARK)
}

/// The values of secrets, by name.
pub(crate) type SecretValues = BTreeMap<String, String>;

/// A rendered text in its stored form: secrets by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Pieces(pub(crate) Vec<TextPiece>);

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum TextPiece {
    /// A text as it is.
    Text(String),
    /// The value of a secret.
    Secret {
        /// The name of its variable.
        secret: String,
    },
    /// Data of an event within an address.
    Data {
        /// The value, not escaped.
        data: String,
    },
}

impl Pieces {
    /// Returns the parts of a rendered text.
    pub(crate) fn of(rendered: &str) -> Self {
        let parts = rendered.split(MARK.as_str()).enumerate().filter_map(|(at, part)| {
            let is_placeholder = at % 2 == 1;
            match (is_placeholder, part.strip_prefix(SECRET), part.strip_prefix(DATA)) {
                (true, Some(name), _) => Some(TextPiece::Secret { secret: name.to_owned() }),
                (true, None, Some(value)) => Some(TextPiece::Data { data: value.to_owned() }),
                (true, None, None) => None,
                (false, ..) => (!part.is_empty()).then(|| TextPiece::Text(part.to_owned())),
            }
        });
        Self(parts.collect())
    }

    /// Returns the names of the secrets in the text.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            TextPiece::Secret { secret } => Some(secret.as_str()),
            TextPiece::Text(_) | TextPiece::Data { .. } => None,
        })
    }

    /// Returns the text with the secrets in it, each changed by `encode`. Values of secrets that are not among `secrets` are
    /// empty; the caller has made sure that there are none.
    pub(crate) fn fill(&self, secrets: &SecretValues, encode: impl Fn(&str) -> String) -> String {
        let filled = self.0.iter().map(|piece| match piece {
            TextPiece::Text(text) => text.clone(),
            TextPiece::Secret { secret } => secrets.get(secret).map(|value| encode(value)).unwrap_or_default(),
            TextPiece::Data { data } => data.clone(),
        });
        filled.collect()
    }
}

/// Returns the names of the secrets that a parameter from a flow file names, anywhere in it.
pub(crate) fn named_in(value: &serde_json::Value) -> BTreeSet<String> {
    use serde_json::Value;
    match value {
        Value::String(text) => names(text).map(str::to_owned).collect(),
        Value::Array(items) => items.iter().flat_map(named_in).collect(),
        Value::Object(fields) => fields.values().flat_map(named_in).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => BTreeSet::new(),
    }
}

/// The name below which templates find secrets.
pub const SECRETS: &str = "secret";

/// Returns the name of the secret if the expression is one, such as `secret.SLACK_URL`.
pub fn secret_name(expression: &str) -> Option<&str> {
    expression.trim().strip_prefix(SECRETS)?.strip_prefix('.')
}

/// Returns the names of the secrets in a template. The check of flow files ensures that each is an expression by itself.
fn names(template: &str) -> impl Iterator<Item = &str> {
    let inside = template.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
    inside.filter_map(|expression| secret_name(expression.trim_matches(['-', '+'])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_placeholder_is_found_again_and_nothing_else_is_taken_for_one() {
        let text = format!("a{}b{}", secret_placeholder("SLACK_URL"), data_placeholder("{{ secret.OTHER }}"));
        let expected = vec![
            TextPiece::Text("a".into()),
            TextPiece::Secret { secret: "SLACK_URL".into() },
            TextPiece::Text("b".into()),
            TextPiece::Data { data: "{{ secret.OTHER }}".into() },
        ];
        assert_eq!(Pieces::of(&text), Pieces(expected));
        for text in ["usher", "{{ secret.OTHER }}", r#"{"secret":"OTHER"}"#] {
            assert_eq!(Pieces::of(text), Pieces(vec![TextPiece::Text(text.into())]));
        }
        assert_eq!(Pieces::of(""), Pieces::default());
    }

    #[test]
    fn the_stored_form_has_the_name_and_reads_back() {
        let pieces = Pieces::of(&format!("Bearer {}", secret_placeholder("KEY")));
        let stored = serde_json::to_string(&pieces).expect("JSON");
        assert_eq!(stored, r#"["Bearer ",{"secret":"KEY"}]"#);
        assert_eq!(serde_json::from_str::<Pieces>(&stored).expect("it reads back"), pieces);
        let secrets = SecretValues::from([("KEY".to_owned(), "k\"1".to_owned())]);
        assert_eq!(pieces.fill(&secrets, str::to_owned), "Bearer k\"1");
    }

    #[test]
    fn the_names_of_a_steps_secrets_are_found_wherever_they_stand() {
        let given = json!({ "a": ["{{ secret.A }}", { "b": "x {{- secret.B_2 -}} {{ user.id }}" }], "c": "secret.C" });
        assert_eq!(named_in(&given), BTreeSet::from(["A".to_owned(), "B_2".to_owned()]));
    }
}
