//! 200 users with 20 events each, interleaved: each user's order is kept in every flow.

use std::collections::BTreeMap;
use std::time::Duration;

use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::test_env::{Options, TestEnv};

usher_tests::on_both_backends!(each_users_order_is_kept_in_every_flow);

const USERS: usize = 200;
const EVENTS: u64 = 20;

/// Flows whose effects show the event that caused them.
const FLOWS: [(&str, &str); 3] = [
    (
        "mails",
        r#"
        on = ["clerk/user.created", "clerk/user.updated"]
        [[step]]
        use = "resend.send"
        to = "{{ user.email }}"
        subject = "{{ event.data.public_metadata.seq }}"
        text = "hello"
        tags = { clerk_user_id = "{{ user.id }}" }
        "#,
    ),
    (
        "customers",
        r#"
        on = ["clerk/user.*"]
        [[step]]
        use = "stripe.create_customer"
        metadata = { clerk_user_id = "{{ user.id }}", seq = "{{ event.data.public_metadata.seq }}" }
        "#,
    ),
    ("rows", "on = [\"clerk/user.*\"]\n[[step]]\nuse = \"database.sync_user\"\n"),
];

async fn each_users_order_is_kept_in_every_flow(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: FLOWS.to_vec(), ..Options::default() }).await;
    let mut users: Vec<User> = (0..USERS).map(|_| User::new()).collect();
    for seq in 1..=EVENTS {
        let webhooks: Vec<_> =
            users.iter().map(|user| if seq == 1 { user.created() } else { user.updated() }).collect();
        env.send_all(&webhooks).await;
        users = users.iter().map(User::changed).collect();
    }
    let count = USERS * usize::try_from(EVENTS).unwrap() * FLOWS.len();
    let runs = env.all_ended(count, Duration::from_secs(300)).await;
    assert!(runs.iter().all(|run| run.state == "done"), "all are done");

    let expected: Vec<u64> = (1..=EVENTS).collect();
    for (provider, pointer) in [("resend", "/subject"), ("stripe", "/metadata/seq")] {
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for effect in env.effects(provider) {
            let seq = effect.body.pointer(pointer).and_then(|value| value.as_str()).expect(pointer);
            seen.entry(effect.user.clone().expect("whose")).or_default().push(seq.parse().expect("a number"));
        }
        assert_eq!(seen.len(), USERS);
        for (user, seen) in seen {
            assert_eq!(seen, expected, "{provider}: {user}");
        }
    }
    // The table holds only the last state. The end times of the runs show that earlier states were written in order.
    for user in users.iter().take(20) {
        let row = env.row(&user.id).await.expect("the row");
        assert_eq!(row["extra"]["public_metadata"]["seq"], EVENTS);
        let filter = RunFilter { key: Some(user.id.clone()), flow: Some("rows".into()), ..RunFilter::default() };
        let mut runs = env.runs(&filter).await;
        runs.sort_by_key(|run| run.offset);
        assert!(runs.is_sorted_by_key(|run| run.ended_at), "{}", user.id);
    }
    env.end().await;
}
