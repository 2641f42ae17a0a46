//! Tests that a real broker cannot serve on demand, such as refusals at a chosen moment.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use usher_proto::{AssignedPartition, Key, Offset};

use super::*;
use crate::kafka::{KafkaLog, QUESTION_DEADLINE};
use crate::subscription::Subscription;
use crate::{Creation, Log as _, Retention, TopicSpec};

const DEADLINE: Duration = Duration::from_secs(60);

/// Returns the offset that the group has committed.
fn committed(log: &KafkaLog) -> Option<i64> {
    let asker: BaseConsumer = log.settings.consumer("g").create().expect("a client");
    let mut list = TopicPartitionList::new();
    list.add_partition("t", 0);
    let found = asker.committed_offsets(list, QUESTION_DEADLINE).expect("an answer");
    match found.find_partition("t", 0).map(|found| found.offset()) {
        Some(KafkaOffset::Offset(offset)) => Some(offset),
        _ => None,
    }
}

#[tokio::test]
async fn a_commit_that_is_refused_while_the_group_changes_is_written_in_the_end_and_ends_nothing() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("t", 1, 1).expect("a topic");
    // After a rejoin, the mock waits until the session of the member's former self has expired.
    let quick = [("session.timeout.ms", "5000"), ("heartbeat.interval.ms", "500")];
    let quick = quick.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let log = KafkaLog::open(&cluster.bootstrap_servers(), &quick).expect("a client");
    let record = Record { key: Key::new("k"), headers: Vec::new(), body: "x".into() };
    let topic = TopicSpec { name: "t".into(), partitions: 1, retention: Retention::Time, creation: Creation::Never };
    for _ in 0..3 {
        log.append(&topic, record.clone()).await.expect("appended");
    }
    let refusals = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
    ];
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refusals);
    let Subscription { mut events, control } = log.subscribe("g", "t").await.expect("subscribed");
    let mut look = tokio::time::interval(Duration::from_millis(250));
    let started = Instant::now();
    while committed(&log) != Some(3) {
        assert!(started.elapsed() < DEADLINE, "the commit is written in the end");
        tokio::select! {
            event = events.recv() => match event.expect("the subscription goes on") {
                LogEvent::Assigned { assignment, partitions } => {
                    let start = |found: &AssignedPartition| (found.partition, found.committed.unwrap_or(found.low));
                    control.start(assignment, partitions.iter().map(start).collect());
                }
                LogEvent::Records { partition, records, .. } => {
                    control.commit(partition, records.last().expect("never empty").0.next());
                }
                LogEvent::Reached { .. } => {}
                // An illegal generation means that another member may own the partition.
                LogEvent::Revoked { lost: true, .. } => {}
                LogEvent::Revoked { lost: false, .. } => control.release(),
                LogEvent::Failed(error) => panic!("{error}"),
            },
            _ = look.tick() => {}
        }
    }
    control.close().await;
}

/// A partition can end with the control record of a transaction: an offset that holds no record.
#[usher_needs::needs(kafka)]
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a variable names the service to test against")]
async fn the_end_is_reached_though_its_last_offsets_hold_no_record() {
    let brokers = std::env::var("USHER_TEST_KAFKA").expect("USHER_TEST_KAFKA");
    for (name, commits, read) in [("committed", true, vec![Offset(0)]), ("aborted", false, vec![])] {
        let log = KafkaLog::open(&brokers, &[]).expect("a client");
        let topic = format!("{name}{}", usher_service::clock::now().millis());
        let spec =
            TopicSpec { name: topic.clone(), partitions: 1, retention: Retention::Time, creation: Creation::Always };
        log.ensure(&[spec]).await.expect("a topic");
        let mut config = log.settings.producer(None);
        config.set("transactional.id", &topic).set("message.timeout.ms", "8000");
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(DEADLINE).expect("transactions");
        producer.begin_transaction().expect("begun");
        producer.send(BaseRecord::to(&topic).key("k").payload("x")).map_err(|(error, _)| error).expect("queued");
        producer.flush(DEADLINE).expect("sent");
        if commits { producer.commit_transaction(DEADLINE) } else { producer.abort_transaction(DEADLINE) }
            .expect("ended");

        let Subscription { mut events, control } = log.subscribe(&topic, &topic).await.expect("subscribed");
        let mut offsets = Vec::new();
        let mut end = None;
        let reached = loop {
            match tokio::time::timeout(DEADLINE, events.recv()).await.expect("in time").expect("it goes on") {
                LogEvent::Assigned { assignment, partitions } => {
                    end = partitions.first().map(|found| found.end);
                    control.start(assignment, partitions.iter().map(|found| (found.partition, found.low)).collect());
                }
                LogEvent::Records { records, .. } => offsets.extend(records.iter().map(|(offset, _)| *offset)),
                LogEvent::Reached { next, .. } => break next,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((offsets, Some(reached), reached), (read, end, Offset(2)), "{name}");
        control.close().await;
    }
}
