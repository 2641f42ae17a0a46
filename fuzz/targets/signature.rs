//! Signature headers. Input: id, timestamp and signatures in a line each, then the body.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use usher_proto::Timestamp;
use usher_proto::signature::{Signed, SigningSecret, check_timestamp, verify};

/// The time of the vectors that Svix publishes.
const NOW: Timestamp = Timestamp::from_seconds(1_614_265_330);
/// Svix's published secret, and one that signs nothing.
static SECRETS: LazyLock<[SigningSecret; 2]> = LazyLock::new(|| {
    ["whsec_plJ3nmyCDGBKInavdOK15jslAAAAAAAA", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        .map(|text| SigningSecret::parse(text).expect("a secret"))
});

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(id), Some(timestamp), Some(signatures)) = (line(), line(), line()) else { return };
    let body = lines.next().unwrap_or_default();
    let secrets = &*SECRETS;
    let secret = &secrets[1];

    // Accepted is exactly what was signed: this body, under this id, at a time near now.
    let is_timely = check_timestamp(timestamp, NOW).is_ok();
    let is_near = timestamp.bytes().all(|byte| byte.is_ascii_digit())
        && timestamp.parse::<i64>().is_ok_and(|seconds| (NOW.seconds() - 300..=NOW.seconds() + 300).contains(&seconds));
    assert_eq!(is_timely, is_near);
    let accepts = |secrets: &[SigningSecret], signatures: &str, body: &[u8]| {
        verify(secrets, Signed { id, timestamp, signatures }, body, NOW).is_ok()
    };
    let signature = secret.sign(id, timestamp, body);
    let is_signed = secrets.iter().any(|secret| {
        let signature = secret.sign(id, timestamp, body);
        signatures.split(' ').any(|entry| entry == signature)
    });
    assert_eq!(accepts(secrets, signatures, body), is_timely && is_signed);

    // No other entry of the header keeps the right one from being found.
    let whole = format!("{signatures} {signature}");
    assert_eq!(accepts(secrets, &whole, body), is_timely);
    assert!(!accepts(secrets, &signature.replacen("v1,", "v1a,", 1), body));
    assert!(!accepts(secrets, &signature, &[body, b"x"].concat()));
    assert!(!accepts(&secrets[..1], &signature, body));

    // A secret has one text.
    if SigningSecret::parse(signatures).is_ok() {
        let key = STANDARD.decode(&signatures["whsec_".len()..]).expect("base64");
        assert!((24..=64).contains(&key.len()));
        assert_eq!(SigningSecret::encode(&key), signatures);
        assert_eq!(SigningSecret::parse_list(signatures).map(|secrets| secrets.len()), Ok(1));
    }
});
