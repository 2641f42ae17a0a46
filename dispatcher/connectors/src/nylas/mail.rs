//! Builds a mail in Nylas's format. Pure.

use serde_json::{Map, Value, json};
use usher_proto::Mailbox;

use super::super::{PrepareError, StepInput};

/// Returns the mail for these inputs. Nylas accepts one body: HTML, or plain text if there is no HTML.
pub(super) fn of(inputs: &StepInput<'_>) -> Result<Map<String, Value>, PrepareError> {
    let mut mail = Map::new();
    // Without a `from`, the mail is sent as its mailbox.
    let from = inputs.params.contains_key("from").then(|| inputs.sender(None)).transpose()?;
    let lists = [
        ("to", inputs.recipients()?),
        ("from", from.into_iter().collect()),
        ("reply_to", inputs.mailboxes("reply_to")?),
    ];
    for (name, mailboxes) in lists.into_iter().filter(|(_, mailboxes)| !mailboxes.is_empty()) {
        mail.insert(name.into(), mailboxes.into_iter().map(entry).collect());
    }
    mail.insert("subject".into(), json!(inputs.subject()?));
    let headers = inputs.headers()?;
    if !headers.is_empty() {
        let header = |(name, value): (&str, String)| json!({ "name": name, "value": value });
        mail.insert("custom_headers".into(), headers.into_iter().map(header).collect());
    }
    match (inputs.params.get("html"), inputs.params.get("text")) {
        (Some(html), _) => mail.insert("body".into(), html.clone()),
        (None, Some(text)) => {
            mail.insert("is_plaintext".into(), json!(true));
            mail.insert("body".into(), text.clone())
        }
        (None, None) => return Err(PrepareError("the mail has neither html nor text".into())),
    };
    Ok(mail)
}

fn entry(Mailbox { name, address }: Mailbox) -> Value {
    if name.is_empty() { json!({ "email": address }) } else { json!({ "email": address, "name": name }) }
}

/// Returns the domain of an address, in lower case, or `None` if a template leaves it to the event.
pub(super) fn domain(text: &str) -> Option<String> {
    let (_, rest) = text.trim().rsplit_once('@')?;
    let domain = rest.strip_suffix('>').unwrap_or(rest);
    let literal = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
    (!domain.is_empty() && domain.chars().all(literal)).then(|| domain.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_known_before_the_event_unless_a_template_makes_it() {
        for text in ["h@Acme.test", "Acme <h@acme.test>", " {{ user.name }} <{{ user.id }}@acme.test> "] {
            assert_eq!(domain(text).as_deref(), Some("acme.test"), "{text}");
        }
        for text in ["acme.test", "h@", "h@{{ user.domain }}", "{% if user.id %}h@acme.test{% endif %}"] {
            assert_eq!(domain(text), None, "{text}");
        }
    }
}
