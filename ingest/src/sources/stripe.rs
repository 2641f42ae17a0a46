//! Stripe's webhooks.
//!
//! Source: docs.stripe.com ("Verify webhook signatures", "The Event object"). Stripe repeats a delivery for up to three
//! days, under the same id and with a new time and signature; the body may then differ in `pending_webhooks`.

use axum::http::HeaderMap;
use bytes::Bytes;
use usher_proto::headers::STRIPE_SIGNATURE;
use usher_proto::text_signature::{self, STRIPE_PREFIX, TextSecret};
use usher_proto::{Event, Instance, Source, Timestamp, signature};
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::secrets::InstanceSecrets;
use super::{Sender, body, head};
use crate::error::Refusal;

pub(crate) const VARIABLE: &str = "STRIPE_WEBHOOK_SECRET";

/// Stripe's signing secrets, for the account of each instance.
#[derive(Clone)]
pub struct StripeSource {
    secrets: InstanceSecrets<TextSecret>,
}

impl StripeSource {
    /// Reads `STRIPE_WEBHOOK_SECRET` and `STRIPE_WEBHOOK_SECRET_<INSTANCE>`. Each may hold several secrets, separated by
    /// spaces. `None` if no secret is set.
    ///
    /// # Errors
    ///
    /// A secret or the name of an instance is invalid.
    pub fn from_environment(environment: &Environment) -> Result<Option<Self>, ConfigError> {
        let parse = |text: &str| TextSecret::parse_list(text, STRIPE_PREFIX);
        Ok(InstanceSecrets::from_environment(VARIABLE, environment, parse)?.map(|secrets| Self { secrets }))
    }

    /// Returns the setting of an instance's signing secret, if it is not set.
    pub(crate) fn unset(&self, instance: &Instance) -> Option<String> {
        self.secrets.unset(VARIABLE, instance)
    }
}

/// Converts a signature's refusal, in which only the header's time can be malformed.
fn refusal(refusal: signature::SignatureRefusal) -> Refusal {
    match refusal {
        signature::SignatureRefusal::MalformedTimestamp => Refusal::HeaderMalformed(STRIPE_SIGNATURE),
        other => Refusal::NotVerified(other),
    }
}

impl Sender for StripeSource {
    fn source(&self) -> Source {
        Source::Stripe
    }

    fn signed_at(&self, headers: &HeaderMap) -> Option<i64> {
        text_signature::stripe_timestamp(head::header(headers, STRIPE_SIGNATURE).ok()?).ok()?.parse().ok()
    }

    fn check_head(&self, instance: &str, headers: &HeaderMap, now: Timestamp) -> Result<(), Refusal> {
        self.secrets.of(instance)?;
        let timestamp = text_signature::stripe_timestamp(head::header(headers, STRIPE_SIGNATURE)?).map_err(refusal)?;
        signature::check_timestamp(timestamp, now).map_err(refusal)
    }

    fn accept(&self, instance: &str, headers: &HeaderMap, body: Bytes, now: Timestamp) -> Result<Event, Refusal> {
        let signed = head::header(headers, STRIPE_SIGNATURE)?;
        let (instance, secrets) = self.secrets.of(instance)?;
        text_signature::verify_stripe(secrets, signed, &body, now).map_err(refusal)?;
        let text = body::text(&body);
        let [id, kind, created, data] = body::fields(&text, ["id", "type", "created", "data"])?;
        let id = body::id(id)?;
        let kind = body::kind(kind)?;
        let subject = usher_senders::stripe::owner(data, id.as_str()).subject(instance);
        let occurred_at = created.and_then(body::time).unwrap_or(now);
        let mut provenance = vec![(STRIPE_SIGNATURE.to_owned(), signed.to_owned())];
        provenance.extend(head::trace_parent(headers));
        Ok(Event {
            id,
            kind,
            source: Source::Stripe,
            subject,
            occurred_at,
            received_at: now,
            provenance,
            body: body.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
