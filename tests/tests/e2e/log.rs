//! Requirements for every log: one suite, run against the embedded log, against Kafka, and against the mock broker of
//! librdkafka, which runs in this process and needs no service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tempfile::TempDir;
use tokio::time::timeout;
use usher_eventlog::{
    AppendError, Creation, DEAD_LETTER_RETENTION, Log, LogAddress, LogError, LogEvent, MAX_BODY, Position, Retention,
    Subscription, TopicSpec, Watermarks,
};
use usher_proto::{AssignedPartition, Assignment, Key, Offset, Partition, Record};
use usher_service::clock;
use usher_tests::backend::setting;
use usher_tests::{eventually, unique};

const DEADLINE: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 4;

/// A log with its own topic.
struct Subject {
    log: Arc<dyn Log>,
    address: LogAddress,
    topic: String,
    spec: TopicSpec,
    _folder: TempDir,
    _mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

fn spec(topic: &str, partitions: i32) -> TopicSpec {
    TopicSpec { name: topic.into(), partitions, retention: Retention::Time, creation: Creation::Always }
}

/// Session timeout on the mock broker. It waits for almost this long at each rebalance, for members that are gone too.
const MOCK_SESSION: [(&str, &str); 2] = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];

async fn embedded() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let address = LogAddress::Sqlite { path: folder.path().join("log.db") };
    with_topic(address, folder).await
}

async fn kafka() -> Subject {
    with_topic(LogAddress::Kafka { brokers: setting("USHER_TEST_KAFKA") }, tempfile::tempdir().unwrap()).await
}

async fn with_topic(address: LogAddress, folder: TempDir) -> Subject {
    let log = usher_eventlog::open(&address, &[]).await.unwrap();
    let topic = unique("t");
    log.ensure(&[spec(&topic, PARTITIONS)]).await.unwrap();
    Subject { spec: spec(&topic, PARTITIONS), log, address, topic, _folder: folder, _mock: None }
}

/// A broker of its own that knows records, groups and commits. It cannot be asked for a topic, for a topic's settings or
/// for the offset of a time.
async fn mock_broker() -> Subject {
    let cluster = MockCluster::new(1).unwrap();
    let topic = unique("t");
    cluster.create_topic(&topic, PARTITIONS, 1).unwrap();
    let address = LogAddress::Kafka { brokers: cluster.bootstrap_servers() };
    let session = MOCK_SESSION.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let log = usher_eventlog::open(&address, &session).await.unwrap();
    let spec = TopicSpec { creation: Creation::Never, ..spec(&topic, PARTITIONS) };
    Subject { spec, log, address, topic, _folder: tempfile::tempdir().unwrap(), _mock: Some(cluster) }
}

/// Makes each claim a module with one test for each of these logs.
macro_rules! on_logs {
    ($logs:tt $($claim:ident),+ $(,)?) => {
        $(mod $claim {
            each_log!($claim $logs);
        })+
    };
}

macro_rules! each_log {
    ($claim:ident [$($log:ident)+]) => {
        $(on_log!($claim $log);)+
    };
}

macro_rules! on_log {
    ($claim:ident embedded) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn embedded() {
            super::$claim(super::embedded().await).await;
        }
    };
    ($claim:ident mock_broker) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn mock_broker() {
            super::$claim(super::mock_broker().await).await;
        }
    };
    ($claim:ident kafka) => {
        #[usher_tests::needs(kafka)]
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn kafka() {
            super::$claim(super::kafka().await).await;
        }
    };
}

mod members;
mod scans;

on_logs!(
    [embedded mock_broker kafka]
    what_is_appended_is_read_back_in_order_byte_for_byte,
    a_key_is_always_in_the_partition_that_murmur2_says,
    a_commit_is_where_the_next_subscription_goes_on,
    a_subscriber_starts_where_it_says,
    every_group_reads_everything,
    a_paused_partition_delivers_nothing_and_then_all,
    a_record_that_is_too_large_is_refused_and_harms_no_other,
    a_topic_says_how_far_its_partitions_reach,
    one_record_is_read_where_it_stands,
);

// The mock broker cannot be asked for what these need.
on_logs!(
    [embedded kafka]
    fewer_partitions_than_the_layout_are_refused,
    more_partitions_than_the_layout_are_read_and_not_written_to,
    a_tombstone_has_a_key_and_nothing_else,
    what_was_acknowledged_is_there_after_reopening,
    a_topic_says_which_records_came_since_a_time,
    what_does_not_exist_is_said_to_be_missing,
);

fn record(key: &str, body: impl Into<Bytes>) -> Record {
    Record { key: Key::new(key), headers: vec![("name".into(), "Zo\u{eb}, =".into())], body: body.into() }
}

/// Returns the next event of any kind.
async fn next(subscription: &mut Subscription) -> LogEvent {
    timeout(DEADLINE, subscription.events.recv()).await.expect("an event in time").expect("the log goes on")
}

/// Subscribes and waits for the assignment of all partitions.
async fn join(subject: &Subject, group: &str) -> (Subscription, Assignment, Vec<AssignedPartition>) {
    let mut subscription = subject.log.subscribe(group, &subject.topic).await.unwrap();
    match next(&mut subscription).await {
        LogEvent::Assigned { assignment, partitions } => {
            assert_eq!(partitions.len(), PARTITIONS as usize, "all are ours");
            (subscription, assignment, partitions)
        }
        other => panic!("{other:?}"),
    }
}

fn from_low(assigned: &[AssignedPartition]) -> Vec<(Partition, Offset)> {
    assigned.iter().map(|assigned| (assigned.partition, assigned.low)).collect()
}

/// Reads until `count` records have arrived. Returns partition, offset and record of each.
async fn read(
    subscription: &mut Subscription,
    assignment: Assignment,
    count: usize,
) -> Vec<(Partition, Offset, Record)> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(subscription).await {
            LogEvent::Records { assignment: of, partition, records } => {
                assert_eq!(of, assignment);
                all.extend(records.into_iter().map(|(offset, record)| (partition, offset, record)));
            }
            other => panic!("{other:?}"),
        }
    }
    all
}

/// Appends `count` records with ten keys.
async fn append(subject: &Subject, count: usize) -> Vec<Record> {
    let mut appended = Vec::new();
    for number in 0..count {
        let record = record(&format!("user_{}", number % 10), format!("{number} \u{0} \u{1f600}"));
        subject.log.append(&subject.spec, record.clone()).await.unwrap();
        appended.push(record);
    }
    appended
}

async fn what_is_appended_is_read_back_in_order_byte_for_byte(subject: Subject) {
    let appended = append(&subject, 200).await;
    let (mut subscription, assignment, assigned) = join(&subject, "g").await;
    subscription.control.start(assignment, from_low(&assigned));
    let found = read(&mut subscription, assignment, 200).await;
    assert_eq!(found.len(), 200);
    let by_key = |records: Vec<Record>| {
        let mut keys: BTreeMap<Key, Vec<Record>> = BTreeMap::new();
        records.into_iter().for_each(|record| keys.entry(record.key.clone()).or_default().push(record));
        keys
    };
    assert_eq!(by_key(found.into_iter().map(|(_, _, record)| record).collect()), by_key(appended));
    subscription.control.close().await;
}

async fn a_key_is_always_in_the_partition_that_murmur2_says(subject: Subject) {
    for number in 0..50 {
        let key = format!("user_{number}");
        let position = subject.log.append(&subject.spec, record(&key, "x")).await.unwrap();
        assert_eq!(position.partition, Partition::of(&Key::new(key), PARTITIONS));
    }
}

async fn a_commit_is_where_the_next_subscription_goes_on(subject: Subject) {
    append(&subject, 40).await;
    let (subscription, assignment, assigned) = join(&subject, "g").await;
    assert!(assigned.iter().all(|assigned| assigned.committed.is_none()), "nothing is committed yet");
    subscription.control.start(assignment, from_low(&assigned));
    let busiest = *assigned.iter().max_by_key(|assigned| assigned.end).unwrap();
    subscription.control.commit(busiest.partition, Offset(busiest.end.0 - 1));
    subscription.control.commit(busiest.partition, busiest.end);
    subscription.control.close().await;

    let (again, assignment_again, assigned) = join(&subject, "g").await;
    let found = assigned.iter().find(|assigned| assigned.partition == busiest.partition).unwrap();
    assert_eq!(found.committed, Some(busiest.end), "the last word counts");
    let others = assigned.iter().filter(|assigned| assigned.partition != busiest.partition);
    assert!(others.into_iter().all(|assigned| assigned.committed.is_none()));
    assert!(assignment_again >= assignment);
    again.control.close().await;
}

async fn a_subscriber_starts_where_it_says(subject: Subject) {
    append(&subject, 60).await;
    let (mut subscription, assignment, assigned) = join(&subject, "g").await;
    let starts: Vec<(Partition, Offset)> =
        assigned.iter().map(|assigned| (assigned.partition, Offset(assigned.end.0 - 2).max(assigned.low))).collect();
    let expected: i64 = assigned.iter().zip(&starts).map(|(assigned, (_, start))| assigned.end - *start).sum();
    subscription.control.start(assignment, starts.clone());
    let found = read(&mut subscription, assignment, usize::try_from(expected).unwrap()).await;
    for (partition, start) in starts {
        let first = found.iter().filter(|(of, _, _)| *of == partition).map(|(_, offset, _)| *offset).min();
        assert!(first.is_none_or(|first| first == start), "{partition} begins at {start}, not {first:?}");
    }
    subscription.control.close().await;
}

async fn every_group_reads_everything(subject: Subject) {
    append(&subject, 30).await;
    for group in ["one", "two"] {
        let (mut subscription, assignment, assigned) = join(&subject, group).await;
        subscription.control.start(assignment, from_low(&assigned));
        assert_eq!(read(&mut subscription, assignment, 30).await.len(), 30, "{group}");
        subscription.control.close().await;
    }
}

async fn a_paused_partition_delivers_nothing_and_then_all(subject: Subject) {
    let (mut subscription, assignment, assigned) = join(&subject, "g").await;
    subscription.control.start(assignment, from_low(&assigned));
    let held = Partition::of(&Key::new("held"), PARTITIONS);
    let free = (0..).map(|n| format!("free{n}")).find(|key| Partition::of(&Key::new(key.as_str()), PARTITIONS) != held);
    let free = free.unwrap();
    subscription.control.pause(held);
    // Commands are carried out in order, so a record of another partition shows that the pause is in effect.
    subject.log.append(&subject.spec, record(&free, "first")).await.unwrap();
    read(&mut subscription, assignment, 1).await;
    for number in 0..5 {
        subject.log.append(&subject.spec, record("held", format!("{number}"))).await.unwrap();
    }
    subject.log.append(&subject.spec, record(&free, "second")).await.unwrap();
    let seen = read(&mut subscription, assignment, 1).await;
    assert!(seen.iter().all(|(partition, _, _)| *partition != held), "nothing of the paused one");

    subscription.control.resume(held);
    let bodies: Vec<Bytes> = read(&mut subscription, assignment, 5).await.into_iter().map(|(_, _, r)| r.body).collect();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"], "without a gap and without a repetition");
    subscription.control.close().await;
}

async fn fewer_partitions_than_the_layout_are_refused(subject: Subject) {
    subject.log.ensure(&[spec(&subject.topic, PARTITIONS)]).await.expect("the same number is fine");
    let error = subject.log.ensure(&[spec(&subject.topic, PARTITIONS + 1)]).await.expect_err("another is not");
    let LogError::PartitionCount { found, wanted, .. } = &error else { panic!("{error}") };
    assert_eq!((*found, *wanted), (PARTITIONS, PARTITIONS + 1));
    assert!(error.to_string().contains("USHER_PARTITIONS=4"), "it says what would be right: {error}");
}

async fn more_partitions_than_the_layout_are_read_and_not_written_to(subject: Subject) {
    let layout = spec(&subject.topic, 2);
    subject.log.ensure(std::slice::from_ref(&layout)).await.expect("a topic that has grown is fine");
    // The leaders of a new topic's partitions are elected in their own time; nothing else passes.
    let checked = eventually("the topic's partitions have leaders", DEADLINE, || async {
        Some(subject.log.check().await).filter(|checked| checked.as_ref().err().is_none_or(LogError::is_lasting))
    });
    checked.await.expect("and stays so");
    for number in 0..20 {
        let key = format!("user_{number}");
        let position = subject.log.append(&layout, record(&key, "x")).await.unwrap();
        assert_eq!(position.partition, Partition::of(&Key::new(key), 2));
    }
    // A producer with a larger layout has written before.
    let beyond =
        (0..).map(|n| format!("old_{n}")).find(|key| Partition::of(&Key::new(key.as_str()), PARTITIONS).0 >= 2);
    subject.log.append(&subject.spec, record(&beyond.unwrap(), "left over")).await.unwrap();
    let (mut subscription, assignment, assigned) = join(&subject, "g").await;
    subscription.control.start(assignment, from_low(&assigned));
    let found = read(&mut subscription, assignment, 21).await;
    assert_eq!(found.iter().filter(|(partition, _, _)| partition.0 >= 2).count(), 1, "what stands there is read");
    subscription.control.close().await;
}

async fn a_tombstone_has_a_key_and_nothing_else(subject: Subject) {
    let topic = unique("letters");
    let kept = Retention::Compact(DEAD_LETTER_RETENTION);
    let letters = TopicSpec { retention: kept, ..spec(&topic, PARTITIONS) };
    subject.log.ensure(std::slice::from_ref(&letters)).await.unwrap();
    let written = subject.log.append(&letters, record("msg_1", "a letter")).await.unwrap();
    let erased = subject.log.erase(&letters, &Key::new("msg_1")).await.unwrap();
    assert_eq!((erased.partition, erased.offset), (written.partition, written.offset.next()), "where its key is");
    let nothing = Record { key: Key::new("msg_1"), headers: Vec::new(), body: Bytes::new() };
    assert_eq!(subject.log.read(&topic, erased.partition, erased.offset).await.unwrap(), Some(nothing));
}

async fn a_record_that_is_too_large_is_refused_and_harms_no_other(subject: Subject) {
    let large = vec![b'x'; 2 * MAX_BODY];
    let largest = vec![b'y'; MAX_BODY];
    let (first, refused, last) = tokio::join!(
        subject.log.append(&subject.spec, record("k", "small")),
        subject.log.append(&subject.spec, record("k", large)),
        subject.log.append(&subject.spec, record("k", largest)),
    );
    assert_eq!(refused, Err(AppendError::TooLarge));
    assert!(first.is_ok() && last.is_ok(), "{first:?} {last:?}");
}

async fn what_was_acknowledged_is_there_after_reopening(subject: Subject) {
    let Subject { log, address, topic, spec, _folder, _mock } = subject;
    let position = log.append(&spec, record("k", "kept")).await.unwrap();
    log.flush().await;
    drop(log);
    let subject =
        Subject { log: usher_eventlog::open(&address, &[]).await.unwrap(), address, topic, spec, _folder, _mock };
    subject.log.ensure(std::slice::from_ref(&subject.spec)).await.unwrap();
    let (mut subscription, assignment, assigned) = join(&subject, "g").await;
    subscription.control.start(assignment, from_low(&assigned));
    let found = read(&mut subscription, assignment, 1).await;
    assert_eq!((found[0].0, found[0].1), (position.partition, position.offset));
    subscription.control.close().await;
}

async fn a_topic_says_how_far_its_partitions_reach(subject: Subject) {
    let all = || (0..PARTITIONS).map(Partition);
    let nothing: BTreeMap<Partition, Watermarks> =
        all().map(|partition| (partition, Watermarks { low: Offset(0), high: Offset(0) })).collect();
    // A broker knows the leaders of a new topic's partitions a little later than the topic.
    let reached = || async { subject.log.watermarks(&subject.topic).await.ok() };
    assert_eq!(eventually("all leaders are known", DEADLINE, reached).await, nothing);
    let mut ends = nothing;
    for number in 0..20 {
        let position = subject.log.append(&subject.spec, record(&format!("user_{number}"), "x")).await.unwrap();
        ends.get_mut(&position.partition).unwrap().high = position.offset.next();
    }
    assert_eq!(subject.log.watermarks(&subject.topic).await.unwrap(), ends);
    let (subscription, _, assigned) = join(&subject, "g").await;
    let known = assigned.iter().map(|known| (known.partition, Watermarks { low: known.low, high: known.end }));
    assert_eq!(known.collect::<BTreeMap<_, _>>(), ends, "a subscriber is told the same");
    subscription.control.close().await;
}

async fn one_record_is_read_where_it_stands(subject: Subject) {
    let mut written = Vec::new();
    for number in 0..3 {
        let record = record("one", format!("{number} \u{0}"));
        written.push((subject.log.append(&subject.spec, record.clone()).await.unwrap(), record));
    }
    for (Position { partition, offset }, record) in &written {
        let found = subject.log.read(&subject.topic, *partition, *offset).await.unwrap();
        assert_eq!(found.as_ref(), Some(record));
    }
    let (last, _) = written[2];
    for nothing in [last.offset.next(), Offset(last.offset.0 + 1000), Offset(-1)] {
        assert_eq!(subject.log.read(&subject.topic, last.partition, nothing).await, Ok(None), "nothing at {nothing}");
    }
}

async fn what_does_not_exist_is_said_to_be_missing(subject: Subject) {
    let nowhere = unique("nowhere");
    for (found, what) in [
        (subject.log.watermarks(&nowhere).await.map(drop), "a topic's watermarks"),
        (subject.log.read(&nowhere, Partition(0), Offset(0)).await.map(drop), "a topic's record"),
        (subject.log.read(&subject.topic, Partition(PARTITIONS), Offset(0)).await.map(drop), "a partition's record"),
        (subject.log.watermarks(&nowhere).await.map(drop), "what was asked about, which is not made by asking"),
    ] {
        let said = found.expect_err(what).to_string();
        assert!(said.contains("there is no "), "{what}: {said}");
    }
}

async fn a_topic_says_which_records_came_since_a_time(subject: Subject) {
    let mut before = subject.log.append(&subject.spec, record("k", "before")).await.unwrap();
    before.offset = before.offset.next();
    let acknowledged = clock::now();
    while clock::now() == acknowledged {
        tokio::task::yield_now().await;
    }
    let since = clock::now();
    let ends = subject.log.offsets_at(&subject.topic, clock::now()).await.unwrap();
    assert_eq!(ends[&before.partition], before.offset, "the end, where nothing has come since");
    for _ in 0..2 {
        subject.log.append(&subject.spec, record("k", "after")).await.unwrap();
    }
    let found = subject.log.offsets_at(&subject.topic, since).await.unwrap();
    assert_eq!(found[&before.partition], before.offset, "the first that came then or later");
    assert_eq!(found.len(), PARTITIONS as usize, "of every partition");
}
