//! A peer: a plain consumer that posts one record after the other and commits each hundredth. It keeps the order of a
//! partition; one failure stops it, and up to a hundred effects are repeated after a kill.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::Message as _;
use serde_json::json;

use super::{Scenario, TEXT, sample};
use crate::meter::{Meter, Processes};
use crate::report::Sample;
use crate::services::BenchServices;
use crate::sink::Sink;
use crate::topic;

/// Name of the arm.
pub(super) const NAME: &str = "a plain consumer, one by one";

/// Records between two commits.
const COMMIT_EVERY: usize = 100;

/// Reads the topic once, in this process. The meter includes the sink, which runs in it, too.
pub(super) async fn run(
    services: &BenchServices,
    topic: &str,
    scenario: &Scenario,
    sink: &Sink,
    round: usize,
) -> anyhow::Result<Sample> {
    sink.reset();
    let consumer: BaseConsumer = topic::reader(&services.kafka, topic)?;
    let meter = Meter::start(vec![("consumer and sink", Processes::One(std::process::id()))])?;
    let client = reqwest::Client::new();
    let url = sink.url();
    let mut begun = None;
    for number in 1..=scenario.events {
        let message = tokio::task::block_in_place(|| consumer.poll(Duration::from_secs(30)));
        let message = message.with_context(|| format!("event {number} does not come"))??;
        begun.get_or_insert_with(Instant::now);
        let user = message.key_view::<str>().context("no key")??;
        let id = format!("{}-{}", message.partition(), message.offset());
        let body = json!({ "user": user, "text": TEXT }).to_string();
        let request = client.post(&url).header("content-type", "application/json").header("webhook-id", id).body(body);
        request.send().await?.error_for_status()?;
        if number % COMMIT_EVERY == 0 {
            consumer.commit_message(&message, CommitMode::Async)?;
        }
    }
    sample(NAME, round, scenario, sink, begun.unwrap_or_else(Instant::now), &meter, 0)
}
