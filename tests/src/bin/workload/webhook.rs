//! One webhook through ingest: from a request with its head to the answer, with a log that acknowledges at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use clap::Parser as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use usher_eventlog::{AppendError, Log, LogError, Position, Scanner, Subscription, TopicSpec, Watermarks};
use usher_ingest::IngestConfig;
use usher_ingest::config::IngestArguments;
use usher_proto::signature::SigningSecret;
use usher_proto::{Key, Offset, Partition, Record, Timestamp};
use usher_service::clock;
use usher_service::options::Environment;
use usher_tests::test_env::SECRET;

use crate::{Work, samples};

/// A log that forgets each record and acknowledges it.
struct ForgettingLog;

fn nothing_is_read<T>() -> Result<T, LogError> {
    Err(LogError::Unavailable("nothing is read here".into()))
}

#[async_trait]
impl Log for ForgettingLog {
    async fn ensure(&self, _: &[TopicSpec]) -> Result<(), LogError> {
        Ok(())
    }

    async fn append(&self, _: &TopicSpec, _: Record) -> Result<Position, AppendError> {
        Ok(Position { partition: Partition(0), offset: Offset(0) })
    }

    async fn erase(&self, _: &TopicSpec, _: &Key) -> Result<Position, AppendError> {
        Err(AppendError::Unavailable("nothing is erased here".into()))
    }

    async fn subscribe(&self, _: &str, _: &str) -> Result<Subscription, LogError> {
        nothing_is_read()
    }

    async fn watermarks(&self, _: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
        nothing_is_read()
    }

    async fn offsets_at(&self, _: &str, _: Timestamp) -> Result<BTreeMap<Partition, Offset>, LogError> {
        nothing_is_read()
    }

    async fn committed(&self, _: &str, _: &str) -> Result<BTreeMap<Partition, Offset>, LogError> {
        nothing_is_read()
    }

    async fn read(&self, _: &str, _: Partition, _: Offset) -> Result<Option<Record>, LogError> {
        nothing_is_read()
    }

    fn scan(&self, _: &str) -> Result<Box<dyn Scanner>, LogError> {
        nothing_is_read()
    }

    async fn check(&self) -> Result<(), LogError> {
        Ok(())
    }

    async fn flush(&self) {}
}

/// Returns a signed request, as Svix sends it.
fn request(secret: &SigningSecret, number: usize) -> Request<Body> {
    let body = samples::body();
    let id = format!("msg_{number:024}");
    let timestamp = clock::wall().seconds().to_string();
    let signature = secret.sign(&id, &timestamp, &body);
    Request::post("/webhooks/clerk")
        .header("host", "hooks.test")
        .header("user-agent", "Svix-Webhooks/1.62.0")
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .header("svix-id", id)
        .header("svix-timestamp", timestamp)
        .header("svix-signature", signature)
        .body(Body::from(body))
        .expect("a request")
}

pub(crate) fn work(times: usize) -> Work {
    let environment = Environment::from_vars([("CLERK_WEBHOOK_SIGNING_SECRET", SECRET)]);
    let arguments = IngestArguments::parse_from(["ingest", "--log", "kafka://127.0.0.1:1"]);
    let config = IngestConfig::new(arguments, &environment).expect("a configuration");
    let router = usher_ingest::router(&config, Arc::new(ForgettingLog), &prometheus::Registry::new());
    let service = TowerToHyperService::new(router.expect("metrics of its own"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let secret = SigningSecret::parse(SECRET).expect("a secret");
    let mut requests: Vec<_> = (0..times).map(|number| request(&secret, number)).collect();
    Box::new(move || {
        let request = requests.pop().expect("one for each time");
        let response = runtime.block_on(service.call(request)).expect("an answer");
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    })
}
