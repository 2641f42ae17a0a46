//! Stripe's webhooks, signed as Stripe's own library signs them (see the vectors of `usher_proto::text_signature`).

use usher_proto::signature::SignatureRefusal;

use super::*;

const SECRET: &str = "whsec_5f1c0e6b7a0d4f5e9c2b8a7d6e3f4a1b";
const NOW: Timestamp = Timestamp::from_seconds(1_767_261_600);

fn source(secrets: &str) -> StripeSource {
    let environment = Environment::from_vars([(VARIABLE, secrets)]);
    StripeSource::from_environment(&environment).expect("a good secret").expect("it is set")
}

fn signed(body: &str, secret: &str) -> HeaderMap {
    let secret = TextSecret::parse_list(secret, STRIPE_PREFIX).expect("a secret");
    let signature = secret[0].sign_stripe(&NOW.seconds().to_string(), body.as_bytes());
    HeaderMap::from_iter([(STRIPE_SIGNATURE.parse().expect("a name"), signature.parse().expect("a header"))])
}

fn accept(body: &str) -> Result<Event, Refusal> {
    let headers = signed(body, SECRET);
    source(SECRET).check_head(Instance::DEFAULT, &headers, NOW)?;
    source(SECRET).accept(Instance::DEFAULT, &headers, Bytes::from(body.to_owned()), NOW)
}

#[test]
fn an_event_has_stripes_id_and_the_user_in_its_metadata() {
    let body = r#"{"id":"evt_1","object":"event","created":1767261590,"type":"customer.subscription.created",
        "data":{"object":{"object":"subscription","id":"sub_1","customer":"cus_1","metadata":{"clerk_user_id":"user_1"}}}}"#;
    let event = accept(body).expect("it verifies");
    assert_eq!((event.id.as_str(), event.kind.as_str()), ("evt_1", "customer.subscription.created"));
    assert_eq!((event.subject.as_str(), event.source), ("clerk/default/user_1", Source::Stripe));
    assert_eq!((event.occurred_at.seconds(), event.body.len()), (1_767_261_590, body.len()));
    assert!(event.provenance.iter().any(|(name, value)| name == STRIPE_SIGNATURE && value.starts_with("t=")));
    assert_eq!(Event::from_record(&event.clone().into_record()), Ok(event));
    let of_a_customer = accept(&body.replace("clerk_user_id", "plan")).expect("it verifies");
    assert_eq!(of_a_customer.subject.as_str(), "stripe/default/cus_1");
}

#[test]
fn what_stripe_did_not_send_is_refused() {
    let body = r#"{"id":"evt_1","type":"a","data":{}}"#;
    let stripe = source(SECRET);
    let accept = |headers: &HeaderMap, body: &str| {
        stripe.accept(Instance::DEFAULT, headers, Bytes::from(body.to_owned()), NOW).map(|event| event.kind)
    };
    let good = signed(body, SECRET);
    assert_eq!(accept(&good, body), Ok("a".to_owned()));
    let no_match = Refusal::NotVerified(SignatureRefusal::NoMatch);
    assert_eq!(accept(&good, &body.replace("evt_1", "evt_2")), Err(no_match.clone()));
    assert_eq!(accept(&signed(body, "whsec_00000000000000000000000000000000"), body), Err(no_match));
    for bad in ["{}", "[]", "nonsense", r#"{"id":"evt_1"}"#, r#"{"type":"a"}"#, r#"{"id":"a\u0000b","type":"a"}"#] {
        assert_eq!(accept(&signed(bad, SECRET), bad), Err(Refusal::BodyMalformed), "{bad}");
    }
    let head = |headers: &HeaderMap, now| stripe.check_head(Instance::DEFAULT, headers, now).err();
    let late = NOW.plus(std::time::Duration::from_secs(301));
    assert_eq!(head(&good, late), Some(Refusal::NotVerified(SignatureRefusal::TooOld)));
    assert_eq!(head(&HeaderMap::new(), NOW), Some(Refusal::HeaderMissing(STRIPE_SIGNATURE)));
    let mut odd = HeaderMap::new();
    odd.insert(STRIPE_SIGNATURE, "v1=00".parse().expect("a header"));
    assert_eq!(head(&odd, NOW), Some(Refusal::HeaderMalformed(STRIPE_SIGNATURE)));
    assert_eq!(stripe.check_head("staging", &good, NOW), Err(Refusal::NoSuchInstance));
    assert_eq!((stripe.signed_at(&good), stripe.signed_at(&odd)), (Some(NOW.seconds()), None));
}

#[test]
fn the_setting_is_checked_and_may_hold_several_secrets() {
    let both = source(&format!("whsec_00000000000000000000000000000000 {SECRET}"));
    let body = r#"{"id":"evt_1","type":"a"}"#;
    assert!(both.accept(Instance::DEFAULT, &signed(body, SECRET), Bytes::from(body), NOW).is_ok());
    let refused = StripeSource::from_environment(&Environment::from_vars([(VARIABLE, "sk_test_lab")])).err();
    assert!(refused.expect("refused").to_string().starts_with("STRIPE_WEBHOOK_SECRET: this is an API key"));
    assert!(StripeSource::from_environment(&Environment::from_vars([])).expect("nothing is wrong").is_none());
}
