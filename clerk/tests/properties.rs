//! Properties that hold for every input, checked with random ones.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::{Map, Value, json};
use usher_clerk::test_recipients::{is_test_address, is_test_number};
use usher_clerk::{fields, key, primary_email, snapshot};
use usher_proto::{Event, EventId, Instance, Json, Key, Source, SubjectId, Timestamp};

/// A failing input is printed, and not stored in a file.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::with_cases(128) }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "user_[a-z0-9]{1,4}".prop_map(Value::from),
        "[a-z]{1,3}@x\\.test".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        let name = prop::sample::select(
            &["id", "user_id", "user", "payer", "organization_id", "email_address", "to_email_address"][..],
        );
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

/// Last four digits of a number, often those of a test number.
fn line() -> impl Strategy<Value = u32> {
    prop_oneof![100_u32..200, 0_u32..10_000]
}

/// The digits of a number with separators between them.
fn spelled(digits: &str, separators: &[String]) -> String {
    let separators = separators.iter().map(String::as_str).chain(std::iter::repeat(""));
    digits.chars().zip(separators).map(|(digit, separator)| format!("{digit}{separator}")).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_number_for_tests_is_one_however_its_digits_are_grouped(
        area in 200_u32..1000, line in line(), exchange in prop_oneof![Just(555_u32), 200_u32..1000],
        prefix in prop::sample::select(&["+1", "1", "", "001", "0111"][..]), wide: bool,
        separators in prop::collection::vec("[ ().\u{a0}\u{2011}-]?", 0..16),
    ) {
        let number = spelled(&format!("{prefix}{area}{exchange}{line:04}"), &separators);
        let wide_digit = |c: char| c.to_digit(10).and_then(|digit| char::from_u32(0xff10 + digit)).unwrap_or(c);
        let number: String = if wide { number.chars().map(wide_digit).collect() } else { number };
        prop_assert_eq!(is_test_number(&number), exchange == 555 && (100..200).contains(&line), "{}", number);
    }

    #[test]
    fn a_number_of_another_country_is_none_for_tests(country in 2_u32..999, area in 200_u32..1000, line in 100_u32..200) {
        // The second one has as many digits as a number of North America without its country code.
        for number in [format!("+{country}{area}555{line:04}"), format!("+{area}555{line:04}")] {
            prop_assert!(!is_test_number(&number), "{}", number);
        }
    }

    #[test]
    fn an_address_is_for_tests_if_its_local_part_has_the_subaddress(
        before in "[a-z.]{1,8}", after in "([-_+.][a-z0-9]{1,5})?", domain in "[a-z]{1,8}\\.test", upper: bool, quoted: bool,
    ) {
        let spell = |local: String| {
            let address = if quoted { format!("\"{local}\"@{domain}") } else { format!("{local}@{domain}") };
            if upper { address.to_uppercase() } else { address }
        };
        let subaddress = spell(format!("{before}+clerk_test{after}"));
        let name = spell(format!("{before}clerk_test{after}"));
        let host = format!("{before}@x+clerk_test{after}.{domain}");
        prop_assert_eq!([subaddress, name, host].map(|address| is_test_address(&address)), [true, false, false]);
    }

    /// The key of an event must be the same wherever it is read, and holds no personal data.
    #[test]
    fn a_key_follows_from_the_event_and_holds_no_address(
        kind in "(user|session|email|sms|organizationMembership|waitlistEntry|paymentAttempt|new)\\.[a-z]{1,8}",
        data in value(),
    ) {
        let texts = [data.to_string(), serde_json::to_string_pretty(&data).expect("a value")];
        let keys = texts.map(|text| key(&kind, Json::read(&text), Some("ins_1"), "msg_1"));
        prop_assert_eq!(&keys[0], &keys[1]);
        prop_assert!(!keys[0].as_str().contains('@') && !keys[0].as_str().is_empty());
    }

    #[test]
    fn no_field_makes_an_address_a_key(
        group in prop::sample::select(&["user", "session", "email", "sms", "organizationInvitation", "role", "waitlistEntry", "new"][..]),
        field in prop::sample::select(&["id", "user_id", "organization_id", "email_address", "to_email_address"][..]),
        local in "[a-z]{1,8}",
    ) {
        let data = json!({ field: format!("{local}@x.test") }).to_string();
        let found = key(&format!("{group}.created"), Json::read(&data), None, "msg_1");
        prop_assert!(!found.as_str().contains('@'), "{:?}", found.as_str());
    }

    #[test]
    fn a_snapshot_is_the_data_as_it_was_sent(data in value(), kind in "user\\.(created|updated|deleted|moved)", now in 1_i64..1_000_000_000_000) {
        let event = Event {
            id: EventId::new("msg_1"),
            kind: kind.clone(),
            source: Source::Clerk,
            subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
            occurred_at: Timestamp::from_millis(now),
            received_at: Timestamp::from_millis(now),
            provenance: Vec::new(),
            body: Bytes::from(serde_json::to_vec_pretty(&json!({ "data": data })).expect("a value")),
        };
        let found = snapshot(&event);
        let is_user = kind == "user.created" || kind == "user.updated";
        prop_assert_eq!(found.is_some(), kind == "user.deleted" || is_user && data.is_object());
        if let Some(text) = found.and_then(|snapshot| snapshot.data) {
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), data);
        }
    }

    /// A model that builds the tree.
    #[test]
    fn the_primary_address_is_that_of_the_first_entry_with_its_id(ids in prop::collection::vec(0..3_u8, 0..5), wanted in 0..4_u8) {
        let entry = |(at, id): (usize, &u8)| json!({ "id": format!("idn_{id}"), "email_address": format!("{at}@x.test") });
        let entries: Vec<Value> = ids.iter().enumerate().map(entry).collect();
        let user = json!({ "primary_email_address_id": format!("idn_{wanted}"), "email_addresses": entries }).to_string();
        let user = Json::read(&user).expect("JSON");
        let expected = ids.iter().position(|id| *id == wanted).map(|at| format!("{at}@x.test"));
        prop_assert_eq!(primary_email(user), expected.clone());
        // An id that refers to no entry is unknown, and unknown is not null.
        let known: Map<String, Value> = expected.map(|email| ("email".to_owned(), Value::from(email))).into_iter().collect();
        prop_assert_eq!(fields(user, &["email".to_owned()]), known);
    }
}
