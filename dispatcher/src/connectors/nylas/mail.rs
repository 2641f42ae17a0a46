//! A mail as Nylas takes it. Pure.

use serde_json::{Map, Value, json};

use super::super::{CannotPrepare, Inputs};

/// The mail that these inputs make. Nylas takes one body: HTML, or plain text where there is no HTML.
pub(super) fn of(inputs: &Inputs<'_>) -> Result<Map<String, Value>, CannotPrepare> {
    let mut mail = Map::new();
    inputs.required("to")?;
    for name in ["to", "from", "reply_to"] {
        if let Some(value) = inputs.params.get(name) {
            let addresses = addresses(value).filter(|list| !list.is_empty());
            let addresses = addresses.ok_or_else(|| {
                CannotPrepare(format!("{name} is no address such as \"dana@work.test\" or \"Dana <dana@work.test>\""))
            })?;
            mail.insert(name.into(), Value::Array(addresses));
        }
    }
    mail.insert("subject".into(), inputs.required("subject")?.clone());
    match (inputs.params.get("html"), inputs.params.get("text")) {
        (Some(html), _) => mail.insert("body".into(), html.clone()),
        (None, Some(text)) => {
            mail.insert("is_plaintext".into(), json!(true));
            mail.insert("body".into(), text.clone())
        }
        (None, None) => return Err(CannotPrepare("the mail has neither html nor text".into())),
    };
    Ok(mail)
}

/// One or several addresses.
fn addresses(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::String(one) => Some(vec![address(one)?]),
        Value::Array(several) => several.iter().map(|one| address(one.as_str()?)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// `a@b.c` or `Name <a@b.c>`.
fn address(text: &str) -> Option<Value> {
    let text = text.trim();
    let (name, email) = match text.strip_suffix('>') {
        Some(named) => named.rsplit_once('<').map(|(name, email)| (name.trim().trim_matches('"'), email))?,
        None => ("", text),
    };
    let (local, domain) = email.split_once('@')?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '<' | '>' | ',' | ';');
    if local.is_empty() || domain.is_empty() || local.contains(odd) || domain.contains(odd) {
        return None;
    }
    Some(if name.is_empty() { json!({ "email": email }) } else { json!({ "email": email, "name": name }) })
}

/// The domain of an address, in lower case. None where a template leaves it to the event.
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
    fn an_address_is_bare_or_has_a_name() {
        assert_eq!(address(" a@b.test "), Some(json!({ "email": "a@b.test" })));
        assert_eq!(address("\"B, A\" <a@b.test>"), Some(json!({ "email": "a@b.test", "name": "B, A" })));
        for text in ["", "a", "@b", "a@", "a b@c.test", "a@b@c", "A <a@b.test", "a@b.test, c@d.test", "A <>"] {
            assert_eq!(address(text), None, "{text}");
        }
    }

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
