//! Svix's webhook signature (also "Standard Webhooks", version `v1`): HMAC-SHA256 over `{id}.{timestamp}.{body}`.
//!
//! Sources: docs.svix.com, "Verifying webhooks manually", and the tests of Svix's own libraries. The code is pure: the
//! time is a parameter. Verification allocates only the list of decoded signatures, whose size is bounded by the length
//! of the header.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use crate::Timestamp;

/// Largest accepted difference between the signed timestamp and now, in either direction, inclusive.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Allowed length of a secret's key in bytes, as in the specification of Standard Webhooks. A shorter key
/// can be guessed.
const KEY_BYTES: RangeInclusive<usize> = 24..=64;

const PREFIX: &str = "whsec_";

/// A decoded signing secret. The key schedule of the HMAC is computed once. `Debug` does not print the secret.
#[derive(Clone)]
pub struct SigningSecret {
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

/// The text is not a signing secret. The error does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// The text is empty.
    #[error("the signing secret is empty: copy it from the endpoint's page, it begins with whsec_")]
    Empty,
    /// The text is a key for the sender's API.
    #[error("this is an API key: the signing secret begins with whsec_, copy it from the endpoint's page")]
    ApiKey,
    /// Several secrets are separated by commas or semicolons instead of spaces.
    #[error("several signing secrets are separated by spaces, not by commas or semicolons")]
    Separator,
    /// The text has quotes around it.
    #[error("the signing secret has quotes around it: write it alone")]
    Quoted,
    /// The text does not begin with `whsec_`.
    #[error("the signing secret does not begin with whsec_: copy it from the endpoint's page, without quotes")]
    NoPrefix,
    /// The text after the prefix is not standard base64 with padding.
    #[error("the signing secret is not base64 after whsec_: copy it whole from the endpoint's page, without quotes")]
    NotBase64,
    /// The key is so short that it can be guessed, or longer than any key that a sender issues. Holds its
    /// length in bytes.
    #[error(
        "the signing secret holds {0} bytes after whsec_, not {min} to {max}: copy it whole from the endpoint's page",
        min = KEY_BYTES.start(),
        max = KEY_BYTES.end()
    )]
    Length(usize),
}

/// The reason for which a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureRefusal {
    /// The timestamp is not a number of seconds.
    #[error("the timestamp is not a number of seconds")]
    MalformedTimestamp,
    /// The timestamp is older than [`TOLERANCE`].
    #[error("the timestamp is more than 5 minutes old")]
    TooOld,
    /// The timestamp is ahead of now by more than [`TOLERANCE`].
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
    /// Parses `whsec_` followed by the base64 of 24 to 64 bytes.
    ///
    /// # Errors
    ///
    /// The text has any other form.
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
        // Prefixes of Clerk's, Stripe's and Resend's API keys.
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

    /// Parses one or more secrets, separated by spaces. During a rotation both the old and the new secret are valid.
    ///
    /// # Errors
    ///
    /// The text contains no secret, or one of the secrets is invalid.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, InvalidSecret> {
        let secrets = text.split_whitespace().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() { Err(InvalidSecret::Empty) } else { Ok(secrets) }
    }

    /// Creates a secret with a key of any length: one key of Svix's own test vectors has 18 bytes.
    fn with_key(key: &[u8]) -> Result<Self, InvalidSecret> {
        // HMAC accepts keys of any length; the error exists for other constructions.
        let keyed = Hmac::new_from_slice(key).map_err(|_| InvalidSecret::Length(key.len()))?;
        Ok(Self { keyed })
    }

    /// Returns the text of a secret with these bytes, in the form that [`SigningSecret::parse`] reads.
    pub fn encode(bytes: &[u8]) -> String {
        format!("{PREFIX}{}", STANDARD.encode(bytes))
    }

    /// Computes the value of the signature header for a message: `v1,` followed by base64.
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

/// Parses the timestamp, in seconds, and compares it with `now`. The check is cheap, so it precedes the HMAC.
///
/// # Errors
///
/// The timestamp is not a number of seconds, or differs from `now` by more than [`TOLERANCE`].
pub fn check_timestamp(timestamp: &str, now: Timestamp) -> Result<(), SignatureRefusal> {
    let digits = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
    let seconds: i64 =
        if digits { timestamp.parse().ok() } else { None }.ok_or(SignatureRefusal::MalformedTimestamp)?;
    let tolerance = TOLERANCE.as_secs().cast_signed();
    let age = now.seconds().saturating_sub(seconds);
    if age > tolerance {
        Err(SignatureRefusal::TooOld)
    } else if age < -tolerance {
        Err(SignatureRefusal::TooNew)
    } else {
        Ok(())
    }
}

/// Verifies that any `v1` entry of the signature header matches any of the secrets. Entries of other versions, entries
/// without a comma and entries that cannot be decoded are ignored. The comparison takes the same time regardless of
/// which bytes differ.
///
/// # Errors
///
/// The timestamp is refused by [`check_timestamp`], or no entry matches.
pub fn verify(
    secrets: &[SigningSecret],
    signed: Signed<'_>,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SignatureRefusal> {
    check_timestamp(signed.timestamp, now)?;
    let candidates: Vec<[u8; 32]> = signed
        .signatures
        .split(' ')
        .filter_map(|entry| entry.split_once(',').filter(|(version, _)| *version == "v1"))
        .filter_map(|(_, encoded)| STANDARD.decode(encoded).ok()?.try_into().ok())
        .collect();
    if candidates.is_empty() {
        return Err(SignatureRefusal::NoMatch);
    }
    let mut matched = Choice::from(0);
    for secret in secrets {
        let expected = secret.digest(signed.id, signed.timestamp, body);
        for candidate in &candidates {
            matched |= expected.ct_eq(candidate);
        }
    }
    if bool::from(matched) { Ok(()) } else { Err(SignatureRefusal::NoMatch) }
}

#[cfg(test)]
mod tests;
