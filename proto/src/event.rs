//! One verified webhook, and its conversion to and from a log record.

use std::fmt;

use bytes::Bytes;

use crate::{EventRef, Instance, Json, Key, Record, Source, SubjectId, Timestamp, TraceParent, headers};

/// Longest event id, in bytes. Svix's ids have about 30 bytes. Ids are stored in headers, idempotency keys and indexes.
pub const MAX_ID: usize = 256;

/// The sender's id of an event. For Clerk it is the `svix-id`, which stays the same on every retry and on a manual
/// replay. It is unique only within a source and an instance; [`EventRef`] adds both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(String);

impl EventId {
    /// Creates an id from its text. The length and the characters are not checked here.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
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
    /// The sender's id, the same for repeated deliveries of this event.
    pub id: EventId,
    /// The sender's event type, such as `user.created`.
    pub kind: String,
    /// The sender.
    pub source: Source,
    /// The user, organization or other object that the event concerns. Contains the sender's instance.
    pub subject: SubjectId,
    /// Time of the event by the sender's clock.
    pub occurred_at: Timestamp,
    /// Time at which ingest received the event.
    pub received_at: Timestamp,
    /// Stored request headers: the parts of the signature, unchanged, and the trace context.
    pub provenance: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// The record is not an event that ingest wrote.
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

    /// Returns the `data` of the body as it was sent; `None` if the body is not JSON or has no `data`. A sender that has
    /// no code of its own need not divide its bodies so: without a `data`, it is the whole body.
    pub fn data(&self) -> Option<Json<'_>> {
        let body = Json::read(std::str::from_utf8(&self.body).ok()?)?;
        let whole = matches!(self.source, Source::Sender(_)).then_some(body);
        body.get("data").or(whole)
    }

    /// Returns the identity of this event among the events of all senders and instances.
    pub fn reference(&self) -> EventRef {
        EventRef::of(self)
    }

    /// Returns the span that the event came from. `None` if the event has no valid trace context.
    pub fn trace_parent(&self) -> Option<TraceParent> {
        let (_, value) = self.provenance.iter().find(|(name, _)| name == headers::TRACEPARENT)?;
        value.parse().ok()
    }

    /// Sets the span that the event comes from, in place of an earlier one.
    pub fn set_trace_parent(&mut self, parent: TraceParent) {
        self.provenance.retain(|(name, _)| name != headers::TRACEPARENT);
        self.provenance.push((headers::TRACEPARENT.to_owned(), parent.to_string()));
    }

    /// Converts the event into the record that is appended to the log.
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

    /// Parses a record that [`Event::into_record`] or another producer wrote.
    ///
    /// # Errors
    ///
    /// A required header is missing, or its value cannot be read or stored. The error names the header.
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
        let provenance = record.headers.iter().filter(|(name, _)| headers::is_provenance(name)).cloned().collect();
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
        // Whether a sender is configured is not a matter of the record: its runs outlive its setting.
        let acme = "acme".parse().expect("a sender");
        let of_a_sender = Event { source: acme, subject: SubjectId::new(acme, &staging, &Key::new("a")), ..event() };
        assert_eq!(Event::from_record(&of_a_sender.clone().into_record()), Ok(of_a_sender));
    }

    #[test]
    fn an_event_has_at_most_one_trace_parent() {
        let mut event = event();
        assert_eq!(event.trace_parent(), None, "it is no valid one");
        let parent = TraceParent::new(7, 9, 1).expect("ids other than zero");
        event.set_trace_parent(parent);
        assert_eq!((event.trace_parent(), event.provenance.len()), (Some(parent), 2));
        assert_eq!(Event::from_record(&event.clone().into_record()), Ok(event));
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
            (headers::SOURCE, "No Body"),
            (headers::SUBJECT_SOURCE, "no/body"),
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
