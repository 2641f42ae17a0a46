//! The allowlist of recipients. Input: patterns, and in the last line an address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher_clerk::test_recipients::is_test_address;
use usher_engine::SkipReason;
use usher_proto::Mailbox;
use usher_proto::address::normal_form;
use usher_service::options::Environment;
use usher_suppression::{RecipientAllowlist, Rules, SuppressionPolicy};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((patterns, address)) = text.rsplit_once('\n') else { return };
    let Ok(Mailbox { address, .. }) = address.parse() else { return };
    if is_test_address(&address) {
        let everybody = allowlist("*@*").expect("a pattern");
        assert!(!is_allowed(&everybody, &address), "nothing is sent to an address for tests");
        return;
    }

    // Every address allows itself, unless it is no plain word, or its local part is the empty `""`.
    let is_plain = !address.contains(|c: char| c == '*' || c.is_whitespace());
    if is_plain && !normal_form(&address).starts_with('@') {
        assert!(is_allowed(&allowlist(&address).expect("an address is a pattern"), &address), "{address}");
    }
    let Some(allowlist) = allowlist(patterns) else {
        // A pattern that is left out would be worse than a start that fails.
        assert!(halves(patterns).is_none_or(|patterns| patterns.is_empty()));
        return;
    };
    let expected = match halves(patterns) {
        Some(patterns) => patterns.iter().any(|(local, domain)| {
            let address = normal_form(&address);
            let (of_local, of_domain) = address.rsplit_once('@').expect("an address");
            matches(local, of_local) && matches(domain, of_domain)
        }),
        None => unreachable!("a pattern without an @ is refused"),
    };
    // An empty variable is not set.
    let expected = expected || patterns.is_empty();
    assert_eq!(is_allowed(&allowlist, &address), expected, "{address}");
    assert_eq!(is_allowed(&allowlist, &address.to_ascii_uppercase()), expected, "{address}");
});

fn allowlist(patterns: &str) -> Option<RecipientAllowlist> {
    let environment = Environment::from_vars([("USHER_DELIVER_ONLY_TO", patterns)]);
    SuppressionPolicy::from_environment(&environment, None).ok().map(|policy| policy.allowlist)
}

/// True if the allowlist alone lets the address through.
fn is_allowed(allowlist: &RecipientAllowlist, address: &str) -> bool {
    let held = Rules { allowlist, listed: Vec::new() }.held(address);
    assert!(matches!(held, None | Some(SkipReason::HeldBack)));
    held.is_none()
}

/// Returns local part and domain of each pattern; `None` if one of them has no form of an address.
fn halves(patterns: &str) -> Option<Vec<(String, String)>> {
    let words = patterns.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let halves = |word: &str| {
        let word = normal_form(word);
        let (local, domain) = word.split_once('@')?;
        let is_address = !local.is_empty() && !domain.is_empty() && !domain.contains('@');
        is_address.then(|| (local.to_owned(), domain.to_owned()))
    };
    words.map(halves).collect()
}

/// True if the text matches the pattern: a table of which beginnings match which.
fn matches(pattern: &str, text: &str) -> bool {
    let letters: Vec<char> = text.chars().collect();
    let mut row = vec![false; letters.len() + 1];
    row[0] = true;
    for sign in pattern.chars() {
        let mut next = vec![false; row.len()];
        for at in 0..row.len() {
            next[at] = match sign {
                '*' => row[at] || at > 0 && next[at - 1],
                letter => at > 0 && row[at - 1] && letters[at - 1] == letter,
            };
        }
        row = next;
    }
    row[letters.len()]
}
