//! Clerk: signed and delivered by Svix.

mod key;

use axum::http::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use usher_proto::signature;
use usher_proto::{Event, EventId, Source, SubjectId, Timestamp};
use usher_service::exit::BadSetting;
use usher_service::options::Environment;

use super::Sender;
use super::json::{self, Number, Object, Text};
use super::svix::{self, InstanceSecrets};
use crate::error::Refusal;
use key::Data;

const VARIABLE: &str = "CLERK_WEBHOOK_SIGNING_SECRET";

/// Clerk's instances and their secrets.
#[derive(Clone)]
pub struct Clerk {
    secrets: InstanceSecrets,
}

impl Clerk {
    /// Reads `CLERK_WEBHOOK_SIGNING_SECRET` and `CLERK_WEBHOOK_SIGNING_SECRET_<INSTANCE>`; each may hold several secrets,
    /// separated by spaces. At least one is needed: without any, nothing could ever verify.
    pub fn from_environment(environment: &Environment) -> Result<Self, BadSetting> {
        let secrets = InstanceSecrets::from_environment(VARIABLE, environment)?.ok_or_else(|| {
            let why = "not set: copy the signing secret (whsec_...) from the endpoint's page in Clerk's dashboard";
            BadSetting::new(VARIABLE, why)
        })?;
        Ok(Self { secrets })
    }
}

/// What is read of a body.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Text<'a>,
    #[serde(default)]
    timestamp: Number,
    #[serde(borrow, default)]
    instance_id: Text<'a>,
    #[serde(borrow, default)]
    data: Object<Data<'a>>,
}

impl Sender for Clerk {
    fn source(&self) -> Source {
        Source::Clerk
    }

    fn check_head(&self, instance: &str, headers: &HeaderMap, now: Timestamp) -> Result<(), Refusal> {
        self.secrets.of(instance)?;
        Ok(signature::check_timestamp(svix::signed(headers)?.timestamp, now)?)
    }

    fn accept(&self, instance: &str, headers: &HeaderMap, body: Bytes, now: Timestamp) -> Result<Event, Refusal> {
        let signed = svix::signed(headers)?;
        let (instance, secrets) = self.secrets.of(instance)?;
        signature::verify(secrets, signed, &body, now)?;
        if json::too_deep(&body) {
            return Err(Refusal::BodyMalformed);
        }
        let envelope: Envelope<'_> =
            serde_json::from_slice(&body).ok().filter(|_| svix::is_object(&body)).ok_or(Refusal::BodyMalformed)?;
        let kind = envelope.kind.get().ok_or(Refusal::BodyMalformed)?;
        let key = key::key(kind, &envelope.data.0, envelope.instance_id.get(), signed.id);
        Ok(Event {
            id: EventId::new(signed.id),
            kind: kind.to_owned(),
            source: Source::Clerk,
            subject: SubjectId::new(Source::Clerk, instance, &key),
            occurred_at: envelope.timestamp.0.and_then(Timestamp::from_seconds_or_millis).unwrap_or(now),
            received_at: now,
            provenance: svix::provenance(&signed, headers),
            body: body.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
