//! Nylas' webhooks, plain and compressed.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use usher_proto::signature::SignatureRefusal;
use usher_proto::subject_key;

use super::*;

const SECRET: &str = "nylas_webhook_secret_0123456789";
const NOW: Timestamp = Timestamp::from_seconds(1_767_261_600);
const BODY: &str = r#"{"specversion":"1.0","type":"message.created","id":"evt-1","time":1767261590,"data":{"object":{
    "id":"m1","grant_id":"g1","from":[{"name":"Dana","email":"Dana@work.test"}],"body":"<p>thanks</p>"}}}"#;

fn source(secrets: &str) -> NylasSource {
    let environment = Environment::from_vars([(VARIABLE, secrets)]);
    NylasSource::from_environment(&environment).expect("a good secret").expect("it is set")
}

fn accept(sent: &[u8]) -> Result<Event, Refusal> {
    let secret = TextSecret::parse_list(SECRET, "").expect("a secret");
    accept_signed(sent, &secret[0].sign_nylas(sent))
}

fn accept_signed(sent: &[u8], signature: &str) -> Result<Event, Refusal> {
    let mut headers = HeaderMap::new();
    headers.insert(NYLAS_SIGNATURE, signature.parse().expect("a header"));
    source(SECRET).check_head(Instance::DEFAULT, &headers, NOW)?;
    source(SECRET).accept(Instance::DEFAULT, &headers, Bytes::copy_from_slice(sent), NOW)
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn a_message_is_keyed_by_its_sender_whose_address_is_not_in_the_key() {
    let event = accept(BODY.as_bytes()).expect("it verifies");
    assert_eq!((event.id.as_str(), event.kind.as_str(), event.source), ("evt-1", "message.created", Source::Nylas));
    assert_eq!(event.subject.source(), "nylas");
    assert_eq!(event.subject.key(), subject_key::address("dana@work.test").as_str());
    assert_eq!((event.occurred_at.seconds(), event.body.as_ref()), (1_767_261_590, BODY.as_bytes()));
    assert!(event.provenance.iter().any(|(name, _)| name == NYLAS_SIGNATURE));
}

#[test]
fn a_compressed_body_is_verified_as_it_was_sent_and_kept_as_text() {
    let sent = gzip(BODY.as_bytes());
    let event = accept(&sent).expect("it verifies");
    assert_eq!((event.id.as_str(), event.body.as_ref()), ("evt-1", BODY.as_bytes()));
    assert!(event.provenance.is_empty(), "the signature is not that of the text");
    let secret = TextSecret::parse_list(SECRET, "").expect("a secret");
    let of_the_text = secret[0].sign_nylas(BODY.as_bytes());
    let no_match = Refusal::NotVerified(SignatureRefusal::NoMatch);
    assert_eq!(accept_signed(&sent, &of_the_text).err(), Some(no_match));
    assert_eq!(accept(&sent[..sent.len() - 9]).err(), Some(Refusal::BodyMalformed), "cut off");
}

#[test]
fn a_small_body_that_becomes_a_large_one_is_refused() {
    let largest = "x".repeat(MAX_BODY - BODY.len());
    let fits = BODY.replace("thanks", &largest[6..]);
    assert!(accept(&gzip(fits.as_bytes())).is_ok());
    let bomb = gzip(&vec![b' '; 64 * MAX_BODY]);
    assert!(bomb.len() < MAX_BODY);
    assert_eq!(accept(&bomb).err(), Some(Refusal::TooLarge(MAX_BODY)));
}

#[test]
fn what_nylas_did_not_send_is_refused() {
    let no_match = Some(Refusal::NotVerified(SignatureRefusal::NoMatch));
    assert_eq!(accept_signed(BODY.as_bytes(), &"0".repeat(64)).err(), no_match);
    assert_eq!(accept_signed(BODY.as_bytes(), "nonsense").err(), no_match);
    for bad in ["{}", "[]", "nonsense", r#"{"id":"a"}"#, r#"{"type":"a"}"#] {
        assert_eq!(accept(bad.as_bytes()).err(), Some(Refusal::BodyMalformed), "{bad}");
    }
    let head = source(SECRET).check_head(Instance::DEFAULT, &HeaderMap::new(), NOW);
    assert_eq!(head, Err(Refusal::HeaderMissing(NYLAS_SIGNATURE)));
}

#[test]
fn before_its_secret_is_known_an_endpoint_only_answers_challenges() {
    let new = source("none-yet");
    assert!(new.answers_challenges(Instance::DEFAULT) && !new.answers_challenges("staging"));
    let mut headers = HeaderMap::new();
    headers.insert(NYLAS_SIGNATURE, "0".repeat(64).parse().expect("a header"));
    let answer = new.accept(Instance::DEFAULT, &headers, Bytes::from(BODY), NOW);
    assert_eq!(answer.err(), Some(Refusal::NoSecretYet));
}
