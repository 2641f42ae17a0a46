//! Clerk's webhooks, signed and delivered by Svix.

use axum::http::HeaderMap;
use bytes::Bytes;
use usher_proto::{Event, EventId, Instance, Json, Source, SubjectId, Timestamp};
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::Sender;
use super::body;
use super::svix::{self, SvixSecrets};
use crate::error::Refusal;

const VARIABLE: &str = "CLERK_WEBHOOK_SIGNING_SECRET";

/// Clerk's instances and their signing secrets.
#[derive(Clone)]
pub struct ClerkSource {
    secrets: SvixSecrets,
}

impl ClerkSource {
    /// Reads `CLERK_WEBHOOK_SIGNING_SECRET` and `CLERK_WEBHOOK_SIGNING_SECRET_<INSTANCE>`. Each may hold several
    /// secrets, separated by spaces.
    ///
    /// # Errors
    ///
    /// No secret is set, so that no webhook could be verified, or a secret or the name of an instance is invalid.
    pub fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let secrets = SvixSecrets::from_environment(VARIABLE, environment, svix::secrets)?.ok_or_else(|| {
            let why = "not set: copy the signing secret (whsec_...) from the endpoint's page in Clerk's dashboard";
            ConfigError::new(VARIABLE, why)
        })?;
        Ok(Self { secrets })
    }

    /// Returns the setting of an instance's signing secret, if it is not set.
    pub(crate) fn unset(&self, instance: &Instance) -> Option<String> {
        self.secrets.unset(VARIABLE, instance)
    }
}

impl Sender for ClerkSource {
    fn source(&self) -> Source {
        Source::Clerk
    }

    fn signed_at(&self, headers: &HeaderMap) -> Option<i64> {
        svix::signed_at(headers)
    }

    fn check_head(&self, instance: &str, headers: &HeaderMap, now: Timestamp) -> Result<(), Refusal> {
        svix::check_head(&self.secrets, instance, headers, now)
    }

    fn accept(&self, instance: &str, headers: &HeaderMap, body: Bytes, now: Timestamp) -> Result<Event, Refusal> {
        let (signed, instance) = svix::verified(&self.secrets, instance, headers, &body, now)?;
        let text = body::text(&body);
        let [kind, timestamp, instance_id, data] = body::fields(&text, ["type", "timestamp", "instance_id", "data"])?;
        let kind = body::kind(kind)?;
        let instance_id = instance_id.and_then(Json::filled);
        let key = usher_clerk::key(&kind, data, instance_id.as_deref(), signed.id);
        let occurred_at = timestamp.and_then(body::time);
        Ok(Event {
            id: EventId::new(signed.id),
            kind,
            source: Source::Clerk,
            subject: SubjectId::new(Source::Clerk, instance, &key),
            occurred_at: occurred_at.unwrap_or(now),
            received_at: now,
            provenance: svix::provenance(&signed, headers),
            body: body.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
