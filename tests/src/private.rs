//! Personal data and secrets that a test sent in, which no program may repeat in its log, metrics and errors. Every program
//! that a test starts is searched for it when it ends.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Fields of Clerk's events whose values are personal.
const PERSONAL: [&str; 8] = [
    "email_address",
    "to_email_address",
    "first_name",
    "last_name",
    "username",
    "phone_number",
    "to_phone_number",
    "otp_code",
];
/// Shorter words would be found by chance.
const SHORTEST_WORD: usize = 3;
/// Shorter settings are placeholders such as `re_x`.
const SHORTEST_SECRET: usize = 10;
/// Domains of the examples in Usher's own messages. No test sends anything to them.
const EXAMPLES: [&str; 4] = ["acme.com", "example.com", "usher.test", "work.test"];

/// Words of the personal data that tests of this process sent in.
static SENT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Remembers the personal data of an event, at any depth.
pub fn remember(event: &Value) {
    match event {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if PERSONAL.contains(&name.as_str()) => {
                        let mut sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
                        sent.extend(words(text).filter(|word| word.len() >= SHORTEST_WORD).map(str::to_owned));
                    }
                    _ => remember(value),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(remember),
        _ => {}
    }
}

/// Returns the secrets among a program's settings.
pub(crate) fn secrets(environment: &[(String, String)]) -> Vec<String> {
    let is_secret = |name: &str| ["SECRET", "KEY", "TOKEN", "PASSWORD"].iter().any(|part| name.contains(part));
    let values = environment.iter().filter(|(name, _)| is_secret(name) && !name.ends_with("_FILE"));
    let values = values.flat_map(|(_, value)| value.split_whitespace());
    values.filter(|value| value.len() >= SHORTEST_SECRET).map(str::to_owned).collect()
}

/// Returns the lines of `text` that repeat one of `secrets`, a word of what was sent in, or any address of a mail.
pub fn repeated(text: &str, secrets: &[String]) -> Vec<String> {
    let sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
    let is_private = |word: &str| sent.contains(word) || is_address(word);
    let repeats = |line: &&str| secrets.iter().any(|secret| line.contains(secret)) || words(line).any(is_private);
    text.lines().filter(repeats).map(str::to_owned).collect()
}

/// Panics if `text`, which `place` put out, repeats what is private.
///
/// # Panics
///
/// If it does.
pub fn assert_kept(place: &str, text: &str, secrets: &[String]) {
    let found = repeated(text, secrets);
    assert!(found.is_empty(), "{place} put out what is private:\n{}", found.join("\n"));
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || "@._+-".contains(c)));
    words.map(|word| word.trim_matches(['.', '-'])).filter(|word| !word.is_empty())
}

/// True for a word such as `ann@mail.test` that is no example of Usher's.
fn is_address(word: &str) -> bool {
    let Some((local, domain)) = word.split_once('@') else { return false };
    let is_domain = domain.rsplit_once('.').is_some_and(|(host, top)| {
        !host.is_empty() && top.len() >= 2 && top.chars().all(|letter| letter.is_ascii_alphabetic())
    });
    !local.is_empty() && is_domain && !EXAMPLES.contains(&domain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_sent_in_is_found_and_the_rest_is_not() {
        remember(&json!({"data": {
            "first_name": "Wilhelmina", "last_name": null, "id": "user_1",
            "phone_numbers": [{"phone_number": "+15555550123"}], "data": {"otp_code": "482913"},
        }}));
        let environment = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let settings = [
            environment("STRIPE_SECRET_KEY", "sk_test_0123456789"),
            environment("USHER_FROM", "Acme <hello@acme.test>"),
            environment("RESEND_API_KEY", "re_x"),
        ];
        let secrets = secrets(&settings);
        for line in [
            "Dear Wilhelmina!",
            "to=+15555550123",
            "code: 482913.",
            "Bearer sk_test_0123456789",
            "refused \"zoe+x@mail.test\"",
        ] {
            assert_eq!(repeated(&format!("one\n{line}\ntwo"), &secrets), [line]);
        }
        for line in [
            "user_1 is done, Will said",
            "such as \"dana@work.test\"",
            "such as \"Acme <hello@acme.com>\"",
            "postgres://postgres@127.0.0.1:5432/x",
            "stripe@staging re_x 48291",
        ] {
            assert_eq!(repeated(line, &secrets), [""; 0], "{line}");
        }
    }
}
