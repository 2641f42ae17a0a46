//! Resend's webhooks about the delivery of mail, signed and delivered by Svix.
//!
//! Source: resend.com/docs (webhooks, event types).

use axum::http::HeaderMap;
use bytes::Bytes;
use usher_proto::{Event, EventId, Instance, Source, Timestamp};
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::Sender;
use super::body;
use super::svix::{self, SvixSecrets};
use crate::error::Refusal;

pub(crate) const VARIABLE: &str = "RESEND_WEBHOOK_SECRET";

/// Resend's signing secrets, for the account of each instance.
#[derive(Clone)]
pub struct ResendSource {
    secrets: SvixSecrets,
}

impl ResendSource {
    /// Reads `RESEND_WEBHOOK_SECRET` and `RESEND_WEBHOOK_SECRET_<INSTANCE>`. Each may hold several secrets, separated
    /// by spaces. `None` if no secret is set.
    ///
    /// # Errors
    ///
    /// A secret or the name of an instance is invalid.
    pub fn from_environment(environment: &Environment) -> Result<Option<Self>, ConfigError> {
        Ok(SvixSecrets::from_environment(VARIABLE, environment, svix::secrets)?.map(|secrets| Self { secrets }))
    }

    /// Returns the setting of an instance's signing secret, if it is not set.
    pub(crate) fn unset(&self, instance: &Instance) -> Option<String> {
        self.secrets.unset(VARIABLE, instance)
    }
}

impl Sender for ResendSource {
    fn source(&self) -> Source {
        Source::Resend
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
        let [kind, created_at, data] = body::fields(&text, ["type", "created_at", "data"])?;
        let kind = body::kind(kind)?;
        let occurred_at = created_at.and_then(body::time);
        Ok(Event {
            id: EventId::new(signed.id),
            kind,
            source: Source::Resend,
            subject: usher_senders::resend::owner(data, signed.id).subject(instance),
            occurred_at: occurred_at.unwrap_or(now),
            received_at: now,
            provenance: svix::provenance(&signed, headers),
            body: body.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use usher_proto::Instance;
    use usher_proto::signature::{self, SigningSecret};

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: Timestamp = Timestamp::from_seconds(1_767_261_610);

    fn accept(body: &str, secret: &str) -> Result<Event, Refusal> {
        let environment = Environment::from_vars([(VARIABLE, SECRET)]);
        let resend = ResendSource::from_environment(&environment).expect("a good secret").expect("it is set");
        let time = NOW.seconds().to_string();
        let signature = SigningSecret::parse(secret).expect("a secret").sign("msg_1", &time, body.as_bytes());
        let mut headers = HeaderMap::new();
        for (name, value) in svix::SVIX.iter().zip(["msg_1", &time, &signature]) {
            headers.insert(*name, value.parse().expect("a header"));
        }
        resend.check_head(Instance::DEFAULT, &headers, NOW)?;
        resend.accept(Instance::DEFAULT, &headers, Bytes::from(body.to_owned()), NOW)
    }

    #[test]
    fn an_event_is_keyed_by_the_user_its_mail_was_tagged_with() {
        let bounced = r#"{"type":"email.bounced","created_at":"2026-01-01T10:00:05.000Z","data":{"email_id":"m1",
            "to":["dana@workplace.test"],"tags":{"purpose":"welcome","clerk_user_id":"user_1"}}}"#;
        let event = accept(bounced, SECRET).expect("it verifies");
        assert_eq!(
            (event.subject.key(), event.subject.source(), event.kind.as_str(), event.source),
            ("user_1", "clerk", "email.bounced", Source::Resend)
        );
        assert_eq!(
            (event.occurred_at.to_string().as_str(), event.body.len()),
            ("2026-01-01T10:00:05.000Z", bounced.len())
        );
        let untagged = accept(&bounced.replace("clerk_user_id", "other"), SECRET).expect("it verifies");
        assert_eq!((untagged.subject.key(), untagged.subject.source()), ("m1", "resend"));
        let odd = accept(&bounced.replace("user_1", "dana@workplace.test"), SECRET).expect("it verifies");
        assert!(!odd.subject.key().contains('@'));
        let about_a_domain = accept(r#"{"type":"domain.updated","data":[]}"#, SECRET).expect("it verifies");
        assert_eq!((about_a_domain.subject.key(), about_a_domain.occurred_at), ("msg_1", NOW));
    }

    #[test]
    fn what_does_not_verify_or_has_no_type_is_refused() {
        let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        assert_eq!(accept("{}", other).err(), Some(Refusal::NotVerified(signature::SignatureRefusal::NoMatch)));
        for body in ["{}", "[]", "nonsense"] {
            assert_eq!(accept(body, SECRET).err(), Some(Refusal::BodyMalformed), "{body}");
        }
        assert!(ResendSource::from_environment(&Environment::from_vars([])).expect("nothing is wrong").is_none());
    }
}
