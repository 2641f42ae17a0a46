//! Vectors of Stripe's own library (stripe-node 23.1.0, `webhooks.generateTestHeaderString`), and of HMAC by Node's
//! `crypto` for Nylas, whose library verifies nothing.

use super::*;

const STRIPE: &str = "whsec_5f1c0e6b7a0d4f5e9c2b8a7d6e3f4a1b";
const NYLAS: &str = "nylas_webhook_secret_0123456789";
const NOW: Timestamp = Timestamp::from_seconds(1_767_261_600);
const CREATED: &str = r#"{"id":"evt_1","object":"event","type":"customer.subscription.created"}"#;
const CREATED_HEADER: &str = "t=1767261600,v1=281cd753b44ded200a445821212c9d12785875a26689e87bc5a6c49e9967c767";
const MESSAGE: &[u8] = br#"{"specversion":"1.0","type":"message.created","id":"evt-1"}"#;
const MESSAGE_HEADER: &str = "95959adbdf18025ee83494f3879225f22e6159fb3bebf57f062ee3811956597e";

fn stripe(text: &str) -> Vec<TextSecret> {
    TextSecret::parse_list(text, STRIPE_PREFIX).expect("a secret")
}

fn nylas() -> Vec<TextSecret> {
    TextSecret::parse_list(NYLAS, "").expect("a secret")
}

#[test]
fn the_library_s_signatures_are_made_and_accepted() {
    let secrets = stripe(STRIPE);
    let wide = "{\"name\":\"Zoë \u{2028} 😀\"}";
    let wide_header = "t=1767261600,v1=1c6089fbd9cbf7eb7f30757a3c558a32d3e687dadebf0b9f070d584bca179f5b";
    for (body, header) in [(CREATED, CREATED_HEADER), (wide, wide_header)] {
        assert_eq!(secrets[0].sign_stripe("1767261600", body.as_bytes()), header);
        assert_eq!(verify_stripe(&secrets, header, body.as_bytes(), NOW), Ok(()));
    }
    assert_eq!(nylas()[0].sign_nylas(MESSAGE), MESSAGE_HEADER);
    assert_eq!(verify_nylas(&nylas(), MESSAGE_HEADER, MESSAGE), Ok(()));
    assert_eq!(verify_nylas(&nylas(), &MESSAGE_HEADER.to_uppercase(), MESSAGE), Ok(()));
}

#[test]
fn any_entry_may_match_any_secret() {
    let other = "whsec_00000000000000000000000000000000";
    let digest = CREATED_HEADER.split_once("v1=").expect("an entry").1;
    let verify = |secrets: &str, header: &str| verify_stripe(&stripe(secrets), header, CREATED.as_bytes(), NOW);
    let both = format!("t=1767261600,v1={},v1={digest},v0={digest}", "0".repeat(64));
    for secrets in [STRIPE.to_owned(), format!("{other} {STRIPE}"), format!("{STRIPE} {other}")] {
        assert_eq!(verify(&secrets, &both), Ok(()));
        assert_eq!(verify(&secrets, &both.replace(',', ", ")), Ok(()));
    }
    let no_match = Err(SignatureRefusal::NoMatch);
    assert_eq!(verify(other, &both), no_match);
    assert_eq!(verify_stripe(&[], &both, CREATED.as_bytes(), NOW), no_match, "no secret accepts nothing");
    for header in [
        format!("t=1767261600,v0={digest}"),
        format!("t=1767261600,{digest}"),
        "t=1767261600".to_owned(),
        format!("t=1767261600,v1={}", &digest[1..]),
        format!("t=1767261600,v1={digest}0"),
    ] {
        assert_eq!(verify(STRIPE, &header), no_match, "{header}");
    }
}

#[test]
fn the_time_is_signed_and_near() {
    let secrets = stripe(STRIPE);
    let at = |seconds: i64| {
        let now = Timestamp::from_seconds(1_767_261_600 + seconds);
        verify_stripe(&secrets, CREATED_HEADER, CREATED.as_bytes(), now)
    };
    assert_eq!([at(-300), at(0), at(300)], [Ok(()); 3]);
    assert_eq!((at(301), at(-301)), (Err(SignatureRefusal::TooOld), Err(SignatureRefusal::TooNew)));
    for header in ["", "v1=00", "t=", "t=soon,v1=00", "t=-1,v1=00", "t=1767261600,t=1767261601,v1=00"] {
        let verified = verify_stripe(&secrets, header, CREATED.as_bytes(), NOW);
        assert_eq!(verified, Err(SignatureRefusal::MalformedTimestamp), "{header}");
    }
    let moved = CREATED_HEADER.replace("t=1767261600", "t=1767261601");
    assert_eq!(verify_stripe(&secrets, &moved, CREATED.as_bytes(), NOW), Err(SignatureRefusal::NoMatch));
}

#[test]
fn what_cannot_be_a_secret_is_told_without_repeating_it() {
    let stripe = |text: &str| TextSecret::parse_list(text, STRIPE_PREFIX).map(|secrets| secrets.len());
    assert_eq!(stripe(&format!("{STRIPE}  {STRIPE}\n")), Ok(2));
    for (text, error) in [
        (" ".to_owned(), InvalidTextSecret::Empty),
        (format!("{STRIPE},{STRIPE}"), InvalidTextSecret::Separator),
        (format!("\"{STRIPE}\""), InvalidTextSecret::Quoted),
        ("whsec_ünf1c0e6b7a0d4f5e".to_owned(), InvalidTextSecret::Quoted),
        ("sk_test_51Nabcdefghijk".to_owned(), InvalidTextSecret::ApiKey),
        ("5f1c0e6b7a0d4f5e9c2b8a7d6e3f4a1b".to_owned(), InvalidTextSecret::NoPrefix(STRIPE_PREFIX)),
        ("whsec_short".to_owned(), InvalidTextSecret::Length(11)),
        (format!("whsec_{}", "0".repeat(300)), InvalidTextSecret::Length(306)),
    ] {
        assert_eq!(stripe(&text), Err(error.clone()), "{text}");
        assert!(text.trim().is_empty() || !error.to_string().contains(&text));
    }
    assert_eq!(TextSecret::parse_list(NYLAS, "").map(|secrets| secrets.len()), Ok(1));
    assert_eq!(format!("{:?}", nylas()), "[TextSecret(..)]");
}
