//! What a mail must be for Resend to take it. Pure.

use std::time::Duration;

use serde_json::Value;
use usher_proto::Timestamp;

use super::error::Error;

const MOST_RECIPIENTS: usize = 50;
const LONGEST_TAG: usize = 256;
const FARTHEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Recipients there are refused, so that tests do not bounce at addresses which exist nowhere.
const REFUSED_DOMAINS: [&str; 2] = ["example.com", "test.com"];
/// May write to the account's owner only, who has no address here; Resend's own test addresses are always open.
const TEST_SENDER: &str = "onboarding@resend.dev";
const TEST_DOMAIN: &str = "resend.dev";

const FORM: &str = "It needs to follow the `email@domain.tld` or `Name <email@domain.tld>` format.";

/// One or several addresses, as Resend takes them.
pub(super) fn list(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(several) => several.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// The first thing that is wrong with a mail.
pub(super) fn check(mail: &Value, now: Timestamp) -> Result<(), Error> {
    let template = present(mail, "template").is_some();
    for field in ["from", "to", "subject"] {
        if present(mail, field).is_none() && !(template && field == "subject") {
            return Err(Error::missing(&format!("`{field}`")));
        }
    }
    if !template && present(mail, "html").is_none() && present(mail, "text").is_none() {
        return Err(Error::missing("`html` or `text`"));
    }
    for field in ["from", "subject", "html", "text"] {
        if present(mail, field).is_some_and(|value| !value.is_string()) {
            return Err(Error::invalid(field, "It must be a string."));
        }
    }
    if template && present(&mail["template"], "id").is_none() {
        return Err(Error::missing("`template.id`"));
    }
    // Resend's OpenAPI document, `SendEmailRequest.template`: "If provided, do not include html or text."
    if template && ["html", "text"].iter().any(|field| present(mail, field).is_some()) {
        return Err(Error::invalid("template", "It cannot be used together with `html` or `text`."));
    }
    subject(mail)?;
    let from =
        mail.get("from").and_then(Value::as_str).and_then(address).ok_or_else(|| Error::invalid("from", FORM))?;
    for field in ["to", "cc", "bcc", "reply_to"] {
        recipients(mail, field, from)?;
    }
    tags(mail)?;
    attachments(mail)?;
    let of_strings =
        |headers: &Value| headers.as_object().is_some_and(|headers| headers.values().all(Value::is_string));
    if present(mail, "headers").is_some_and(|headers| !of_strings(headers)) {
        return Err(Error::invalid("headers", "It must be an object of strings."));
    }
    scheduled(mail, now)
}

/// One line: triggerdotdev/trigger.dev#1745 has the words of the refusal, airwaylab-app/airwaylab#875 its status.
fn subject(mail: &Value) -> Result<(), Error> {
    let ends = [('\n', "\\n"), ('\r', "\\r")];
    let text = mail.get("subject").and_then(Value::as_str).unwrap_or_default();
    match ends.iter().find(|(end, _)| text.contains(*end)) {
        Some((_, shown)) => Err(Error::not_allowed("subject", shown)),
        None => Ok(()),
    }
}

/// A field that is there and holds something.
fn present<'a>(of: &'a Value, field: &str) -> Option<&'a Value> {
    of.get(field).filter(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    })
}

fn recipients(mail: &Value, field: &str, from: &str) -> Result<(), Error> {
    let Some(value) = present(mail, field) else { return Ok(()) };
    let addresses = list(value).ok_or_else(|| Error::invalid(field, "It must be a string or a list of strings."))?;
    if addresses.len() > MOST_RECIPIENTS {
        return Err(Error::invalid(field, "It can hold at most 50 addresses."));
    }
    for text in addresses {
        let address = address(text).ok_or_else(|| Error::invalid(field, FORM))?;
        // Resend sends by way of Amazon SES, which takes ASCII only, domains in Punycode (its "Troubleshooting" page;
        // bitwarden/server#1512, alphagov/notifications-api#2582). How Resend itself words it is not confirmed.
        if !address.is_ascii() {
            return Err(Error::invalid(field, "The email address contains non-ASCII characters."));
        }
        if field == "reply_to" {
            continue;
        }
        let domain = address.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        if REFUSED_DOMAINS.contains(&domain.as_str()) {
            let why = "Use a testing address such as delivered@resend.dev instead of domains like `example.com`.";
            return Err(Error::invalid(field, why));
        }
        if from.eq_ignore_ascii_case(TEST_SENDER) && domain != TEST_DOMAIN {
            return Err(Error::FOREIGN_RECIPIENT);
        }
    }
    Ok(())
}

/// The bare address in `a@b.c` or `Name <a@b.c>`.
fn address(text: &str) -> Option<&str> {
    let bare = match text.trim().strip_suffix('>') {
        Some(named) => named.rsplit_once('<')?.1,
        None => text.trim(),
    };
    let (local, domain) = bare.split_once('@')?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '<' | '>' | ',' | ';' | '"');
    let labels = domain.split('.').count() > 1 && domain.split('.').all(|label| !label.is_empty());
    (!local.is_empty() && labels && !local.contains(odd) && !domain.contains(odd)).then_some(bare)
}

fn tags(mail: &Value) -> Result<(), Error> {
    let Some(value) = present(mail, "tags") else { return Ok(()) };
    let tags = value.as_array().ok_or_else(|| Error::invalid("tags", "It must be a list of `{name, value}`."))?;
    for tag in tags {
        for part in ["name", "value"] {
            let text = tag[part].as_str().filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| Error::invalid("tags", "Each tag needs a `name` and a `value`."))?;
            if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                let why = "Tags should only contain ASCII letters, numbers, underscores, or dashes.";
                return Err(Error::invalid("tags", why));
            }
            if text.len() > LONGEST_TAG {
                return Err(Error::invalid("tags", "Names and values can have at most 256 characters."));
            }
        }
    }
    Ok(())
}

fn attachments(mail: &Value) -> Result<(), Error> {
    let Some(value) = present(mail, "attachments") else { return Ok(()) };
    let attachments = value.as_array().ok_or_else(|| Error::invalid("attachments", "It must be a list."))?;
    for attachment in attachments {
        match (present(attachment, "content"), present(attachment, "path")) {
            (None, None) => return Err(Error::invalid_attachment("An attachment needs either `content` or `path`.")),
            (Some(_), None) if present(attachment, "filename").is_none() => {
                return Err(Error::invalid_attachment("An attachment with `content` needs a `filename`."));
            }
            (Some(_), _) | (None, Some(_)) => {}
        }
    }
    Ok(())
}

/// Times in words ("in 1 min") are taken as they come: what they mean is Resend's secret.
fn scheduled(mail: &Value, now: Timestamp) -> Result<(), Error> {
    let Some(value) = present(mail, "scheduled_at") else { return Ok(()) };
    let text = value.as_str().ok_or_else(|| Error::invalid("scheduled_at", "It must be a string."))?;
    match text.parse::<Timestamp>() {
        Ok(time) if time > now.plus(FARTHEST) => {
            Err(Error::invalid("scheduled_at", "It can be at most 30 days ahead."))
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
