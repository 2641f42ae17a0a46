//! Clerk: signed and delivered by Svix.

mod key;

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use usher_proto::event::DEFAULT_INSTANCE;
use usher_proto::headers::TRACEPARENT;
use usher_proto::signature::{self, Signed, SigningSecret};
use usher_proto::{Event, EventId, Source, Timestamp};
use usher_service::exit::BadSetting;
use usher_service::options::Environment;

use super::Sender;
use super::json::{self, Number, Object, Text};
use crate::error::Refusal;
use key::Data;

const VARIABLE: &str = "CLERK_WEBHOOK_SIGNING_SECRET";

/// Both families of header names: Svix's own, then those of Standard Webhooks. Never mixed.
const SVIX: [&str; 3] = usher_proto::headers::SVIX;
const STANDARD: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// An id longer than this is no id of Svix's; it would go into headers, keys and a table.
const MAX_ID: usize = 256;

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
            secrets.insert(DEFAULT_INSTANCE.to_owned(), parse(VARIABLE, &text)?);
        }
        for (suffix, text) in environment.with_prefix(&format!("{VARIABLE}_"))?.into_iter().filter(|(s, _)| s != "FILE")
        {
            let instance = suffix.to_lowercase().replace('_', "-");
            secrets.insert(instance, parse(&format!("{VARIABLE}_{suffix}"), &text)?);
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

fn parse(variable: &str, text: &str) -> Result<Vec<SigningSecret>, BadSetting> {
    text.split_whitespace()
        .map(|secret| SigningSecret::parse(secret).map_err(|error| BadSetting::new(variable, error)))
        .collect()
}

/// The signature's headers, of one family.
fn signed(headers: &HeaderMap) -> Result<Signed<'_>, Refusal> {
    let names = if headers.contains_key(SVIX[0]) || !headers.contains_key(STANDARD[0]) { SVIX } else { STANDARD };
    let value = |name: &'static str| {
        let value = headers.get(name).ok_or(Refusal::HeaderMissing(name))?;
        value.to_str().ok().filter(|text| !text.is_empty()).ok_or(Refusal::HeaderMalformed(name))
    };
    let signed = Signed { id: value(names[0])?, timestamp: value(names[1])?, signatures: value(names[2])? };
    if signed.id.len() > MAX_ID {
        return Err(Refusal::HeaderMalformed(names[0]));
    }
    Ok(signed)
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
        Ok(signature::check_timestamp(signed(headers)?.timestamp, now)?)
    }

    fn accept(&self, instance: &str, headers: &HeaderMap, body: Bytes, now: Timestamp) -> Result<Event, Refusal> {
        let signed = signed(headers)?;
        signature::verify(self.secrets(instance)?, signed, &body, now)?;
        if json::too_deep(&body) {
            return Err(Refusal::BodyMalformed);
        }
        // An array would read as a struct, too; an event is an object.
        let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let envelope: Envelope<'_> =
            serde_json::from_slice(&body).ok().filter(|_| is_object).ok_or(Refusal::BodyMalformed)?;
        let kind = envelope.kind.get().ok_or(Refusal::BodyMalformed)?;
        let values = [signed.id, signed.timestamp, signed.signatures];
        let mut provenance: Vec<(String, String)> =
            SVIX.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect();
        if let Some(trace) = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
            provenance.push((TRACEPARENT.to_owned(), trace.to_owned()));
        }
        Ok(Event {
            id: EventId::new(signed.id),
            kind: kind.to_owned(),
            source: Source::Clerk,
            instance: instance.to_owned(),
            key: key::key(kind, &envelope.data.0, envelope.instance_id.get(), signed.id),
            occurred_at: envelope.timestamp.0.and_then(Timestamp::from_seconds_or_millis).unwrap_or(now),
            received_at: now,
            provenance,
            body: body.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
