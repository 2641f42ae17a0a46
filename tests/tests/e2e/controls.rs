//! Controls of the chaos test: a guarantee is broken on purpose, and the checker must report it. Each control also runs
//! with a correct store, so that only the broken guarantee explains the difference.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use usher_lab::{Fault, Filter};
use usher_tests::backend::{Backend, log_once};
use usher_tests::checker::ViolationKind;
use usher_tests::deaf::RevocationHidingLog;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::group::Group;
use usher_tests::needs;
use usher_tests::report::ChaosReport;
use usher_tests::sabotage::ahead::{EarlyFrontier, Second};
use usher_tests::sabotage::around;
use usher_tests::sabotage::claim_gate::ClaimGate;
use usher_tests::sabotage::unfenced::Unfenced;
use usher_tests::sabotage::unwritten::DroppedWrites;
use usher_tests::test_env::SOON;

usher_tests::on_both_backends!(effects_that_are_not_recorded_happen_twice, a_frontier_ahead_of_its_runs_loses_them,);
usher_tests::behind_a_pooler!(effects_that_are_not_recorded_happen_twice, a_frontier_ahead_of_its_runs_loses_them,);

/// Interval at which the destinations forget their idempotency keys, which is practically continuous.
const FORGET_EVERY: Duration = Duration::from_millis(1);

fn users(count: usize) -> Vec<User> {
    (0..count).map(|_| User::new()).collect()
}

/// Logs the violations, panics if there are any of another kind, and returns the number of this kind.
fn only(kind: ViolationKind, backend: &Backend, what: &str, report: &ChaosReport) -> usize {
    let found = ViolationKind::ALL.map(|kind| format!("{} {}", kind.label(), report.count(kind))).join(", ");
    log_once(&format!("control on {}: {what}: {found}", backend.name()));
    let others = ViolationKind::ALL.into_iter().filter(|other| *other != kind);
    assert_eq!(others.map(|other| report.count(other)).sum::<usize>(), 0, "{report}");
    report.count(kind)
}

/// A replica processes events and crashes; another takes over after the destinations have forgotten the requests.
async fn effects_that_are_not_recorded_happen_twice(backend: Backend) {
    const EVENTS: usize = 40;
    for recorded in [false, true] {
        let mut group = Group::new(&backend, &["mail"]).await;
        let unwritten = Arc::new(DroppedWrites::new(!recorded));
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
        // Ordered after all unfinished runs of each user, so that those have been handled by then.
        group.update(&users).await;
        group.settled().await;
        second.crash().await;
        let what = if recorded { "effects are recorded" } else { "effects are not recorded" };
        let report = group.close(what).await;
        assert_eq!(only(ViolationKind::Twice, &backend, what, &report), if recorded { 0 } else { EVENTS }, "{report}");
    }
}

/// A replica moves the frontier and stops; another continues from there. If the frontier moves in one transaction with
/// the runs, nothing is lost; without them, all runs are. If the replica crashes before it receives the result, it has
/// not committed the offset either, and the log delivers all events again.
async fn a_frontier_ahead_of_its_runs_loses_them(backend: Backend) {
    const EVENTS: usize = 40;
    for second_step in [Second::Lost, Second::InOne, Second::Crash] {
        let mut group = Group::new(&backend, &["mail"]).await;
        // Commits a first position of the flow in the log.
        group.honest().await.stop().await;
        let ahead = Arc::new(EarlyFrontier::new(second_step));
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
        assert_eq!(only(ViolationKind::Lost, &backend, what, &report), lost, "{report}");
    }
}

/// A replica retries events in memory and does not learn that another has taken over some of them. The destination
/// recovers and forgets its idempotency keys.
#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fence_two_replicas_do_the_same() {
    const EVENTS: usize = 200;
    let backend = Backend::real();
    for fenced in [false, true] {
        let mut group = Group::new(&backend, &["mail"]).await;
        let unfenced = Arc::new(Unfenced::new(!fenced, group.pool().clone()));
        let first = group.with_log_and_store(Arc::new(RevocationHidingLog(group.log())), around(&unfenced)).await;
        // An error that does not open the breaker, so that the current owner soon retries every event.
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

        let gate = Arc::new(ClaimGate::default());
        let second = group.with_store(around(&gate)).await;
        eventually("the first replica claims what is the second's", SOON, || async {
            (unfenced.late_claims() > 0).then_some(())
        })
        .await;
        if fenced {
            // Runs that the first replica has dropped since must have no attempt in flight any more. An effect that was
            // not recorded would be an unknown outcome, and a destination that has forgotten its keys would repeat it.
            eventually("refused, it joins the group again", SOON, || async {
                (unfenced.acquisitions() > acquisitions).then_some(())
            })
            .await;
        }
        // The first replica acts first, while the second still has all of its own work to do.
        gate.close();
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
            gate.open();
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
        assert_eq!(only(ViolationKind::Twice, &backend, what, &report) > 0, !fenced, "{report}");
    }
}
