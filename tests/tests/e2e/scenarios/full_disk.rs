//! A full disk: webhooks that cannot be stored are answered 503, stored ones are not lost, and work continues after
//! space is freed.

use std::time::Duration;

use usher_tests::backend::Backend;
use usher_tests::broker::Broker;
use usher_tests::disk::Disk;
use usher_tests::events::{User, Webhook};
use usher_tests::test_env::{Options, TestEnv};

mod a_full_disk_is_503_and_loses_nothing {
    use usher_tests::backend::Backend;
    use usher_tests::needs;

    #[needs(mount)]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        super::a_full_disk_is_503_and_loses_nothing(Backend::Embedded).await;
    }

    /// The broker is one of its own.
    #[needs(kafka, kafka_libs, postgres, mount)]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn kafka_and_postgres() {
        super::a_full_disk_is_503_and_loses_nothing(Backend::real()).await;
    }
}

/// Sends webhooks until three are not acknowledged. Returns the acknowledged and the refused ones.
async fn fill(env: &TestEnv) -> (Vec<Webhook>, Vec<Webhook>) {
    let mut kept = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..20_000 {
        let mut webhook = User::new().created();
        // Random data, because compressible data would not fill the disk.
        let noise: String = (0..4000).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
        webhook.body = webhook.body.replacen('{', &format!("{{\"noise\":\"{noise}\","), 1);
        match env.send_once(&webhook).await {
            Some(204) => kept.push(webhook),
            Some(503) | None => {
                refused.push(webhook);
                if refused.len() == 3 {
                    return (kept, refused);
                }
            }
            Some(other) => panic!("{other} is neither kept nor to be repeated"),
        }
    }
    panic!("the disk is never full");
}

async fn a_full_disk_is_503_and_loses_nothing(backend: Backend) {
    let folder = tempfile::tempdir().expect("a folder");
    let embedded = matches!(backend, Backend::Embedded);
    let disk = Disk::mount(folder.path(), if embedded { 8_000 } else { 60_000 });
    let mut broker = None;
    let mut options = Options::default();
    if embedded {
        options.data = Some(disk.path().join("data"));
    } else {
        let mut own = Broker::prepare(folder.path(), &disk.path().join("kafka"));
        own.start().await;
        options.kafka = Some(own.address());
        broker = Some(own);
    }
    let mut env = TestEnv::with(backend, options).await;

    let (kept, refused) = fill(&env).await;
    env.ingest().assert_running();
    disk.grow(400_000);
    if let Some(broker) = &mut broker {
        // A broker with a full disk exits; an operator frees space and starts it again.
        broker.kill();
        broker.start().await;
    }
    env.send_all(&refused).await;

    let events = kept.len() + refused.len();
    env.all_ended(3 * events, Duration::from_secs(180)).await;
    let mails = env.effects_by_user("resend", "emails.send");
    assert_eq!(mails.len(), events, "none is lost");
    assert!(mails.values().all(|count| *count == 1), "none twice");
    env.ingest().assert_running();
    env.end().await;
}
