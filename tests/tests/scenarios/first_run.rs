//! The main job: a signed event in; a mail, a trial and a row out; once, however often the webhook comes.

use usher_dispatcher::store::RunFilter;
use usher_tests::events::User;
use usher_tests::pair::Pair;
use usher_tests::world::{SOON, World};

usher_tests::on_both_pairs!(a_signup_becomes_a_mail_a_trial_and_a_row, the_same_webhook_five_times_has_one_effect_each);

async fn a_signup_becomes_a_mail_a_trial_and_a_row(pair: Pair) {
    let world = World::start(pair).await;
    let user = User::new();
    world.send(&user.created()).await;
    world.all_ended(3, SOON).await;

    let mails = world.effects("resend");
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, user.email, "to the primary address, which is not the first");
    assert_eq!(mails[0].body["subject"], "Welcome, Ann");
    for part in ["html", "text"] {
        assert!(mails[0].body[part].as_str().expect(part).contains("Hello Ann"), "{part}");
    }
    let stripe = world.effects("stripe");
    let operations: Vec<&str> = stripe.iter().map(|effect| &*effect.operation).collect();
    assert_eq!(operations, ["customers.create", "subscriptions.create"]);
    let customer = stripe[0].result.as_ref().expect("an answer");
    let subscription = stripe[1].result.as_ref().expect("an answer");
    assert_eq!(subscription["customer"], customer["id"]);
    assert_eq!(subscription["status"], "trialing");
    assert_eq!(stripe[1].body["trial_period_days"], "14");
    assert!(stripe.iter().all(|effect| effect.user.as_ref() == Some(&user.id)));

    let row = world.row(&user.id).await.expect("the row");
    assert_eq!((&row["email"], &row["first_name"]), (&user.email.clone().into(), &"Ann".into()));
    assert_eq!(row["extra"]["public_metadata"]["seq"], 1, "further fields are kept");
    world.end().await;
}

async fn the_same_webhook_five_times_has_one_effect_each(pair: Pair) {
    let world = World::start(pair).await;
    let (user, other) = (User::new(), User::new());
    let webhook = user.created();
    for _ in 0..5 {
        world.send(&webhook).await;
    }
    // One more of the same partition order: when it is done, the repetitions have been seen, too.
    world.send(&other.created()).await;
    world.all_ended(6, SOON).await;
    world.send(&webhook).await;
    world.send(&other.updated()).await;
    world.all_ended(7, SOON).await;
    assert_eq!(world.effects_by_user("resend", "emails.send")[&user.id], 1);
    assert_eq!(world.effects_by_user("stripe", "customers.create")[&user.id], 1);
    assert_eq!(world.effects_by_user("stripe", "subscriptions.create")[&user.id], 1);
    let runs = world.runs(&RunFilter { key: Some(user.id.clone()), ..RunFilter::default() }).await;
    assert_eq!(runs.len(), 3, "one run a flow");
    world.end().await;
}
