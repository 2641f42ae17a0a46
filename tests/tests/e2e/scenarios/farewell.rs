//! Deletion of users at Stripe, errors that Stripe stores for a day, and mails by SMTP.

use usher_lab::Fault;
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    a_failure_that_stripe_keeps_for_a_day_does_not_hold_anybody_up,
    whoever_leaves_is_deleted_at_stripe_and_whoever_comes_is_greeted_by_smtp,
);

async fn a_failure_that_stripe_keeps_for_a_day_does_not_hold_anybody_up(backend: Backend) {
    let flow = "on = [\"clerk/user.created\"]\n[[step]]\nname = \"customer\"\nuse = \"stripe.create_customer\"\n\
                email = \"{{ user.email }}\"\nmetadata = { clerk_user_id = \"{{ user.id }}\" }\n";
    let env = TestEnv::with(backend, Options { flows: vec![("trial", flow)], ..Options::default() }).await;
    // An error of an executed request: Stripe stores it under the idempotency key and replays it after the
    // fault has ended.
    env.lab().set_fault("stripe", Fault { status: Some(500), ..Fault::default() }).unwrap();
    let users: Vec<User> = (0..5).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    eventually("each has failed", SOON, || async {
        let failed = env.lab().requests(&usher_lab::Filter::default()).unwrap();
        let keys: std::collections::BTreeSet<_> = failed
            .iter()
            .filter(|request| request.status == Some(500))
            .map(|request| &request.idempotency_key)
            .collect();
        (keys.len() >= users.len()).then_some(())
    })
    .await;
    env.lab().end_fault("stripe").unwrap();
    env.all_ended(users.len(), SOON).await;
    let runs = env.runs(&RunFilter::default()).await;
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    let customers = env.effects_by_user("stripe", "customers.create");
    assert!(customers.len() == users.len() && customers.values().all(|count| *count == 1), "one each: {customers:?}");
    env.end().await;
}

async fn whoever_leaves_is_deleted_at_stripe_and_whoever_comes_is_greeted_by_smtp(backend: Backend) {
    let life = r#"
        on = ["clerk/user.created", "clerk/user.deleted"]
        [[step]]
        name     = "customer"
        when     = "event.type == 'user.created'"
        use      = "stripe.create_customer"
        email    = "{{ user.email }}"
        metadata = { clerk_user_id = "{{ user.id }}" }
        [[step]]
        name       = "trial"
        when       = "event.type == 'user.created'"
        use        = "stripe.create_subscription"
        customer   = "{{ steps.customer.id }}"
        trial_days = 14
        [[step]]
        name = "cancelled"
        when = "event.type == 'user.deleted'"
        use  = "stripe.cancel_subscriptions"
        [[step]]
        name = "forgotten"
        when = "event.type == 'user.deleted'"
        use  = "stripe.delete_customer"
    "#;
    let mail = r#"
        on = ["clerk/user.created"]
        [[step]]
        use     = "smtp.send"
        to      = "{{ user.name }} <{{ user.email }}>"
        subject = "Grüße, {{ user.first_name }}"
        text    = "Hello"
        html    = "<p>Hello</p>"
        headers = { X-Clerk-User-Id = "{{ user.id }}" }
    "#;
    let env =
        TestEnv::with(backend, Options { flows: vec![("life", life), ("mail", mail)], ..Options::default() }).await;
    let stays = User::new();
    let leaves = User::new();
    env.send_all(&[stays.created(), leaves.created()]).await;
    env.all_ended(4, SOON).await;
    env.send(&leaves.deleted()).await;
    let runs = env.all_ended(5, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    for operation in ["subscriptions.cancel", "customers.delete"] {
        let gone = env.effects_by_user("stripe", operation);
        assert_eq!(gone.into_iter().collect::<Vec<_>>(), [(leaves.id.clone(), 1)], "{operation}");
    }
    let mails = env.effects_by_user("smtp", "messages.send");
    assert!(mails.len() == 2 && mails.values().all(|count| *count == 1), "{mails:?}");
    env.end().await;
}
