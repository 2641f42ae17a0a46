//! Controls of the chaos: a promise is broken on purpose, and the checker must see it. Each has its honest twin, in which
//! the same happens to a store that keeps its promise: so it is the promise that makes the difference.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use usher_lab::{Fault, Filter};
use usher_tests::backend::{Backend, log_once};
use usher_tests::checker::Kind;
use usher_tests::deaf::Deaf;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::group::Group;
use usher_tests::report::Report;
use usher_tests::sabotage::ahead::{Ahead, Second};
use usher_tests::sabotage::around;
use usher_tests::sabotage::held::Held;
use usher_tests::sabotage::unfenced::Unfenced;
use usher_tests::sabotage::unwritten::Unwritten;
use usher_tests::test_env::SOON;

usher_tests::on_both_backends!(effects_that_are_not_recorded_happen_twice, a_frontier_ahead_of_its_runs_loses_them,);

/// How often destinations forget what they know: all the time.
const FORGET_EVERY: Duration = Duration::from_millis(1);

fn users(count: usize) -> Vec<User> {
    (0..count).map(|_| User::new()).collect()
}

/// Says what was found, and fails if it is of another kind than this one; gives how many there are of it.
fn only(kind: Kind, backend: &Backend, what: &str, report: &Report) -> usize {
    let found = Kind::ALL.map(|kind| format!("{} {}", kind.label(), report.count(kind))).join(", ");
    log_once(&format!("control on {}: {what}: {found}", backend.name()));
    let others = Kind::ALL.into_iter().filter(|other| *other != kind);
    assert_eq!(others.map(|other| report.count(other)).sum::<usize>(), 0, "{report}");
    report.count(kind)
}

/// A replica does its work and crashes; another takes over, and the destinations have forgotten what they did.
async fn effects_that_are_not_recorded_happen_twice(backend: Backend) {
    const EVENTS: usize = 40;
    for recorded in [false, true] {
        let mut group = Group::new(&backend, &["mail"]).await;
        let unwritten = Arc::new(Unwritten::new(!recorded));
        let first = group.with_store(around(&unwritten)).await;
        let users = users(EVENTS);
        group.create(&users).await;
        eventually("the first replica takes all for done", SOON, || async {
            (unwritten.done() == EVENTS).then_some(())
        })
        .await;
        first.crash().await;

        group.lab().forget_keys("resend").unwrap();
        let second = group.honest().await;
        // Behind what may be left of each user, so that it has come to it.
        group.update(&users).await;
        group.settled().await;
        second.crash().await;
        let what = if recorded { "effects are recorded" } else { "effects are not recorded" };
        let report = group.close(what).await;
        assert_eq!(only(Kind::Twice, &backend, what, &report), if recorded { 0 } else { EVENTS }, "{report}");
    }
}

/// A replica moves the frontier and stops; another goes on from there. In one transaction with the runs it loses nothing;
/// without them, all. Where it crashes before it has heard back, the log has not heard either, and tells everything again.
async fn a_frontier_ahead_of_its_runs_loses_them(backend: Backend) {
    const EVENTS: usize = 40;
    for second_step in [Second::Lost, Second::InOne, Second::Crash] {
        let mut group = Group::new(&backend, &["mail"]).await;
        // So that the log, too, knows where the flow stands.
        group.honest().await.stop().await;
        let ahead = Arc::new(Ahead::new(second_step));
        let first = group.with_store(around(&ahead)).await;
        let users = users(EVENTS);
        group.create(&users).await;
        let enough = if second_step == Second::Crash { 1 } else { EVENTS };
        eventually("the frontier moves", SOON, || async { (ahead.admitted() >= enough).then_some(()) }).await;
        if second_step == Second::Crash {
            first.crash().await
        } else {
            first.stop().await
        }

        let second = group.honest().await;
        group.update(&users).await;
        group.settled().await;
        second.crash().await;
        let (what, lost) = match second_step {
            Second::Lost => ("the frontier moves, and the runs are lost", EVENTS),
            Second::InOne => ("the frontier moves with the runs", 0),
            Second::Crash => ("a crash when the frontier has moved, and nobody has heard", 0),
        };
        let report = group.close(what).await;
        assert_eq!(only(Kind::Lost, &backend, what, &report), lost, "{report}");
    }
}

/// A replica has events in memory whose turn comes again and again, and does not hear that another has taken over some of
/// them. The destination recovers, and forgets what it knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fence_two_replicas_do_the_same() {
    const EVENTS: usize = 200;
    let Some(backend) = Backend::real() else { return };
    for fenced in [false, true] {
        let mut group = Group::new(&backend, &["mail"]).await;
        let unfenced = Arc::new(Unfenced::new(!fenced, group.pool().clone()));
        let first = group.with_log_and_store(Arc::new(Deaf(group.log())), around(&unfenced)).await;
        // What does not make it count as down, so that every event is tried again soon, by whoever has it.
        let busy = Fault { status: Some(409), name: Some("concurrent_idempotent_requests".into()), ..Fault::default() };
        group.lab().set_fault("resend", busy).unwrap();
        group.create(&users(EVENTS)).await;
        eventually("the first replica has tried all", SOON, || async {
            let requests = group.lab().requests(&Filter::default()).unwrap();
            let keys: BTreeSet<_> = requests.iter().map(|entry| &entry.idempotency_key).collect();
            (keys.len() == EVENTS).then_some(())
        })
        .await;
        assert_eq!(unfenced.late_claims(), 0);
        let acquisitions = unfenced.acquisitions();

        let held = Arc::new(Held::default());
        let second = group.with_store(around(&held)).await;
        eventually("the first replica claims what is the second's", SOON, || async {
            (unfenced.late_claims() > 0).then_some(())
        })
        .await;
        if fenced {
            // Nothing is under way any more of what it has forgotten since: what had its effect then, and was not recorded,
            // would be found to be in doubt, and a destination that forgets would do it again.
            eventually("refused, it joins the group anew", SOON, || async {
                (unfenced.acquisitions() > acquisitions).then_some(())
            })
            .await;
        }
        // The first comes first, and the second still has all that is its own to do.
        held.hold();
        group.lab().end_fault("resend").unwrap();
        let forgetting = async {
            let mut forget = tokio::time::interval(FORGET_EVERY);
            loop {
                forget.tick().await;
                group.lab().forget_keys("resend").unwrap();
            }
        };
        let working = async {
            if !fenced {
                eventually("the first replica does what is the second's", SOON, || async {
                    (unfenced.late_ends() > 0).then_some(())
                })
                .await;
            }
            held.let_go();
            group.settled().await;
        };
        tokio::select! {
            () = working => {}
            () = forgetting => {}
        }
        first.crash().await;
        second.crash().await;
        let what = if fenced { "a fence" } else { "no fence" };
        let report = group.close(what).await;
        assert_eq!(only(Kind::Twice, &backend, what, &report) > 0, !fenced, "{report}");
    }
}
