//! The secrets that flows name, read from the environment, and their removal from what a receiver answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde_json::Value;
use usher_service::ConfigError;
use usher_service::options::Environment;

use crate::path;
use crate::placeholder::SecretValues;

/// Length of a secret, at least. A shorter text is none, and removing it from answers would destroy them.
const SHORTEST: usize = 8;

/// The secrets of one instance, by name. Each is read once.
pub(super) struct SecretStore {
    environment: Environment,
    read: Mutex<BTreeMap<String, String>>,
}

impl SecretStore {
    pub(super) fn new(environment: &Environment) -> Self {
        Self { environment: environment.clone(), read: Mutex::default() }
    }

    /// Returns the secrets of these names.
    ///
    /// # Errors
    ///
    /// One is not set, too short, or not a name that a secret may have. The error never repeats a value.
    pub(super) fn all<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<SecretValues, ConfigError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = SecretValues::new();
        for name in names {
            let value = match read.get(name) {
                Some(value) => value.clone(),
                None => {
                    let value = self.value(name)?;
                    read.insert(name.to_owned(), value.clone());
                    value
                }
            };
            all.insert(name.to_owned(), value);
        }
        Ok(all)
    }

    fn value(&self, name: &str) -> Result<String, ConfigError> {
        let value = self.environment.secret(name)?.ok_or_else(|| ConfigError::new(name, "not set"))?;
        // What is around a header's value is removed on its way, and what comes back would not be recognised.
        let value = value.trim().to_owned();
        if value.chars().count() < SHORTEST {
            let why = format!("a secret has at least {SHORTEST} characters, so that it can be recognised in answers");
            return Err(ConfigError::new(name, why));
        }
        Ok(value)
    }
}

/// The texts that must not be kept of an answer, with what replaces each: secrets in the encodings in which a receiver may
/// repeat them.
#[derive(Debug, Default)]
pub(crate) struct Redaction(Vec<(String, String)>);

impl Redaction {
    /// Returns the redaction of secrets, and of the credentials of Basic authentication.
    pub(crate) fn of(secrets: &SecretValues, credentials: Option<&str>) -> Self {
        let mut texts = BTreeSet::new();
        for (name, value) in secrets {
            for text in forms(value) {
                texts.insert((text, format!("[secret {name}]")));
            }
        }
        if let Some(credentials) = credentials {
            for text in encoded(credentials) {
                texts.insert((text, "[credentials]".to_owned()));
            }
        }
        let mut texts: Vec<_> = texts.into_iter().filter(|(text, _)| text.chars().count() >= SHORTEST).collect();
        // A secret may be a part of another one.
        texts.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self(texts)
    }

    /// Returns a text without secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (secret, name)| text.replace(secret, name))
    }

    /// Returns JSON without secrets, in its texts, names and numbers.
    pub(super) fn json(&self, value: Value) -> Value {
        match value {
            Value::Null | Value::Bool(_) => value,
            Value::Number(number) => {
                let text = number.to_string();
                let shown = self.text(&text);
                if shown == text { Value::Number(number) } else { Value::String(shown) }
            }
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.json(item)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, field)| (self.text(&name), self.json(field))).collect()
            }
        }
    }
}

/// Returns the forms in which a secret may come back: as it is, in the encodings of requests, and for an address its path.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    forms.extend(encoded(secret));
    if let Ok(url) = Url::parse(secret) {
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        forms.extend([url.to_string(), format!("{}{query}", url.path()), url.path().to_owned()]);
        // A secret path may be repeated without the slash at its beginning.
        forms.push(url.path().trim_matches('/').to_owned());
    }
    forms
}

fn encoded(text: &str) -> Vec<String> {
    let json = Value::from(text).to_string();
    vec![
        json[1..json.len() - 1].to_owned(),
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string(),
        path::escape(text),
        form_encoded(text),
        BASE64_STANDARD.encode(text),
        BASE64_STANDARD_NO_PAD.encode(text),
        BASE64_URL_SAFE.encode(text),
        BASE64_URL_SAFE_NO_PAD.encode(text),
    ]
}

/// Returns a text as a form has it.
pub(super) fn form_encoded(text: &str) -> String {
    serde_urlencoded::to_string([("", text)]).map(|pair| pair[1..].to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(pairs: &[(&str, &str)]) -> SecretValues {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_secret_is_removed_in_every_form_in_which_it_was_sent() {
        let url = "https://hooks.test/services/T0/B0/k3y\"s?token=a b";
        let redaction =
            Redaction::of(&values(&[("URL", url), ("KEY", "k\u{e9}y:/+12345")]), Some("site:k\u{e9}y:/+12345"));
        for text in [
            url.to_owned(),
            "no such path: /services/T0/B0/k3y%22s".to_owned(),
            format!("bad key {}", "k\u{e9}y:/+12345"),
            format!("bad key {}", path::escape("k\u{e9}y:/+12345")),
            format!("bad key {}", form_encoded("k\u{e9}y:/+12345")),
            format!("Authorization: Basic {}", BASE64_STANDARD.encode("site:k\u{e9}y:/+12345")),
        ] {
            let shown = redaction.text(&text);
            assert!(shown.contains("[secret ") || shown.contains("[credentials]"), "{text}: {shown}");
            assert!(!shown.contains("12345") && !shown.contains("k3y"), "{text}: {shown}");
        }
    }

    #[test]
    fn json_keeps_its_form_without_the_secrets_in_it() {
        let redaction = Redaction::of(&values(&[("PIN", "12345678"), ("KEY", "sekretkey")]), None);
        let answer = json!({ "a": [12_345_678, "x sekretkey"], "sekretkey": true, "n": 7 });
        let expected = json!({ "a": ["[secret PIN]", "x [secret KEY]"], "[secret KEY]": true, "n": 7 });
        assert_eq!(redaction.json(answer), expected);
    }

    #[test]
    fn a_secret_is_read_once_and_one_that_is_none_is_told_by_its_name() {
        let store = SecretStore::new(&Environment::from_vars([("KEY", "sekretkey"), ("SHORT", "abc")]));
        assert_eq!(store.all(["KEY"].into_iter()), Ok(values(&[("KEY", "sekretkey")])));
        for (name, why) in
            [("NONE", "not set"), ("SHORT", "at least 8 characters"), ("RESEND_API_KEY", "setting of Usher's own")]
        {
            let error = store.all([name].into_iter()).expect_err(name).to_string();
            assert!(error.starts_with(&format!("{name}: ")) && error.contains(why), "{error}");
            assert!(!error.contains("abc"), "{error}");
        }
    }
}
