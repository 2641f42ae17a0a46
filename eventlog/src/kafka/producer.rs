//! The producer: one client for all appends. The result of each record arrives through a channel of its own.
//!
//! rdkafka's `FutureProducer` is not used: when its queue is full, it sleeps for 100 ms at a time, whereas an append
//! must report that at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tokio::sync::oneshot;
use usher_proto::{Key, Offset, Partition};

use super::config::Settings;
use super::librdkafka_log::LibrdkafkaLogger;
use super::reports::ReportingProducer;
use super::unavailable;
use crate::{AppendError, LogError, Position};

type Answer = oneshot::Sender<Result<Position, AppendError>>;
pub(super) type Client = ReportingProducer<Deliveries>;

/// Client context that turns delivery reports into results of appends.
pub(super) struct Deliveries(Arc<LibrdkafkaLogger>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, answer: Box<Answer>) {
        let result = match delivery {
            Ok(message) => Ok(Position { partition: Partition(message.partition()), offset: Offset(message.offset()) }),
            Err((error, _)) => Err(classify(error)),
        };
        // Ignored: the caller may have given up the request. A delivered record is in the log anyway.
        let _ = answer.send(result);
    }
}

fn classify(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => AppendError::Full("too many records wait for an acknowledgement".into()),
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => AppendError::TooLarge,
        _ => AppendError::Unavailable(error.to_string()),
    }
}

/// Headers and body of a record, or `None` for a tombstone.
pub(super) type Contents<'a> = Option<(&'a [(String, String)], &'a [u8])>;

/// The current producer. It is replaced after a fatal error, from which a producer never recovers.
pub(super) struct Appender {
    settings: Settings,
    current: Mutex<Current>,
}

struct Current {
    client: Arc<Client>,
    largest_batch: Option<usize>,
}

impl Appender {
    pub(super) fn new(settings: Settings) -> Result<Self, LogError> {
        let client = Arc::new(make(&settings, None)?);
        Ok(Self { settings, current: Mutex::new(Current { client, largest_batch: None }) })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client(&self) -> Arc<Client> {
        self.current().client.clone()
    }

    /// Limits the size of batches to `largest` bytes. Records in flight are still answered by the producer
    /// that holds them.
    pub(super) fn limit_batches(&self, largest: Option<usize>) {
        let mut current = self.current();
        if largest.is_none() || current.largest_batch == largest {
            return;
        }
        // Most topics take a batch of the usual size, so the producer need not be replaced.
        let before = self.settings.producer(current.largest_batch);
        let after = self.settings.producer(largest);
        current.largest_batch = largest;
        if before.get("batch.size") != after.get("batch.size") {
            self.replace(&mut current);
        }
    }

    pub(super) async fn append(
        &self,
        topic: &str,
        partition: Partition,
        key: &Key,
        contents: Contents<'_>,
    ) -> Result<Position, AppendError> {
        let client = self.client();
        let (answer, answered) = oneshot::channel();
        let mut message =
            BaseRecord::with_opaque_to(topic, Box::new(answer)).partition(partition.0).key(key.as_str().as_bytes());
        if let Some((headers, body)) = contents {
            let mut owned = OwnedHeaders::new_with_capacity(headers.len());
            for (name, value) in headers {
                owned = owned.insert(Header { key: name, value: Some(value) });
            }
            message = message.payload(body).headers(owned);
        }
        let result = match client.get().send(message) {
            Ok(()) => match answered.await {
                Ok(result) => result,
                Err(_) => Err(AppendError::Unavailable("the producer was closed".into())),
            },
            Err((error, _)) => Err(classify(&error)),
        };
        if result.is_err() {
            self.replace_if_dead(&client);
        }
        result
    }

    /// Replaces `client` if it has had a fatal error: an idempotent producer refuses everything after one, so only a
    /// new producer helps. The records that the old producer still held have been answered as not acknowledged.
    fn replace_if_dead(&self, client: &Arc<Client>) {
        let Some((code, reason)) = client.get().client().fatal_error() else { return };
        let mut current = self.current();
        if !Arc::ptr_eq(&current.client, client) {
            return;
        }
        tracing::error!(%code, reason, "producer failed fatally; creating a new one");
        self.replace(&mut current);
    }

    fn replace(&self, current: &mut Current) {
        match make(&self.settings, current.largest_batch) {
            Ok(new) => current.client = Arc::new(new),
            Err(error) => tracing::error!(%error, "creating a producer failed; retrying"),
        }
    }
}

fn make(settings: &Settings, largest_batch: Option<usize>) -> Result<Client, LogError> {
    let context = Deliveries(settings.logger());
    let producer = BaseProducer::from_config_and_context(&settings.producer(largest_batch), context)
        .map_err(|error| LogError::configuration(&error))?;
    ReportingProducer::new(producer).map_err(unavailable)
}
