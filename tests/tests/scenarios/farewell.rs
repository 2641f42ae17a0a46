//! Whoever leaves, and what Stripe keeps for a day; and mails by SMTP.

use usher_dispatcher::store::RunFilter;
use usher_lab::Fault;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::pair::Pair;
use usher_tests::world::{Options, SOON, World};

usher_tests::on_both_pairs!(
    a_failure_that_stripe_keeps_for_a_day_does_not_hold_anybody_up,
    whoever_leaves_is_deleted_at_stripe_and_whoever_comes_is_greeted_by_smtp,
);

async fn a_failure_that_stripe_keeps_for_a_day_does_not_hold_anybody_up(pair: Pair) {
    let flow = "on = [\"clerk/user.created\"]\n[[step]]\nname = \"customer\"\nuse = \"stripe.create_customer\"\n\
                email = \"{{ user.email }}\"\nmetadata = { clerk_user_id = \"{{ user.id }}\" }\n";
    let world = World::with(pair, Options { flows: vec![("trial", flow)], ..Options::default() }).await;
    // The answer of an execution: kept under the key, and repeated after the fault is over.
    world.lab().set_fault("stripe", Fault { status: Some(500), ..Fault::default() }).unwrap();
    let users: Vec<User> = (0..5).map(|_| User::new()).collect();
    world.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    eventually("each has failed", SOON, || async {
        let failed = world.lab().requests(&usher_lab::Filter::default()).unwrap();
        let keys: std::collections::BTreeSet<_> = failed
            .iter()
            .filter(|request| request.status == Some(500))
            .map(|request| &request.idempotency_key)
            .collect();
        (keys.len() >= users.len()).then_some(())
    })
    .await;
    world.lab().end_fault("stripe").unwrap();
    world.all_ended(users.len(), SOON).await;
    let runs = world.runs(&RunFilter::default()).await;
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    let customers = world.effects_by_user("stripe", "customers.create");
    assert!(customers.len() == users.len() && customers.values().all(|count| *count == 1), "one each: {customers:?}");
    world.end().await;
}

async fn whoever_leaves_is_deleted_at_stripe_and_whoever_comes_is_greeted_by_smtp(pair: Pair) {
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
    let world = World::with(pair, Options { flows: vec![("life", life), ("mail", mail)], ..Options::default() }).await;
    let (stays, leaves) = (User::new(), User::new());
    world.send_all(&[stays.created(), leaves.created()]).await;
    world.all_ended(4, SOON).await;
    world.send(&leaves.deleted()).await;
    let runs = world.all_ended(5, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "{runs:?}");
    for operation in ["subscriptions.cancel", "customers.delete"] {
        let gone = world.effects_by_user("stripe", operation);
        assert_eq!(gone.into_iter().collect::<Vec<_>>(), [(leaves.id.clone(), 1)], "{operation}");
    }
    let mails = world.effects_by_user("smtp", "messages.send");
    assert!(mails.len() == 2 && mails.values().all(|count| *count == 1), "{mails:?}");
    world.end().await;
}
