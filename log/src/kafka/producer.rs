//! Appending: one producer on its own thread, each record answered through a channel of its own.
//!
//! Not rdkafka's `FutureProducer`: when its queue is full it sleeps a tenth of a second at a time, where we want to say
//! so at once.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;
use usher_proto::{Partition, Record};

use crate::{AppendError, LogError, Position};

type Answer = oneshot::Sender<Result<Position, AppendError>>;
pub(super) type Client = ThreadedProducer<Deliveries>;

/// Turns delivery reports into answers.
pub(super) struct Deliveries;

impl ClientContext for Deliveries {}

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

/// The producer, made anew after an error that ends one for good.
pub(super) struct Appender {
    config: ClientConfig,
    client: Mutex<Arc<Client>>,
}

impl Appender {
    pub(super) fn new(config: ClientConfig) -> Result<Self, LogError> {
        let client = Arc::new(make(&config)?);
        Ok(Self { config, client: Mutex::new(client) })
    }

    pub(super) fn client(&self) -> Arc<Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn append(&self, topic: &str, record: Record) -> Result<Position, AppendError> {
        let client = self.client();
        let (answer, answered) = oneshot::channel();
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        let message = BaseRecord::with_opaque_to(topic, Box::new(answer))
            .key(record.key.as_str().as_bytes())
            .payload(record.body.as_ref())
            .headers(headers);
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
        let mut current = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, client) {
            return;
        }
        tracing::error!(%code, reason, "the producer has failed for good and is made anew");
        match make(&self.config) {
            Ok(new) => *current = Arc::new(new),
            Err(error) => tracing::error!(%error, "no new producer could be made"),
        }
    }
}

fn make(config: &ClientConfig) -> Result<Client, LogError> {
    ThreadedProducer::from_config_and_context(config, Deliveries).map_err(|error| LogError::configuration(&error))
}
