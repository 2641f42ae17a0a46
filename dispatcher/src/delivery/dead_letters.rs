//! Dead letters: published and acknowledged first, written as dead after. The store is the truth about them, the topic
//! their published record.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use usher_eventlog::{Log, LogLayout};
use usher_proto::{Key, Reason, Record, headers};
use usher_service::clock;

use crate::engine::Run;

/// The pause before a letter is published again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Headers are for reading; a destination's words are cut to this many characters.
const MAX_ERROR: usize = 300;

/// A run to be given up, and why.
pub(super) struct DeadLetter<'a> {
    pub(super) flow: &'a str,
    pub(super) step: &'a str,
    pub(super) run: &'a Run,
    pub(super) reason: Reason,
    pub(super) error: &'a str,
}

impl DeadLetter<'_> {
    /// The event's record with what happened to it. Its key is the event, so that a letter written twice is one after
    /// compaction, and that of another event with the same id is another.
    fn record(&self, layout: &LogLayout) -> Record {
        let mut record = self.run.event.clone().into_record();
        record.key = Key::new(self.run.event.reference().as_str());
        if self.run.expires_at.is_some() {
            // The topic keeps it for long, and what is soon worth nothing, a one-time code say, is nothing to keep. The
            // store has it for as long as the run can be redriven.
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

    /// Publishes it; a log that does not take it is asked until it does, for a letter is never dropped. False when the
    /// process stops meanwhile.
    pub(super) async fn publish(&self, log: &Arc<dyn Log>, layout: &LogLayout, stop: &CancellationToken) -> bool {
        let topic = layout.dead_letters(self.flow);
        let record = self.record(layout);
        loop {
            match log.append(&topic, record.clone()).await {
                Ok(_) => return true,
                Err(error) => tracing::warn!(flow = self.flow, %error, "a dead letter is not published yet"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(ASK_AGAIN)).await.is_none() {
                return false;
            }
        }
    }
}
