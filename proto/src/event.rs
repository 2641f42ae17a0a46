//! One verified webhook, and how it is written to the log and read back.

use std::fmt;

use bytes::Bytes;

use crate::{EventRef, Instance, Key, Record, Source, SubjectId, Timestamp, headers};

/// The longest id of an event, in bytes. Svix's have 30 or so; ids stand in headers, in idempotency keys and in indexes.
pub const MAX_ID: usize = 256;

/// A sender's id of an event: for Clerk the `svix-id`, which stays the same on every retry and on a manual replay. Alone it
/// identifies nothing: [`EventRef`] does, which names source and instance, too.
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
    /// Whom it concerns, at which of the sender's instances.
    pub subject: SubjectId,
    /// When it happened, by the sender's clock.
    pub occurred_at: Timestamp,
    /// When ingest received it.
    pub received_at: Timestamp,
    /// Headers kept as they came: the signature's parts and the trace context.
    pub provenance: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

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
    /// The name of the sender's instance; `default` where there is only one.
    pub fn instance(&self) -> &str {
        self.subject.instance()
    }

    /// Which event it is, among those of all senders and instances.
    pub fn reference(&self) -> EventRef {
        EventRef::of(self)
    }

    /// The record that carries this event.
    pub fn into_record(self) -> Record {
        let mut headers = vec![
            (headers::EVENT_ID.to_owned(), self.id.0),
            (headers::TYPE.to_owned(), self.kind),
            (headers::SOURCE.to_owned(), self.source.label().to_owned()),
            (headers::INSTANCE.to_owned(), self.subject.instance().to_owned()),
            (headers::OCCURRED_AT.to_owned(), self.occurred_at.to_string()),
            (headers::RECEIVED_AT.to_owned(), self.received_at.to_string()),
        ];
        if self.subject.source() != self.source.label() {
            headers.push((headers::SUBJECT_SOURCE.to_owned(), self.subject.source().to_owned()));
        }
        headers.extend(self.provenance);
        Record { key: Key::new(self.subject.key()), headers, body: self.body }
    }

    /// Reads back what [`Event::into_record`] wrote. Another producer may write such records too.
    ///
    /// # Errors
    /// A header that is missing, or whose value no store would take, is named.
    pub fn from_record(record: &Record) -> Result<Self, NotAnEvent> {
        let text = |name| record.header(name).ok_or(NotAnEvent::Missing(name));
        let time = |name| text(name)?.parse().map_err(|_| NotAnEvent::Unreadable(name));
        let source_in = |name| text(name)?.parse::<Source>().map_err(|_| NotAnEvent::Unreadable(name));
        let source = source_in(headers::SOURCE)?;
        let subject_source =
            if record.header(headers::SUBJECT_SOURCE).is_some() { source_in(headers::SUBJECT_SOURCE)? } else { source };
        let instance = match record.header(headers::INSTANCE) {
            None => Instance::default(),
            Some(name) => name.parse().map_err(|_| NotAnEvent::Unreadable(headers::INSTANCE))?,
        };
        let id = text(headers::EVENT_ID)?;
        if id.is_empty() || id.len() > MAX_ID || id.contains(char::is_control) {
            return Err(NotAnEvent::Unreadable(headers::EVENT_ID));
        }
        let provenance = record
            .headers
            .iter()
            .filter(|(name, _)| headers::SVIX.contains(&name.as_str()) || name == headers::TRACEPARENT)
            .cloned()
            .collect();
        Ok(Self {
            id: EventId::new(id),
            kind: text(headers::TYPE)?.to_owned(),
            source,
            subject: SubjectId::new(subject_source, &instance, &record.key),
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
            subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
            occurred_at: Timestamp::from_millis(1_767_261_600_250),
            received_at: Timestamp::from_millis(1_767_261_601_000),
            provenance: vec![("svix-id".into(), "msg_1".into()), ("traceparent".into(), "00-0-0-01".into())],
            body: Bytes::from_static(b"{ \"type\" : \"user.created\" }\n"),
        }
    }

    #[test]
    fn a_record_reads_back_as_the_same_event() {
        assert_eq!(Event::from_record(&event().into_record()), Ok(event()));
        let staging: Instance = "staging".parse().expect("a name");
        let subject = SubjectId::new(Source::Clerk, &staging, &Key::new("user_1"));
        let of_another = Event { source: Source::Resend, subject, ..event() };
        assert_eq!(Event::from_record(&of_another.clone().into_record()), Ok(of_another));
    }

    #[test]
    fn a_record_of_another_producer_names_what_it_lacks() {
        let mut record = event().into_record();
        record.headers.retain(|(name, _)| name != headers::TYPE);
        assert_eq!(Event::from_record(&record), Err(NotAnEvent::Missing(headers::TYPE)));
        let long = "x".repeat(MAX_ID + 1);
        for (header, value) in [
            (headers::EVENT_ID, ""),
            (headers::EVENT_ID, "a\0b"),
            (headers::EVENT_ID, &long),
            (headers::SOURCE, "nobody"),
            (headers::SUBJECT_SOURCE, "nobody"),
            (headers::INSTANCE, "No Such"),
            (headers::INSTANCE, ""),
            (headers::RECEIVED_AT, "now"),
        ] {
            let mut record = event().into_record();
            record.headers.retain(|(name, _)| name != header);
            record.headers.push((header.to_owned(), value.to_owned()));
            assert_eq!(Event::from_record(&record), Err(NotAnEvent::Unreadable(header)), "{header}: {value:?}");
        }
    }
}
