//! First claims: their requests, and runs that were admitted with them.

use usher_store::FirstClaims as _;

use super::*;

const KEYS: Idempotency = Idempotency::KeyFor(Duration::from_secs(60));

/// Returns the attempts that the store has of the scene's run.
async fn claimed(scene: &Scene) -> u32 {
    let of = usher_store::HeadsQuery { partition: Partition(0), after: None, without: Vec::new(), limit: 1 };
    scene.store.heads("test", &of).await.expect("the run").remove(0).tries.attempts
}

#[tokio::test]
async fn it_has_the_request_that_would_be_sent() {
    for (idempotency, waits) in [(KEYS, false), (Idempotency::Natural, false), (Idempotency::None, true)] {
        let scene = scene(FLOW, idempotency, Lookup::Unknown, done).await;
        let claim = scene.executor.requests.first_claim(&scene.run, None).await.expect("a claim");
        assert_eq!(claim.until.is_some(), waits, "only for a destination that forgets: {idempotency:?}");
        assert_eq!(scene.outcome().await, done());
        let sent = scene.fake.requests.lock().expect("no panic while it is held").remove(0);
        assert_eq!(usher_suppression::kept(&claim.request).1, sent);
    }
}

#[tokio::test]
async fn a_run_that_calls_nothing_at_once_has_none() {
    let nothing = ["if = \"event.data.one\"", "if = \"event.data.one.two\""].map(|when| format!("{when}\n{FLOW}"));
    let waits = FLOW.replace("[[step]]\n", "[[step]]\nname = \"wait\"\nwait = \"1h\"\n[[step]]\n");
    for flow in nothing.iter().chain([&waits]) {
        let scene = scene(flow, KEYS, Lookup::Unknown, done).await;
        assert_eq!(scene.executor.requests.first_claim(&scene.run, None).await, None, "{flow}");
    }
    let scene = scene(FLOW, KEYS, Lookup::Unknown, done).await;
    let gone = usher_proto::Subject { snapshot: None, deleted: true, revision: 1 };
    assert_eq!(scene.executor.requests.first_claim(&scene.run, Some(&gone)).await, None);
}

#[tokio::test]
async fn a_run_with_its_claim_is_called_with_exactly_that_request_and_claimed_again_only_after_its_lease() {
    for (ago, claims) in [(Duration::ZERO, 0), (Duration::from_secs(6), 1)] {
        let mut scene = scene(FLOW, KEYS, Lookup::Unknown, done).await;
        let request = Some(usher_suppression::keep(&[], b"exact".to_vec()));
        let tries = AttemptState { attempts: 1, ..AttemptState::default() };
        let claimed_at = Some(clock::since_boot() - ago);
        scene.run = Run { request, tries, claimed: claimed_at, ..scene.run.clone() };
        assert_eq!(scene.outcome().await, done());
        let sent = scene.fake.requests.lock().expect("no panic while it is held").clone();
        assert_eq!((sent, claimed(&scene).await), (vec![b"exact".to_vec()], claims));
    }
}
