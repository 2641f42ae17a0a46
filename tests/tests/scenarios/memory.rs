//! What is remembered where: groups that are rewound, stores that are restored, logs that have lost something.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use usher_log::LogEvent;
use usher_tests::events::{User, Webhook};
use usher_tests::pair::Pair;
use usher_tests::world::{SOON, World};

usher_tests::on_both_pairs!(
    a_group_that_is_rewound_twice_does_nothing_twice,
    a_store_that_is_restored_from_a_copy_loses_nothing,
    a_log_that_has_lost_what_was_not_read_is_reported,
);

const FLOWS: [&str; 3] = ["email", "trial", "db-sync"];

fn signups(count: usize) -> Vec<Webhook> {
    (0..count).map(|_| User::new().created()).collect()
}

/// Every signup has had its three effects, and none twice.
async fn assert_once_each(world: &World, count: usize) {
    for (provider, operation) in
        [("resend", "emails.send"), ("stripe", "customers.create"), ("stripe", "subscriptions.create")]
    {
        let effects = world.effects_by_user(provider, operation);
        assert!(effects.len() == count && effects.values().all(|times| *times == 1), "{operation}: {effects:?}");
    }
    assert_eq!(world.rows().await, i64::try_from(count).unwrap());
}

/// Commits the beginning of every partition as where the group goes on.
async fn rewind(world: &World, flow: &str) {
    let log = world.log().await;
    let mut subscription = log.subscribe(&world.topic(flow), &world.topic("events")).await.unwrap();
    let mut rewound = 0;
    // Events come in between; they are not what is looked for.
    while rewound < 8 {
        if let LogEvent::Assigned { epoch, partitions } = subscription.events.recv().await.expect("the log goes on") {
            let starts = partitions.iter().map(|assigned| (assigned.partition, assigned.low)).collect();
            subscription.control.start(epoch, starts);
            for assigned in &partitions {
                subscription.control.commit(assigned.partition, assigned.low);
            }
            rewound += partitions.len();
        }
    }
    subscription.control.close().await;
}

async fn a_group_that_is_rewound_twice_does_nothing_twice(pair: Pair) {
    let mut world = World::start(pair).await;
    let count = 60;
    world.send_all(&signups(count)).await;
    world.all_ended(3 * count, SOON).await;
    for time in 1..=2 {
        world.kill_delivering().await;
        for flow in FLOWS {
            rewind(&world, flow).await;
        }
        // What the destinations remember is no help.
        world.lab().forget_keys("resend").unwrap();
        world.lab().forget_keys("stripe").unwrap();
        world.go_on_delivering().await;
        // New ones come after all that is read again.
        world.send_all(&signups(20)).await;
        world.all_ended(3 * (count + 20 * time), SOON).await;
        assert_once_each(&world, count + 20 * time).await;
    }
    world.end().await;
}

async fn a_store_that_is_restored_from_a_copy_loses_nothing(pair: Pair) {
    let mut world = World::start(pair).await;
    world.send_all(&signups(30)).await;
    world.all_ended(90, SOON).await;
    world.kill_delivering().await;
    let copy = world.back_up_store().await;
    world.go_on_delivering().await;
    world.send_all(&signups(50)).await;
    world.all_ended(240, SOON).await;
    world.kill_delivering().await;
    world.restore_store(&copy).await;
    world.go_on_delivering().await;
    world.send_all(&signups(10)).await;
    let runs = world.all_ended(270, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "all of it is done, also what the copy did not know");
    assert_once_each(&world, 90).await;
    world.end().await;
}

async fn a_log_that_has_lost_what_was_not_read_is_reported(pair: Pair) {
    let kafka = match &pair {
        Pair::Real(services) => Some(services.kafka.clone()),
        Pair::Embedded => None,
    };
    let mut world = World::start(pair).await;
    world.send_all(&signups(30)).await;
    world.all_ended(90, SOON).await;
    world.kill_delivering().await;
    match &kafka {
        Some(kafka) => {
            world.send_all(&signups(30)).await;
            lose_everything(kafka, &world.topic("events")).await;
        }
        None => lose_everything_embedded(&world).await,
    }
    let mut delivering = world.start_delivering();
    let ended = delivering.ended(SOON).await;
    let output = delivering.output();
    assert!(!ended.success() && output.contains("events it had not read are gone"), "{ended}: {output}");
    world.end().await;
}

/// Removes what the topic holds as if it had been kept for too short a time.
async fn lose_everything(kafka: &str, topic: &str) {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..8 {
        all.add_partition_offset(topic, partition, Offset::End).unwrap();
    }
    admin.delete_records(&all, &AdminOptions::new()).await.unwrap();
}

/// The same in a file, where retention looks first who has read what.
async fn lose_everything_embedded(world: &World) {
    let file = world.folder().join("data/log.db");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let topic = world.topic("events");
    sqlx::query("DELETE FROM record WHERE topic = $1").bind(&topic).execute(&pool).await.unwrap();
    let moved = "UPDATE partition SET next = next + 5, low = next + 5 WHERE topic = $1";
    sqlx::query(moved).bind(&topic).execute(&pool).await.unwrap();
    pool.close().await;
}
