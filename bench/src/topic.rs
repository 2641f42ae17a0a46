//! The events that wait in the log before an arm is started: the same for every arm of a round.

use std::sync::Arc;

use futures::StreamExt as _;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{Consumer, DefaultConsumerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;
use usher_eventlog::{Log, LogLayout};
use usher_tests::events::Webhook;
use usher_tests::unique;

use crate::dispatcher::{PARTITIONS, Scenario, StepChoice};

/// Appends in flight.
const APPENDS: usize = 1_000;
/// Extra bytes of a body's metadata, for about 2 KB in all.
pub(crate) const FILLING: usize = 1_300;

/// Returns the events of a scenario.
pub(crate) fn events(scenario: &Scenario) -> impl Iterator<Item = Webhook> {
    // The built-in flows do most for a new user.
    let kind = match scenario.step {
        StepChoice::BuiltIn => "user.created",
        StepChoice::Http | StepChoice::Mail | StepChoice::Database => "user.updated",
    };
    (0..scenario.events).map(move |number| {
        let user = scenario.keys.user(number, scenario.users);
        webhook(kind, number, user, scenario.filling)
    })
}

/// Appends events to the topic, which is created if it is missing.
///
/// # Errors
///
/// The log does not take them.
pub(crate) async fn append(
    log: &Arc<dyn Log>,
    layout: &LogLayout,
    events: impl Iterator<Item = Webhook>,
) -> anyhow::Result<()> {
    let topic = layout.events();
    log.ensure(std::slice::from_ref(&topic)).await?;
    let mut appended = futures::stream::iter(events)
        .map(|webhook| {
            let topic = &topic;
            async move { log.append(topic, webhook.record()).await }
        })
        .buffer_unordered(APPENDS);
    while let Some(position) = appended.next().await {
        position?;
    }
    log.flush().await;
    Ok(())
}

/// Returns a consumer that reads all partitions of a topic from their beginning.
///
/// # Errors
///
/// The settings or the offsets are refused.
pub(crate) fn reader<C: FromClientConfig + Consumer<DefaultConsumerContext>>(
    broker: &str,
    topic: &str,
) -> anyhow::Result<C> {
    let consumer: C = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", unique("reader"))
        .set("enable.auto.commit", "false")
        .create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    // No group, whose first assignment takes seconds.
    consumer.assign(&all)?;
    Ok(consumer)
}

/// Returns an event of a user; its number is in its id and its metadata, which holds so many extra bytes. They are random, so
/// that compression gains nothing.
pub(crate) fn webhook(kind: &str, number: usize, user: usize, filling: usize) -> Webhook {
    let user = format!("user_{user:06}");
    let filling: String =
        std::iter::repeat_with(|| format!("{:016x}", rand::random::<u64>())).take(filling / 16).collect();
    let data = json!({
        "id": user, "object": "user", "username": null, "first_name": "Ann", "last_name": "Lee",
        "primary_email_address_id": "idn_primary",
        "email_addresses": [{"id": "idn_primary", "email_address": format!("{user}@mail.test")}],
        "phone_numbers": [], "primary_phone_number_id": null,
        "public_metadata": {"seq": number, "filling": filling},
        "created_at": 1_767_261_600_000_i64,
        "updated_at": 1_767_261_600_000_i64 + i64::try_from(number).unwrap_or_default(),
    });
    Webhook { id: format!("msg_{number:09}"), ..Webhook::new(kind, &user, &data) }
}
