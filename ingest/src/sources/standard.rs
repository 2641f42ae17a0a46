//! Senders that sign by Standard Webhooks and have no code of their own: all about them is in settings.
//!
//! Source: the specification of Standard Webhooks (github.com/standard-webhooks). It says how a webhook is signed, and
//! advises a body with `type`, `timestamp` and `data`; whom an event concerns it does not say.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use bytes::Bytes;
use usher_proto::{Event, EventId, Instance, Json, SenderName, Source, SubjectId, Timestamp, subject_key};
use usher_service::ConfigError;
use usher_service::options::Environment;
use usher_service::settings::SenderSetting;

use super::pointer::Pointer;
use super::svix::{self, SvixSecrets};
use super::{Sender, body};
use crate::error::Refusal;

/// The source that issued the keys of a sender's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Issuer {
    /// Clerk, if the key has the form of Clerk's ids; else the sender.
    ByForm,
    /// Clerk.
    Clerk,
    /// The sender.
    Sender,
}

/// One sender, as its settings describe it.
#[derive(Clone)]
pub struct StandardSource {
    name: SenderName,
    secrets: SvixSecrets,
    /// The place of the key. `None`: every event is its own subject.
    key: Option<Pointer>,
    /// The place of the type.
    kind: Option<Pointer>,
    issuer: Issuer,
}

impl StandardSource {
    /// Reads all senders: `USHER_SOURCE_<NAME>_SECRET`, with `_<INSTANCE>` behind it for other instances, and
    /// `_KEY`, `_SUBJECT` and `_TYPE` of the same name.
    ///
    /// # Errors
    ///
    /// A name, a secret, or another value is invalid, or a sender has no secret.
    pub fn all_from_environment(environment: &Environment) -> Result<Vec<Self>, ConfigError> {
        let mut names: BTreeMap<SenderName, String> = BTreeMap::new();
        for (suffix, _) in environment.with_prefix(usher_proto::source::SENDER_SETTINGS)? {
            let variable = format!("{}{suffix}", usher_proto::source::SENDER_SETTINGS);
            let setting = SenderSetting::parse(&variable).map_err(|error| ConfigError::new(&variable, error))?;
            names.entry(setting.sender).or_insert(variable);
        }
        names.into_iter().map(|(name, variable)| Self::from_environment(name, &variable, environment)).collect()
    }

    /// Reads one sender; `variable` is one of its settings.
    fn from_environment(name: SenderName, variable: &str, environment: &Environment) -> Result<Self, ConfigError> {
        let secret = name.setting("SECRET");
        let secrets = SvixSecrets::from_environment(&secret, environment, svix::secrets)?
            .ok_or_else(|| ConfigError::new(variable, format!("{secret} is not set, so there is no such sender")))?;
        let pointer = |what: &str| -> Result<Option<Pointer>, ConfigError> {
            let variable = name.setting(what);
            let text = environment.get(&variable)?;
            text.map(|text| text.parse().map_err(|error| ConfigError::new(&variable, error))).transpose()
        };
        let variable = name.setting("SUBJECT");
        let issuer = match environment.get(&variable)?.as_deref() {
            None => Issuer::ByForm,
            Some("clerk") => Issuer::Clerk,
            Some("own") => Issuer::Sender,
            Some(_) => return Err(ConfigError::new(&variable, "it may be clerk or own")),
        };
        let key = pointer("KEY")?;
        if key.is_none() && issuer == Issuer::Clerk {
            let why = format!("{} is not set, so no event names anybody of Clerk", name.setting("KEY"));
            return Err(ConfigError::new(&variable, why));
        }
        Ok(Self { name, secrets, key, kind: pointer("TYPE")?, issuer })
    }

    /// Returns the sender's name.
    pub(crate) fn name(&self) -> SenderName {
        self.name
    }

    /// Returns the setting of an instance's signing secret, if it is not set.
    pub(crate) fn unset(&self, instance: &Instance) -> Option<String> {
        self.secrets.unset(&self.name.setting("SECRET"), instance)
    }

    /// Returns the subject of an event. Without a key in the body, the event is a subject of its own.
    fn subject(&self, body: Json<'_>, id: &str, instance: &Instance) -> Result<SubjectId, Refusal> {
        let found = self.key.as_ref().map(|key| key.find(body)).transpose().map_err(|_| Refusal::BodyMalformed)?;
        let text = found.flatten().and_then(text_or_number);
        let by_form = text.as_deref().is_some_and(usher_clerk::is_id);
        let source = match self.issuer {
            Issuer::Clerk if text.is_some() => Source::Clerk,
            Issuer::ByForm if by_form => Source::Clerk,
            Issuer::Clerk | Issuer::ByForm | Issuer::Sender => Source::Sender(self.name),
        };
        let key = subject_key::key(text.as_deref().unwrap_or(id));
        Ok(SubjectId::new(source, instance, &key))
    }
}

/// Returns a key, which may be sent as a number. `None` if there is none.
fn text_or_number(value: Json<'_>) -> Option<String> {
    value.filled().map_or_else(|| value.number().map(str::to_owned), |text| Some(text.into_owned()))
}

impl Sender for StandardSource {
    fn source(&self) -> Source {
        Source::Sender(self.name)
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
        let [kind, timestamp] = body::fields(&text, ["type", "timestamp"])?;
        let whole = Json::read(&text).ok_or(Refusal::BodyMalformed)?;
        let kind = match &self.kind {
            Some(pointer) => pointer.find(whole).map_err(|_| Refusal::BodyMalformed)?,
            None => kind,
        };
        let kind = body::kind(kind)?;
        let subject = self.subject(whole, signed.id, instance)?;
        let occurred_at = timestamp.and_then(body::time).unwrap_or(now);
        Ok(Event {
            id: EventId::new(signed.id),
            kind,
            source: self.source(),
            subject,
            occurred_at,
            received_at: now,
            provenance: svix::provenance(&signed, headers),
            body: body.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
