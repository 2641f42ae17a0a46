//! Heads and bodies of Stripe, Nylas and Resend. Input: a signature header in a line, then the body.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use usher_proto::signature::check_timestamp;
use usher_proto::text_signature::{STRIPE_PREFIX, TextSecret, stripe_timestamp, verify_nylas, verify_stripe};
use usher_proto::{Json, Timestamp};
use usher_senders::{nylas, resend, stripe};

const NOW: Timestamp = Timestamp::from_seconds(1_767_261_600);
/// A secret, and one that signs nothing.
static SECRETS: LazyLock<[TextSecret; 2]> = LazyLock::new(|| {
    ["whsec_5f1c0e6b7a0d4f5e9c2b8a7d6e3f4a1b", "whsec_00000000000000000000000000000000"]
        .map(|text| TextSecret::parse_list(text, STRIPE_PREFIX).expect("a secret").remove(0))
});

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let Some(header) = lines.next().and_then(|line| std::str::from_utf8(line).ok()) else { return };
    let body = lines.next().unwrap_or_default();
    signatures(header, body);
    if let Some(json) = std::str::from_utf8(body).ok().and_then(Json::read) {
        owners(header, json.get("data"));
    }
    // A text that is a secret is one that can be used.
    if let Ok(secrets) = TextSecret::parse_list(header, "") {
        assert!(secrets.iter().all(|secret| verify_nylas(&secrets, &secret.sign_nylas(body), body).is_ok()));
    }
});

/// Accepted is exactly what was signed: this body, by this secret, at a time near now.
fn signatures(header: &str, body: &[u8]) {
    let secrets = &*SECRETS;
    let [secret, other] = secrets;
    let hex = secret.sign_nylas(body);
    assert_eq!(verify_nylas(&secrets[..1], header, body).is_ok(), header.trim().eq_ignore_ascii_case(&hex));
    assert!(verify_nylas(secrets, &hex, body).is_ok() && verify_nylas(&secrets[1..], &hex, body).is_err());
    assert!(verify_nylas(secrets, &hex, &[body, b"x"].concat()).is_err());

    let Ok(timestamp) = stripe_timestamp(header) else {
        assert!(verify_stripe(secrets, header, body, NOW).is_err());
        return;
    };
    let is_timely = check_timestamp(timestamp, NOW).is_ok();
    let signed = secret.sign_stripe(timestamp, body);
    let entry = signed.rsplit_once(",v1=").expect("an entry").1;
    let given = |entry_of: &str| {
        header.split(',').filter_map(|it| it.trim().strip_prefix("v1=")).any(|it| it.eq_ignore_ascii_case(entry_of))
    };
    if verify_stripe(&secrets[..1], header, body, NOW).is_ok() {
        assert!(is_timely && given(entry));
    }
    // No other entry keeps the right one from being found, and no other secret accepts it.
    assert_eq!(verify_stripe(secrets, &format!("t={timestamp},v0=00,v1=zz,v1={entry}"), body, NOW).is_ok(), is_timely);
    assert!(verify_stripe(std::slice::from_ref(other), &signed, body, NOW).is_err());
}

/// Whomever an event concerns, the key is neither empty nor an address, and the same whenever it is read.
fn owners(kind: &str, data: Option<Json<'_>>) {
    let read = || [stripe::owner(data, "evt_1"), nylas::owner(kind, data, "evt_1"), resend::owner(data, "msg_1")];
    let all = read();
    assert_eq!(all, read());
    assert!(all.iter().all(|owner| !owner.key.as_str().is_empty() && !owner.key.as_str().contains('@')));
}
