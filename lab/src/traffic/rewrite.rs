//! Rewrites an event so that it is about another person, at another time. Pure.
//!
//! Values are replaced by their content, not by their position, so that this works on any event. The person's id, names
//! and address are replaced wherever they occur, every other id and address by a counterpart. Every time is shifted by
//! as much as the event's own time. The instance's id is unchanged, and so are phone numbers and texts that merely
//! contain one of these values.

use serde_json::{Number, Value};
use usher_proto::Timestamp;

use super::person::Person;
use super::template::{About, Template};

/// Minimum number of characters after the prefix of a Clerk id.
const SHORTEST_ID: usize = 20;
/// A smaller number is not a time in seconds, but a count in a field that is named like a time.
const EARLIEST_SECONDS: i64 = 1_000_000_000;
/// A number from this value up is a time in milliseconds.
const EARLIEST_MILLIS: i64 = 100_000_000_000;

/// Returns the template's event, about `person`, as if it happened at `at`.
pub(super) fn rewrite(template: &Template, person: &Person, at: Timestamp) -> Value {
    let number = |field: &str| template.value[field].as_i64().and_then(Timestamp::from_seconds_or_millis);
    let text = |field: &str| template.value[field].as_str()?.parse().ok();
    let own =
        ["timestamp", "created", "time"].into_iter().find_map(number).or_else(|| text("created_at")).unwrap_or(at);
    let rewriting = Rewriting { about: &template.about, person, moved: at.millis() - own.millis() };
    let mut value = template.value.clone();
    rewriting.walk("", &mut value);
    value
}

struct Rewriting<'a> {
    about: &'a About,
    person: &'a Person,
    /// Shift of all times, in milliseconds.
    moved: i64,
}

impl Rewriting<'_> {
    fn walk(&self, name: &str, value: &mut Value) {
        match value {
            Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| self.walk(name, field)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(name, item)),
            Value::String(text) => {
                if let Some(other) = self.text(name, text) {
                    *text = other;
                }
            }
            Value::Number(number) => {
                if let Some(other) = self.time(name, number) {
                    *number = other;
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn text(&self, name: &str, text: &str) -> Option<String> {
        let about = self.about;
        let person = self.person;
        let is = |known: &Option<String>| known.as_deref() == Some(text);
        match name {
            "first_name" if is(&about.first_name) => Some(person.first_name.to_owned()),
            "last_name" if is(&about.last_name) => Some(person.last_name.to_owned()),
            "name" if self.is_full_name(text) => Some(format!("{} {}", person.first_name, person.last_name)),
            "created_at" | "timestamp" => Some(self.moved_time(text)?.to_string()),
            "username" if !text.is_empty() => Some(person.username.clone()),
            _ if is(&about.user) => Some(person.id.clone()),
            _ if is(&about.address) => Some(person.address.clone()),
            _ if is_address(text) => Some(person.address_for(text)),
            _ => id_parts(text).map(|(prefix, rest)| person.id_for(prefix, text, rest.len())),
        }
    }

    /// True for the first and the last name of the template's person, with a blank between them.
    fn is_full_name(&self, text: &str) -> bool {
        let names = self.about.first_name.as_deref().zip(self.about.last_name.as_deref());
        names
            .is_some_and(|(first, last)| text.strip_prefix(first).and_then(|rest| rest.strip_prefix(' ')) == Some(last))
    }

    /// Returns a time that is sent as a text, shifted. `None` if the text is no time.
    fn moved_time(&self, text: &str) -> Option<Timestamp> {
        let time: Timestamp = text.parse().ok()?;
        Some(Timestamp::from_millis(time.millis() + self.moved))
    }

    fn time(&self, name: &str, number: &Number) -> Option<Number> {
        let is_time = name.ends_with("_at")
            || name.ends_with("_start")
            || name.ends_with("_end")
            || matches!(
                name,
                "timestamp" | "created_at_ms" | "billing_date" | "created" | "time" | "date" | "start_date"
            );
        let value = number.as_i64().filter(|_| is_time)?;
        match value {
            EARLIEST_MILLIS.. => Some((value + self.moved).into()),
            EARLIEST_SECONDS.. => Some((value + self.moved / 1000).into()),
            _ => None,
        }
    }
}

fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    !local.is_empty() && domain.contains('.') && !text.contains(|c: char| c.is_whitespace() || c == '/' || c == ':')
}

/// Splits an id into its prefix, such as `sess_`, and the rest. Returns `None` for an instance's id, which belongs
/// to no person.
fn id_parts(text: &str) -> Option<(&str, &str)> {
    let (prefix, rest) = text.split_at(text.rfind('_')? + 1);
    let is_prefix = prefix.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && prefix != "ins_";
    let is_rest = rest.len() >= SHORTEST_ID && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_prefix && is_rest).then_some((prefix, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_800_000_000_123);

    fn rewritten(name: &str, number: u64) -> (Template, Person, Value) {
        let template = Template::sample(name).expect("a sample");
        let person = Person::new(1, number);
        let value = rewrite(&template, &person, AT);
        (template, person, value)
    }

    #[test]
    fn nothing_of_the_templates_person_is_left() {
        for name in super::super::sample_names() {
            let (template, _, value) = rewritten(name, 0);
            let text = value.to_string();
            for old in [&template.about.user, &template.about.address].into_iter().flatten() {
                assert!(!text.contains(old.as_str()), "{name}: {old}");
            }
        }
    }

    #[test]
    fn the_primary_address_is_still_found_by_id() {
        let (_, person, value) = rewritten("user.created", 0);
        let again = Template::from_text(value.to_string()).expect("an event");
        assert_eq!(again.about.user.as_deref(), Some(person.id.as_str()));
        assert_eq!(again.about.address.as_deref(), Some(person.address.as_str()));
        assert_eq!(again.about.first_name.as_deref(), Some(person.first_name));
    }

    #[test]
    fn one_persons_events_fit_together() {
        let (_, person, user) = rewritten("user.created", 4);
        let (_, _, session) = rewritten("session.created", 4);
        assert_eq!(session["data"]["user_id"], person.id.as_str());
        assert_eq!(session["data"]["user"]["email_addresses"][1]["id"], user["data"]["email_addresses"][1]["id"]);
    }

    #[test]
    fn a_new_address_is_new_and_the_old_one_is_still_there() {
        let (_, person, value) = rewritten("user.updated:new-address", 2);
        let addresses: Vec<&str> = value["data"]["email_addresses"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|entry| entry["email_address"].as_str())
            .collect();
        let again = Template::from_text(value.to_string()).expect("an event").about.address.expect("an address");
        assert!(again != person.address && addresses.contains(&again.as_str()), "{again}");
        assert!(addresses.contains(&person.address.as_str()), "{addresses:?}");
    }

    #[test]
    fn times_move_together_with_the_event() {
        let (template, _, value) = rewritten("session.created", 0);
        let apart = |event: &Value| {
            event["data"]["expire_at"].as_i64().zip(event["timestamp"].as_i64()).map(|(end, now)| end - now)
        };
        assert_eq!(value["timestamp"], AT.millis());
        assert_eq!(apart(&value), apart(&template.value));
    }

    #[test]
    fn a_time_in_seconds_stays_in_seconds() {
        let text =
            r#"{"type":"user.created","timestamp":1700000000,"data":{"id":"user_1","created_at":1700000000000}}"#;
        let value = rewrite(&Template::from_text(text).expect("an event"), &Person::new(1, 0), AT);
        assert_eq!(value["timestamp"], AT.seconds());
        assert_eq!(value["data"]["created_at"].as_i64().map(|time| time / 1000), Some(AT.seconds()));
    }

    #[test]
    fn addresses_of_real_domains_never_survive() {
        let text = r#"{"type":"user.created","timestamp":1700000000000,"data":{"id":"user_1","email_addresses":[
            {"id":"idn_1","email_address":"someone@gmail.com"}],"first_name":null}}"#;
        let value = rewrite(&Template::from_text(text).expect("an event"), &Person::new(1, 0), AT);
        let address = value["data"]["email_addresses"][0]["email_address"].as_str().expect("an address");
        assert!(address.ends_with("@mailbox.test"), "{address}");
        assert_eq!(value["data"]["first_name"], Value::Null);
    }

    #[test]
    fn the_instance_and_ordinary_words_stay() {
        let (template, _, value) = rewritten("organizationMembership.created", 0);
        assert_eq!(value["instance_id"], template.value["instance_id"]);
        assert_eq!(value["data"]["permissions"], template.value["data"]["permissions"]);
        assert_eq!(value["data"]["object"], "organization_membership");
        assert_ne!(value["data"]["organization"]["id"], template.value["data"]["organization"]["id"]);
    }
}
