//! Runs that another flow takes over.

use usher_engine::arrival::{TakeOver, TakenOverStep};

use super::*;

on_every_store!(
    a_run_goes_on_in_another_flow_at_the_step_of_the_same_name,
    what_is_under_way_or_has_gone_on_or_has_no_step_there_stays_where_it_is,
);

const NEW: &str = "other";

/// Returns the command to take over a run that stands at its second step, which is the third one of the other flow.
fn taken(offset: i64, id: &str, of: &str, to: bool) -> Arrival {
    let to = to.then(|| TakenOverStep { step: 2, connector: Some("resend".into()), results: [(0, 1), (1, 2)].into() });
    let steps = vec!["now".to_owned(), "later".to_owned()];
    let order_of = TakeOver { from: FLOW.into(), version: "v1".into(), at: 1, steps, to };
    order(offset, id, "a", of, CommandKind::TakeOver(Box::new(order_of)))
}

/// Admits runs that have done their first step.
async fn at_their_second_step(subject: &TestStore, events: &[&str]) -> Epoch {
    let epoch = subject.own().await;
    let arrivals = events.iter().zip(0..).map(|(event, at)| arrival(at, event, "a")).collect();
    subject.admit(epoch, arrivals).await;
    for event in events {
        let results = [(0, json!({"id": "m1"}))].into();
        let to = ChangeKind::Advance { to: 1, destination: None, effect: effect("m1"), results };
        subject.change(epoch, event, to).await;
    }
    epoch
}

async fn take_over(subject: &TestStore, arrivals: Vec<Arrival>) -> Admission {
    let epoch = subject.store.acquire(NEW, &[ZERO], "new").await.unwrap()[0].epoch;
    let batch = Batch { flow_version: "v9".into(), ..batch(epoch, arrivals) };
    subject.store.admit(NEW, &batch).await.unwrap()
}

async fn came(subject: &TestStore, of: &str) -> Vec<String> {
    subject.store.actions(NEW, &reference(of)).await.unwrap().into_iter().map(|action| action.came).collect()
}

async fn a_run_goes_on_in_another_flow_at_the_step_of_the_same_name(subject: TestStore) {
    let epoch = at_their_second_step(&subject, &["e0"]).await;
    let far = Timestamp::from_millis(i64::MAX / 2);
    subject.change(epoch, "e0", ChangeKind::Wait { until: far, news_after: None }).await;
    let run = take_over(&subject, vec![taken(7, "o1", "e0", true)]).await.woken.remove(0);
    assert_eq!((run.step, run.position, run.flow_version.as_str()), (2, 7, "v9"));
    assert_eq!((run.wait_until, run.destination.as_deref()), (Some(far), Some("resend")), "its wait goes on");
    assert_eq!(run.results, [(1, json!({"id": "m1"}))].into(), "by the steps of the same names");
    assert!(!run.event.body.is_empty());
    let runs = subject.store.runs(&RunFilter::default(), 10).await.unwrap();
    assert_eq!(runs.iter().map(|run| (run.flow.as_str(), run.state.as_str())).collect::<Vec<_>>(), [(NEW, "queued")]);
    assert_eq!(runs[0].effects.len(), 1, "with what it has done");
    assert_eq!(came(&subject, "e0").await, ["moved"]);
    // The flow that it has left knows the event, and its run.
    let again = subject.admit(epoch, vec![arrival(8, "e0", "a")]).await;
    assert_eq!((again.repeated, again.heads.len()), (1, 0));
    assert_eq!(subject.change(epoch, "e0", claim(1, 0, b"x")).await, Changed::Ended);
}

async fn what_is_under_way_or_has_gone_on_or_has_no_step_there_stays_where_it_is(subject: TestStore) {
    let epoch = at_their_second_step(&subject, &["claimed", "first", "nowhere", "both"]).await;
    subject.admit(epoch, vec![arrival(9, "begins", "b")]).await;
    subject.change(epoch, "claimed", claim(1, 0, b"x")).await;
    for event in ["first", "nowhere", "both"] {
        let far = Timestamp::from_millis(i64::MAX / 2);
        subject.change(epoch, event, ChangeKind::Wait { until: far, news_after: None }).await;
    }
    let own = take_over(&subject, vec![arrival(1, "both", "a")]).await;
    assert_eq!(own.heads.len(), 1);
    let orders = [("claimed", true), ("nowhere", false), ("both", true), ("begins", true), ("none", true)];
    let orders = orders.iter().zip(2..).map(|((of, to), offset)| taken(offset, &format!("o{offset}"), of, *to));
    assert!(take_over(&subject, orders.collect()).await.woken.is_empty());
    for (event, word) in [("claimed", "nothing"), ("nowhere", "no_step"), ("both", "has_run"), ("begins", "nothing")] {
        assert_eq!(came(&subject, event).await, [word], "{event}");
    }
    let filter = RunFilter { flow: Some(FLOW.into()), ..RunFilter::default() };
    assert_eq!(subject.store.runs(&filter, 10).await.unwrap().len(), 5);
    let movable = subject.store.movable(&filter, 10).await.unwrap();
    let free: Vec<&str> = movable.iter().filter(|row| row.is_free).map(|row| row.run.reference.id()).collect();
    assert_eq!(free.len(), 4, "{free:?}");
}
