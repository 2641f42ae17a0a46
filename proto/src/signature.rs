//! Svix's webhook signature (also "Standard Webhooks", version `v1`): HMAC-SHA256 over `{id}.{timestamp}.{body}`.
//!
//! Facts: docs.svix.com, "Verifying webhooks manually", and the tests of Svix's own libraries. Pure: the time is a
//! parameter, and the only allocation on the way is the list of decoded candidates, bounded by the header's length.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use crate::Timestamp;

/// How far the signed timestamp may be from now, either way. Exactly this far is still accepted.
pub const TOLERANCE: Duration = Duration::from_secs(300);

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
    /// Nothing is left after the prefix.
    #[error("the signing secret is empty: copy it from the endpoint's page, it begins with whsec_")]
    Empty,
    /// What follows the prefix is not standard base64 with padding.
    #[error("the signing secret is not base64 after whsec_: copy it whole from the endpoint's page")]
    NotBase64,
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
    /// From `whsec_` and base64, or the base64 alone. The length of the key is the sender's business: Svix's own test
    /// vectors have 18 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).unwrap_or(text);
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidSecret::NotBase64)?;
        if bytes.is_empty() {
            return Err(InvalidSecret::Empty);
        }
        // HMAC takes keys of any length; the error exists for other constructions.
        let keyed = Hmac::new_from_slice(&bytes).map_err(|_| InvalidSecret::Empty)?;
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
