//! Clerk: signed and delivered by Svix.

mod key;

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use usher_proto::event::DEFAULT_INSTANCE;
use usher_proto::signature::{self, SigningSecret};
use usher_proto::{Event, EventId, Source, Timestamp};
use usher_service::exit::BadSetting;
use usher_service::options::Environment;

use super::json::{self, Number, Object, Text};
use super::{Sender, svix};
use crate::error::Refusal;
use key::Data;

const VARIABLE: &str = "CLERK_WEBHOOK_SIGNING_SECRET";

/// Clerk's instances and their secrets.
#[derive(Clone)]
pub struct Clerk {
    secrets: BTreeMap<String, Vec<SigningSecret>>,
}

impl Clerk {
    /// Reads `CLERK_WEBHOOK_SIGNING_SECRET` and `CLERK_WEBHOOK_SIGNING_SECRET_<INSTANCE>`; each may hold several secrets,
    /// separated by spaces. At least one is needed: without any, nothing could ever verify.
    pub fn from_environment(environment: &Environment) -> Result<Self, BadSetting> {
        let mut secrets = BTreeMap::new();
        if let Some(text) = environment.get(VARIABLE)? {
            secrets.insert(DEFAULT_INSTANCE.to_owned(), svix::secrets(VARIABLE, &text)?);
        }
        for (suffix, text) in environment.with_prefix(&format!("{VARIABLE}_"))?.into_iter().filter(|(s, _)| s != "FILE")
        {
            let instance = suffix.to_lowercase().replace('_', "-");
            secrets.insert(instance, svix::secrets(&format!("{VARIABLE}_{suffix}"), &text)?);
        }
        if secrets.is_empty() {
            let why = "not set: copy the signing secret (whsec_...) from the endpoint's page in Clerk's dashboard";
            return Err(BadSetting::new(VARIABLE, why));
        }
        Ok(Self { secrets })
    }

    fn secrets(&self, instance: &str) -> Result<&[SigningSecret], Refusal> {
        self.secrets.get(instance).map(Vec::as_slice).ok_or(Refusal::NoSuchInstance)
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
        self.secrets(instance)?;
        Ok(signature::check_timestamp(svix::signed(headers)?.timestamp, now)?)
    }

    fn accept(&self, instance: &str, headers: &HeaderMap, body: Bytes, now: Timestamp) -> Result<Event, Refusal> {
        let signed = svix::signed(headers)?;
        signature::verify(self.secrets(instance)?, signed, &body, now)?;
        if json::too_deep(&body) {
            return Err(Refusal::BodyMalformed);
        }
        let envelope: Envelope<'_> =
            serde_json::from_slice(&body).ok().filter(|_| svix::is_object(&body)).ok_or(Refusal::BodyMalformed)?;
        let kind = envelope.kind.get().ok_or(Refusal::BodyMalformed)?;
        Ok(Event {
            id: EventId::new(signed.id),
            kind: kind.to_owned(),
            source: Source::Clerk,
            instance: instance.to_owned(),
            key: key::key(kind, &envelope.data.0, envelope.instance_id.get(), signed.id),
            occurred_at: envelope.timestamp.0.and_then(Timestamp::from_seconds_or_millis).unwrap_or(now),
            received_at: now,
            provenance: svix::provenance(&signed, headers),
            body: body.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
