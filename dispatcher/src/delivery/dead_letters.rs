//! Dead letters. Each is published and acknowledged first; then its run is written as dead. The store is authoritative,
//! and the topic holds the published records.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use usher_engine::Run;
use usher_eventlog::{Log, LogLayout};
use usher_proto::{Key, Reason, Record, headers};
use usher_service::clock;
use usher_service::retry::{Backoff, Jitter, RetryLimit, retry};

/// Pauses between tries to publish a dead letter.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(4), jitter: Jitter::Equal };
/// Longest error text in a header, in characters. Headers are for reading, so a destination's text is cut.
const MAX_ERROR: usize = 300;

/// A run to be given up, with the reason.
pub(super) struct DeadLetter<'a> {
    pub(super) flow: &'a str,
    pub(super) step: &'a str,
    pub(super) run: &'a Run,
    pub(super) reason: Reason,
    pub(super) error: &'a str,
}

impl DeadLetter<'_> {
    /// Returns the event's record with headers about the failure. Its key is the event's reference. So a dead letter
    /// that is written twice is one after compaction, and that of another event with the same id is separate.
    fn record(&self, layout: &LogLayout) -> Record {
        let mut record = self.run.event.clone().into_record();
        record.key = Key::new(self.run.event.reference().as_str());
        if self.run.expires_at.is_some() {
            // The topic keeps records for a long time, and content that soon expires, such as a one-time code, must not
            // stay there. The store keeps it for as long as the run can be redriven.
            record.body = Bytes::new();
        }
        let error: String = self.error.chars().take(MAX_ERROR).collect();
        let more = [
            (headers::FLOW, self.flow.to_owned()),
            (headers::STEP, self.step.to_owned()),
            (headers::REASON, self.reason.label().to_owned()),
            (headers::ERROR, error),
            (headers::ATTEMPTS, self.run.tries.attempts.to_string()),
            (headers::ORIGINAL_TOPIC, layout.topics.events()),
            (headers::ORIGINAL_PARTITION, self.run.partition.to_string()),
            (headers::ORIGINAL_OFFSET, self.run.position.to_string()),
            (headers::DIED_AT, clock::now().to_string()),
        ];
        record.headers.extend(more.map(|(name, value)| (name.to_owned(), value)));
        record
    }

    /// Publishes the dead letter. Retries until the log accepts it, because a dead letter is never dropped. Returns
    /// false if the process stops meanwhile.
    pub(super) async fn publish(&self, log: &Arc<dyn Log>, layout: &LogLayout, stop: &CancellationToken) -> bool {
        let topic = layout.dead_letters(self.flow);
        let record = self.record(layout);
        let attempt = || async {
            match log.append(&topic, record.clone()).await {
                Ok(_) => ControlFlow::Break(()),
                Err(error) => {
                    tracing::warn!(flow = self.flow, %error, "publishing a dead letter failed; retrying");
                    ControlFlow::Continue(())
                }
            }
        };
        retry(BACKOFF, RetryLimit::Stop(stop), attempt).await.is_ok()
    }
}
