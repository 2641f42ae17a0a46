//! The main case: a signed event results in a mail, a trial and a row, exactly once however often the
//! webhook is repeated.

use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::test_env::{SOON, TestEnv};

usher_tests::on_both_backends!(
    a_signup_becomes_a_mail_a_trial_and_a_row,
    the_same_webhook_five_times_has_one_effect_each
);

async fn a_signup_becomes_a_mail_a_trial_and_a_row(backend: Backend) {
    let env = TestEnv::start(backend).await;
    let user = User::new();
    env.send(&user.created()).await;
    env.all_ended(3, SOON).await;

    let mails = env.effects("resend");
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, user.email, "to the primary address, which is not the first");
    assert_eq!(mails[0].body["subject"], "Welcome, Ann");
    for part in ["html", "text"] {
        assert!(mails[0].body[part].as_str().expect(part).contains("Hello Ann"), "{part}");
    }
    let stripe = env.effects("stripe");
    let operations: Vec<&str> = stripe.iter().map(|effect| &*effect.operation).collect();
    assert_eq!(operations, ["customers.create", "subscriptions.create"]);
    let customer = stripe[0].result.as_ref().expect("an answer");
    let subscription = stripe[1].result.as_ref().expect("an answer");
    assert_eq!(subscription["customer"], customer["id"]);
    assert_eq!(subscription["status"], "trialing");
    assert_eq!(stripe[1].body["trial_period_days"], "14");
    assert!(stripe.iter().all(|effect| effect.user.as_ref() == Some(&user.id)));

    let row = env.row(&user.id).await.expect("the row");
    assert_eq!((&row["email"], &row["first_name"]), (&user.email.clone().into(), &"Ann".into()));
    assert_eq!(row["extra"]["public_metadata"]["seq"], 1, "further fields are kept");
    env.end().await;
}

async fn the_same_webhook_five_times_has_one_effect_each(backend: Backend) {
    let env = TestEnv::start(backend).await;
    let user = User::new();
    let other = User::new();
    let webhook = user.created();
    for _ in 0..5 {
        env.send(&webhook).await;
    }
    // Another event after the repetitions: once it is done, the repetitions have been read as well.
    env.send(&other.created()).await;
    env.all_ended(6, SOON).await;
    env.send(&webhook).await;
    env.send(&other.updated()).await;
    env.all_ended(8, SOON).await;
    assert_eq!(env.effects_by_user("resend", "emails.send")[&user.id], 1);
    assert_eq!(env.effects_by_user("stripe", "customers.create")[&user.id], 1);
    assert_eq!(env.effects_by_user("stripe", "subscriptions.create")[&user.id], 1);
    let runs = env.runs(&RunFilter { key: Some(user.id.clone()), ..RunFilter::default() }).await;
    assert_eq!(runs.len(), 3, "one run a flow");
    env.end().await;
}
