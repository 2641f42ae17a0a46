//! A peer: a plain consumer that posts one record after the other and commits each hundredth. It keeps the order of a
//! partition; one failure stops it, and up to a hundred effects are repeated after a kill.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;
use usher_tests::unique;

use super::{BenchServices, PARTITIONS, Scenario, TEXT};
use crate::meter::{Meter, Processes};
use crate::report::Sample;
use crate::sink::Sink;

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
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &services.kafka)
        .set("group.id", unique("plain"))
        .set("enable.auto.commit", "false")
        .create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    // No group, whose first assignment takes seconds.
    consumer.assign(&all)?;
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
    let effects = sink.effects();
    anyhow::ensure!(effects.distinct == scenario.events, "{} effects of {}", effects.distinct, scenario.events);
    let seconds = begun.map_or(0.0, |begun| effects.last.saturating_duration_since(begun).as_secs_f64());
    let repeated = effects.requests - effects.distinct;
    let cpu_seconds = meter.read()?;
    Ok(Sample { arm: NAME, round, events: scenario.events, repeated, seconds, cpu_seconds, peak_memory: 0 })
}
