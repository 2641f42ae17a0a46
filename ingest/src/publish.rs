//! From a verified event to an acknowledged record, within a deadline.

use std::sync::Arc;
use std::time::Duration;

use usher_eventlog::{AppendError, Log, MAX_BODY, MAX_EVENT, TopicSpec};
use usher_proto::Event;

use crate::error::Refusal;
use crate::refusals::Refusals;

/// How long a request may take in all, its body's arrival included. The sender waits fifteen seconds; an answer after
/// that is a failure to it, so ours comes well before.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Publishes to one topic.
pub(crate) struct Publisher {
    log: Arc<dyn Log>,
    topic: TopicSpec,
    refusals: Refusals,
}

impl Publisher {
    pub(crate) fn new(log: Arc<dyn Log>, topic: TopicSpec, refusals: Refusals) -> Self {
        Self { log, topic, refusals }
    }

    /// The size of the largest body that can be kept: that of the largest record, where the topic takes little.
    pub(crate) fn largest_body(&self) -> usize {
        self.log.state(&self.topic.name).largest.map_or(MAX_BODY, |largest| largest.min(MAX_BODY))
    }

    /// Returns when the log has acknowledged the event.
    pub(crate) async fn publish(&self, event: Event) -> Result<(), AppendError> {
        let source = event.source.label();
        let record = event.into_record();
        // An id or a type can be as long as a body. What the log just takes could have no dead letter.
        if record.size() > MAX_EVENT {
            return Err(AppendError::TooLarge);
        }
        let appended = self.log.append(&self.topic, record).await;
        // An outage refuses as much as the senders repeat, and a full disk may be the one that the log is written to.
        if let Err(error @ (AppendError::Full(_) | AppendError::Unavailable(_))) = &appended {
            self.refusals.note(source, &Refusal::NotKept, None, Some(error.to_string()));
        }
        appended.map(drop)
    }
}
