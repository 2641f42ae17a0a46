//! The rebalance callback. It runs inside `poll`, on the consumer's own thread, so it never waits: it only records the
//! event, and the thread acts on it after the poll. Three cases are answered immediately: an empty change, a loss, and
//! every change once the consumer is closing, because the close itself polls until the last change is answered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use usher_proto::Partition;

use super::librdkafka_log::LibrdkafkaLogger;

/// Decisions of the group coordinator.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RebalanceEvent {
    /// These partitions are assigned to this member; `incremental_assign` is still to be called.
    Assigned(Vec<Partition>),
    /// These partitions are revoked; `incremental_unassign` is still to be called.
    Revoked(Vec<Partition>),
    /// These partitions may already belong to another member.
    Lost(Vec<Partition>),
    /// This member is in the group and gets no further partitions.
    Unchanged,
}

pub(super) struct Rebalances {
    logger: Arc<LibrdkafkaLogger>,
    changes: Mutex<VecDeque<RebalanceEvent>>,
    closing: AtomicBool,
}

impl Rebalances {
    pub(super) fn new(logger: Arc<LibrdkafkaLogger>) -> Self {
        Self { logger, changes: Mutex::default(), closing: AtomicBool::default() }
    }

    pub(super) fn logger(&self) -> &LibrdkafkaLogger {
        &self.logger
    }

    pub(super) fn take(&self) -> Option<RebalanceEvent> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    fn note(&self, change: RebalanceEvent) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push_back(change);
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.logger.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logger.error(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<Partition> = list.elements().iter().map(|e| Partition(e.partition())).collect();
        let closing = self.closing.load(Ordering::SeqCst);
        let answered = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS if partitions.is_empty() || closing => {
                self.note(RebalanceEvent::Unchanged);
                consumer.incremental_assign(list)
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.note(RebalanceEvent::Assigned(partitions));
                Ok(())
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if partitions.is_empty() || closing => {
                hand_back(consumer, list)
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if consumer.assignment_lost() => {
                self.note(RebalanceEvent::Lost(partitions));
                hand_back(consumer, list)
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.note(RebalanceEvent::Revoked(partitions));
                Ok(())
            }
            _ => {
                // Never observed. librdkafka requires this answer to any error, to bring both sides to the same state.
                self.note(RebalanceEvent::Lost(partitions));
                consumer.unassign()
            }
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "answering a rebalance failed");
        }
    }
}

/// Answers a revocation. librdkafka refuses the whole answer and waits for another if it names a partition that was
/// never started, so such partitions are left out.
pub(super) fn hand_back(consumer: &BaseConsumer<Rebalances>, list: &TopicPartitionList) -> KafkaResult<()> {
    let taken_up = consumer.assignment()?;
    let mut answer = TopicPartitionList::new();
    for element in list.elements() {
        if taken_up.find_partition(element.topic(), element.partition()).is_some() {
            answer.add_partition(element.topic(), element.partition());
        }
    }
    consumer.incremental_unassign(&answer)
}
