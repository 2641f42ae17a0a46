//! Publication of a verified event to the log, within a deadline.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounterVec;
use usher_eventlog::{AppendError, Log, MAX_BODY, MAX_EVENT, TopicSpec};
use usher_proto::Event;

use crate::error::Refusal;
use crate::refusals::Refusals;

/// Time for a request in total, including the arrival of its body. The sender waits fifteen seconds and treats a later
/// response as a failure, so the deadline ends well before that.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Publishes events to one topic.
pub(crate) struct Publisher {
    log: Arc<dyn Log>,
    topic: TopicSpec,
    refusals: Refusals,
    /// Acknowledged events, by source.
    published: IntCounterVec,
}

impl Publisher {
    pub(crate) fn new(log: Arc<dyn Log>, topic: TopicSpec, refusals: Refusals, published: IntCounterVec) -> Self {
        Self { log, topic, refusals, published }
    }

    /// Returns the size of the largest accepted body, in bytes: [`MAX_BODY`], or the size of the topic's largest record
    /// if that is smaller.
    pub(crate) fn largest_body(&self) -> usize {
        self.log.state(&self.topic.name).largest.map_or(MAX_BODY, |largest| largest.min(MAX_BODY))
    }

    /// Appends the event to the log and returns after the log has acknowledged it.
    pub(crate) async fn publish(&self, event: Event) -> Result<(), AppendError> {
        let source = event.source;
        let record = event.into_record();
        // An id or a type can be as long as a body. A record that the log only just accepts could not be dead-lettered,
        // because a dead letter is larger.
        if record.size() > MAX_EVENT {
            return Err(AppendError::TooLarge);
        }
        let appended = self.log.append(&self.topic, record).await;
        // Refusals are logged at a limited rate: during an outage the senders repeat every request, and the process's
        // own log may be written to the disk that is full.
        if let Err(error @ (AppendError::Full(_) | AppendError::Unavailable(_))) = &appended {
            self.refusals.note(Some(source), &Refusal::NotKept, None, Some(error.to_string()));
        }
        appended.map(|_| self.published.with_label_values(&[source.label()]).inc())
    }
}
