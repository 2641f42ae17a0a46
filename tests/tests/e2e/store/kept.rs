//! Fields that a flow remembers of its subjects, and data kept for ended runs.

use serde_json::{Map, Value, json};
use usher_engine::field_diff::PreviousFields;

use super::*;

/// Returns news of a subject whose address the flow remembers.
fn told(offset: i64, id: &str, updated_at: i64, email: Option<&str>) -> Arrival {
    let fields: Map<String, Value> = email.map(|email| ("email".to_owned(), json!(email))).into_iter().collect();
    Arrival { starts: true, remember: Some(fields), ..news(offset, id, "a", updated_at, email.is_some()) }
}

fn before(run: &Run) -> (Option<&str>, Vec<&str>) {
    let PreviousFields { fields, changed } = run.before.as_ref().expect("it was compared");
    (fields.get("email").and_then(Value::as_str), changed.iter().map(String::as_str).collect())
}

pub(super) async fn what_an_event_changes_is_compared_once_and_kept_with_its_run(subject: TestStore) {
    let epoch = subject.own().await;
    // Compared also with earlier events of the same batch, and for late events.
    let first = vec![told(0, "e0", 10, Some("one")), told(1, "e1", 30, Some("two")), told(2, "e2", 20, Some("late"))];
    let admitted = subject.admit(epoch, first.clone()).await;
    assert_eq!(before(&admitted.heads[0]), (None, vec![]));
    let lane = |id: &str| {
        let subject = &subject;
        let id = id.to_owned();
        async move {
            let (runs, _) = subject.lane("a", 10).await;
            runs.into_iter().find(|run| run.event.id.as_str() == id).expect("it is there")
        }
    };
    assert_eq!(before(&lane("e1").await), (Some("one"), vec!["email"]));
    assert_eq!(before(&lane("e2").await), (None, vec![]), "late");
    // The same events again, as after a lost answer: the comparison is not repeated.
    subject.admit(epoch, first).await;
    assert_eq!(before(&lane("e1").await), (Some("one"), vec!["email"]));

    let admitted = subject.admit(epoch, vec![told(3, "e3", 40, Some("two")), told(4, "e4", 1, None)]).await;
    assert_eq!(admitted.repeated, 0);
    assert_eq!(before(&lane("e3").await), (Some("two"), vec![]), "the same is no change");
    assert_eq!(before(&lane("e4").await), (Some("two"), vec![]), "a deletion says what was known last");
    subject.admit(epoch, vec![told(5, "e5", 50, Some("back"))]).await;
    assert_eq!(before(&lane("e5").await), (None, vec![]), "and is final");
    subject.change(epoch, "e1", end(RunState::Done)).await;
    let rerun = order(6, "o1", "a", "e1", CommandKind::Rerun { body: "{}".into() });
    let again = subject.admit(epoch, vec![rerun]).await;
    assert!(again.woken.is_empty() && lane("e1").await.before.is_none(), "it has gone with the run");
}

pub(super) async fn a_dead_run_keeps_nothing_when_its_life_is_over(subject: TestStore) {
    let epoch = subject.own().await;
    let now = usher_service::clock::now();
    let life = |offset, id: &str, expires_at| Arrival { expires_at, ..arrival(offset, id, id) };
    let hour = std::time::Duration::from_secs(3600);
    let past = Some(Timestamp::from_millis(now.millis() - 1));
    let batch = vec![life(0, "over", past), life(1, "not-yet", Some(now.plus(hour))), life(2, "for-ever", None)];
    let admitted = subject.admit(epoch, batch).await;
    assert_eq!(admitted.heads[0].expires_at, past);
    for event in ["over", "not-yet", "for-ever"] {
        subject.change(epoch, event, claim(1, 0, b"exact")).await;
        subject.change(epoch, event, dead(true)).await;
        assert!(subject.content(event).await.body.is_some(), "it can be redriven");
    }
    subject.store.drop_spent(FLOW, now, 10).await.unwrap();
    for (offset, event, kept) in [(3, "over", false), (4, "not-yet", true), (5, "for-ever", true)] {
        assert_eq!(subject.content(event).await.body.is_some(), kept, "{event}");
        let redrive = order(offset, &format!("o{offset}"), event, event, CommandKind::Redrive { deaths: 1 });
        let run = subject.admit(epoch, vec![redrive]).await.woken.remove(0);
        assert_eq!(run.request.is_some(), kept, "{event}");
    }

    subject.admit(epoch, vec![life(6, "expired", past)]).await;
    let verdict = Some((Reason::Expired, String::new()));
    let expired = ChangeKind::End { state: RunState::Dead, effect: None, note: None, verdict, in_doubt: true };
    subject.change(epoch, "expired", expired).await;
    assert!(subject.content("expired").await.body.is_none(), "it would only expire again");
}

/// Returns news of a user with this primary address, or of a deleted user.
pub(super) fn has(offset: i64, key: &str, updated_at: i64, email: Option<&str>) -> Arrival {
    let said = |email| {
        let addresses = json!([{ "id": "idn_1", "email_address": email }]);
        json!({ "primary_email_address_id": "idn_1", "email_addresses": addresses }).to_string()
    };
    let snapshot = Some(Snapshot { updated_at, occurred_at: updated_at, data: email.map(said) });
    Arrival { starts: false, snapshot, ..arrival(offset, &format!("e{offset}"), key) }
}

pub(super) async fn an_address_is_used_while_some_living_user_of_the_instance_has_it(subject: TestStore) {
    let epoch = subject.own().await;
    let used = async |email: &str| subject.store.is_used(&id("anybody"), AddressDigest::of(email)).await.unwrap();
    assert!(!used("one@work.test").await);
    let both = vec![has(0, "a", 1, Some("One@Work.test")), has(1, "b", 1, Some("one@work.test"))];
    subject.admit(epoch, both).await;
    assert!(used("one@work.test").await && used("ONE@work.test").await && !used("two@work.test").await);
    let staging = SubjectId::new(Source::Clerk, &"staging".parse().unwrap(), &Key::new("c"));
    assert!(!subject.store.is_used(&staging, AddressDigest::of("one@work.test")).await.unwrap(), "not of others");

    subject.admit(epoch, vec![has(2, "a", 3, Some("two@work.test")), has(3, "a", 2, Some("late@work.test"))]).await;
    assert!(used("one@work.test").await && used("two@work.test").await && !used("late@work.test").await);
    subject.admit(epoch, vec![has(4, "b", 4, None)]).await;
    assert!(!used("one@work.test").await);

    // As left by an earlier version: the address is derived at the first query.
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(&subject.url).await.unwrap();
    connection.execute("UPDATE usher_subject SET address = NULL").await.unwrap();
    assert!(used("two@work.test").await && !used("one@work.test").await);
    subject.admit(epoch, vec![has(5, "a", 5, Some("three@work.test"))]).await;
    assert!(used("three@work.test").await && !used("two@work.test").await);
}

pub(super) async fn what_is_forgotten_is_never_taken_for_new(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, (0..3).map(|n| arrival(n, &format!("e{n}"), &format!("k{n}"))).collect()).await;
    subject.change(epoch, "e0", end(RunState::Done)).await;
    subject.change(epoch, "e1", end(RunState::Done)).await;
    let hour = Duration::from_secs(3600);
    assert_eq!(subject.store.prune(FLOW, hour, 10).await.unwrap(), 0, "nothing newer has come");
    let received_at = event("e0", "k0").received_at.plus(2 * hour);
    let newer = Event { received_at, ..event("e3", "k3") };
    subject.admit(epoch, vec![Arrival { starts: false, cancels: true, ..Arrival::starting(Offset(3), newer) }]).await;
    assert_eq!(subject.store.prune(FLOW, 3 * hour, 10).await.unwrap(), 0, "not that long ago");
    assert_eq!(subject.store.prune(FLOW, hour, 1).await.unwrap(), 1, "a bite");
    assert_eq!(subject.store.prune(FLOW, hour, 10).await.unwrap(), 1);
    assert_eq!(subject.head_names().await, ["e2"], "what has not ended stays");
    let again = subject.admit(epoch, vec![arrival(4, "e0", "k0"), arrival(5, "e2", "k2")]).await;
    assert_eq!(again.repeated, 1);
    let verdict = again.heads[0].verdict.as_ref().map(|(reason, _)| *reason);
    assert_eq!(verdict, Some(Reason::TooOld));
}
