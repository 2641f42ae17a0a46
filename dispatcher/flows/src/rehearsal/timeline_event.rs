//! The event of which a timeline is made: a sample, or one that the user has.

use bytes::Bytes;
use serde_json::Value;
use usher_clerk::samples;
use usher_proto::{Event, EventId, Instance, Json, Source, Subject, SubjectId, Timestamp};

use super::scenes::{AT, whole_user};

/// An event of Clerk, and the user whom it concerns as far as the event does not describe them.
#[derive(Debug, Clone)]
pub struct PreviewEvent {
    /// The event.
    pub event: Event,
    pub(super) subject: Option<Subject>,
}

/// The text is no event of Clerk.
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
    /// Returns the sample of this name, such as `user.created`. `None` if there is none.
    pub fn sample(name: &str) -> Option<Self> {
        samples::sample(name).and_then(|text| Self::read(text).ok())
    }

    /// Returns the names of all samples.
    pub fn sample_names() -> Vec<&'static str> {
        samples::names()
    }

    /// Reads the body of a webhook. An event about a user other than `user.*` does not describe them: their name and address are
    /// then those of the samples.
    ///
    /// # Errors
    ///
    /// The text is no event of Clerk.
    pub fn read(text: &str) -> Result<Self, NotAPreviewEvent> {
        let value: Value = serde_json::from_str(text)?;
        let kind = value["type"].as_str().filter(|_| value["data"].is_object()).ok_or(NotAPreviewEvent::NotAnEvent)?;
        let occurred_at = value["timestamp"].as_i64().map_or(AT, Timestamp::from_millis);
        let id = "msg_preview";
        let data = value["data"].to_string();
        let key = usher_clerk::key(kind, Json::read(&data), None, id);
        let event = Event {
            id: EventId::new(id),
            kind: kind.to_owned(),
            source: Source::Clerk,
            subject: SubjectId::new(Source::Clerk, &Instance::default(), &key),
            occurred_at,
            received_at: occurred_at,
            provenance: Vec::new(),
            body: Bytes::from(text.to_owned()),
        };
        let sample = || samples::of_type("user.created").into_iter().next().map(|it| whole_user(it["data"].clone()));
        let user = if kind.starts_with("user.") { None } else { sample() };
        let subject = user.map(|user| Subject { snapshot: Some(user.to_string()), deleted: false, revision: 1 });
        Ok(Self { event, subject })
    }
}
