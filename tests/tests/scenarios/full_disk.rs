//! A full disk: what cannot be kept is answered 503, what was kept is not lost, and it goes on when there is room.

use std::time::Duration;

use usher_tests::broker::Broker;
use usher_tests::disk::Disk;
use usher_tests::events::{User, Webhook};
use usher_tests::pair::Pair;
use usher_tests::world::{Options, World};

usher_tests::on_both_pairs!(a_full_disk_is_503_and_loses_nothing);

/// Sends until something is not kept: what was kept, and what was not.
async fn fill(world: &World) -> (Vec<Webhook>, Vec<Webhook>) {
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        let mut webhook = User::new().created();
        // Noise, for what can be compressed does not fill a disk.
        let noise: String = (0..4000).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
        webhook.body = webhook.body.replacen('{', &format!("{{\"noise\":\"{noise}\","), 1);
        match world.send_once(&webhook).await {
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

async fn a_full_disk_is_503_and_loses_nothing(pair: Pair) {
    let folder = tempfile::tempdir().expect("a folder");
    let embedded = matches!(pair, Pair::Embedded);
    let Some(disk) = Disk::mount(folder.path(), if embedded { 8_000 } else { 60_000 }) else { return };
    let mut broker = None;
    let mut options = Options::default();
    if embedded {
        options.data = Some(disk.path().join("data"));
    } else {
        let Some(mut own) = Broker::prepare(folder.path(), &disk.path().join("kafka")) else { return };
        own.start().await;
        options.kafka = Some(own.address());
        broker = Some(own);
    }
    let mut world = World::with(pair, options).await;

    let (kept, refused) = fill(&world).await;
    world.front().assert_running();
    disk.grow(400_000);
    if let Some(broker) = &mut broker {
        // A broker whose disk is full ends itself; somebody makes room and starts it again.
        broker.kill();
        broker.start().await;
    }
    world.send_all(&refused).await;

    let events = kept.len() + refused.len();
    world.all_ended(3 * events, Duration::from_secs(180)).await;
    let mails = world.effects_by_user("resend", "emails.send");
    assert_eq!(mails.len(), events, "none is lost");
    assert!(mails.values().all(|count| *count == 1), "none twice");
    world.front().assert_running();
    world.end().await;
}
