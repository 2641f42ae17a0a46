//! Svix's webhook signature (also "Standard Webhooks", version `v1`): HMAC-SHA256 over `{id}.{timestamp}.{body}`.
//!
//! Facts: docs.svix.com, "Verifying webhooks manually", and the tests of Svix's own libraries. Pure: the time is a
//! parameter, and the only allocation on the way is the list of decoded candidates, bounded by the header's length.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use crate::Timestamp;

/// How far the signed timestamp may be from now, either way. Exactly this far is still accepted.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Bytes of a secret's key, as in the specification of Standard Webhooks. A shorter key can be guessed.
const KEY_BYTES: RangeInclusive<usize> = 24..=64;

const PREFIX: &str = "whsec_";

/// A signing secret, decoded, with the HMAC's key schedule done once. Never printed.
#[derive(Clone)]
pub struct SigningSecret {
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

/// The text is no signing secret. The text itself is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// There is none.
    #[error("the signing secret is empty: copy it from the endpoint's page, it begins with whsec_")]
    Empty,
    /// It is a key for the sender's API.
    #[error("this is an API key: the signing secret begins with whsec_, copy it from the endpoint's page")]
    ApiKey,
    /// Several are not separated as they should be.
    #[error("several signing secrets are separated by spaces, not by commas or semicolons")]
    Separator,
    /// It has quotes around it.
    #[error("the signing secret has quotes around it: write it alone")]
    Quoted,
    /// It does not begin with the prefix.
    #[error("the signing secret does not begin with whsec_: copy it from the endpoint's page, without quotes")]
    NoPrefix,
    /// What follows the prefix is not standard base64 with padding.
    #[error("the signing secret is not base64 after whsec_: copy it whole from the endpoint's page, without quotes")]
    NotBase64,
    /// Its key can be guessed, or is longer than a sender makes one.
    #[error(
        "the signing secret holds {0} bytes after whsec_, not {min} to {max}: copy it whole from the endpoint's page",
        min = KEY_BYTES.start(),
        max = KEY_BYTES.end()
    )]
    Length(usize),
}

/// Why a request did not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The timestamp is no number of seconds.
    #[error("the timestamp is not a number of seconds")]
    MalformedTimestamp,
    /// The timestamp is too far in the past.
    #[error("the timestamp is more than 5 minutes old")]
    TooOld,
    /// The timestamp is too far ahead.
    #[error("the timestamp is more than 5 minutes ahead")]
    TooNew,
    /// No `v1` entry matches any secret.
    #[error("no signature matches")]
    NoMatch,
}

/// The three header values of a signed request, as received.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `svix-id`.
    pub id: &'a str,
    /// `svix-timestamp`: Unix seconds.
    pub timestamp: &'a str,
    /// `svix-signature`: `version,base64` entries, separated by spaces.
    pub signatures: &'a str,
}

impl SigningSecret {
    /// From `whsec_` and the base64 of 24 to 64 bytes.
    ///
    /// # Errors
    ///
    /// It is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        if text.is_empty() {
            return Err(InvalidSecret::Empty);
        }
        if text.contains([',', ';']) {
            return Err(InvalidSecret::Separator);
        }
        if text.starts_with(['"', '\'', '`']) || text.ends_with(['"', '\'', '`']) {
            return Err(InvalidSecret::Quoted);
        }
        // Clerk's and Stripe's keys, and Resend's.
        if ["sk_", "pk_", "rk_", "re_"].iter().any(|begin| text.starts_with(begin)) {
            return Err(InvalidSecret::ApiKey);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret::NoPrefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidSecret::NotBase64)?;
        if !KEY_BYTES.contains(&bytes.len()) {
            return Err(InvalidSecret::Length(bytes.len()));
        }
        Self::with_key(&bytes)
    }

    /// One or more secrets, separated by spaces: while one replaces another, either is right.
    ///
    /// # Errors
    ///
    /// There is none, or one of them is not right.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, InvalidSecret> {
        let secrets = text.split_whitespace().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() { Err(InvalidSecret::Empty) } else { Ok(secrets) }
    }

    /// With a key of any length: Svix's own test vectors have 18 bytes.
    fn with_key(key: &[u8]) -> Result<Self, InvalidSecret> {
        // HMAC takes keys of any length; the error exists for other constructions.
        let keyed = Hmac::new_from_slice(key).map_err(|_| InvalidSecret::Length(key.len()))?;
        Ok(Self { keyed })
    }

    /// The text of a secret with these bytes, as [`SigningSecret::parse`] reads it.
    pub fn encode(bytes: &[u8]) -> String {
        format!("{PREFIX}{}", STANDARD.encode(bytes))
    }

    /// The signature header's value for a message, `v1,` and base64.
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.digest(id, timestamp, body)))
    }

    fn digest(&self, id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Reads the timestamp and holds it against `now`. Costs nothing, so it comes before the hash.
pub fn check_timestamp(timestamp: &str, now: Timestamp) -> Result<(), Refusal> {
    let digits = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
    let seconds: i64 = if digits { timestamp.parse().ok() } else { None }.ok_or(Refusal::MalformedTimestamp)?;
    let tolerance = TOLERANCE.as_secs().cast_signed();
    let age = now.seconds().saturating_sub(seconds);
    if age > tolerance {
        Err(Refusal::TooOld)
    } else if age < -tolerance {
        Err(Refusal::TooNew)
    } else {
        Ok(())
    }
}

/// Accepts the message if any `v1` entry matches any of the secrets. Entries of other versions, without a comma or not
/// decodable are passed over. The comparison takes the same time whichever bytes differ.
pub fn verify(secrets: &[SigningSecret], signed: Signed<'_>, body: &[u8], now: Timestamp) -> Result<(), Refusal> {
    check_timestamp(signed.timestamp, now)?;
    let candidates: Vec<[u8; 32]> = signed
        .signatures
        .split(' ')
        .filter_map(|entry| entry.split_once(',').filter(|(version, _)| *version == "v1"))
        .filter_map(|(_, encoded)| STANDARD.decode(encoded).ok()?.try_into().ok())
        .collect();
    if candidates.is_empty() {
        return Err(Refusal::NoMatch);
    }
    let mut matched = Choice::from(0);
    for secret in secrets {
        let expected = secret.digest(signed.id, signed.timestamp, body);
        for candidate in &candidates {
            matched |= expected.ct_eq(candidate);
        }
    }
    if bool::from(matched) { Ok(()) } else { Err(Refusal::NoMatch) }
}

#[cfg(test)]
mod tests;
