//! Personal data in what is shown. Everything is masked that is not known to be harmless: a list of what may be shown does not
//! grow holes when a sender adds a field.

use serde_json::{Map, Value};
use usher_proto::visible;

/// Fields whose values are ids, types, times and numbers of the machinery, wherever they stand.
const HARMLESS: &[&str] = &[
    "id",
    "object",
    "type",
    "status",
    "strategy",
    "created_at",
    "updated_at",
    "deleted",
    "timestamp",
    "last_sign_in_at",
    "last_active_at",
    "expire_at",
    "expires_at",
    "instance_id",
    "event_id",
    "user_id",
    "organization_id",
    "role",
    "slug_type",
    "two_factor_enabled",
    "password_enabled",
    "totp_enabled",
    "backup_code_enabled",
    "primary_email_address_id",
    "primary_phone_number_id",
    "primary_web3_wallet_id",
    "delivered_by_clerk",
    "from_email_name_type",
    "attempts",
    "revision",
];

/// The form in which personal data is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masking {
    /// Masked.
    Masked,
    /// As it is, because an operator has asked to see it.
    Shown,
}

impl Masking {
    /// Returns a JSON value: masked, every text and number in it that is not known to be harmless.
    pub(crate) fn json(self, value: Value) -> Value {
        match self {
            Self::Shown => value,
            Self::Masked => mask_value(value, false),
        }
    }

    /// Returns a sentence: masked, the addresses and numbers of telephones in it.
    pub(crate) fn sentence(self, text: &str) -> String {
        match self {
            Self::Shown => visible::line(text).into_owned(),
            Self::Masked => mask_sentence(&visible::line(text)),
        }
    }
}

fn mask_value(value: Value, harmless: bool) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value,
        Value::Number(_) if harmless => value,
        Value::String(text) if harmless => Value::String(mask_sentence(&text)),
        Value::Number(_) => Value::String("\u{2022}\u{2022}".to_owned()),
        Value::String(text) => Value::String(mask_text(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| mask_value(item, harmless)).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(masked_field).collect::<Map<_, _>>()),
    }
}

/// The name of a field is a text from outside, too: metadata may be keyed by addresses.
fn masked_field((name, value): (String, Value)) -> (String, Value) {
    let harmless = HARMLESS.contains(&name.as_str()) && !value.is_object();
    let shown = if is_word(&name) { name } else { mask_text(&name) };
    (shown, mask_value(value, harmless))
}

fn is_word(name: &str) -> bool {
    name.len() <= 40 && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_' || c == '-')
        || HARMLESS.contains(&name)
        || name.chars().filter(char::is_ascii_digit).count() <= 2
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Masks an address as `d••@w•••.test`, and another text after its first character.
fn mask_text(text: &str) -> String {
    if let Some((local, domain)) = text.rsplit_once('@') {
        let (name, end) = domain.rsplit_once('.').unwrap_or((domain, ""));
        let dot = if end.is_empty() { "" } else { "." };
        return format!("{}@{}{dot}{}", first(local), first(name), visible::line(end));
    }
    first(text)
}

/// The first character, and dots whose number tells nothing.
fn first(text: &str) -> String {
    match text.chars().next() {
        None => String::new(),
        Some(c) => format!("{}\u{2022}\u{2022}", visible::line(c.encode_utf8(&mut [0; 4]))),
    }
}

/// Masks the words of a sentence that are an address or a number of a telephone.
fn mask_sentence(text: &str) -> String {
    let is_part =
        |c: char| c.is_alphanumeric() || matches!(c, '@' | '.' | '_' | '-' | '+' | '%' | '!' | '#' | '&' | '=' | '*');
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        masked.push_str(&rest[..start]);
        let word = &rest[start..];
        let end = word.find(|c: char| !is_part(c)).unwrap_or(word.len());
        masked.push_str(&mask_word(&word[..end]));
        rest = &word[end..];
    }
    masked.push_str(rest);
    masked
}

fn mask_word(word: &str) -> String {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let is_phone = digits >= 7 && word.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if word.contains('@') || (is_phone && word.starts_with('+')) { mask_text(word) } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_personal_is_left_at_any_depth() {
        let event = json!({
            "type": "user.created", "object": "event", "timestamp": 1_700_000_000_000_i64,
            "data": {
                "id": "user_1", "first_name": "Dana", "birthday": "1990-01-02", "public_metadata": {
                    "plan": "gold", "dana@work.test": 1, "children": [{"name": "Zoe", "age": 7}], "4915112345678": true,
                },
                "email_addresses": [{"id": "idn_1", "email_address": "dana@work.test"}],
                "primary_email_address_id": "idn_1", "banned": false, "id_number": 123_456_789,
            },
        });
        let masked = Masking::Masked.json(event.clone()).to_string();
        for word in ["Dana", "dana", "work", "1990", "gold", "Zoe", "7", "123456789", "4915112345678"] {
            assert!(!masked.replace("1700000000000", "").contains(word), "{word} in {masked}");
        }
        for word in
            ["user_1", "user.created", "1700000000000", "idn_1", "false", "d\u{2022}\u{2022}@w\u{2022}\u{2022}.test"]
        {
            assert!(masked.contains(word), "{word} in {masked}");
        }
        assert_eq!(Masking::Shown.json(event.clone()), event);
    }

    #[test]
    fn a_harmless_field_that_holds_something_else_is_masked() {
        let odd = Masking::Masked.json(json!({"id": {"name": "Dana"}, "type": "mail to dana@work.test"})).to_string();
        assert!(!odd.contains("Dana") && !odd.contains("dana") && !odd.contains("work"), "{odd}");
    }

    #[test]
    fn sentences_lose_addresses_and_numbers_of_telephones_and_nothing_else() {
        for (text, masked) in [
            (
                "422 validation_error: `to` <dana@work.test> is bad",
                "422 validation_error: `to` <d\u{2022}\u{2022}@w\u{2022}\u{2022}.test> is bad",
            ),
            ("call +4915112345678 now", "call +\u{2022}\u{2022} now"),
            ("No such customer: cus_123, 10.0.0.1", "No such customer: cus_123, 10.0.0.1"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            assert_eq!(Masking::Masked.sentence(text), masked);
        }
    }
}
