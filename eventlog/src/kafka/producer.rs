//! Appending: one producer on its own thread, each record answered through a channel of its own.
//!
//! Not rdkafka's `FutureProducer`: when its queue is full it sleeps a tenth of a second at a time, where we want to say
//! so at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;
use usher_proto::{Key, Partition};

use super::config::Settings;
use super::news::News;
use crate::{AppendError, LogError, Position};

type Answer = oneshot::Sender<Result<Position, AppendError>>;
pub(super) type Client = ThreadedProducer<Deliveries>;

/// Turns delivery reports into answers.
pub(super) struct Deliveries(Arc<News>);

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
            Ok(message) => Ok(Position { partition: Partition(message.partition()), offset: message.offset() }),
            Err((error, _)) => Err(classify(error)),
        };
        // Nobody listens any more where the request was given up; the record is in the log all the same.
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

/// What is appended under a key: headers and body, or a tombstone.
pub(super) type Contents<'a> = Option<(&'a [(String, String)], &'a [u8])>;

/// The producer, made anew after an error that ends one for good.
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

    /// Batches become no larger than this. What is under way is still answered by the producer that has it.
    pub(super) fn limit_batches(&self, largest: Option<usize>) {
        let mut current = self.current();
        if largest.is_none() || current.largest_batch == largest {
            return;
        }
        // Most topics take a usual batch, and need no other producer.
        let (before, after) = (self.settings.producer(current.largest_batch), self.settings.producer(largest));
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
        let result = match client.send(message) {
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

    /// An idempotent producer that has met a fatal error refuses everything from then on; only a new one helps. What the
    /// old one still held has been answered as not acknowledged.
    fn replace_if_dead(&self, client: &Arc<Client>) {
        let Some((code, reason)) = client.client().fatal_error() else { return };
        let mut current = self.current();
        if !Arc::ptr_eq(&current.client, client) {
            return;
        }
        tracing::error!(%code, reason, "the producer has failed for good and is made anew");
        self.replace(&mut current);
    }

    fn replace(&self, current: &mut Current) {
        match make(&self.settings, current.largest_batch) {
            Ok(new) => current.client = Arc::new(new),
            Err(error) => tracing::error!(%error, "no new producer could be made"),
        }
    }
}

fn make(settings: &Settings, largest_batch: Option<usize>) -> Result<Client, LogError> {
    let context = Deliveries(settings.news());
    ThreadedProducer::from_config_and_context(&settings.producer(largest_batch), context)
        .map_err(|error| LogError::configuration(&error))
}
