mod doubles;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::*;
use crate::{Operation, Param, ParamType};

/// Texts that people and senders of events have put into names, and worse ones.
const PARTS: &[&str] = &[
    "Dana",
    " ",
    "\n",
    "\r\n",
    "\0",
    "\t",
    "\u{85}",
    "\u{2028}",
    "\u{202e}",
    "Zo\u{eb}",
    "\u{1f469}\u{200d}\u{1f4bb}",
    "\u{65e5}\u{672c}",
    "\"",
    "\\",
    "<",
    ">",
    "@",
    ",",
    ";",
    "[",
    "]",
    ":",
    "{{ x }}",
    "eve@evil.test",
    "Bcc: eve@evil.test",
    "m\u{fc}nchen.test",
    "..",
    "usher_key",
];

fn hostile(rng: &mut StdRng) -> String {
    let long = match rng.random_range(0..4) {
        0 => 400,
        1 => 40,
        _ => 3,
    };
    (0..rng.random_range(0..=long)).map(|_| PARTS[rng.random_range(0..PARTS.len())]).collect()
}

/// Returns a value of this type that contains a text.
fn holding(shape: ParamType, text: &str, rng: &mut StdRng) -> Value {
    match shape {
        ParamType::Number => json!(rng.random_range(0..2000)),
        ParamType::Table | ParamType::Json | ParamType::Record | ParamType::Selector => {
            let many = if rng.random_range(0..4) == 0 { 60 } else { 2 };
            let pairs = (0..rng.random_range(0..=many)).map(|n| (format!("name{n}"), json!(text)));
            let odd = if rng.random_range(0..4) == 0 { text } else { "clerk_user_id" };
            Value::Object(pairs.chain([(odd.to_owned(), json!(text))]).collect())
        }
        ParamType::Texts => json!([text, "plain"]),
        ParamType::Sender | ParamType::Email | ParamType::Mailboxes => match rng.random_range(0..4) {
            0 => json!(text),
            1 => json!(format!("{text} <dana@work.test>")),
            2 => json!(format!("Dana <{text}@m\u{fc}nchen.test>")),
            _ => json!(format!("dana@{text}.test")),
        },
        _ => json!(text),
    }
}

/// True if a provider accepts a text. Implemented independently of the code under test.
fn is_fit(limit: TextLimit, text: &str) -> bool {
    let ends = |c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}';
    let short = match limit.max_length {
        MaxLength::Characters(most) => text.chars().count() <= most,
        MaxLength::Octets(most) => text.len() <= most,
        MaxLength::Unknown => true,
    };
    let letters = match limit.alphabet {
        Alphabet::Any => true,
        Alphabet::Label => text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
        Alphabet::NoBrackets => !text.contains('[') && !text.contains(']'),
        Alphabet::Word => text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
        Alphabet::Header => text.bytes().all(|b| b.is_ascii_graphic() && b != b':'),
    };
    short && letters && (limit.on_control_chars == OnControlChars::Keep || !text.contains(ends))
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    }
}

fn assert_fits(limit: ValueLimit, value: &Value, place: &str) {
    match limit {
        ValueLimit::Any => {}
        ValueLimit::Text(text) | ValueLimit::Phone(text) => {
            assert!(texts(value).iter().all(|one| is_fit(text, one)), "{place}");
        }
        ValueLimit::Mailboxes { most, address, .. } => {
            assert!(texts(value).len() <= most, "{place}");
            for text in texts(value) {
                let mailbox: Mailbox = text.parse().expect(place);
                let (_, domain) = mailbox.address.rsplit_once('@').expect(place);
                assert!(domain.is_ascii() && is_fit(address, &mailbox.address), "{place}");
                assert!(is_fit(DISPLAY_NAME, &mailbox.name), "{place}");
            }
        }
        ValueLimit::Number(from, to) => assert!(value.as_u64().is_some_and(|n| n >= from && n <= to), "{place}"),
        ValueLimit::Pairs { most, name, ours, value: text, .. } => {
            let pairs = value.as_object().expect(place);
            assert!(pairs.len() <= most && ours.is_none_or(|ours| !pairs.contains_key(ours)), "{place}");
            for (key, value) in pairs {
                assert!(is_fit(name, key) && texts(value).iter().all(|one| is_fit(text, one)), "{place}: {key}");
            }
        }
    }
}

fn everything() -> impl Iterator<Item = (&'static str, &'static Operation, &'static Param)> {
    let operations = crate::operations();
    operations
        .flat_map(|(connector, operation)| operation.params.iter().map(move |param| (connector, operation, param)))
}

#[test]
fn every_parameter_has_its_line_in_the_table() {
    for (connector, operation, param) in everything() {
        let place = format!("{connector}.{}: {}", operation.name, param.name);
        let limit = limit(connector, operation.name, param.name).unwrap_or_else(|| panic!("{place} has no limit"));
        let mailbox = matches!(param.shape, ParamType::Sender | ParamType::Email | ParamType::Mailboxes);
        assert!(connector == "mailchimp" || mailbox == matches!(limit, ValueLimit::Mailboxes { .. }), "{place}");
    }
}

/// For any input text, the result conforms to the table, or the error names the parameter and omits the text.
#[test]
fn whatever_goes_in_fits_or_is_refused_by_name() {
    let mut rng = StdRng::seed_from_u64(25);
    for (connector, operation, param) in everything() {
        let limit = limit(connector, operation.name, param.name).expect("it has one");
        for _ in 0..60 {
            let text = hostile(&mut rng);
            let mut params = Map::from_iter([(param.name.to_owned(), holding(param.shape, &text, &mut rng))]);
            let place = format!("{connector}.{} {params:?}", operation.name);
            match fit(connector, operation.name, &mut params) {
                Ok(()) => {
                    assert_fits(limit, &params[param.name], &place);
                    let once = params.clone();
                    assert_eq!(fit(connector, operation.name, &mut params), Ok(()), "{place}");
                    assert_eq!(params, once, "what fits stays as it is: {place}");
                }
                Err(unfit) => {
                    assert!(unfit.what.contains(param.name), "{unfit}: {place}");
                    assert!(!unfit.what.contains("evil") || unfit.what.contains("the name"), "{unfit}: {place}");
                }
            }
        }
    }
}

fn fitted(connector: &str, operation: &str, param: &str, value: Value) -> Result<Value, String> {
    let mut params = Map::from_iter([(param.to_owned(), value)]);
    fit(connector, operation, &mut params).map_err(|unfit| unfit.what)?;
    Ok(params[param].take())
}

#[test]
fn decoration_is_made_to_fit_and_identity_is_not_changed() {
    let long = |n: usize| "\u{e4}".repeat(n);
    let subject = |text: &str| fitted("resend", "send", "subject", json!(text));
    assert_eq!(subject("Hi Dana\nDoe\r\nx"), Ok(json!("Hi Dana Doe  x")));
    assert_eq!(subject(&long(500)), Ok(json!(long(494))), "two octets each");
    let name = |n: usize| fitted("stripe", "create_customer", "full_name", json!(long(n)));
    assert_eq!((name(256), name(257)), (Ok(json!(long(256))), Ok(json!(long(256)))));
    let named = format!("{} <dana@b\u{fc}cher.test>", long(200));
    let expected = format!("{} <dana@xn--bcher-kva.test>", long(128));
    for connector in ["resend", "smtp", "nylas"] {
        assert_eq!(fitted(connector, "send", "to", json!([named])), Ok(json!([expected])), "{connector}");
    }
    let to = fitted("resend", "send", "to", json!("Dana\r\nBcc: eve@evil.test <dana@work.test>"));
    assert_eq!(to, Ok(json!("\"Dana  Bcc: eve@evil.test\" <dana@work.test>")));
    let long_address = format!("{}@work.test", "a".repeat(300));
    let too_long = Err("the address in to is longer than 254 octets".to_owned());
    assert_eq!(fitted("resend", "send", "to", json!(long_address)), too_long);
    let customer = fitted("stripe", "create_subscription", "customer", json!("a".repeat(256)));
    assert_eq!(customer, Err("customer is longer than 255 characters".to_owned()));
    let subscriber = fitted("novu", "trigger", "subscriber_id", json!("user\n1"));
    assert_eq!(subscriber, Err("subscriber_id has a line end or another control character in it".to_owned()));
}

#[test]
fn a_local_part_goes_by_smtp_as_it_can() {
    let to = |connector: &str, text: &str| fitted(connector, "send", "to", json!(text));
    let quoted = json!("\"john doe\"@work.test");
    for connector in ["resend", "smtp", "nylas"] {
        assert_eq!(to(connector, "\"john doe\"@work.test"), Ok(quoted.clone()));
    }
    assert_eq!(to("resend", "a..b.@docomo.test"), Ok(json!("a..b.@docomo.test")));
    assert_eq!(to("smtp", "a..b.@docomo.test"), Ok(json!("\"a..b.\"@docomo.test")));
    let unfit = fit("smtp", "send", &mut Map::from_iter([("to".to_owned(), json!("a(b@work.test"))]));
    assert_eq!(unfit.map_err(|unfit| unfit.reason()), Err(Reason::InvalidAddress));
}

#[test]
fn what_is_written_is_cut_and_what_is_looked_for_is_not() {
    let pairs = |n: usize| Value::Object((0..n).map(|n| (format!("k{n}"), json!("x"))).collect());
    let metadata = |operation: &str, value: Value| fitted("stripe", operation, "metadata", value);
    let note = json!({ "note": "n".repeat(501) });
    for operation in ["create_customer", "create_subscription"] {
        assert_eq!(metadata(operation, note.clone()), Ok(json!({ "note": "n".repeat(500) })));
        assert!(metadata(operation, pairs(49)).is_ok() && metadata(operation, pairs(50)).is_err());
        for name in ["a[b]", "usher_key", "", &"k".repeat(41)] {
            assert!(metadata(operation, json!({ name: "x" })).is_err(), "{name}");
        }
    }
    for operation in ["cancel_subscriptions", "delete_customer"] {
        let error = "metadata.note is longer than 500 characters".to_owned();
        assert_eq!(metadata(operation, note.clone()), Err(error));
        assert_eq!(metadata(operation, json!({ "a": null })), Ok(json!({ "a": null })), "the connector's to refuse");
    }
    let tags = |value: Value| fitted("resend", "send", "tags", value);
    assert_eq!(tags(json!({ "plan": "pro plan \u{e4}" })), Ok(json!({ "plan": "pro_plan__" })));
    assert_eq!(tags(json!({ "clerk_user_id": "user_1" })), Ok(json!({ "clerk_user_id": "user_1" })));
    assert!(tags(json!({ "clerk_user_id": "dana@work.test" })).is_err(), "another user's, or nobody's");
    assert!(tags(json!({ "a b": "x" })).is_err());
}

#[test]
fn a_flow_is_told_what_no_event_can_make_right() {
    for (connector, operation, param, value, good) in [
        ("stripe", "create_subscription", "trial_days", json!(0), false),
        ("stripe", "create_subscription", "trial_days", json!(730), true),
        ("stripe", "create_subscription", "trial_days", json!(731), false),
        ("stripe", "create_customer", "metadata", json!({ "a[b]": "{{ user.id }}" }), false),
        ("stripe", "create_customer", "metadata", json!({ "a": "x".repeat(501) }), false),
        ("stripe", "create_customer", "metadata", json!({ "a": format!("{{{{ x }}}}{}", "x".repeat(501)) }), true),
        ("stripe", "create_customer", "full_name", json!("x".repeat(257)), false),
        ("resend", "send", "tags", json!({ "plan": "pro plan" }), false),
        ("resend", "send", "tags", json!({ "pro plan": "{{ user.id }}" }), false),
        ("resend", "send", "tags", json!({ "plan": "{{ user.id }}" }), true),
        ("resend", "send", "subject", json!("Hello\n"), true),
        ("resend", "send", "to", json!(vec!["a@b.test"; 51]), false),
        ("smtp", "send", "to", json!("{{ user.email }}"), true),
        ("smtp", "send", "to", json!("a(b@c.test"), false),
        ("algolia", "save", "fields", json!({ "a[b]": "x" }), true),
    ] {
        assert_eq!(check(connector, operation, param, &value).is_ok(), good, "{connector}.{operation} {param} {value}");
    }
}

#[test]
fn phones_are_known_by_the_table() {
    assert_eq!(phones("novu", "trigger"), ["phone"]);
    assert_eq!(phones("stripe", "create_customer"), ["phone"]);
    assert_eq!(phones("resend", "send"), [""; 0]);
    // Every parameter with "phone" in its name is treated as a phone number.
    for (connector, operation, param) in everything().filter(|(.., param)| param.name.contains("phone")) {
        assert!(phones(connector, operation.name).contains(&param.name), "{connector}.{}", operation.name);
    }
}
