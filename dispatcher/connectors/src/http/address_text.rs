//! Addresses as flow files write them: which parts are the same for every event, and which hold data of an event.

use crate::placeholder::secret_name;
use crate::{is_template, path};

/// A part of an address in a flow file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressPart<'a> {
    /// A text as it is.
    Literal(&'a str),
    /// An expression whose value no event chooses: a secret or a setting.
    Fixed(&'a str),
    /// An expression on the event.
    Data(&'a str),
}

/// Name below which templates find the settings that are no secrets.
const SETTINGS: &str = "setting.";

/// Splits an address from a flow file into its parts. `None` if it contains anything but texts and `{{ expressions }}`.
pub fn address_parts(text: &str) -> Option<Vec<AddressPart<'_>>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let (literal, inside) = (&rest[..open], &rest[open + 2..]);
        if !literal.is_empty() {
            parts.push(AddressPart::Literal(literal));
        }
        let close = closing(inside)?;
        let expression = inside[..close].trim_matches(['-', '+']).trim();
        let is_fixed = secret_name(expression).is_some() || expression.starts_with(SETTINGS);
        parts.push(if is_fixed { AddressPart::Fixed(expression) } else { AddressPart::Data(expression) });
        rest = &inside[close + 2..];
    }
    if !rest.is_empty() {
        parts.push(AddressPart::Literal(rest));
    }
    let has_statement = parts.iter().any(|part| matches!(part, AddressPart::Literal(text) if is_template(text)));
    (!has_statement).then_some(parts)
}

/// Returns the position of the braces that end an expression, which may be in its texts, too.
fn closing(inside: &str) -> Option<usize> {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, letter) in inside.char_indices() {
        match (quote, letter) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), letter) if open == letter => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '}') if inside[at..].starts_with("}}") => return Some(at),
            _ => {}
        }
    }
    None
}

/// Checks an address from a flow file: scheme, host and port are the same for every event, and data of an event is in the
/// path only.
///
/// # Errors
///
/// It is no such address. The text says the reason.
pub(crate) fn check_address(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "it is an address such as \"https://host/path\", without user, password and dot segments";
    let parts = address_parts(text).ok_or("only {{ expressions }} may stand in it, and no {% statements %}")?;
    let begins_fixed = matches!(parts.first(), Some(AddressPart::Fixed(_)));
    let mut before = String::new();
    for part in &parts {
        match part {
            AddressPart::Literal(text) => before.push_str(text),
            AddressPart::Fixed(_) => before.push('x'),
            AddressPart::Data(_) => {
                let path = match before.split_once("://") {
                    Some((_, rest)) => rest.find('/'),
                    None if begins_fixed => before.find('/'),
                    None => None,
                };
                if path.is_none() {
                    return Err(
                        "no event chooses where a request goes: scheme, host and port stand in the flow, or in \
                                a secret",
                    );
                }
                if before.contains(['?', '#']) {
                    return Err("data of an event stands in the path only; the parameters of a query are written \
                                query = { name = \"...\" }");
                }
                before.push('x');
            }
        }
    }
    // A secret may be the whole address or its beginning; what it holds is checked when it is known.
    let whole = if begins_fixed {
        let behind = before.strip_prefix('x').unwrap_or_default();
        if !(behind.is_empty() || behind.starts_with(['/', '?'])) {
            return Err("a secret at the beginning of an address is followed by a / or by nothing");
        }
        format!("https://x.test{behind}")
    } else {
        before
    };
    let is_fit = |url: reqwest::Url| {
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_anonymous
    };
    if path::is_unambiguous(&whole) && whole.parse().is_ok_and(is_fit) { Ok(()) } else { Err(FORM) }
}

/// Returns the part of an address that says where a request goes, for quotas: the host and port, with the names of secrets in
/// place of their values.
pub(super) fn place<'a>(parts: impl Iterator<Item = PlacePart<'a>>) -> String {
    let mut place = String::new();
    let mut is_begun = false;
    for part in parts {
        match part {
            // A secret at the beginning is host and path together.
            PlacePart::Secret(name) if !is_begun => return name.to_owned(),
            PlacePart::Secret(name) => place.push_str(name),
            PlacePart::Text(text) => {
                let text = if is_begun { text } else { text.split_once("://").map_or(text, |(_, rest)| rest) };
                is_begun = true;
                let end = text.find(['/', '?', '#']);
                place.push_str(&text[..end.unwrap_or(text.len())]);
                if end.is_some() {
                    break;
                }
            }
        }
    }
    place
}

/// A part of an address as [`place`] sees it.
pub(super) enum PlacePart<'a> {
    /// A text.
    Text(&'a str),
    /// The name of a secret.
    Secret(&'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_hold_data_of_an_event_in_its_path_only() {
        for good in [
            "https://a.test/hooks?x=1",
            "http://127.0.0.1:8080/",
            "https://[::1]/x",
            "https://a.test/users/{{ user.id }}",
            "https://a.test/users/{{ user.id }}/tags/{{ event.type | replace('}}', '?') }}/",
            "{{ secret.SLACK_URL }}",
            "{{ secret.BASE }}/i/v0/e/",
            "{{ setting.BASE }}/users/{{ user.id }}",
            "https://{{ secret.HOST }}/x?key={{ secret.KEY }}",
            "https://hooks.slack.com/services/{{ secret.SLACK_PATH }}",
        ] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a.test",
            "ftp://a.test",
            "file:///etc/x",
            "https://u:p@a.test/",
            "https://{{ user.id }}.a.test/",
            "https://a.test{{ user.id }}",
            "https://a.test:{{ user.id }}/",
            "https:/{{ user.id }}/x",
            "{{ user.url }}",
            "{{ user.url }}/x",
            "{{ secret.BASE }}{{ user.id }}",
            "{{ secret.BASE }}.evil.test/",
            "{{ secret.BASE }}?q={{ user.id }}",
            "https://a.test/x?q={{ user.id }}",
            "https://a.test/x#{{ user.id }}",
            "https://a.test/../x",
            "https://a.test/{% if user.id %}x{% endif %}",
            "https://a.test/{{ user.id",
            "https://a.test/{# x #}",
            "https://{{ secret.USER }}:{{ secret.KEY }}@a.test/",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_place_of_a_request_names_secrets_and_not_their_values() {
        use PlacePart::{Secret, Text};
        let cases = [
            (vec![Text("https://a.test:8443/x?y")], "a.test:8443"),
            (vec![Text("https://a.test")], "a.test"),
            (vec![Secret("SLACK_URL"), Text("/x")], "SLACK_URL"),
            (vec![Text("https://"), Secret("HOST"), Text(".a.test/x")], "HOST.a.test"),
            (vec![Text("https://hooks.test/"), Secret("PATH")], "hooks.test"),
        ];
        for (parts, expected) in cases {
            assert_eq!(place(parts.into_iter()), expected);
        }
    }
}
