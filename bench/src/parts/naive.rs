//! A peer: an ingest as it is usually written in Rust: axum, the `svix` crate and rdkafka's `FutureProducer`. It writes the
//! same records with the same settings as Usher, and has neither limits nor metrics.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Deserialize;
use svix::webhooks::Webhook;
use usher_proto::{Timestamp, headers};
use usher_service::clock;

use crate::ingest::kafka;

/// Settings of the mode.
#[derive(Debug, clap::Args)]
pub(crate) struct NaiveArguments {
    /// Bootstrap server of Kafka.
    #[arg(long)]
    broker: String,
    /// Topic that exists.
    #[arg(long)]
    topic: String,
    /// Signing secret.
    #[arg(long)]
    secret: String,
}

struct Naive {
    webhook: Webhook,
    producer: FutureProducer,
    topic: String,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    timestamp: i64,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    id: String,
}

/// Serves with the runtime that tokio makes unless told otherwise.
pub(super) fn run(arguments: NaiveArguments) -> anyhow::Result<()> {
    let NaiveArguments { broker, topic, secret } = arguments;
    let producer = kafka::producer_settings(&broker).create()?;
    let webhook = Webhook::new(&secret).context("no signing secret")?;
    let state = Arc::new(Naive { webhook, producer, topic });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(super::serve(Router::new().route("/", post(receive)).with_state(state)))
}

async fn receive(State(naive): State<Arc<Naive>>, request: HeaderMap, body: Bytes) -> StatusCode {
    if naive.webhook.verify(&body, &request).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(event) = serde_json::from_slice::<Envelope>(&body) else { return StatusCode::BAD_REQUEST };
    let Some(record_headers) = record_headers(&request, &event) else { return StatusCode::BAD_REQUEST };
    let record = FutureRecord::to(&naive.topic).key(&event.data.id).payload(&body[..]).headers(record_headers);
    let Ok(delivery) = naive.producer.send_result(record) else { return StatusCode::SERVICE_UNAVAILABLE };
    match delivery.await {
        Ok(Ok(_)) => StatusCode::NO_CONTENT,
        Ok(Err(_)) | Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Returns the headers that Usher writes, too.
fn record_headers(request: &HeaderMap, event: &Envelope) -> Option<OwnedHeaders> {
    let header = |name: &str| request.get(name)?.to_str().ok();
    let id = header(headers::SVIX[0])?;
    let occurred_at = Timestamp::from_millis(event.timestamp).to_string();
    let received_at = clock::wall().to_string();
    let values = [
        (headers::EVENT_ID, id),
        (headers::TYPE, &event.kind),
        (headers::SOURCE, "clerk"),
        (headers::INSTANCE, "default"),
        (headers::OCCURRED_AT, &occurred_at),
        (headers::RECEIVED_AT, &received_at),
        (headers::SVIX[0], id),
        (headers::SVIX[1], header(headers::SVIX[1])?),
        (headers::SVIX[2], header(headers::SVIX[2])?),
    ];
    let owned = OwnedHeaders::new_with_capacity(values.len());
    Some(values.into_iter().fold(owned, |owned, (key, value)| owned.insert(Header { key, value: Some(value) })))
}
