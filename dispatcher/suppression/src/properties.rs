//! Properties that hold for every input, checked with random ones.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::Config;
use serde_json::{Map, Value, json};
use usher_engine::SkipReason;
use usher_proto::suppression::{ALL_LISTS, SuppressionEntry};
use usher_proto::{AddressDigest, Mailbox};
use usher_service::options::Environment;

use crate::{RecipientAllowlist, Rules, drop_suppressed, keep, kept, recipients};

/// A failing input is printed, and not stored in a file.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::with_cases(128) }
}

/// Addresses of few letters, so that patterns match some.
fn address() -> impl Strategy<Value = String> {
    "[abAB]{1,5}@[abAB]{1,4}\\.[abAB]{1,2}"
}

fn pattern() -> impl Strategy<Value = String> {
    "[abAB*]{1,6}@[abAB*]{1,5}(\\.[abAB*]{1,2})?"
}

/// True if the text matches the pattern, by trying every length of text for each star.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|length| matches(rest, &text[length..])),
        Some((letter, rest)) => text.split_first().is_some_and(|(first, left)| first == letter && matches(rest, left)),
    }
}

fn is_listed(patterns: &[String], address: &str) -> bool {
    let halves = |text: &str| text.to_lowercase().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let (local, domain) = halves(address).expect("an address");
    patterns.iter().filter_map(|pattern| halves(pattern)).any(|(of_local, of_domain)| {
        matches(of_local.as_bytes(), local.as_bytes()) && matches(of_domain.as_bytes(), domain.as_bytes())
    })
}

fn allowlist(patterns: &[String]) -> RecipientAllowlist {
    let text = patterns.join(", ");
    RecipientAllowlist::from_environment(&Environment::from_vars([("USHER_DELIVER_ONLY_TO", text.as_str())]))
        .expect("good patterns")
}

/// An address, with or without a name.
fn recipient() -> impl Strategy<Value = Value> {
    (address(), any::<bool>())
        .prop_map(|(address, is_named)| Value::from(if is_named { format!("Ab\\\"C, D <{address}>") } else { address }))
}

/// Parameters whose recipients are texts or lists of texts, and something else beside them.
fn params() -> impl Strategy<Value = Map<String, Value>> {
    let texts = prop_oneof![recipient(), vec(recipient(), 0..4).prop_map(Value::from)];
    let named =
        (prop::sample::select(&["to", "cc", "bcc"][..]), texts).prop_map(|(name, texts)| (name.to_owned(), texts));
    vec(named, 0..4).prop_map(|named| {
        let mut params: Map<String, Value> = named.into_iter().collect();
        params.insert("subject".to_owned(), json!("aa@aa.aa"));
        params
    })
}

const WRITES_TO: [&str; 3] = ["to", "cc", "bcc"];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_allowlist_agrees_with_one_that_tries_everything(patterns in vec(pattern(), 1..4), address in address()) {
        prop_assert_eq!(allowlist(&patterns).allows(&address), is_listed(&patterns, &address));
    }

    #[test]
    fn a_further_pattern_never_forbids_an_address(patterns in vec(pattern(), 1..4), more in pattern(), address in address()) {
        let longer: Vec<String> = patterns.iter().cloned().chain([more]).collect();
        prop_assert!(!allowlist(&patterns).allows(&address) || allowlist(&longer).allows(&address));
        prop_assert!(allowlist(std::slice::from_ref(&address)).allows(&address.to_uppercase()));
    }

    /// No address that is held stays in a parameter that is written to, and every other address does.
    #[test]
    fn no_held_address_is_left_and_every_other_one_is(
        params in params(), patterns in vec(pattern(), 1..3), listed in vec((address(), any::<bool>()), 0..4),
        of_all in subsequence(vec![0_usize, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 0..6),
    ) {
        let mut parsed = params.clone();
        let found = recipients(&mut parsed, &WRITES_TO).expect("all are addresses");
        // Some of the recipients are on the list, and some other addresses.
        let mut listed: Vec<(String, bool)> = listed;
        listed.extend(of_all.iter().filter_map(|at| found.get(*at)).map(|address| (address.to_uppercase(), false)));
        let entry = |(address, everything): &(String, bool)| SuppressionEntry {
            address: AddressDigest::of(address),
            scope: if *everything { ALL_LISTS } else { "news" }.to_owned(),
        };
        let allowlist = allowlist(&patterns);
        let rules = Rules { allowlist: &allowlist, listed: listed.iter().map(entry).collect() };
        let mut left = parsed.clone();
        let reason = drop_suppressed(&mut left, &WRITES_TO, |address| rules.held(address));
        let written = recipients(&mut left.clone(), &WRITES_TO).expect("they were parsed before");
        let is_held = |address: &String| {
            !is_listed(&patterns, address) || listed.iter().any(|(listed, _)| listed.eq_ignore_ascii_case(address))
        };
        let expected: Vec<String> = found.iter().filter(|address| !is_held(address)).cloned().collect();
        prop_assert_eq!(written, expected);
        prop_assert_eq!(&left["subject"], &json!("aa@aa.aa"));
        let main = recipients(&mut Map::from_iter(params.get("to").map(|to| ("to".to_owned(), to.clone()))), &["to"]);
        let main = main.expect("all are addresses");
        prop_assert_eq!(reason.is_some(), !main.is_empty() && main.iter().all(is_held));
    }

    #[test]
    fn the_strongest_reason_counts(address in address(), scopes in vec(any::<bool>(), 0..4)) {
        let entry = |everything: &bool| SuppressionEntry {
            address: AddressDigest::of(&address),
            scope: if *everything { ALL_LISTS } else { "news" }.to_owned(),
        };
        let allowlist = RecipientAllowlist::default();
        let rules = Rules { allowlist: &allowlist, listed: scopes.iter().map(entry).collect() };
        let expected = match (scopes.is_empty(), scopes.contains(&true)) {
            (true, _) => None,
            (false, true) => Some(SkipReason::Suppressed),
            (false, false) => Some(SkipReason::Unsubscribed),
        };
        prop_assert_eq!(rules.held(&address), expected);
    }

    #[test]
    fn parameters_that_were_parsed_parse_to_themselves(params in params()) {
        let mut once = params;
        let found = recipients(&mut once, &WRITES_TO).expect("all are addresses");
        let mut twice = once.clone();
        prop_assert_eq!(recipients(&mut twice, &WRITES_TO), Ok(found.clone()));
        prop_assert_eq!(twice, once);
        prop_assert!(found.iter().all(|address| address.parse::<Mailbox>().is_ok()));
    }

    #[test]
    fn a_stored_request_comes_back_with_its_recipients(recipients: Vec<String>, request: Vec<u8>) {
        // No connector's request begins with the mark.
        prop_assume!(request.first() != Some(&1));
        let stored = keep(&recipients, request.clone());
        prop_assert_eq!(kept(&stored), (recipients, request.as_slice()));
    }
}
