//! Queries that join no group: watermarks, offsets by time, committed offsets, and single records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::{OnceCell, oneshot};
use usher_proto::{Offset, Partition, Record, Timestamp};

use super::config::Settings;
use super::librdkafka_log::QueryContext;
use super::record::record;
use super::{QUESTION_DEADLINE, blocking, unavailable};
use crate::{LogError, Watermarks};

/// Time limit for reading records that are known to exist.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Pause before the leaders of partitions are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

type Client = BaseConsumer<QueryContext>;

/// Queries watermarks and offsets by time. Its client is created on first use and kept, because queries are frequent.
#[derive(Default)]
pub(super) struct WatermarkQuery {
    /// A consumer: only a consumer can query all partitions at once, and its query creates no topic.
    client: OnceCell<Arc<Client>>,
    /// True if ends include records of open transactions. Subscriptions do not deliver those yet.
    with_open_transactions: bool,
}

impl WatermarkQuery {
    /// Creates a query whose ends include records of open transactions, as appends see them.
    pub(super) fn with_open_transactions() -> Self {
        Self { with_open_transactions: true, ..Self::default() }
    }

    /// Returns the watermarks of each partition of `topic`.
    pub(super) async fn of(
        &self,
        settings: &Settings,
        topic: &str,
    ) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
        let topic = topic.to_owned();
        self.ask(settings, move |client| watermarks(client, &topic)).await
    }

    /// Returns the end of each partition of `topic`.
    pub(super) async fn ends(&self, settings: &Settings, topic: &str) -> Result<BTreeMap<Partition, Offset>, LogError> {
        let topic = topic.to_owned();
        self.ask(settings, move |client| offsets(client, partitions(client, &topic)?, KafkaOffset::End)).await
    }

    /// Returns for each partition the first offset whose record has the time `at` or a later one, or its end.
    pub(super) async fn at(
        &self,
        settings: &Settings,
        topic: &str,
        at: Timestamp,
    ) -> Result<BTreeMap<Partition, Offset>, LogError> {
        let topic = topic.to_owned();
        self.ask(settings, move |client| offsets_at(client, &topic, at)).await
    }

    /// Asks a broker for its metadata, of one topic or of all, and returns what `read` makes of it.
    pub(super) async fn metadata<T: Send + 'static>(
        &self,
        settings: &Settings,
        topic: Option<String>,
        read: impl FnOnce(&Metadata) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        self.ask(settings, move |client| {
            read(&client.fetch_metadata(topic.as_deref(), QUESTION_DEADLINE).map_err(unavailable)?)
        })
        .await
    }

    async fn ask<T: Send + 'static>(
        &self,
        settings: &Settings,
        question: impl FnOnce(&Client) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let make = async || {
            let mut config = settings.admin();
            if self.with_open_transactions {
                config.set("isolation.level", "read_uncommitted");
            }
            let made = config.create_with_context::<_, Client>(QueryContext(settings.logger()));
            made.map(Arc::new).map_err(|error| LogError::configuration(&error))
        };
        let client = self.client.get_or_try_init(make).await?.clone();
        blocking(move || {
            // Nothing is consumed. The poll returns errors of the past, which would accumulate otherwise.
            while client.poll(Duration::ZERO).is_some() {}
            question(&client)
        })
        .await
    }
}

/// Returns the offsets that a group has committed. Its client has the id of the group and does not join it.
pub(super) async fn committed(
    settings: &Settings,
    group: &str,
    topic: &str,
) -> Result<BTreeMap<Partition, Offset>, LogError> {
    let mut config = settings.admin();
    config.set("group.id", group);
    let made = config.create_with_context::<_, Client>(QueryContext(settings.logger()));
    let client = made.map_err(|error| LogError::configuration(&error))?;
    let topic = topic.to_owned();
    blocking(move || {
        let asked = partitions(&client, &topic)?;
        let found = client.committed_offsets(asked, QUESTION_DEADLINE).map_err(unavailable)?;
        let offset = |element: TopicPartitionListElem<'_>| match element.offset() {
            KafkaOffset::Offset(offset) => Some((Partition(element.partition()), Offset(offset))),
            // There is no commit.
            _ => None,
        };
        Ok(found.elements().into_iter().filter_map(offset).collect())
    })
    .await
}

fn partitions(client: &Client, topic: &str) -> Result<TopicPartitionList, LogError> {
    let metadata = client.fetch_metadata(Some(topic), QUESTION_DEADLINE).map_err(unavailable)?;
    let mut partitions = TopicPartitionList::new();
    for found in metadata.topics().iter().filter(|found| found.name() == topic) {
        for partition in found.partitions() {
            partitions.add_partition(topic, partition.id());
        }
    }
    if partitions.count() == 0 {
        return Err(LogError::Unavailable(format!("there is no topic {topic}")));
    }
    Ok(partitions)
}

fn offsets_at(client: &Client, topic: &str, at: Timestamp) -> Result<BTreeMap<Partition, Offset>, LogError> {
    let mut partitions = partitions(client, topic)?;
    let mut found = offsets(client, partitions.clone(), KafkaOffset::End)?;
    partitions.set_all_offsets(KafkaOffset::Offset(at.millis())).map_err(unavailable)?;
    let answer = ask_leaders(client, &partitions)?;
    for element in answer.elements() {
        // If no record is that young, the result is the end.
        if let KafkaOffset::Offset(offset) = element.offset() {
            found.insert(Partition(element.partition()), Offset(offset));
        }
    }
    Ok(found)
}

fn watermarks(client: &Client, topic: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
    let partitions = partitions(client, topic)?;
    // The low watermarks are queried first, so that none is above its end.
    let low = offsets(client, partitions.clone(), KafkaOffset::Beginning)?;
    let end = offsets(client, partitions, KafkaOffset::End)?;
    Ok(low
        .into_iter()
        .filter_map(|(partition, low)| Some((partition, Watermarks { low, high: *end.get(&partition)? })))
        .collect())
}

/// Returns one end of all these partitions (`which`: beginning or end), with one request to each of their leaders.
pub(super) fn offsets<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    mut partitions: TopicPartitionList,
    which: KafkaOffset,
) -> Result<BTreeMap<Partition, Offset>, LogError> {
    partitions.set_all_offsets(which).map_err(unavailable)?;
    let found = ask_leaders(client, &partitions)?;
    let offset = |found: TopicPartitionListElem<'_>| match found.offset() {
        KafkaOffset::Offset(offset) => Ok((Partition(found.partition()), Offset(offset))),
        other => Err(unavailable(format!("{other:?} is no offset of partition {}", found.partition()))),
    };
    found.elements().into_iter().map(offset).collect()
}

/// Asks the leaders of these partitions for the offsets. Asks again until the deadline if one of them leads a partition no more or
/// not yet, as happens just after a topic is created and while a broker restarts.
#[expect(clippy::disallowed_methods, reason = "the threads that ask Kafka may wait")]
fn ask_leaders<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &TopicPartitionList,
) -> Result<TopicPartitionList, LogError> {
    let deadline = Instant::now() + QUESTION_DEADLINE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = client.offsets_for_times(partitions.clone(), left).and_then(|found| {
            found.elements().iter().try_for_each(TopicPartitionListElem::error)?;
            Ok(found)
        });
        match answer {
            Err(error) if is_without_leader(&error) && left > ASK_AGAIN => std::thread::sleep(ASK_AGAIN),
            answer => return answer.map_err(unavailable),
        }
    }
}

fn is_without_leader(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
    )
}

/// Reads the record at `offset`. `None` if the offset holds no record.
pub(super) async fn read(
    settings: &Settings,
    topic: &str,
    partition: Partition,
    offset: Offset,
) -> Result<Option<Record>, LogError> {
    let consumer: Client = settings
        .looker(topic)
        .create_with_context(QueryContext(settings.logger()))
        .map_err(|error| LogError::configuration(&error))?;
    let (answer, answered) = oneshot::channel();
    let topic = topic.to_owned();
    // Uses a dedicated thread: a consumer may take a while to end while brokers are unreachable, and no caller should
    // wait for that.
    let thread = std::thread::Builder::new().name("log-read".into());
    let look = move || {
        // Ignored: the caller may have stopped waiting.
        let _ = answer.send(find(&consumer, &topic, partition, offset));
    };
    thread.spawn(look).map_err(unavailable)?;
    answered.await.unwrap_or_else(|_| Err(unavailable("the thread that reads has ended")))
}

fn find(consumer: &Client, topic: &str, partition: Partition, offset: Offset) -> Result<Option<Record>, LogError> {
    let Watermarks { low, high } = ends(consumer, topic, partition)?;
    if !(low..high).contains(&offset) {
        return Ok(None);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition.0, KafkaOffset::Offset(offset.0)).map_err(unavailable)?;
    consumer.assign(&list).map_err(unavailable)?;
    let deadline = Instant::now() + READ_DEADLINE;
    let mut trouble = "no answer in time".to_owned();
    while Instant::now() < deadline {
        match consumer.poll(deadline.saturating_duration_since(Instant::now())) {
            None => {}
            // This is the next existing record: a later one, if `offset` holds none.
            Some(Ok(message)) => return Ok((message.offset() == offset.0).then(|| record(&message))),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => return Ok(None),
                // A broker restarts, or a leader moves: librdkafka keeps retrying.
                _ => trouble = error.to_string(),
            },
        }
    }
    Err(unavailable(trouble))
}

/// Returns the oldest offset of a partition that the log still holds.
pub(super) fn low_watermark(consumer: &Client, topic: &str, partition: Partition) -> Result<Offset, LogError> {
    ends(consumer, topic, partition).map(|ends| ends.low)
}

/// Returns the offset after the last record of a partition.
pub(super) fn high_watermark(consumer: &Client, topic: &str, partition: Partition) -> Result<Offset, LogError> {
    ends(consumer, topic, partition).map(|ends| ends.high)
}

fn ends(consumer: &Client, topic: &str, partition: Partition) -> Result<Watermarks, LogError> {
    match consumer.fetch_watermarks(topic, partition.0, QUESTION_DEADLINE) {
        Ok((low, high)) => Ok(Watermarks { low: Offset(low), high: Offset(high) }),
        Err(error) => Err(missing(&error, topic, partition).unwrap_or_else(|| unavailable(error))),
    }
}

fn missing(error: &KafkaError, topic: &str, partition: Partition) -> Option<LogError> {
    match error.rdkafka_error_code()? {
        RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition => {
            Some(LogError::Unavailable(format!("there is no partition {partition} of topic {topic}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use crate::Log as _;
    use crate::kafka::KafkaLog;

    #[tokio::test]
    async fn a_partition_that_has_no_leader_yet_is_asked_again() {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("t", 2, 1).expect("a topic");
        let log = KafkaLog::open(&cluster.bootstrap_servers(), &[]).expect("a client");
        let moved = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
        for refusals in 1..4 {
            cluster.request_errors(RDKafkaApiKey::ListOffsets, &vec![moved; refusals]);
            let asked = log.watermarks("t").await;
            assert_eq!(asked.expect("an answer in the end").len(), 2);
        }
    }
}
