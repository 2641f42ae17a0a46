//! Steps that call nothing: what they would write is there already, or their destination is not configured.

use usher_engine::NotCalled;

use super::*;

/// Returns the reason why the step was passed over; `None` if it was not.
async fn passed_over(scene: &Scene) -> Option<NotCalled> {
    match scene.executor.work(&scene.run, scene.epoch).await {
        StepReport::Skipped { why, .. } => Some(why),
        _ => None,
    }
}

#[tokio::test]
async fn a_step_that_would_change_nothing_calls_nothing() {
    let flow = FLOW.replace("text = \"hello\"", "text = \"{}\"");
    let mut scene = scene(&flow, Idempotency::Natural, Lookup::Unknown, done).await;
    assert_eq!((passed_over(&scene).await, scene.asked()), (None, 1), "nothing is known of the subject");
    let event = Event { id: EventId::new("msg_2"), kind: "user.updated".into(), ..scene.run.event.clone() };
    let millis = event.occurred_at.millis();
    let snapshot = Some(Snapshot { updated_at: millis, occurred_at: millis, data: Some("{}".to_owned()) });
    let batch = Batch {
        partition: Partition(0),
        epoch: scene.epoch,
        frontier: Offset(2),
        arrivals: vec![Arrival { starts: false, snapshot, ..Arrival::starting(Offset(1), event) }],
        refused: Vec::new(),
        flow_version: "1".into(),
        connector: None,
        begins: BTreeSet::new(),
    };
    scene.store.admit("test", &batch).await.expect("it is admitted");
    assert_eq!((passed_over(&scene).await, scene.asked()), (Some(NotCalled::InPlace), 1));
    // It may have had its effect, so it is repeated, whatever is known.
    scene.run.request = Some(b"exact".to_vec());
    assert_eq!((passed_over(&scene).await, scene.asked()), (None, 2));
}

#[tokio::test]
async fn an_optional_step_without_its_destination_is_passed_over() {
    let flow = "on = [\"clerk/user.created\"]\n[[step]]\nuse = \"clerk.set_metadata\"\npublic = { a = 1 }\n";
    let required = scene(flow, Idempotency::Natural, Lookup::Unknown, done).await;
    let rejected = |outcome| matches!(outcome, Outcome::Reject { reason: Reason::Configuration, .. });
    assert!(rejected(required.outcome().await), "a step that is not optional");
    let mut optional = scene(&format!("{flow}optional = true\n"), Idempotency::Natural, Lookup::Unknown, done).await;
    assert_eq!(passed_over(&optional).await, Some(NotCalled::NotConfigured));
    optional.run.request = Some(b"exact".to_vec());
    assert!(rejected(optional.outcome().await), "what may have been sent is not given up silently");
    assert_eq!((required.asked(), optional.asked()), (0, 0));
}
