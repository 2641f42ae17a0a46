//! Webhook signatures in hexadecimal, whose key is the secret's text as it stands: Stripe's over `{t}.{body}`, and
//! Nylas' over the body alone. Both are HMAC-SHA256.
//!
//! Sources: docs.stripe.com, "Verify webhook signatures", and stripe-node; developer.nylas.com, "Secure a webhook", and
//! nylas-nodejs. Pure, like [`crate::signature`].

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use crate::Timestamp;
use crate::signature::{SignatureRefusal, check_timestamp};

/// Fewest characters of a secret. A shorter one can be guessed.
const FEWEST: usize = 16;
/// Most characters of a secret: beyond any that a sender issues.
const MOST: usize = 256;
/// Most signatures of one header that are compared. Stripe sends one for each secret that is valid.
const MOST_SIGNATURES: usize = 16;

/// Beginning of Stripe's signing secrets, which belongs to the key.
pub const STRIPE_PREFIX: &str = "whsec_";

/// A signing secret whose text is the key. `Debug` does not print it.
#[derive(Clone)]
pub struct TextSecret {
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for TextSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TextSecret(..)")
    }
}

/// The text is not a signing secret. The error does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTextSecret {
    /// The text holds no secret.
    #[error("the signing secret is empty: copy it from the endpoint's page at the sender")]
    Empty,
    /// Several secrets are separated by commas or semicolons instead of spaces.
    #[error("several signing secrets are separated by spaces, not by commas or semicolons")]
    Separator,
    /// The text has quotes around it, or characters that no secret has.
    #[error("the signing secret has quotes around it, or characters that no secret has: write it alone")]
    Quoted,
    /// The text is a key for an API.
    #[error("this is an API key: copy the signing secret from the endpoint's page at the sender")]
    ApiKey,
    /// The text does not begin as the sender's secrets do.
    #[error("the signing secret does not begin with {0}: copy it from the endpoint's page at the sender")]
    NoPrefix(&'static str),
    /// The text is so short that it can be guessed, or longer than any secret. Holds its number of characters.
    #[error("the signing secret has {0} characters, not {FEWEST} to {MOST}: copy it whole")]
    Length(usize),
}

impl TextSecret {
    /// Parses one or more secrets, separated by spaces. During a rotation both the old and the new secret are valid.
    /// `prefix` is what each begins with, which is part of the key; it may be empty.
    ///
    /// # Errors
    ///
    /// The text contains no secret, or one of them is none.
    pub fn parse_list(text: &str, prefix: &'static str) -> Result<Vec<Self>, InvalidTextSecret> {
        let secrets = text.split_whitespace().map(|text| Self::parse(text, prefix)).collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() { Err(InvalidTextSecret::Empty) } else { Ok(secrets) }
    }

    fn parse(text: &str, prefix: &'static str) -> Result<Self, InvalidTextSecret> {
        if text.contains([',', ';']) {
            return Err(InvalidTextSecret::Separator);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'`')) {
            return Err(InvalidTextSecret::Quoted);
        }
        if ["sk_", "pk_", "rk_", "re_", "nyk_"].iter().any(|begin| text.starts_with(begin)) {
            return Err(InvalidTextSecret::ApiKey);
        }
        if !text.starts_with(prefix) {
            return Err(InvalidTextSecret::NoPrefix(prefix));
        }
        if !(FEWEST..=MOST).contains(&text.len()) {
            return Err(InvalidTextSecret::Length(text.len()));
        }
        // HMAC accepts keys of any length; the error exists for other constructions.
        let keyed = Hmac::new_from_slice(text.as_bytes()).map_err(|_| InvalidTextSecret::Length(text.len()))?;
        Ok(Self { keyed })
    }

    /// Computes Stripe's header for a body: `t=<seconds>,v1=<hex>`.
    pub fn sign_stripe(&self, timestamp: &str, body: &[u8]) -> String {
        let digest = self.digest(&[timestamp.as_bytes(), b".", body]);
        format!("t={timestamp},v1={}", hex::encode(digest))
    }

    /// Computes Nylas' header for the bytes that are sent.
    pub fn sign_nylas(&self, body: &[u8]) -> String {
        hex::encode(self.digest(&[body]))
    }

    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Returns the timestamp of Stripe's header, as text.
///
/// # Errors
///
/// There is none, or there are several: readers may differ in the one that they use.
pub fn stripe_timestamp(header: &str) -> Result<&str, SignatureRefusal> {
    let mut times = header.split(',').filter_map(|entry| entry.trim().strip_prefix("t="));
    match (times.next(), times.next()) {
        (Some(time), None) => Ok(time),
        (None | Some(_), _) => Err(SignatureRefusal::MalformedTimestamp),
    }
}

/// Verifies that any `v1` entry of Stripe's header matches any of the secrets, and that its timestamp is near `now`.
/// Entries of other schemes are ignored.
///
/// # Errors
///
/// The timestamp is malformed or out of time, or no entry matches.
pub fn verify_stripe(
    secrets: &[TextSecret],
    header: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SignatureRefusal> {
    let timestamp = stripe_timestamp(header)?;
    check_timestamp(timestamp, now)?;
    let signatures = header.split(',').filter_map(|entry| digest(entry.trim().strip_prefix("v1=")?));
    matches(secrets, signatures, &[timestamp.as_bytes(), b".", body])
}

/// Verifies that Nylas' header matches any of the secrets. It covers the bytes as they were sent, also if they are
/// compressed. There is no timestamp, so only the event's id tells a repetition.
///
/// # Errors
///
/// The header matches no secret.
pub fn verify_nylas(secrets: &[TextSecret], header: &str, body: &[u8]) -> Result<(), SignatureRefusal> {
    matches(secrets, digest(header.trim()).into_iter(), &[body])
}

/// Reads a digest from hexadecimal, in either case.
fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}

/// Compares every signature with every secret, in a time that does not depend on which bytes differ.
fn matches(
    secrets: &[TextSecret],
    signatures: impl Iterator<Item = [u8; 32]>,
    signed: &[&[u8]],
) -> Result<(), SignatureRefusal> {
    let candidates: Vec<[u8; 32]> = signatures.take(MOST_SIGNATURES).collect();
    if candidates.is_empty() {
        return Err(SignatureRefusal::NoMatch);
    }
    let mut matched = Choice::from(0);
    for secret in secrets {
        let expected = secret.digest(signed);
        for candidate in &candidates {
            matched |= expected.ct_eq(candidate);
        }
    }
    if bool::from(matched) { Ok(()) } else { Err(SignatureRefusal::NoMatch) }
}

#[cfg(test)]
mod tests;
