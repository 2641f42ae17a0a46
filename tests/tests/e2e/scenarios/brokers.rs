//! Administration of Kafka during operation: topics that grow, are deleted, created again, compacted or shortened, and
//! brokers that are unavailable.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use usher_eventlog::{Creation, TopicSpec};
use usher_proto::{Partition, Timestamp};
use usher_tests::backend::{Backend, setting};
use usher_tests::events::{User, Webhook};
use usher_tests::needs;
use usher_tests::program::Program;
use usher_tests::test_env::{Options, SECRET, SOON, TestEnv};
use usher_tests::{eventually, free_port};

const MAIL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "Welcome"
text = "hello"
tags = { clerk_user_id = "{{ user.id }}" }
"#;

/// Starts an environment with one flow and creates an admin client of its broker.
async fn env() -> (TestEnv, AdminClient<DefaultClientContext>) {
    let backend = Backend::real();
    let admin = ClientConfig::new().set("bootstrap.servers", setting("USHER_TEST_KAFKA")).create().expect("a client");
    let env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    (env, admin)
}

fn signups(count: usize) -> Vec<Webhook> {
    (0..count).map(|_| User::new().created()).collect()
}

/// Appends events with a producer that knows `partitions` partitions, to those beyond the layout's eight.
async fn append_beyond(env: &TestEnv, partitions: i32, count: usize) {
    let topic = TopicSpec { partitions, creation: Creation::Never, ..env.layout().events() };
    let log = env.log().await;
    // A producer that has seen fewer partitions would not refresh its metadata for minutes.
    eventually("the broker shows the partitions", SOON, || async {
        let found = log.watermarks(&topic.name).await.ok()?;
        (found.len() == usize::try_from(partitions).expect("few")).then_some(())
    })
    .await;
    let beyond = |webhook: &Webhook| Partition::of(&webhook.record().key, partitions).0 >= 8;
    let webhooks = std::iter::repeat_with(|| User::new().created()).filter(beyond).take(count);
    for webhook in webhooks {
        // A new partition has no leader for a moment.
        eventually("it is kept", SOON, || async { log.append(&topic, webhook.record()).await.ok() }).await;
    }
}

async fn set(admin: &AdminClient<DefaultClientContext>, topic: &str, settings: &[(&str, &str)]) {
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in settings {
        change = change.set(name, value);
    }
    admin.alter_configs(&[change], &AdminOptions::new()).await.expect("an answer")[0].as_ref().expect("it is set");
}

/// Waits until the process that receives webhooks is ready, or reports this problem of its topic.
async fn until_readiness(env: &TestEnv, problem: Option<&str>) {
    eventually(&format!("readiness: {problem:?}"), SOON, || async {
        let (status, text) = env.admin_page("/readyz").await;
        match problem {
            None => status == 200,
            Some(problem) => status == 503 && text.contains(problem),
        }
        .then_some(())
    })
    .await;
}

async fn until_metric(env: &TestEnv, line: &str) {
    eventually(line, SOON, || async {
        let (_, metrics) = env.admin_page("/metrics").await;
        metrics.lines().any(|found| found == line).then_some(())
    })
    .await;
}

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_grows_while_all_runs_loses_nothing() {
    let (mut env, admin) = env().await;
    env.send_all(&signups(10)).await;
    let topic = env.topic("events");
    let grown = admin.create_partitions(&[NewPartitions::new(&topic, 12)], &AdminOptions::new()).await;
    grown.expect("an answer")[0].as_ref().expect("it grows");
    append_beyond(&env, 12, 5).await;
    env.send_all(&signups(30)).await;
    env.all_ended(45, SOON).await;
    until_metric(&env, "usher_log_topic_problem{problem=\"more_partitions\"} 1").await;
    until_readiness(&env, None).await;

    // Records in the additional partitions are also read after a restart with the old layout.
    env.stop_delivering().await;
    append_beyond(&env, 12, 5).await;
    env.send_all(&signups(10)).await;
    env.go_on_delivering().await;
    env.all_ended(60, SOON).await;
    let watermarks = env.log().await.watermarks(&topic).await.expect("the topic's ends");
    let beyond: i64 = watermarks.iter().filter(|(partition, _)| partition.0 >= 8).map(|(_, found)| found.high.0).sum();
    assert_eq!(beyond, 10, "nothing of ours went there");
    env.end().await;
}

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_is_not_ready_at_once_and_nothing_is_made_again() {
    let (mut env, admin) = env().await;
    env.send_all(&signups(10)).await;
    env.all_ended(10, SOON).await;
    let topic = env.topic("events");
    admin.delete_topics(&[&topic], &AdminOptions::new()).await.expect("an answer")[0].as_ref().expect("it is deleted");
    until_readiness(&env, Some("topic deleted")).await;
    assert_eq!(env.send_once(&User::new().created()).await, Some(503));
    env.kill_delivering().await;
    let mut dispatcher = env.start_delivering();
    let mut ingest = env.spawn_ingest();
    for program in [&mut dispatcher, &mut ingest] {
        program.says("events is missing and is not made again").await;
    }
    ingest.kill().await;
    dispatcher.kill().await;
    let all = admin.inner().fetch_metadata(None, SOON).expect("metadata");
    assert!(all.topics().iter().all(|found| found.name() != topic), "nothing is made again");

    // A third party creates the topic again: it does not contain the acknowledged events.
    let made = NewTopic::new(&topic, 8, TopicReplication::Fixed(1));
    admin.create_topics(&[made], &AdminOptions::new()).await.expect("an answer")[0].as_ref().expect("it is made");
    until_readiness(&env, Some("topic made again")).await;
    assert_eq!(env.send_once(&User::new().created()).await, Some(503));
    env.end().await;
}

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_to_a_topics_settings_is_noticed_while_it_runs_and_at_the_start() {
    let (mut env, admin) = env().await;
    let topic = env.topic("events");
    let of_size = |size: usize| {
        let mut webhook = User::new().created();
        let noise: String = (0..size / 16).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
        webhook.body = webhook.body.replacen('{', &format!("{{\"noise\":\"{noise}\","), 1);
        webhook
    };
    env.send(&of_size(60_000)).await;
    until_metric(&env, "usher_log_retention_seconds 604800").await;

    // One hour and 20 kB.
    set(&admin, &topic, &[("retention.ms", "3600000"), ("max.message.bytes", "20000")]).await;
    until_metric(&env, "usher_log_topic_problem{problem=\"short_retention\"} 1").await;
    until_metric(&env, "usher_log_topic_problem{problem=\"small_records\"} 1").await;
    until_metric(&env, "usher_log_retention_seconds 3600").await;
    let large = of_size(60_000);
    let (status, answer) = env.post("/webhooks/clerk", &large.headers(SECRET), large.body.clone().into()).await;
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 413 && message.contains("19488 bytes"), "{status}: {answer}");
    // If the producer batched these, the batch would exceed the topic's limit.
    env.send_all(&(0..40).map(|_| of_size(4000)).collect::<Vec<_>>()).await;
    let output = env.ingest().output();
    for said in ["keeps its events for 60 minutes", "takes records of 20000 bytes"] {
        assert!(output.contains(said), "{said}: {output}");
    }

    set(&admin, &topic, &[("cleanup.policy", "compact,delete")]).await;
    until_readiness(&env, Some("topic compacted")).await;
    assert_eq!(env.send_once(&User::new().created()).await, Some(503));
    env.all_ended(41, SOON).await;
    for mut starts in [env.spawn_ingest(), env.start_delivering()] {
        let ended = starts.ended(SOON).await;
        let output = starts.output();
        assert_eq!(ended.code(), Some(64), "{output}");
        assert!(output.contains("cleanup.policy=compact,delete") && output.contains("set cleanup.policy=delete"));
    }

    set(&admin, &topic, &[("cleanup.policy", "delete")]).await;
    until_readiness(&env, None).await;
    env.send(&of_size(60_000)).await;
    env.all_ended(42, SOON).await;
    env.end().await;
}

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_that_were_kept_for_ever_end_from_the_next_start_on() {
    let (mut env, admin) = env().await;
    let letters = env.topic("dlq.mail");
    let settings = async || {
        let found = admin.describe_configs(&[ResourceSpecifier::Topic(&letters)], &AdminOptions::new()).await;
        let found = found.expect("an answer").remove(0).expect("its settings");
        let value = |name| found.get(name).and_then(|entry| entry.value.clone());
        [value("cleanup.policy"), value("retention.ms"), value("segment.bytes")].map(Option::unwrap_or_default)
    };
    let ending = ["compact,delete", "3024000000", "123456789"];
    set(&admin, &letters, &[("cleanup.policy", "compact"), ("segment.bytes", "123456789")]).await;
    env.stop_delivering().await;
    env.go_on_delivering().await;
    eventually("they end, and what else was set stays", SOON, || async { (settings().await == ending).then_some(()) })
        .await;
    env.end().await;
}

/// Returns the time of a log line.
fn logged_at(line: &str) -> Timestamp {
    line.split_once(' ').expect("a time and more").0.parse().expect("RFC 3339")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_told_by_address_and_cause_and_seldom() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let environment = [
        ("USHER_LOG", format!("kafka://127.0.0.1:{port}")),
        ("USHER_LISTEN", "127.0.0.1:0".to_owned()),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let ingest = Program::start("ingest", &[], &environment, folder.path());
    let told = format!("no connection to 127.0.0.1:{port}: connection refused");
    eventually("it is told", SOON, || async { (ingest.output().matches(&told).count() >= 4).then_some(()) }).await;
    let output = ingest.output();
    let lines: Vec<&str> = output.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    assert!(lines.iter().all(|line| line.contains(&told)), "which broker and why, and nothing else: {lines:#?}");
    // The client tells it at once and then as the log's watch does, each at most once in ten seconds or so.
    let apart = logged_at(lines[3]).since(logged_at(lines[0]));
    assert!(apart >= Duration::from_secs(15), "{apart:?}");
    ingest.kill().await;
}
