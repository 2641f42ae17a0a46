//! Limits: parts of an ingest, each by itself, in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use serde::Deserialize;
use usher_proto::headers;
use usher_proto::signature::{self, SigningSecret};
use usher_service::clock;

use super::requests::SignedRequests;

/// Work of one limit.
#[derive(Debug)]
pub(super) struct LimitResult {
    /// Number of requests.
    pub(super) requests: usize,
    /// Time for all of them, in seconds.
    pub(super) seconds: f64,
}

/// Verifies all signatures.
///
/// # Errors
///
/// A signature is wrong.
pub(super) fn verify(secret: &str, requests: &SignedRequests) -> anyhow::Result<LimitResult> {
    let secrets = [SigningSecret::parse(secret)?];
    let begun = Instant::now();
    for request in (0..requests.len()).filter_map(|number| requests.get(number)) {
        signature::verify(&secrets, request.signed(), &request.of.body, clock::wall())?;
    }
    Ok(LimitResult { requests: requests.len(), seconds: begun.elapsed().as_secs_f64() })
}

/// The parts of a body that an ingest needs.
#[derive(Deserialize)]
struct EventHead<'a> {
    #[serde(borrow, rename = "type")]
    _kind: &'a str,
    #[serde(rename = "timestamp")]
    _timestamp: i64,
    #[serde(borrow)]
    data: EventSubject<'a>,
}

#[derive(Deserialize)]
struct EventSubject<'a> {
    #[serde(borrow)]
    id: &'a str,
}

/// Finds type, time and key in all bodies.
///
/// # Errors
///
/// A body is not as expected.
pub(super) fn find_keys(requests: &SignedRequests) -> anyhow::Result<LimitResult> {
    let begun = Instant::now();
    for request in (0..requests.len()).filter_map(|number| requests.get(number)) {
        let event: EventHead<'_> = serde_json::from_slice(&request.of.body)?;
        anyhow::ensure!(event.data.id == request.of.user, "a body of another user");
    }
    Ok(LimitResult { requests: requests.len(), seconds: begun.elapsed().as_secs_f64() })
}

/// Counts the records that Kafka has acknowledged.
#[derive(Default)]
struct Delivered(Arc<AtomicUsize>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Wait for a report of delivery while the queue is full.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);

/// Time for the last records to be acknowledged.
const FLUSHES_WITHIN: Duration = Duration::from_secs(10);

/// Produces the records of all requests, as fast as the producer's queue takes them.
///
/// # Errors
///
/// A record is not acknowledged.
pub(super) fn produce(settings: &ClientConfig, topic: &str, requests: &SignedRequests) -> anyhow::Result<LimitResult> {
    let delivered = Arc::<AtomicUsize>::default();
    let producer: BaseProducer<Delivered> = settings.create_with_context(Delivered(delivered.clone()))?;
    let now = clock::wall().to_string();
    let begun = Instant::now();
    for request in (0..requests.len()).filter_map(|number| requests.get(number)) {
        let values = [
            (headers::EVENT_ID, &*request.id),
            (headers::TYPE, "user.updated"),
            (headers::SOURCE, "clerk"),
            (headers::INSTANCE, "default"),
            (headers::OCCURRED_AT, &now),
            (headers::RECEIVED_AT, &now),
            (headers::SVIX[0], &request.id),
            (headers::SVIX[1], request.timestamp),
            (headers::SVIX[2], request.signature),
        ];
        let owned = OwnedHeaders::new_with_capacity(values.len());
        let owned =
            values.into_iter().fold(owned, |owned, (key, value)| owned.insert(Header { key, value: Some(value) }));
        let mut record = BaseRecord::to(topic).key(&*request.of.user).payload(&request.of.body[..]).headers(owned);
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            // The queue is full until reports of delivery have been read.
            producer.poll(QUEUE_FULL_WAIT);
            record = refused;
        }
    }
    producer.flush(FLUSHES_WITHIN)?;
    let seconds = begun.elapsed().as_secs_f64();
    let acknowledged = delivered.load(Ordering::Relaxed);
    anyhow::ensure!(acknowledged == requests.len(), "{acknowledged} of {} records", requests.len());
    Ok(LimitResult { requests: acknowledged, seconds })
}
