//! A limit: a bare consumer that reads the events and does nothing with them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;

use super::Scenario;
use crate::meter::{Meter, Processes};
use crate::report::Sample;
use crate::topic;

/// Name of the arm.
pub(super) const NAME: &str = "limit: a consumer that does nothing";

/// Reads the topic once, in this process.
pub(super) async fn run(broker: &str, topic: String, scenario: &Scenario, round: usize) -> anyhow::Result<Sample> {
    let broker = broker.to_owned();
    let wanted = scenario.events;
    let read = move || {
        let consumer: BaseConsumer = topic::reader(&broker, &topic)?;
        let meter = Meter::start(vec![("consumer", Processes::One(std::process::id()))])?;
        let mut read = 0;
        let mut first = None;
        while read < wanted {
            let message = consumer.poll(Duration::from_secs(30));
            let Some(message) = message else { anyhow::bail!("{read} of {wanted} events were read") };
            message?;
            first.get_or_insert_with(Instant::now);
            read += 1;
        }
        let seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        anyhow::Ok((seconds, meter.read()?))
    };
    let (seconds, cpu_seconds): (f64, BTreeMap<String, f64>) = tokio::task::spawn_blocking(read).await??;
    Ok(scenario.sample(NAME, round, seconds, cpu_seconds))
}
