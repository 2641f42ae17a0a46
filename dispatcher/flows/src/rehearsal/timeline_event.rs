//! The event of which a timeline is made: a sample, or one that the user has.

use bytes::Bytes;
use serde_json::Value;
use usher_clerk::samples;
use usher_proto::{Event, EventId, Instance, Json, Key, Source, Subject, SubjectId, Timestamp};

use super::super::{Flow, Pattern};
use super::scenes::{AT, known_user};

/// An event, and the user whom it concerns as far as the event does not describe them.
#[derive(Debug, Clone)]
pub struct PreviewEvent {
    /// The event.
    pub event: Event,
    pub(super) subject: Option<Subject>,
}

/// The text is no event.
#[derive(Debug, thiserror::Error)]
pub enum NotAPreviewEvent {
    /// The text is not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// `type` is not a text, or `data` is not an object.
    #[error("it is no event: it needs an object with a text \"type\" and an object \"data\"")]
    NotAnEvent,
}

impl PreviewEvent {
    /// Returns the sample of this name: a type of Clerk's, such as `user.created`, some with a variant after a colon, or one of another
    /// sender after its name, such as `stripe/customer.subscription.created`. `None` if there is none.
    pub fn sample(name: &str) -> Option<Self> {
        if let Some(text) = samples::sample(name) {
            return Self::of(Source::Clerk, text).ok();
        }
        let (source, kind) = name.split_once('/')?;
        let source = source.parse().ok()?;
        let sample = usher_senders::samples::of_type(source, kind)?;
        Self::of(source, &sample.to_string()).ok()
    }

    /// Returns the event of a firing of the flow, for the user of the samples if it is for users. `None` if the flow has no
    /// schedule.
    pub fn of_schedule(flow: &Flow) -> Option<Self> {
        let schedule = flow.schedule.as_ref()?;
        let scene = super::scenes::of(flow).into_iter().find(super::Scene::is_whole)?;
        let user = schedule.subjects.is_some().then(known_user).flatten();
        Some(Self { event: scene.event, subject: user.map(known) })
    }

    /// Returns the names of all samples, those of Clerk first.
    pub fn sample_names() -> Vec<String> {
        samples::names().into_iter().map(str::to_owned).chain(usher_senders::samples::names()).collect()
    }

    /// Reads the body of a webhook that is to start `flow`: it is of the sender whose events of this type start the flow, and
    /// Clerk's otherwise. An event about a user other than `user.*` does not describe them: their name and address are then
    /// those of the samples.
    ///
    /// # Errors
    ///
    /// The text is no event.
    pub fn read(flow: &Flow, text: &str) -> Result<Self, NotAPreviewEvent> {
        let value: Value = serde_json::from_str(text)?;
        let kind = value["type"].as_str().ok_or(NotAPreviewEvent::NotAnEvent)?;
        let pattern = flow.on.iter().find(|pattern| pattern.takes(kind));
        Self::of(pattern.map_or(Source::Clerk, Pattern::source), text)
    }

    fn of(source: Source, text: &str) -> Result<Self, NotAPreviewEvent> {
        let value: Value = serde_json::from_str(text)?;
        let kind = value["type"].as_str().filter(|_| value["data"].is_object()).ok_or(NotAPreviewEvent::NotAnEvent)?;
        // Clerk's is in milliseconds, Stripe's in seconds.
        let clerk = value["timestamp"].as_i64().map(Timestamp::from_millis);
        let occurred_at = clerk.or_else(|| value["created"].as_i64().map(Timestamp::from_seconds)).unwrap_or(AT);
        let id = "msg_preview";
        let data = value["data"].to_string();
        let key = match source {
            Source::Clerk => usher_clerk::key(kind, Json::read(&data), None, id),
            _ => Key::new("user_preview"),
        };
        let event = Event {
            id: EventId::new(id),
            kind: kind.to_owned(),
            source,
            subject: SubjectId::new(Source::Clerk, &Instance::default(), &key),
            occurred_at,
            received_at: occurred_at,
            provenance: Vec::new(),
            body: Bytes::from(text.to_owned()),
        };
        let is_user = source == Source::Clerk && kind.starts_with("user.");
        let user = if is_user { None } else { known_user() };
        Ok(Self { event, subject: user.map(known) })
    }
}

fn known(user: Value) -> Subject {
    Subject { snapshot: Some(user.to_string()), deleted: false, revision: 1 }
}
