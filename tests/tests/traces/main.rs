//! Exported spans: the trace of a webhook, from its sender to the attempts of its runs, and the work without a collector
//! that takes them. Needs the feature `otlp`.
#![allow(clippy::unwrap_used)]

mod collector;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use collector::{Answers, Collector, ExportedSpan};
use usher_lab::Fault;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::test_env::{Options, SECRET, SOON, TestEnv};
use usher_tests::{eventually, on_both_backends};

const CALLER: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0b9902b7");

on_both_backends!(
    a_webhook_and_its_runs_are_spans_of_the_callers_trace_and_name_no_person,
    a_collector_that_does_not_answer_costs_nothing_but_its_spans,
);

/// Starts an environment with one flow that sends mail, and exports its spans to `collector`. The log is quieter than
/// the export.
async fn with(backend: Backend, collector: &Collector) -> TestEnv {
    let settings = vec![
        ("USHER_OTLP_ENDPOINT", collector.address()),
        ("RUST_LOG", "warn,usher_ingest=info,usher_dispatcher=info".to_owned()),
    ];
    TestEnv::with(backend, Options { built_in: &["email"], settings, ..Options::default() }).await
}

async fn send(env: &TestEnv, webhook: &Webhook, traceparent: Option<String>) {
    let mut headers = webhook.headers(SECRET).to_vec();
    headers.extend(traceparent.map(|value| ("traceparent", value)));
    assert_eq!(env.post("/webhooks/clerk", &headers, webhook.body.clone().into_bytes()).await.0, 204);
}

/// Waits for the span of the webhook, and for those of at least `runs` executions of its run.
async fn spans_of(collector: &Collector, webhook: &Webhook, runs: usize) -> (ExportedSpan, Vec<ExportedSpan>) {
    eventually("its spans are exported", SOON, || async {
        let spans = collector.spans();
        let of = |name: &str, field: &str| {
            let of_it = |span: &&ExportedSpan| span.name == name && span.text(field) == Some(&webhook.id);
            spans.iter().filter(of_it).cloned().collect::<Vec<_>>()
        };
        let mut received = of("webhook", "id");
        let executed = of("run", "event");
        (!received.is_empty() && executed.len() >= runs).then(|| (received.remove(0), executed))
    })
    .await
}

async fn a_webhook_and_its_runs_are_spans_of_the_callers_trace_and_name_no_person(backend: Backend) {
    let collector = Collector::start(Answers::Taken);
    let together = matches!(backend, Backend::Embedded);
    let mut env = with(backend, &collector).await;
    env.lab().set_fault("resend", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let (user, other) = (User::new(), User::new());
    let (webhook, untraced) = (user.created(), other.created());
    let (trace, caller) = CALLER;
    send(&env, &webhook, Some(format!("00-{trace}-{caller}-01"))).await;
    send(&env, &untraced, None).await;
    // A failed attempt and its log lines are exported, too.
    spans_of(&collector, &webhook, 1).await;
    env.lab().end_fault("resend").unwrap();
    env.all_ended(2, SOON).await;
    let (received, executed) = spans_of(&collector, &webhook, 2).await;

    assert_eq!((received.trace.as_str(), received.parent.as_str()), (trace, caller));
    assert_eq!(received.text("source"), Some("clerk"));
    let services = if together { ["usher", "usher"] } else { ["usher-ingest", "usher-dispatcher"] };
    assert_eq!(received.service, services[0]);
    for run in &executed {
        assert_eq!((run.trace.as_str(), &run.parent, run.service.as_str()), (trace, &received.id, services[1]));
        assert_eq!((run.text("flow"), run.text("step")), (Some("email"), Some("welcome")));
    }
    let attempts: BTreeSet<Option<i64>> = executed.iter().map(|run| run.number("attempt")).collect();
    assert!(attempts.contains(&Some(1)) && attempts.contains(&Some(2)), "{attempts:?}");
    assert!(executed.iter().any(|run| run.events.contains(&"attempt finished".to_owned())), "{executed:?}");

    let (received, executed) = spans_of(&collector, &untraced, 1).await;
    assert!(received.parent.is_empty() && received.trace != trace, "{received:?}");
    assert!(executed.iter().all(|run| run.trace == received.trace && run.parent == received.id), "{executed:?}");

    env.ingest().terminate();
    assert!(env.ingest().ended(SOON).await.success());
    for user in [&user, &other] {
        let address = user.email.as_deref().unwrap();
        for word in [&user.id, address, "mail.test", "Lee"] {
            assert!(!collector.has_received(word), "{word}");
        }
    }
    assert!(collector.has_received(&webhook.id), "the search finds what is there");
    env.end().await;
}

async fn a_collector_that_does_not_answer_costs_nothing_but_its_spans(backend: Backend) {
    let collector = Collector::start(Answers::Nothing);
    let mut env = with(backend, &collector).await;
    let webhooks: Vec<Webhook> = (0..100).map(|_| User::new().created()).collect();
    env.send_all(&webhooks).await;
    env.all_ended(webhooks.len(), SOON).await;
    // Until now the exporter may not have tried.
    eventually("a failure is logged", SOON, || async {
        env.deliverer_output().contains("exporting spans failed").then_some(())
    })
    .await;
    assert_eq!(env.deliverer_output().matches("exporting spans failed").count(), 1);
    env.send(&User::new().created()).await;
    env.all_ended(webhooks.len() + 1, SOON).await;
    let started = Instant::now();
    env.stop_delivering().await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    env.end().await;
}
