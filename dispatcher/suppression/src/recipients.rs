//! Finds the recipients among a step's parameters and removes those that must not be written to. Does no I/O.

use serde_json::{Map, Value};
use usher_clerk::test_recipients::is_test_number;
use usher_engine::SkipReason;
use usher_proto::Mailbox;

/// A text in a recipient parameter is not exactly one valid address. The message names the parameter, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRecipient(pub String);

/// Returns the addresses in the parameters that `writes_to` names. Each is parsed strictly: a text that could be two
/// addresses would be checked for one of them only. The parameters are rewritten in normalised form, so that every
/// later reader parses them in the same way.
///
/// # Errors
///
/// A text in one of these parameters is not exactly one valid address.
pub fn recipients(params: &mut Map<String, Value>, writes_to: &[&str]) -> Result<Vec<String>, InvalidRecipient> {
    let mut addresses = Vec::new();
    for name in writes_to {
        let items = match params.get_mut(*name) {
            Some(Value::Array(list)) => list.as_mut_slice(),
            Some(value) => std::slice::from_mut(value),
            None => continue,
        };
        for item in items {
            let Some(text) = item.as_str() else { continue };
            let mailbox: Mailbox = text.parse().map_err(|error| InvalidRecipient(format!("{name} is {error}")))?;
            *item = Value::String(mailbox.to_text());
            addresses.push(mailbox.address);
        }
    }
    Ok(addresses)
}

/// Removes the suppressed recipients from parameters that [`recipients`] has parsed. The first parameter of `writes_to`
/// holds the main recipients of the step: if none of them is left, the reason for skipping the step is returned.
pub fn drop_suppressed(
    params: &mut Map<String, Value>,
    writes_to: &[&str],
    held: impl Fn(&str) -> Option<SkipReason>,
) -> Option<SkipReason> {
    let why = |text: &str| text.parse::<Mailbox>().ok().and_then(|mailbox| held(&mailbox.address));
    let mut reason = None;
    for (index, name) in writes_to.iter().enumerate() {
        let Some(value) = params.get_mut(*name) else { continue };
        let first = texts(Some(value)).find_map(why);
        if let Value::Array(list) = value {
            list.retain(|item| item.as_str().is_none_or(|text| why(text).is_none()));
        }
        if first.is_some() && value.as_array().is_none_or(Vec::is_empty) {
            params.remove(*name);
            reason = reason.or(first.filter(|_| index == 0));
        }
    }
    reason
}

/// Removes the phone parameters that contain one of Clerk's test numbers. Returns true if there was such a parameter.
pub fn drop_test_numbers(params: &mut Map<String, Value>, phones: &[&str]) -> bool {
    let is_test = |params: &Map<String, Value>, name: &str| texts(params.get(name)).any(is_test_number);
    let found: Vec<&str> = phones.iter().copied().filter(|name| is_test(params, name)).collect();
    params.retain(|name, _| !found.contains(&name.as_str()));
    !found.is_empty()
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let items = value.map_or(&[][..], |value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
    items.iter().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WRITES_TO: [&str; 2] = ["to", "cc"];

    fn params(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    /// Suppresses every address that begins with an x.
    fn held(address: &str) -> Option<SkipReason> {
        address.starts_with('x').then_some(SkipReason::Suppressed)
    }

    #[test]
    fn all_addresses_of_all_such_parameters_are_read() {
        let found =
            recipients(&mut params(json!({"to": "A <a@b.test>", "cc": ["c@d.test"], "from": "x@y.test"})), &WRITES_TO);
        assert_eq!(found, Ok(vec!["a@b.test".to_owned(), "c@d.test".to_owned()]));
        assert_eq!(recipients(&mut params(json!({})), &WRITES_TO), Ok(Vec::new()));
        let error =
            recipients(&mut params(json!({"to": ["a@b.test", "ann@c.test, d@e.test"]})), &WRITES_TO).expect_err("two");
        assert!(error.0.starts_with("to is no address") && !error.0.contains("ann"), "{error}");
    }

    #[test]
    fn numbers_for_tests_are_taken_out_and_no_others() {
        let mut found = params(json!({"phone": "+1 (201) 555-0123", "mobile": "+12015551123", "name": "2015550123"}));
        assert!(drop_test_numbers(&mut found, &["phone", "mobile", "fax"]));
        assert_eq!(Value::Object(found.clone()), json!({"mobile": "+12015551123", "name": "2015550123"}));
        assert!(!drop_test_numbers(&mut found, &["phone", "mobile", "fax"]));
    }

    #[test]
    fn who_is_held_is_left_out_and_with_nobody_left_the_step_is_held() {
        let held_back = Some(SkipReason::Suppressed);
        for (given, left, expected) in [
            (json!({"to": "a@b.test"}), json!({"to": "a@b.test"}), None),
            (json!({"to": "X <x@b.test>"}), json!({}), held_back),
            (json!({"to": ["x@b.test", "a@b.test"]}), json!({"to": ["a@b.test"]}), None),
            (json!({"to": ["x@b.test", "x2@b.test"]}), json!({}), held_back),
            (json!({"to": "a@b.test", "cc": ["x@b.test"]}), json!({"to": "a@b.test"}), None),
            (json!({"to": ["x@b.test"], "cc": "a@b.test"}), json!({"cc": "a@b.test"}), held_back),
            (json!({}), json!({}), None),
        ] {
            let mut found = params(given.clone());
            assert_eq!(drop_suppressed(&mut found, &WRITES_TO, held), expected, "{given}");
            assert_eq!(Value::Object(found), left, "{given}");
        }
    }
}
