//! Signatures of webhooks and of unsubscribe links: what was signed is accepted, and nothing else is.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use usher_proto::signature::{Signed, SigningSecret, verify};
use usher_proto::text_signature::{STRIPE_PREFIX, TextSecret, verify_nylas, verify_stripe};
use usher_proto::unsubscribe::{Unsubscribe, UnsubscribeSecrets};
use usher_proto::{AddressDigest, Instance, Key, SubjectId, Timestamp};

use crate::{cases, records};

fn secret() -> impl Strategy<Value = SigningSecret> {
    vec(any::<u8>(), 24..=64).prop_map(|key| SigningSecret::parse(&SigningSecret::encode(&key)).expect("a good length"))
}

fn link() -> impl Strategy<Value = Unsubscribe> {
    let instance = "[a-z0-9-]{1,64}".prop_map(|name| name.parse::<Instance>().expect("a name"));
    let source = records::source();
    (source, instance, any::<String>(), "[a-z0-9_-]{1,64}", any::<[u8; 32]>()).prop_map(
        |(source, instance, key, list, digest)| {
            let subject = SubjectId::new(source, &instance, &Key::new(key));
            Unsubscribe::new(&subject, &list, AddressDigest::from_bytes(digest))
        },
    )
}

/// Seconds between signature and arrival, more often near the bounds than by chance.
fn late() -> impl Strategy<Value = i64> {
    prop_oneof![-400_i64..400, -302_i64..=-298, 298_i64..=302]
}

/// Returns the text with one of its ASCII characters replaced by another one.
fn changed(text: &str, at: Index, by: u8) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = at.index(bytes.len());
    bytes[at] ^= by;
    String::from_utf8(bytes).expect("it was ASCII and stays it")
}

fn text_secret() -> impl Strategy<Value = TextSecret> {
    "whsec_[!-~&&[^\"'`,;]]{16,60}"
        .prop_map(|text| TextSecret::parse_list(&text, STRIPE_PREFIX).expect("a secret").remove(0))
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn stripes_and_nylas_messages_are_accepted_as_they_were_signed_and_with_no_byte_changed(
        secret in text_secret(), other in text_secret(), mut body in vec(any::<u8>(), 1..200),
        seconds in 1_000_i64..100_000_000_000, late in late(), at: Index, by in 1_u8..=0xff,
    ) {
        let now = Timestamp::from_seconds(seconds + late);
        let stripe = secret.sign_stripe(&seconds.to_string(), &body);
        let nylas = secret.sign_nylas(&body);
        let both = [other.clone(), secret];
        prop_assert_eq!(verify_stripe(&both, &stripe, &body, now).is_ok(), late.abs() <= 300);
        prop_assert!(verify_nylas(&both, &nylas, &body).is_ok());
        prop_assert!(verify_stripe(std::slice::from_ref(&other), &stripe, &body, now).is_err());
        prop_assert!(verify_nylas(&[other], &nylas, &body).is_err());
        let at = at.index(body.len());
        body[at] ^= by;
        prop_assert!(verify_stripe(&both, &stripe, &body, Timestamp::from_seconds(seconds)).is_err());
        prop_assert!(verify_nylas(&both, &nylas, &body).is_err());
    }

    #[test]
    fn a_message_is_accepted_as_it_was_signed_and_within_five_minutes(
        secret in secret(), other in secret(), id in "[!-~]{1,40}", body in vec(any::<u8>(), 0..200),
        seconds in 1_000_i64..100_000_000_000, late in late(),
    ) {
        let timestamp = seconds.to_string();
        let signatures = format!("v2,x {} v1,", secret.sign(&id, &timestamp, &body));
        let signed = Signed { id: &id, timestamp: &timestamp, signatures: &signatures };
        let now = Timestamp::from_seconds(seconds + late);
        let accepted = verify(&[other.clone(), secret], signed, &body, now).is_ok();
        prop_assert_eq!(accepted, late.abs() <= 300);
        prop_assert!(verify(&[other], signed, &body, now).is_err());
    }

    #[test]
    fn a_message_with_any_byte_changed_is_refused(
        secret in secret(), id in "[!-~]{1,40}", mut body in vec(any::<u8>(), 1..200),
        seconds in 1_000_i64..100_000_000_000, part in 0..4, at: Index, by in 1_u8..0x80,
    ) {
        let timestamp = seconds.to_string();
        let signature = secret.sign(&id, &timestamp, &body);
        let (mut other_id, mut other_timestamp, mut other_signature) = Default::default();
        match part {
            0 => other_id = changed(&id, at, by),
            1 => other_timestamp = changed(&timestamp, at, by),
            2 => other_signature = changed(&signature, at, by),
            _ => {
                let at = at.index(body.len());
                body[at] ^= by;
            }
        }
        let used = |changed: String, original: &str| if changed.is_empty() { original.to_owned() } else { changed };
        let id = used(other_id, &id);
        let timestamp = used(other_timestamp, &timestamp);
        let signature = used(other_signature, &signature);
        let signed = Signed { id: &id, timestamp: &timestamp, signatures: &signature };
        // The signed time is always recent, so that only the signature refuses.
        let now = Timestamp::from_seconds(timestamp.parse().unwrap_or(seconds));
        prop_assert!(verify(&[secret], signed, &body, now).is_err());
    }

    #[test]
    fn a_link_reads_back_and_no_changed_token_does(link in link(), secret in "[!-~]{32,64}", at: Index, by in 1_u8..0x80) {
        let secrets = UnsubscribeSecrets::parse(&secret).expect("long enough");
        let token = secrets.sign(&link);
        prop_assert_eq!(secrets.verify(&token), Some(link));
        prop_assert_eq!(secrets.verify(&changed(&token, at, by)), None);
        let other = UnsubscribeSecrets::parse(&format!("{secret}x")).expect("long enough");
        prop_assert_eq!(other.verify(&token), None);
    }
}
