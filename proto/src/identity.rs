//! Identities of subjects (whose events are processed in order) and of events. Both contain source and instance and
//! cannot be created without them. So a holder of one instance's secret cannot affect the data of another instance.
//!
//! Each identity is one text, `source/instance/rest`, in memory and in the store's tables. Neither a source nor an
//! instance can contain a `/`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Event, EventId, Instance, Key, Source};

/// The text `source/instance/rest`, with the byte positions at which `instance` and `rest` begin.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Scoped {
    text: Arc<str>,
    instance: u16,
    rest: u16,
}

impl Scoped {
    fn new(source: Source, instance: &Instance, rest: &str) -> Self {
        Self::join(source.label(), instance.as_str(), rest)
    }

    fn join(source: &str, instance: &str, rest: &str) -> Self {
        // Labels and instance names are far shorter than 64 KiB.
        let start = |place: usize| u16::try_from(place).unwrap_or(u16::MAX);
        let at_instance = source.len() + 1;
        let at_rest = at_instance + instance.len() + 1;
        let text = format!("{source}/{instance}/{rest}").into();
        Self { text, instance: start(at_instance), rest: start(at_rest) }
    }

    fn parse(text: &str) -> Option<(Source, Instance, &str)> {
        let (source, rest) = text.split_once('/')?;
        let (instance, rest) = rest.split_once('/')?;
        Some((source.parse().ok()?, instance.parse().ok()?, rest))
    }

    fn source(&self) -> &str {
        &self.text[..usize::from(self.instance) - 1]
    }

    fn instance(&self) -> &str {
        &self.text[usize::from(self.instance)..usize::from(self.rest) - 1]
    }

    fn rest(&self) -> &str {
        &self.text[usize::from(self.rest)..]
    }
}

/// The text is not an identity of the form `source/instance/rest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no identity: that would be source/instance/id")]
pub struct InvalidIdentity;

/// A user, an organization or another object whose events are processed in order. Its source is the source that issued
/// the key: an event of Resend that names a user of Clerk concerns Clerk's user.
///
/// `Debug` hides the key, because it may be personal data.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectId(Scoped);

impl SubjectId {
    /// Creates the subject to which `source` has given `key` in `instance`.
    pub fn new(source: Source, instance: &Instance, key: &Key) -> Self {
        Self(Scoped::new(source, instance, key.as_str()))
    }

    /// Returns another subject of the same source and instance.
    #[must_use]
    pub fn with_key(&self, key: &Key) -> Self {
        Self(Scoped::join(self.source(), self.instance(), key.as_str()))
    }

    /// Label of the source that issued the key.
    pub fn source(&self) -> &str {
        self.0.source()
    }

    /// True if `source` issued the key.
    pub fn is_of(&self, source: Source) -> bool {
        self.source() == source.label()
    }

    /// Name of the instance.
    pub fn instance(&self) -> &str {
        self.0.instance()
    }

    /// The key, which is unique within its source and instance.
    pub fn key(&self) -> &str {
        self.0.rest()
    }

    /// The full identity as one text, for tables. It may be personal data and must not be logged.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl FromStr for SubjectId {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let (source, instance, key) = Scoped::parse(text).ok_or(InvalidIdentity)?;
        Ok(Self::new(source, &instance, &Key::new(key)))
    }
}

impl fmt::Debug for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectId({}/{}/..)", self.source(), self.instance())
    }
}

/// The identity of an event among the events of all senders and instances. The same id at two instances
/// identifies two events.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventRef(Scoped);

impl EventRef {
    /// Creates the identity of the event that `source` sent to `instance` under `id`.
    pub fn new(source: Source, instance: &Instance, id: &EventId) -> Self {
        Self(Scoped::new(source, instance, id.as_str()))
    }

    /// Returns the identity of an event.
    pub fn of(event: &Event) -> Self {
        let Event { source, subject, id, .. } = event;
        Self(Scoped::join(source.label(), subject.instance(), id.as_str()))
    }

    /// True if this is the identity of `event`.
    pub fn is(&self, event: &Event) -> bool {
        self.id() == event.id.as_str() && self.instance() == event.instance() && self.0.source() == event.source.label()
    }

    /// Label of the sender.
    pub fn source(&self) -> &str {
        self.0.source()
    }

    /// The sender's id.
    pub fn id(&self) -> &str {
        self.0.rest()
    }

    /// Name of the instance.
    pub fn instance(&self) -> &str {
        self.0.instance()
    }

    /// The full identity as one text, for tables.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl FromStr for EventRef {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let (source, instance, id) = Scoped::parse(text).ok_or(InvalidIdentity)?;
        Ok(Self::new(source, &instance, &EventId::new(id)))
    }
}

impl fmt::Display for EventRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EventRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_whatever_its_key_is() {
        let staging: Instance = "staging".parse().expect("a name");
        for key in ["user_1", "a/b/c", "/", "ann@mail.test", "é"] {
            let subject = SubjectId::new(Source::Clerk, &staging, &Key::new(key));
            assert_eq!((subject.source(), subject.instance(), subject.key()), ("clerk", "staging", key));
            assert_eq!(subject.as_str().parse(), Ok(subject));
            let event = EventRef::new(Source::Resend, &staging, &EventId::new(key));
            assert_eq!((event.id(), event.instance()), (key, "staging"));
            assert_eq!(event.as_str().parse(), Ok(event));
            let of_a_sender = SubjectId::new("acme-pay".parse().expect("a sender"), &staging, &Key::new(key));
            assert_eq!((of_a_sender.source(), of_a_sender.key()), ("acme-pay", key));
            assert_eq!(of_a_sender.as_str().parse(), Ok(of_a_sender));
        }
        for bad in ["", "clerk", "clerk/default", "No Body/default/x", "unknown/default/x", "clerk/NO/x"] {
            assert_eq!(bad.parse::<SubjectId>(), Err(InvalidIdentity), "{bad}");
        }
    }

    #[test]
    fn the_same_key_is_another_subject_at_another_source_or_instance() {
        let of = |source, instance: &str| {
            let instance = instance.parse().expect("a name");
            (
                SubjectId::new(source, &instance, &Key::new("user_1")),
                EventRef::new(source, &instance, &EventId::new("msg_1")),
            )
        };
        let places = [(Source::Clerk, "default"), (Source::Clerk, "staging"), (Source::Resend, "default")];
        for (number, (source, instance)) in places.into_iter().enumerate() {
            for (other_source, other_instance) in places.into_iter().skip(number + 1) {
                let one = of(source, instance);
                let other = of(other_source, other_instance);
                assert!(one.0 != other.0 && one.1 != other.1);
            }
        }
    }

    #[test]
    fn a_subject_is_not_printed() {
        let subject = SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("ann@mail.test"));
        assert_eq!(format!("{subject:?}"), "SubjectId(clerk/default/..)");
    }
}
