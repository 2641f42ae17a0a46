//! Lost or old state: groups that are rewound, stores that are restored, logs that have lost records.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use usher_eventlog::LogEvent;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::test_env::{SOON, TestEnv};

usher_tests::on_both_backends!(
    a_group_that_is_rewound_twice_does_nothing_twice,
    a_store_that_is_restored_from_a_copy_loses_nothing,
    a_log_that_has_lost_what_was_not_read_is_reported,
);

const FLOWS: [&str; 3] = ["email", "trial", "db-sync"];

fn signups(count: usize) -> Vec<Webhook> {
    (0..count).map(|_| User::new().created()).collect()
}

/// Asserts that every signup has had each of its effects exactly once.
async fn assert_once_each(env: &TestEnv, count: usize) {
    for (provider, operation) in
        [("resend", "emails.send"), ("stripe", "customers.create"), ("stripe", "subscriptions.create")]
    {
        let effects = env.effects_by_user(provider, operation);
        assert!(effects.len() == count && effects.values().all(|times| *times == 1), "{operation}: {effects:?}");
    }
    assert_eq!(env.rows().await, i64::try_from(count).unwrap());
}

/// Commits the first offset of every partition as the group's position.
async fn rewind(env: &TestEnv, flow: &str) {
    let log = env.log().await;
    let mut subscription = log.subscribe(&env.topic(flow), &env.topic("events")).await.unwrap();
    let mut rewound = 0;
    // Other events of the log come in between and are skipped.
    while rewound < 8 {
        if let LogEvent::Assigned { assignment, partitions } =
            subscription.events.recv().await.expect("the log goes on")
        {
            let starts = partitions.iter().map(|assigned| (assigned.partition, assigned.low)).collect();
            subscription.control.start(assignment, starts);
            for assigned in &partitions {
                subscription.control.commit(assigned.partition, assigned.low);
            }
            rewound += partitions.len();
        }
    }
    subscription.control.close().await;
}

async fn a_group_that_is_rewound_twice_does_nothing_twice(backend: Backend) {
    let mut env = TestEnv::start(backend).await;
    let count = 60;
    env.send_all(&signups(count)).await;
    env.all_ended(3 * count, SOON).await;
    for time in 1..=2 {
        env.kill_delivering().await;
        for flow in FLOWS {
            rewind(&env, flow).await;
        }
        // Deduplication must not depend on the destinations' idempotency keys.
        env.lab().forget_keys("resend").unwrap();
        env.lab().forget_keys("stripe").unwrap();
        env.go_on_delivering().await;
        // New events come after all records that are read again.
        env.send_all(&signups(20)).await;
        env.all_ended(3 * (count + 20 * time), SOON).await;
        assert_once_each(&env, count + 20 * time).await;
    }
    env.end().await;
}

async fn a_store_that_is_restored_from_a_copy_loses_nothing(backend: Backend) {
    let mut env = TestEnv::start(backend).await;
    env.send_all(&signups(30)).await;
    env.all_ended(90, SOON).await;
    env.kill_delivering().await;
    let copy = env.back_up_store().await;
    env.go_on_delivering().await;
    env.send_all(&signups(50)).await;
    env.all_ended(240, SOON).await;
    env.kill_delivering().await;
    env.restore_store(&copy).await;
    env.go_on_delivering().await;
    env.send_all(&signups(10)).await;
    let runs = env.all_ended(270, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "all of it is done, also what the copy did not know");
    assert_once_each(&env, 90).await;
    env.end().await;
}

async fn a_log_that_has_lost_what_was_not_read_is_reported(backend: Backend) {
    let kafka = match &backend {
        Backend::Real(services) => Some(services.kafka.clone()),
        Backend::Embedded => None,
    };
    let mut env = TestEnv::start(backend).await;
    env.send_all(&signups(30)).await;
    env.all_ended(90, SOON).await;
    env.kill_delivering().await;
    match &kafka {
        Some(kafka) => {
            env.send_all(&signups(30)).await;
            lose_everything(kafka, &env.topic("events")).await;
        }
        None => lose_everything_embedded(&env).await,
    }
    let mut delivering = env.start_delivering();
    let ended = delivering.ended(SOON).await;
    let output = delivering.output();
    assert!(!ended.success() && output.contains("events it had not read are gone"), "{ended}: {output}");
    env.end().await;
}

/// Deletes all records of the topic, as if its retention were too short.
async fn lose_everything(kafka: &str, topic: &str) {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..8 {
        all.add_partition_offset(topic, partition, Offset::End).unwrap();
    }
    admin.delete_records(&all, &AdminOptions::new()).await.unwrap();
}

/// Does the same in the embedded log, whose own retention takes committed offsets into account.
async fn lose_everything_embedded(env: &TestEnv) {
    let file = env.folder().join("data/log.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let topic = env.topic("events");
    sqlx::query("DELETE FROM record WHERE topic = $1").bind(&topic).execute(&pool).await.unwrap();
    let moved = "UPDATE partition SET next = next + 5, low = next + 5 WHERE topic = $1";
    sqlx::query(moved).bind(&topic).execute(&pool).await.unwrap();
    pool.close().await;
}
