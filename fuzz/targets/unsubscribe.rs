//! Tokens of unsubscribe links. Input: the content of a token that is signed here, or a token.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;
use usher_proto::unsubscribe::{Unsubscribe, UnsubscribeSecrets, is_list_name};
use usher_proto::{AddressDigest, Instance, Key, Source, SubjectId};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
static SECRETS: LazyLock<UnsubscribeSecrets> = LazyLock::new(|| UnsubscribeSecrets::parse(SECRET).expect("a secret"));

fuzz_target!(|data: &[u8]| {
    let secrets = &*SECRETS;
    // Nobody signed this one.
    let text = std::str::from_utf8(data);
    assert_eq!(text.ok().and_then(|token| secrets.verify(token)), None);

    // A token with this content and a good signature, as only a holder of the secret can make it.
    let token = signed(data);
    let expected = read(data).filter(|_| token.len() <= 1024);
    assert_eq!(secrets.verify(&token), expected);
    if let Some(link) = expected.filter(|_| data.len() <= 512) {
        assert_eq!(secrets.verify(&secrets.sign(&link)), Some(link));
    }

    // The input as the key and the list of a link that is issued.
    let Ok(text) = text else { return };
    let (list, key) = text.split_once('\n').unwrap_or(("news", text));
    let list = if is_list_name(list) { list } else { "news" };
    let subject = SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(key));
    let link = Unsubscribe::new(&subject, list, AddressDigest::of(key));
    assert!(!link.subject.key().contains('@'), "a link holds no address");
    let token = secrets.sign(&link);
    assert_eq!(secrets.verify(&token).as_ref(), Some(&link));
    // One character more, less or changed, and it is another token.
    let at = data.iter().map(|byte| usize::from(*byte)).sum::<usize>() % token.len();
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    let (before, after) = (&token[..at], &token[at + 1..]);
    for changed in [format!("{before}{other}{after}"), format!("{before}{after}"), format!("{token}{other}")] {
        assert_eq!(secrets.verify(&changed), None, "{changed}");
    }
});

fn signed(content: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(b"usher/unsubscribe/1\n");
    mac.update(content);
    let signature: [u8; 32] = mac.finalize().into_bytes().into();
    format!("{}.{}", URL_SAFE_NO_PAD.encode(content), URL_SAFE_NO_PAD.encode(signature))
}

/// The content of a token: 32 bytes of the digest, the list in a line, and the subject or the key.
fn read(content: &[u8]) -> Option<Unsubscribe> {
    let address = AddressDigest::from_bytes(content.get(..32)?.try_into().ok()?);
    let text = std::str::from_utf8(&content[32..]).ok()?;
    let (list, rest) = text.split_once('\n')?;
    let (list, subject) = match list.strip_prefix(':') {
        Some(list) => (list, rest.parse().ok()?),
        None => (list, SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(rest))),
    };
    Some(Unsubscribe { subject, list: list.to_owned(), address })
}
