//! Rows that calls write at the same time, and so in one batch.

use std::time::Duration;

use futures::future::join_all;

use super::*;

on_every_database!(
    calls_at_the_same_time_have_the_outcomes_of_calls_in_turn,
    a_row_that_a_constraint_refuses_fails_its_own_call_only,
);

fn user(id: &str, name: &str, updated_at: i64) -> String {
    json!({ "object": "user", "id": id, "first_name": name, "username": name, "updated_at": updated_at }).to_string()
}

/// A request: operation, type and time of its event, and the object.
type Call = (&'static str, &'static str, i64, String);

impl Scene {
    /// Makes the calls at the same time, and returns their outcomes in order.
    async fn together(&self, calls: &[Call]) -> Vec<Outcome> {
        let requests: Vec<Vec<u8>> = calls
            .iter()
            .map(|(operation, kind, at, data)| {
                prepared(&self.directory, operation, kind, *at, data).expect("a request")
            })
            .collect();
        let gate = CallGate::open();
        join_all(requests.iter().map(|request| self.directory.attempt(request, "", &gate))).await
    }
}

fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(effect) => {
            format!("{} {}", effect.result["operation"].as_str().expect("an operation"), effect.id)
        }
        Outcome::Overtaken => "overtaken".to_owned(),
        other => format!("{other:?}"),
    }
}

async fn calls_at_the_same_time_have_the_outcomes_of_calls_in_turn(scene: Scene) {
    for (operation, id) in
        [("sync_user", "user_gone"), ("sync_organization", "org_gone"), ("sync_membership", "orgmem_back")]
    {
        let data = json!({ "id": id, "deleted": true });
        assert_eq!(scene.sync(operation, "x.deleted", 3000, data).await, "deleted");
    }
    assert_eq!(scene.sync_text("sync_user", "x", 5100, &user("user_new", "Newer", 5000)).await, "upserted");
    let member = |id: &str, organization: &str, user: &str, created_at: i64| {
        let mut member = membership("org:admin", created_at, 4000);
        member["id"] = json!(id);
        member["organization"]["id"] = json!(organization);
        member["public_user_data"]["user_id"] = json!(user);
        member.to_string()
    };
    let mut invited = invitation("pending", 4000);
    // Every table has its own ids.
    invited["id"] = json!("user_1");
    let calls: Vec<Call> = vec![
        ("sync_user", "x", 4100, user("user_2", "Two", 4000)),
        ("sync_user", "x", 4100, user("user_gone", "Gone", 4000)),
        ("sync_user", "x", 4100, user("user_new", "Old", 4000)),
        ("sync_user", "x", 4100, user("user_1", "One", 4000)),
        ("sync_organization", "x", 4100, organization("Work", 4000).to_string()),
        ("sync_invitation", "x", 4100, invited.to_string()),
        ("sync_membership", "x", 4100, member("orgmem_1", "org_1", "user_1", 1000)),
        ("sync_membership", "x", 4100, member("orgmem_2", "org_gone", "user_1", 1000)),
        ("sync_membership", "x", 4100, member("orgmem_3", "org_1", "user_gone", 1000)),
        ("sync_membership", "x", 4100, member("orgmem_back", "org_1", "user_1", 3001)),
        // A newer and an older state of one object, in the order of the calls.
        ("sync_user", "x", 6100, user("user_2", "Newer", 6000)),
        ("sync_user", "x", 5100, user("user_2", "Older", 5000)),
    ];
    let outcomes: Vec<String> = scene.together(&calls).await.iter().map(word).collect();
    let expected = [
        "upserted user_2",
        "overtaken",
        "overtaken",
        "upserted user_1",
        "upserted org_1",
        "upserted user_1",
        "upserted orgmem_1",
        "overtaken",
        "overtaken",
        "upserted orgmem_back",
        "upserted user_2",
        "overtaken",
    ];
    assert_eq!(outcomes, expected);
    let text = |text: &str| Some(text.to_owned());
    let users = scene.rows("usher_users", &["id", "first_name"]).await;
    let expected =
        [("user_1", "One"), ("user_2", "Newer"), ("user_new", "Newer")].map(|(id, name)| [text(id), text(name)]);
    assert_eq!(users, expected);
    let members = scene.rows("usher_memberships", &["id", "user_id"]).await;
    assert_eq!(members, [[text("orgmem_1"), text("user_1")], [text("orgmem_back"), text("user_1")]]);
    assert_eq!((scene.count("usher_organizations").await, scene.count("usher_invitations").await), (1, 1));
    scene.end().await;
}

async fn a_row_that_a_constraint_refuses_fails_its_own_call_only(scene: Scene) {
    let index = "CREATE UNIQUE INDEX own ON usher_users (username)";
    query(index).execute(&scene.directory.database).await.expect("an index is made");
    let mut calls: Vec<Call> =
        (0..20).map(|at| ("sync_user", "x", 1, user(&format!("user_{at}"), &format!("Name {at}"), 1))).collect();
    calls.insert(10, ("sync_user", "x", 1, user("user_twin", "Name 3", 1)));
    let outcomes = scene.together(&calls).await;
    let (done, refused): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| matches!(outcome, Outcome::Done(_)));
    assert_eq!((done.len(), refused.len()), (20, 1), "{refused:?}");
    crate::assert_outcome(refused[0], Err(Reason::InvalidRequest), "twin");
    assert!(!format!("{refused:?}").contains("Name"), "no value is in the error: {refused:?}");
    assert_eq!(scene.count("usher_users").await, 20);
    scene.end().await;
}

#[usher_needs::needs(postgres)]
#[tokio::test]
async fn a_row_that_another_program_has_locked_delays_its_own_call_only() {
    let scene = on_postgres().await;
    let users = || ["user_1", "user_2", "user_3"].map(|id| user(id, "Dana", 1));
    let calls = users().map(|user| ("sync_user", "x", 1, user));
    assert!(scene.together(&calls).await.iter().all(|outcome| matches!(outcome, Outcome::Done(_))));
    let mut other = scene.directory.database.write().await.expect("a transaction");
    query("UPDATE usher_users SET extra = extra WHERE id = 'user_2'")
        .execute(other.connection())
        .await
        .expect("a lock");
    let request = |user: &str| prepared(&scene.directory, "sync_user", "x", 1, user).expect("a request");
    let requests = users().map(|user| request(&user));
    let gate = CallGate::open();
    {
        let [first, second, third] = requests.each_ref().map(|request| scene.directory.attempt(request, "", &gate));
        let mut second = std::pin::pin!(second);
        // In this order the batch has all three.
        let (others, locked) = tokio::join!(
            biased;
            async { tokio::join!(first, third) },
            tokio::time::timeout(Duration::from_secs(5), second.as_mut()),
        );
        assert!(matches!(others, (Outcome::Done(_), Outcome::Done(_))), "{others:?}");
        assert!(locked.is_err(), "the row is locked: {locked:?}");
        other.commit().await.expect("a commit");
        assert!(matches!(second.await, Outcome::Done(_)));
    }
    scene.end().await;
}
