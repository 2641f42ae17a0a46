//! Addresses: a mailbox reads back, and every spelling of an address has one digest.

use proptest::prelude::*;
use usher_proto::address::{normal_form, one_line};
use usher_proto::{AddressDigest, Mailbox};

use crate::cases;

/// Domains with letters beyond ASCII, and their A-labels.
const DOMAINS: [(&str, &str); 4] = [
    ("m\u{fc}nchen.test", "xn--mnchen-3ya.test"),
    ("b\u{fc}cher.m\u{fc}nchen.test", "xn--bcher-kva.xn--mnchen-3ya.test"),
    ("work.test", "work.test"),
    ("a-b.example", "a-b.example"),
];

fn ends_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn local() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9.+_-]{1,12}", "\"([a-z .]|\\\\[\"\\\\]){0,8}\""]
}

fn address() -> impl Strategy<Value = String> {
    (local(), prop::sample::select(&DOMAINS[..])).prop_map(|(local, (domain, _))| format!("{local}@{domain}"))
}

/// Any name, with the characters that end lines more often than by chance.
fn name() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(&['\r', '\n', '\t', '\0', '\u{85}', '\u{2028}', '\u{2029}', ' ', '"', '\\'][..]);
    prop::collection::vec(prop_oneof![any::<char>(), odd], 0..12).prop_map(|name| name.into_iter().collect())
}

/// A text with the characters that matter in an address.
fn almost() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ab.\"\\\\<>@ ,;\t-]{1,3}",
        2 => address(),
        1 => any::<char>().prop_map(String::from),
        1 => "[\u{ff20}\u{ff0c}\u{ff1c}\u{2028}\u{85}\u{3002}]",
    ];
    let any = prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    prop_oneof![any, "a@[a-c\u{ff20}\u{ff0c}\u{ff1b}\u{fe64}\u{3002}]{1,4}\\.test"]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_mailbox_reads_back_whatever_its_name_is(name in name(), address in address()) {
        let text = Mailbox { name: name.clone(), address: address.clone() }.to_text();
        let name = name.chars().filter(|c| !ends_line(*c)).collect();
        prop_assert_eq!(text.parse(), Ok(Mailbox { name, address }));
    }

    #[test]
    fn a_name_of_quotes_backslashes_and_spaces_reads_back(name in "[ab\"\\\\ <>@,\u{a0}]{0,8}", address in address()) {
        let mailbox = Mailbox { name, address };
        prop_assert_eq!(mailbox.to_text().parse(), Ok(mailbox));
    }

    #[test]
    fn a_text_that_was_read_is_one_address_and_stays_it(text in almost()) {
        let Ok(mailbox) = text.parse::<Mailbox>() else { return Ok(()) };
        prop_assert_eq!(mailbox.address.matches('@').count(), 1);
        prop_assert!(text.contains(&mailbox.address));
        let written = mailbox.to_text();
        let again: Mailbox = written.parse().expect("what was read can be read again");
        prop_assert_eq!(&again.address, &mailbox.address);
        prop_assert_eq!(again.to_text(), written);
        // Neither here nor after the mapping of IDNA can it be read as two addresses.
        prop_assert_eq!(normal_form(&mailbox.address).matches(['@', ',', ';', '<', '>']).count(), 1);
    }

    #[test]
    fn a_text_in_one_line_stays_as_it_is(text in name()) {
        let line = one_line(&text);
        prop_assert_eq!(line.chars().count(), text.chars().count());
        prop_assert!(!line.contains(ends_line));
        prop_assert_eq!(one_line(&line), line);
    }

    #[test]
    fn every_spelling_of_an_address_has_one_digest(
        local in "[a-z0-9.+_-]{1,12}", (unicode, ascii) in prop::sample::select(&DOMAINS[..]),
        use_ascii: bool, upper: bool, quoted: bool, dot in "[.\u{3002}\u{ff0e}\u{ff61}]?", dots in "[.\u{3002}]", space in " ?",
    ) {
        let domain = if use_ascii { ascii } else { unicode }.replace('.', &dots);
        let spelled = if quoted { format!("\"{local}\"") } else { local.clone() };
        let spelled = format!("{space}{spelled}@{domain}{dot}");
        let spelled = if upper { spelled.to_uppercase() } else { spelled };
        prop_assert_eq!(AddressDigest::of(&spelled), AddressDigest::of(&format!("{local}@{ascii}")), "{}", spelled);
    }

    #[test]
    fn what_a_server_needs_keeps_the_digest(address in address()) {
        let digest = AddressDigest::of(&address);
        let mailbox = Mailbox { name: String::new(), address };
        let ascii = mailbox.with_ascii_domain().expect("these domains are allowed");
        prop_assert_eq!(AddressDigest::of(&ascii.address), digest);
        prop_assert_eq!(AddressDigest::of(&ascii.with_smtp_local_part().address), digest);
    }

    #[test]
    fn other_addresses_have_other_digests(one in "[a-z0-9.+_-]{1,4}@[ab]\\.test", other in "[a-z0-9.+_-]{1,4}@[ab]\\.test") {
        prop_assert_eq!(AddressDigest::of(&one) == AddressDigest::of(&other), one == other);
        prop_assert_eq!(normal_form(&one), one);
    }

    #[test]
    fn a_digest_reads_back(bytes: [u8; 32]) {
        let digest = AddressDigest::from_bytes(bytes);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
    }
}
