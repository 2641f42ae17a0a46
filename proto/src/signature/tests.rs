//! Test vectors of Svix's own libraries, negative cases, and agreement in both directions with the
//! independent `svix` crate.

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIMESTAMP: &str = "1614265330";
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const VALID: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const WRONG: &str = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";

/// Creates a secret of any length: some test vectors have shorter keys than the settings allow.
fn secret(text: &str) -> SigningSecret {
    let key = STANDARD.decode(text.strip_prefix(PREFIX).expect("the prefix")).expect("base64");
    SigningSecret::with_key(&key).expect("a valid secret")
}

/// Verifies the message of the first vector with this signature header.
fn with_signatures(signatures: &str) -> Result<(), SignatureRefusal> {
    let signed = Signed { id: ID, timestamp: TIMESTAMP, signatures };
    verify(&[secret(SECRET)], signed, BODY, Timestamp::from_seconds(1_614_265_330))
}

#[test]
fn published_vectors_verify_and_are_reproduced() {
    let large = |n| vec![b'a'; n];
    let vectors: [(&str, &str, &str, Vec<u8>, &str); 6] = [
        (SECRET, ID, TIMESTAMP, BODY.to_vec(), VALID),
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            "1649367553",
            br#"{"email":"test@example.com","username":"test_user"}"#.to_vec(),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
        (
            "whsec_plJ3nmyCDGBKInavdOK15jsl",
            "msg_loFOjxBNrRLzqYUf",
            "1731705121",
            br#"{"event_type":"ping","data":{"success":true}}"#.to_vec(),
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        ),
        (SECRET, ID, TIMESTAMP, large(1_048_576), "v1,txpEUxqWZJ5nteTnymUVa+7C4NHpBeXJ6CsBAW0c3/A="),
        (SECRET, ID, TIMESTAMP, large(262_144), "v1,Mw4Pe2WgApuT7NSqnSq0PQPV9gbLdggCl9B865x5Xh0="),
        (SECRET, ID, TIMESTAMP, large(262_143), "v1,NTItnqyWMoFhk2Bbe5V/BMdcFRWgcSQaTgqLHX7FC7c="),
    ];
    for (text, id, timestamp, body, signatures) in vectors {
        let now = Timestamp::from_seconds(timestamp.parse().expect("seconds"));
        assert_eq!(secret(text).sign(id, timestamp, &body), signatures);
        assert_eq!(verify(&[secret(text)], Signed { id, timestamp, signatures }, &body, now), Ok(()));
    }
}

#[test]
fn what_does_not_match_is_refused() {
    let other_version = VALID.replacen("v1,", "v2,", 1);
    let no_comma = VALID.replacen(',', "", 1);
    for bad in [WRONG, &other_version, "v1,", "v1,dawfeoifkpqwoekfpqoekf", &no_comma, "", ",", " "] {
        assert_eq!(with_signatures(bad), Err(SignatureRefusal::NoMatch), "{bad:?}");
    }
}

#[test]
fn any_matching_entry_of_a_list_is_enough() {
    let v2 = WRONG.replacen("v1,", "v2,", 1);
    assert_eq!(with_signatures(&format!("{WRONG} {v2} {VALID} {WRONG}")), Ok(()));
    assert_eq!(
        with_signatures(&format!(
            "v1,tFtCZ5RDCPxzWQRWXWPgrCgE2frDBe9gjpbWQxnVfsQ= v1,Mm7xgUVICxZfQ3bgf0h0Dof65L/IFx+PnZvnDWPCX6Q= {VALID} \
             v1,9DfC1c3eeOrXB6w/5dIDydLNQaEyww5KalE5jLBZucE="
        )),
        Ok(())
    );
}

#[test]
fn any_configured_secret_is_enough() {
    let secrets = [secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), secret(SECRET)];
    let signed = Signed { id: ID, timestamp: TIMESTAMP, signatures: VALID };
    let now = Timestamp::from_seconds(1_614_265_330);
    assert_eq!(verify(&secrets, signed, BODY, now), Ok(()));
    assert_eq!(verify(&secrets[..1], signed, BODY, now), Err(SignatureRefusal::NoMatch));
}

#[test]
fn the_body_counts_byte_for_byte() {
    let signed = Signed { id: ID, timestamp: TIMESTAMP, signatures: VALID };
    let now = Timestamp::from_seconds(1_614_265_330);
    let reformatted = br#"{"test":2432232314}"#;
    assert_eq!(verify(&[secret(SECRET)], signed, reformatted, now), Err(SignatureRefusal::NoMatch));
}

#[test]
fn the_timestamp_may_be_five_minutes_off_and_no_more() {
    let at = |offset: i64| check_timestamp(TIMESTAMP, Timestamp::from_seconds(1_614_265_330 + offset));
    assert_eq!((at(300), at(-300)), (Ok(()), Ok(())));
    assert_eq!((at(301), at(-301)), (Err(SignatureRefusal::TooOld), Err(SignatureRefusal::TooNew)));
}

#[test]
fn a_timestamp_that_is_no_plain_number_is_malformed() {
    for bad in ["hello", "", "-1614265330", "+1614265330", "1614265330.5", " 1614265330", "99999999999999999999"] {
        let result = check_timestamp(bad, Timestamp::from_seconds(1_614_265_330));
        assert_eq!(result, Err(SignatureRefusal::MalformedTimestamp), "{bad:?}");
    }
}

#[test]
fn a_secret_is_its_prefix_and_base64_of_24_to_64_bytes() {
    let of = |bytes: usize| SigningSecret::parse(&SigningSecret::encode(&vec![7; bytes])).err();
    for bytes in [24, 25, 32, 64] {
        assert_eq!(of(bytes), None, "{bytes}");
    }
    for bytes in [0, 1, 18, 23, 65, 1000] {
        assert_eq!(of(bytes), Some(InvalidSecret::Length(bytes)));
    }
    let quoted = format!("\"{SECRET}\"");
    for bad in ["changeme", "test", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "WHSEC_x", " ", " whsec_x"] {
        assert_eq!(SigningSecret::parse(bad).expect_err("refused"), InvalidSecret::NoPrefix, "{bad}");
    }
    let trailing = format!("{SECRET}\"");
    for bad in [&quoted, "'whsec_x'", "\"whsec_x", "`whsec_x`", &trailing, "whsec_\"x\""] {
        assert_eq!(SigningSecret::parse(bad).expect_err("refused"), InvalidSecret::Quoted, "{bad}");
    }
    for bad in ["sk_test_abc", "sk_live_abc", "pk_test_abc", "re_abc"] {
        let error = SigningSecret::parse(bad).expect_err("refused");
        assert!(error.to_string().starts_with("this is an API key: the signing secret begins with whsec_"), "{error}");
        assert!(!error.to_string().contains(bad), "it is not repeated");
    }
    for bad in [format!("{SECRET},{SECRET}"), format!("{SECRET}, {SECRET}"), format!("{SECRET};{SECRET}")] {
        let error = SigningSecret::parse_list(&bad).expect_err("refused");
        assert!(error.to_string().contains("separated by spaces") && !error.to_string().contains("MfKQ"), "{error}");
    }
    for bad in ["whsec_!", "whsec_abc", "whsec_ab-_", "whsec_ab==", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS?"] {
        let error = SigningSecret::parse(bad).expect_err("refused");
        assert_eq!(error, InvalidSecret::NotBase64, "{bad}");
        assert!(!error.to_string().contains("MfKQ"), "it is not repeated");
    }
    assert_eq!(SigningSecret::parse_list("  ").expect_err("refused"), InvalidSecret::Empty);
    assert_eq!(SigningSecret::parse_list(&format!("{SECRET} changeme")).expect_err("refused"), InvalidSecret::NoPrefix);
    assert_eq!(SigningSecret::parse_list(&format!(" {SECRET}  {SECRET}\n")).expect("two").len(), 2);
    assert_eq!(format!("{:?}", secret(SECRET)), "SigningSecret(..)");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "`svix` verifies against the system clock")]
fn the_independent_crate_agrees_both_ways() {
    let theirs = svix::webhooks::Webhook::new(SECRET).expect("their parser takes it");
    for body in [BODY, b"{}", "{\"name\":\"Zo\u{eb} \u{1f600}\"}".as_bytes()] {
        // `svix` verifies against the system clock, so both sides sign with the current time.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let timestamp = now.to_string();

        let mut headers = http::HeaderMap::new();
        headers.insert("svix-id", ID.parse().expect("header"));
        headers.insert("svix-timestamp", timestamp.parse().expect("header"));
        headers.insert("svix-signature", secret(SECRET).sign(ID, &timestamp, body).parse().expect("header"));
        assert!(theirs.verify(body, &headers).is_ok(), "they accept what we sign");

        let signatures = theirs.sign(ID, now.cast_signed(), body).expect("they sign");
        let signed = Signed { id: ID, timestamp: &timestamp, signatures: &signatures };
        let now = Timestamp::from_seconds(now.cast_signed());
        assert_eq!(verify(&[secret(SECRET)], signed, body, now), Ok(()), "we accept what they sign");
    }
}
