//! The headers of a signed event, by the scheme of its sender. Pure; [`super::sender`] sends it.

use usher_proto::headers::{NYLAS_SIGNATURE, STRIPE_SIGNATURE, SVIX};
use usher_proto::signature::{InvalidSecret, SigningSecret};
use usher_proto::text_signature::{InvalidTextSecret, STRIPE_PREFIX, TextSecret};
use usher_proto::{Source, Timestamp};

use super::generator::GeneratedEvent;

/// A secret, with the scheme by which its sender signs.
#[derive(Debug, Clone)]
pub enum TrafficSecret {
    /// Svix's scheme, which is also that of Standard Webhooks.
    Svix(SigningSecret),
    /// Stripe's scheme.
    Stripe(TextSecret),
    /// Nylas' scheme.
    Nylas(TextSecret),
}

/// The text is not a secret of the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrafficSecret {
    /// It is none of Svix's scheme.
    #[error(transparent)]
    Svix(#[from] InvalidSecret),
    /// It is none of Stripe or Nylas.
    #[error(transparent)]
    Text(#[from] InvalidTextSecret),
}

impl TrafficSecret {
    /// Parses the secret of a sender. Of several, separated by spaces, the first is taken: while one replaces another,
    /// any of them is accepted.
    ///
    /// # Errors
    ///
    /// The text is not a secret of this sender.
    pub fn parse(source: Source, text: &str) -> Result<Self, InvalidTrafficSecret> {
        let text = text.split_whitespace().next().unwrap_or_default();
        let first = |prefix| TextSecret::parse_list(text, prefix).map(|mut secrets| secrets.remove(0));
        match source {
            Source::Stripe => Ok(Self::Stripe(first(STRIPE_PREFIX)?)),
            Source::Nylas => Ok(Self::Nylas(first("")?)),
            Source::Clerk | Source::Resend | Source::Usher | Source::Schedule | Source::Sender(_) => {
                Ok(Self::Svix(SigningSecret::parse(text)?))
            }
        }
    }

    /// Returns the headers of an event that is sent at the time `at`.
    pub fn headers(&self, event: &GeneratedEvent, at: Timestamp) -> Vec<(&'static str, String)> {
        let time = at.seconds().to_string();
        match self {
            Self::Svix(secret) => {
                let signature = secret.sign(&event.id, &time, &event.body);
                SVIX.into_iter().zip([event.id.clone(), time, signature]).collect()
            }
            Self::Stripe(secret) => vec![(STRIPE_SIGNATURE, secret.sign_stripe(&time, &event.body))],
            Self::Nylas(secret) => vec![(NYLAS_SIGNATURE, secret.sign_nylas(&event.body))],
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use usher_proto::signature::{Signed, verify};
    use usher_proto::text_signature::{verify_nylas, verify_stripe};

    use super::*;

    #[test]
    fn what_is_signed_verifies_by_the_scheme_of_its_sender() {
        const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let now = Timestamp::from_millis(1_767_261_600_999);
        let event = GeneratedEvent { id: "msg_1".into(), user: None, body: Bytes::from_static(b"{}\n") };
        let headers = |source| TrafficSecret::parse(source, SECRET).expect("a secret").headers(&event, now);
        let svix = headers(Source::Clerk);
        let [(_, id), (_, timestamp), (_, signatures)] = &svix[..] else { panic!("{svix:?}") };
        assert_eq!(timestamp, "1767261600");
        let secret = SigningSecret::parse(SECRET).expect("a secret");
        assert_eq!(verify(&[secret], Signed { id, timestamp, signatures }, &event.body, now), Ok(()));
        let secrets = TextSecret::parse_list(SECRET, "").expect("a secret");
        assert_eq!(verify_stripe(&secrets, &headers(Source::Stripe)[0].1, &event.body, now), Ok(()));
        assert_eq!(verify_nylas(&secrets, &headers(Source::Nylas)[0].1, &event.body), Ok(()));
        assert!(TrafficSecret::parse(Source::Stripe, "sk_test_lab").is_err());
    }
}
