//! Validates a mail as Resend does. Pure.

use std::time::Duration;

use serde_json::Value;
use usher_proto::Timestamp;

use super::error::ResendError;

const MOST_RECIPIENTS: usize = 50;
const LONGEST_TAG: usize = 256;
const FARTHEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Resend refuses recipients in these domains, so that tests do not bounce at addresses that do not exist.
const REFUSED_DOMAINS: [&str; 2] = ["example.com", "test.com"];
/// A sender that may write only to the account's owner and to Resend's own test addresses. The owner has no address
/// in the lab.
const TEST_SENDER: &str = "onboarding@resend.dev";
const TEST_DOMAIN: &str = "resend.dev";

const FORM: &str = "It needs to follow the `email@domain.tld` or `Name <email@domain.tld>` format.";

/// Reads one or several addresses, given as a string or a list. Returns `None` for any other value.
pub(super) fn list(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(several) => several.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Validates a mail. The error is the first one found.
pub(super) fn check(mail: &Value, now: Timestamp) -> Result<(), ResendError> {
    let template = present(mail, "template").is_some();
    for field in ["from", "to", "subject"] {
        if present(mail, field).is_none() && !(template && field == "subject") {
            return Err(ResendError::missing(&format!("`{field}`")));
        }
    }
    if !template && present(mail, "html").is_none() && present(mail, "text").is_none() {
        return Err(ResendError::missing("`html` or `text`"));
    }
    for field in ["from", "subject", "html", "text"] {
        if present(mail, field).is_some_and(|value| !value.is_string()) {
            return Err(ResendError::invalid(field, "It must be a string."));
        }
    }
    if template && present(&mail["template"], "id").is_none() {
        return Err(ResendError::missing("`template.id`"));
    }
    // Resend's OpenAPI document, `SendEmailRequest.template`: "If provided, do not include html or text."
    if template && ["html", "text"].iter().any(|field| present(mail, field).is_some()) {
        return Err(ResendError::invalid("template", "It cannot be used together with `html` or `text`."));
    }
    subject(mail)?;
    let from =
        mail.get("from").and_then(Value::as_str).and_then(address).ok_or_else(|| ResendError::invalid("from", FORM))?;
    for field in ["to", "cc", "bcc", "reply_to"] {
        recipients(mail, field, from)?;
    }
    tags(mail)?;
    attachments(mail)?;
    let of_strings =
        |headers: &Value| headers.as_object().is_some_and(|headers| headers.values().all(Value::is_string));
    if present(mail, "headers").is_some_and(|headers| !of_strings(headers)) {
        return Err(ResendError::invalid("headers", "It must be an object of strings."));
    }
    scheduled(mail, now)
}

/// Checks that the subject is one line. Sources: triggerdotdev/trigger.dev#1745 for the message of the refusal,
/// airwaylab-app/airwaylab#875 for its status.
fn subject(mail: &Value) -> Result<(), ResendError> {
    let ends = [('\n', "\\n"), ('\r', "\\r")];
    let text = mail.get("subject").and_then(Value::as_str).unwrap_or_default();
    match ends.iter().find(|(end, _)| text.contains(*end)) {
        Some((_, shown)) => Err(ResendError::not_allowed("subject", shown)),
        None => Ok(()),
    }
}

/// Returns a field that is present and not empty.
fn present<'a>(of: &'a Value, field: &str) -> Option<&'a Value> {
    of.get(field).filter(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    })
}

fn recipients(mail: &Value, field: &str, from: &str) -> Result<(), ResendError> {
    let Some(value) = present(mail, field) else { return Ok(()) };
    let addresses =
        list(value).ok_or_else(|| ResendError::invalid(field, "It must be a string or a list of strings."))?;
    if addresses.len() > MOST_RECIPIENTS {
        return Err(ResendError::invalid(field, "It can hold at most 50 addresses."));
    }
    for text in addresses {
        let address = address(text).ok_or_else(|| ResendError::invalid(field, FORM))?;
        // Resend sends through Amazon SES, which accepts ASCII only, with domains in Punycode (its
        // "Troubleshooting" page; bitwarden/server#1512, alphagov/notifications-api#2582). The wording of Resend's
        // own refusal is not confirmed.
        if !address.is_ascii() {
            return Err(ResendError::invalid(field, "The email address contains non-ASCII characters."));
        }
        if field == "reply_to" {
            continue;
        }
        let domain = address.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        if REFUSED_DOMAINS.contains(&domain.as_str()) {
            let why = "Use a testing address such as delivered@resend.dev instead of domains like `example.com`.";
            return Err(ResendError::invalid(field, why));
        }
        if from.eq_ignore_ascii_case(TEST_SENDER) && domain != TEST_DOMAIN {
            return Err(ResendError::FOREIGN_RECIPIENT);
        }
    }
    Ok(())
}

/// Returns the bare address in `a@b.c` or `Name <a@b.c>`. Returns `None` if the text has neither form.
pub(super) fn address(text: &str) -> Option<&str> {
    let bare = match text.trim().strip_suffix('>') {
        Some(named) => named.rsplit_once('<')?.1,
        None => text.trim(),
    };
    let (local, domain) = bare.split_once('@')?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '<' | '>' | ',' | ';' | '"');
    let labels = domain.split('.').count() > 1 && domain.split('.').all(|label| !label.is_empty());
    (!local.is_empty() && labels && !local.contains(odd) && !domain.contains(odd)).then_some(bare)
}

fn tags(mail: &Value) -> Result<(), ResendError> {
    let Some(value) = present(mail, "tags") else { return Ok(()) };
    let tags = value.as_array().ok_or_else(|| ResendError::invalid("tags", "It must be a list of `{name, value}`."))?;
    for tag in tags {
        for part in ["name", "value"] {
            let text = tag[part].as_str().filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| ResendError::invalid("tags", "Each tag needs a `name` and a `value`."))?;
            if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                let why = "Tags should only contain ASCII letters, numbers, underscores, or dashes.";
                return Err(ResendError::invalid("tags", why));
            }
            if text.len() > LONGEST_TAG {
                return Err(ResendError::invalid("tags", "Names and values can have at most 256 characters."));
            }
        }
    }
    Ok(())
}

fn attachments(mail: &Value) -> Result<(), ResendError> {
    let Some(value) = present(mail, "attachments") else { return Ok(()) };
    let attachments = value.as_array().ok_or_else(|| ResendError::invalid("attachments", "It must be a list."))?;
    for attachment in attachments {
        match (present(attachment, "content"), present(attachment, "path")) {
            (None, None) => {
                return Err(ResendError::invalid_attachment("An attachment needs either `content` or `path`."));
            }
            (Some(_), None) if present(attachment, "filename").is_none() => {
                return Err(ResendError::invalid_attachment("An attachment with `content` needs a `filename`."));
            }
            (Some(_), _) | (None, Some(_)) => {}
        }
    }
    Ok(())
}

/// Validates `scheduled_at`. Times in words ("in 1 min") are accepted without a check, because Resend does not document
/// how it interprets them.
fn scheduled(mail: &Value, now: Timestamp) -> Result<(), ResendError> {
    let Some(value) = present(mail, "scheduled_at") else { return Ok(()) };
    let text = value.as_str().ok_or_else(|| ResendError::invalid("scheduled_at", "It must be a string."))?;
    match text.parse::<Timestamp>() {
        Ok(time) if time > now.plus(FARTHEST) => {
            Err(ResendError::invalid("scheduled_at", "It can be at most 30 days ahead."))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_bare_or_has_a_name() {
        for text in ["a@b.test", "Zoë <a+x@b.co.test>", "\"A, B\" <a@b.test>", " a@b.test "] {
            assert!(address(text).is_some(), "{text}");
        }
        for text in ["", "a", "a@", "@b.test", "a@b", "a b@c.test", "a@b@c.test", "A <a@b.test", "a@b..test", "A <>"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
