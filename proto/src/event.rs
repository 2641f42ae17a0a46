//! One verified webhook, and how it is written to the log and read back.

use std::fmt;

use bytes::Bytes;

use crate::{Key, Record, Source, Timestamp, headers};

/// What identifies an event: for Clerk the `svix-id`, which stays the same on every retry and on a manual replay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(String);

impl EventId {
    /// An id with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One verified webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Identifies it across repeated deliveries.
    pub id: EventId,
    /// The sender's name for what happened, for instance `user.created`.
    pub kind: String,
    /// Who sent it.
    pub source: Source,
    /// Which of the sender's instances; `default` where there is only one.
    pub instance: String,
    /// Whom it concerns.
    pub key: Key,
    /// When it happened, by the sender's clock.
    pub occurred_at: Timestamp,
    /// When ingest received it.
    pub received_at: Timestamp,
    /// Headers kept as they came: the signature's parts and the trace context.
    pub provenance: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// The instance of a sender that has only one.
pub const DEFAULT_INSTANCE: &str = "default";

/// A record is not an event that ingest wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    /// A header is missing.
    #[error("the record has no header {0}")]
    Missing(&'static str),
    /// A header's value cannot be read.
    #[error("the record's header {0} cannot be read")]
    Unreadable(&'static str),
}

impl Event {
    /// The record that carries this event.
    pub fn into_record(self) -> Record {
        let mut headers = vec![
            (headers::EVENT_ID.to_owned(), self.id.0),
            (headers::TYPE.to_owned(), self.kind),
            (headers::SOURCE.to_owned(), self.source.label().to_owned()),
            (headers::INSTANCE.to_owned(), self.instance),
            (headers::OCCURRED_AT.to_owned(), self.occurred_at.to_string()),
            (headers::RECEIVED_AT.to_owned(), self.received_at.to_string()),
        ];
        headers.extend(self.provenance);
        Record { key: self.key, headers, body: self.body }
    }

    /// Reads back what [`Event::into_record`] wrote. Another producer may write such records too; what is missing or
    /// unreadable is named.
    pub fn from_record(record: &Record) -> Result<Self, NotAnEvent> {
        let text = |name| record.header(name).ok_or(NotAnEvent::Missing(name));
        let time = |name| text(name)?.parse().map_err(|_| NotAnEvent::Unreadable(name));
        let provenance = record
            .headers
            .iter()
            .filter(|(name, _)| headers::SVIX.contains(&name.as_str()) || name == headers::TRACEPARENT)
            .cloned()
            .collect();
        Ok(Self {
            id: EventId::new(text(headers::EVENT_ID)?),
            kind: text(headers::TYPE)?.to_owned(),
            source: text(headers::SOURCE)?.parse().map_err(|_| NotAnEvent::Unreadable(headers::SOURCE))?,
            instance: record.header(headers::INSTANCE).unwrap_or(DEFAULT_INSTANCE).to_owned(),
            key: record.key.clone(),
            occurred_at: time(headers::OCCURRED_AT)?,
            received_at: time(headers::RECEIVED_AT)?,
            provenance,
            body: record.body.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: EventId::new("msg_1"),
            kind: "user.created".into(),
            source: Source::Clerk,
            instance: "default".into(),
            key: Key::new("user_1"),
            occurred_at: Timestamp::from_millis(1_767_261_600_250),
            received_at: Timestamp::from_millis(1_767_261_601_000),
            provenance: vec![("svix-id".into(), "msg_1".into()), ("traceparent".into(), "00-0-0-01".into())],
            body: Bytes::from_static(b"{ \"type\" : \"user.created\" }\n"),
        }
    }

    #[test]
    fn a_record_reads_back_as_the_same_event() {
        assert_eq!(Event::from_record(&event().into_record()), Ok(event()));
    }

    #[test]
    fn a_record_of_another_producer_names_what_it_lacks() {
        let mut record = event().into_record();
        record.headers.retain(|(name, _)| name != headers::TYPE);
        assert_eq!(Event::from_record(&record), Err(NotAnEvent::Missing(headers::TYPE)));
    }
}
