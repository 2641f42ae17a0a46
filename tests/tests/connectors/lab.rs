//! Connectors against their doubles: the effects, their number, and the resolution of unknown outcomes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_connectors::{CallGate, Connector, Idempotency, Lookup};
use usher_engine::{Cause, Outcome};
use usher_lab::{Entry, Fault, Filter, LabHandle};
use usher_proto::Reason;
use usher_service::options::Environment;

use super::subject::{ConnectorSubject, KEY, SUBJECTS, prepare, prepare_rerun, subject};

/// A running lab, and an environment in which it stands for every destination.
pub(crate) struct ConnectorBench {
    pub(crate) lab: LabHandle,
    pub(crate) environment: Environment,
    _stop: tokio_util::sync::DropGuard,
}

impl ConnectorBench {
    pub(crate) async fn new() -> Self {
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lab = usher_lab::Lab::start(listener, stop.clone()).unwrap();
        let known = [
            ("RESEND_API_KEY", "re_lab"),
            ("STRIPE_SECRET_KEY", "sk_test_lab"),
            ("USHER_FROM", "h@acme.test"),
            ("STRIPE_PRICE_ID", "price_lab"),
        ];
        let mut environment = Environment::from_vars(known);
        for (name, provider) in [("RESEND_BASE_URL", "resend"), ("STRIPE_BASE_URL", "stripe")] {
            environment = environment.with(name, lab.base_url(provider).unwrap());
        }
        for (name, value) in usher_lab::settings(&lab.url()) {
            environment = environment.with(name, value);
        }
        Self { lab, environment, _stop: stop.drop_guard() }
    }

    pub(crate) fn open(&self, subject: &ConnectorSubject) -> Arc<dyn Connector> {
        subject.open_in(&self.environment)
    }

    fn fault(&self, subject: &ConnectorSubject, fault: Fault) {
        self.lab.lab().set_fault(subject.name, fault).unwrap();
    }

    fn end_fault(&self, subject: &ConnectorSubject) {
        self.lab.lab().end_fault(subject.name).unwrap();
    }

    /// Returns the effects at a destination without the replays of idempotency keys.
    pub(crate) fn effects(&self, name: &str) -> Vec<Arc<Entry>> {
        let all = self.lab.lab().effects(&Filter { provider: Some(name.into()), ..Filter::default() }).unwrap();
        all.into_iter().filter(|effect| !effect.replayed).collect()
    }
}

/// Makes one attempt of an operation with these parameters.
pub(crate) async fn carry_out(connector: &dyn Connector, operation: &str, params: Value, data: Value) -> Outcome {
    let request = prepare(connector, operation, &params, &data).unwrap();
    connector.attempt(&request, KEY, &CallGate::open()).await
}

fn assert_done(outcome: &Outcome, case: &str) {
    assert!(matches!(outcome, Outcome::Done(_)), "{case}: {outcome:?}");
}

#[tokio::test]
async fn what_is_done_is_an_effect_that_names_whom_it_concerns() {
    let bench = ConnectorBench::new().await;
    for subject in SUBJECTS {
        let connector = bench.open(subject);
        assert_done(&connector.attempt(&subject.prepare(&*connector), KEY, &CallGate::open()).await, subject.name);
        let effects = bench.effects(subject.name);
        assert_eq!(effects.len(), 1, "{}", subject.name);
        assert!(effects[0].to.is_some() || effects[0].user.is_some(), "{}", subject.name);
    }
}

#[tokio::test]
async fn an_answer_lost_before_the_effect_costs_nothing() {
    let bench = ConnectorBench::new().await;
    for subject in SUBJECTS {
        let connector = bench.open(subject);
        let request = subject.prepare(&*connector);
        bench.fault(subject, Fault { hang: true, hang_seconds: Some(0.05), ..Fault::default() });
        assert_eq!(
            connector.attempt(&request, KEY, &CallGate::open()).await,
            Outcome::retry(Cause::Interrupted),
            "{}",
            subject.name
        );
        assert_eq!(bench.effects(subject.name).len(), 0, "{}", subject.name);
        bench.end_fault(subject);
        assert_done(&connector.attempt(&request, KEY, &CallGate::open()).await, subject.name);
        assert_eq!(bench.effects(subject.name).len(), 1, "{}", subject.name);
    }
}

#[tokio::test]
async fn an_answer_lost_after_the_effect_is_made_up_for_without_a_second_one() {
    let bench = ConnectorBench::new().await;
    for subject in SUBJECTS {
        let connector = bench.open(subject);
        let request = subject.prepare(&*connector);
        bench.fault(subject, Fault { drop_after_effect: true, ..Fault::default() });
        assert_eq!(
            connector.attempt(&request, KEY, &CallGate::open()).await,
            Outcome::retry(Cause::Interrupted),
            "{}",
            subject.name
        );
        bench.end_fault(subject);
        assert_eq!(bench.effects(subject.name).len(), 1, "{}", subject.name);
        assert_done(&connector.attempt(&request, KEY, &CallGate::open()).await, subject.name);
        let again = match connector.idempotency() {
            // Repeated, with the same result as once.
            Idempotency::Natural => 2,
            // The doubles of destinations without idempotency recognize a repeat nevertheless.
            Idempotency::KeyFor(_) | Idempotency::None => 1,
        };
        assert_eq!(bench.effects(subject.name).len(), again, "{}", subject.name);
    }
}

#[tokio::test]
async fn who_can_be_asked_says_what_has_become_of_a_request() {
    let bench = ConnectorBench::new().await;
    for subject in SUBJECTS {
        let connector = bench.open(subject);
        let request = subject.prepare(&*connector);
        let can = subject.looks_up;
        let before = connector.lookup(&request, KEY, &CallGate::open()).await;
        assert_eq!(before, if can { Lookup::Absent } else { Lookup::Unknown }, "{}", subject.name);
        bench.fault(subject, Fault { drop_after_effect: true, ..Fault::default() });
        assert_eq!(
            connector.attempt(&request, KEY, &CallGate::open()).await,
            Outcome::retry(Cause::Interrupted),
            "{}",
            subject.name
        );
        bench.end_fault(subject);
        bench.lab.lab().forget_keys(subject.name).unwrap();
        let after = connector.lookup(&request, KEY, &CallGate::open()).await;
        assert_eq!(matches!(after, Lookup::Found(_)), can, "{}: {after:?}", subject.name);
        bench.fault(subject, Fault { status: Some(503), ..Fault::default() });
        let down = connector.lookup(&request, KEY, &CallGate::open()).await;
        let later = matches!(down, Lookup::Later(Outcome::Retry { cause: Cause::Unavailable, .. }));
        assert!(if can { later } else { down == Lookup::Unknown }, "{}: it is not there: {down:?}", subject.name);
        bench.end_fault(subject);
    }
}

#[tokio::test]
async fn nylas_is_asked_again_when_its_memory_only_repeats_an_error() {
    let bench = ConnectorBench::new().await;
    let nylas = subject("nylas");
    let connector = bench.open(nylas);
    let request = nylas.prepare(&*connector);
    assert_eq!(connector.idempotency(), Idempotency::KeyFor(Duration::from_secs(55 * 60)));
    bench.fault(nylas, Fault { status: Some(500), ..Fault::default() });
    assert_eq!(connector.attempt(&request, KEY, &CallGate::open()).await, Outcome::retry(Cause::Unavailable));
    bench.end_fault(nylas);
    let Outcome::Retry { cause, .. } = connector.attempt(&request, KEY, &CallGate::open()).await else {
        panic!("the error is kept")
    };
    assert_eq!(cause, Cause::Replayed, "the mailbox shows that nothing was sent");
    assert_done(&connector.attempt(&request, "another key", &CallGate::open()).await, "another key");
    assert_eq!(bench.effects("nylas").len(), 1);
}

#[tokio::test]
async fn a_504_of_nylas_that_sent_the_mail_sends_no_second_one() {
    let bench = ConnectorBench::new().await;
    let nylas = subject("nylas");
    let connector = bench.open(nylas);
    let request = nylas.prepare(&*connector);
    bench.fault(nylas, Fault { status: Some(504), after_effect: true, ..Fault::default() });
    let outcome = connector.attempt(&request, KEY, &CallGate::open()).await;
    assert_eq!(outcome, Outcome::retry(Cause::Timeout));
    assert!(!Cause::Timeout.nothing_happened(), "so the same request is repeated");
    bench.end_fault(nylas);
    assert_done(
        &connector.attempt(&request, KEY, &CallGate::open()).await,
        "the key repeats the 504, the mailbox shows the mail",
    );
    assert_eq!(bench.effects("nylas").len(), 1);
}

#[tokio::test]
async fn what_is_beyond_mailchimps_ten_connections_waits_and_is_not_lost() {
    let bench = ConnectorBench::new().await;
    let mailchimp = subject("mailchimp");
    let connector = bench.open(mailchimp);
    let ten = Fault { status: Some(429), beyond: Some(10), ..Fault::default() };
    let slow = Fault { latency_ms: 300, ..Fault::default() };
    bench.lab.lab().set_faults("mailchimp", vec![ten, slow]).unwrap();
    let put = async |n: usize| {
        let params = json!({ "email": format!("u{n}@work.test") });
        carry_out(&*connector, "put_member", params, Value::Null).await
    };
    let outcomes = futures::future::join_all((0..14).map(put)).await;
    let waits = |outcome: &Outcome| *outcome == Outcome::retry(Cause::Throttled);
    assert_eq!(outcomes.iter().filter(|outcome| waits(outcome)).count(), 4, "{outcomes:?}");
    for n in (0..14).filter(|n| waits(&outcomes[*n])) {
        assert_done(&put(n).await, "there is room again");
    }
    assert_eq!(bench.effects("mailchimp").len(), 14);
}

/// Drops the attempt while it is in flight, as a step's `timeout` does.
#[tokio::test]
async fn a_deadline_that_passes_while_the_effect_comes_about_makes_no_second_one() {
    let bench = ConnectorBench::new().await;
    for subject in SUBJECTS {
        let connector = bench.open(subject);
        let request = subject.prepare(&*connector);
        bench.fault(subject, Fault { latency_ms: 400, ..Fault::default() });
        let gate = CallGate::open();
        let attempt = connector.attempt(&request, KEY, &gate);
        assert!(tokio::time::timeout(Duration::from_millis(200), attempt).await.is_err(), "{}", subject.name);
        let effects = async || {
            while bench.effects(subject.name).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), effects()).await.unwrap();
        bench.end_fault(subject);
        let again = async || {
            // The first request may still be in flight at the double; each double reports that differently.
            while !matches!(connector.attempt(&request, KEY, &CallGate::open()).await, Outcome::Done(_)) {}
        };
        tokio::time::timeout(Duration::from_secs(20), again()).await.unwrap();
        // An idempotent write takes effect again with the same result.
        let times = if connector.idempotency() == Idempotency::Natural { 2 } else { 1 };
        assert_eq!(bench.effects(subject.name).len(), times, "{}", subject.name);
    }
}

#[tokio::test]
async fn mailchimp_never_subscribes_anybody_again_and_misses_nobody() {
    let bench = ConnectorBench::new().await;
    let mailchimp = subject("mailchimp");
    let connector = bench.open(mailchimp);
    let member = |email: &str| json!({ "email": email });
    let done = async |operation: &str, params: Value| match carry_out(&*connector, operation, params, Value::Null).await
    {
        Outcome::Done(effect) => effect.result["status"].as_str().unwrap().to_owned(),
        other => panic!("{operation}: {other:?}"),
    };
    assert_eq!(done("put_member", member("a@work.test")).await, "subscribed");
    assert_eq!(done("unsubscribe", member("A@Work.test")).await, "unsubscribed");
    assert_eq!(done("put_member", member("a@work.test")).await, "unsubscribed");
    assert_eq!(done("delete_member", member("a@work.test")).await, "deleted");
    assert_eq!(done("delete_member", member("a@work.test")).await, "archived");
    assert_eq!(done("unsubscribe", member("nobody@work.test")).await, "absent");
    assert_eq!(done("delete_member", member("nobody@work.test")).await, "absent");
    for (operation, params, reason) in [
        ("put_member", member("compliance@work.test"), Reason::InvalidRequest),
        ("put_member", json!({ "email": "a@work.test", "list": "missing" }), Reason::NotFound),
        ("delete_member", json!({ "email": "a@work.test", "list": "missing" }), Reason::NotFound),
    ] {
        let outcome = carry_out(&*connector, operation, params, Value::Null).await;
        assert!(matches!(outcome, Outcome::Reject { reason: found, .. } if found == reason), "{outcome:?}");
    }
}

#[tokio::test]
async fn algolia_keeps_the_newest_state() {
    let bench = ConnectorBench::new().await;
    let algolia = subject("algolia");
    let connector = bench.open(algolia);
    let save_again = async |name: Value, at: i64, pass: u32| {
        let params = json!({ "object_id": "user_1", "fields": { "name": name } });
        let request = prepare_rerun(&*connector, "save", &params, &json!({ "updated_at": at }), pass).unwrap();
        assert_done(&connector.attempt(&request, KEY, &CallGate::open()).await, &name.to_string());
    };
    let save = async |name: &str, at: i64| save_again(json!(name), at, 0).await;
    let stored = async || {
        let url = format!("{}/algolia/1/indexes/users/user_1", bench.lab.url());
        let keys = [("x-algolia-application-id", "a"), ("x-algolia-api-key", "b")];
        let request = reqwest::Client::new().get(url);
        let request = keys.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["name"].clone()
    };
    save("new", 20).await;
    save("old", 10).await;
    assert_eq!(stored().await, "new");
    save("newer", 30).await;
    save("the same state again", 30).await;
    assert_eq!(stored().await, "newer");
    save_again(json!("as an operator ordered"), 30, 1).await;
    assert_eq!(stored().await, "as an operator ordered", "a rerun writes over its own state");
    save_again(json!("as an operator ordered of an old run"), 29, 3).await;
    assert_eq!(stored().await, "as an operator ordered", "and over no later one");
    save_again(Value::Null, 31, 0).await;
    assert_eq!(stored().await, Value::Null, "what is emptied is emptied in the index");
    for _ in 0..2 {
        assert_done(&carry_out(&*connector, "delete", json!({ "object_id": "user_1" }), Value::Null).await, "delete");
    }
    assert_eq!(stored().await, Value::Null);
}

#[tokio::test]
async fn a_201_of_novu_that_sent_nothing_is_not_done() {
    let bench = ConnectorBench::new().await;
    let novu = subject("novu");
    let connector = bench.open(novu);
    for (workflow, reason) in [
        ("trigger_not_active", Reason::Configuration),
        ("missing", Reason::NotFound),
        ("error", Reason::InvalidRequest),
    ] {
        let params = json!({ "workflow": workflow, "subscriber_id": "user_1" });
        let outcome = carry_out(&*connector, "trigger", params, Value::Null).await;
        assert!(matches!(outcome, Outcome::Reject { reason: found, .. } if found == reason), "{outcome:?}");
    }
    assert_eq!(bench.effects("novu").len(), 0);
}
