//! Destinations that fail and destinations that reject requests.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use usher_engine::RunState;
use usher_eventlog::LogEvent;
use usher_lab::Fault;
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    an_outage_is_waited_out_and_leaves_other_flows_alone,
    an_effect_whose_answer_was_lost_happens_once,
    a_rejection_becomes_a_dead_letter_and_the_next_event_goes_on,
    retries_are_spent_where_others_are_served,
    an_odd_answer_stops_no_flow,
);

/// Starts a destination that answers every request with 200 and this body. Returns its URL.
async fn answering(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            // The request is small enough to arrive in one read. A client that has disconnected is ignored.
            let _ = stream.read(&mut [0; 8192]).await;
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    address
}

async fn an_odd_answer_stops_no_flow(backend: Backend) {
    let odd = answering(r#"{"id":"re_\u0000x\u001b[2J\ud800"}"#).await;
    let settings = vec![("RESEND_BASE_URL", odd)];
    let env = TestEnv::with(backend, Options { built_in: &["email"], settings, ..Options::default() }).await;
    let users: Vec<User> = (0..3).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    for run in env.all_ended(3, SOON).await {
        assert_eq!(
            (run.state.as_str(), run.effects[0].id.as_str()),
            ("done", "re_\\u{0}x\\u{1b}[2J\u{fffd}"),
            "{run:?}"
        );
    }
    env.end().await;
}

/// Number of consecutive failed runs that opens the breaker; later requests are trials.
const FAILURES_THAT_OPEN_A_BREAKER: usize = 8;

async fn an_outage_is_waited_out_and_leaves_other_flows_alone(backend: Backend) {
    let env = TestEnv::start(backend).await;
    env.lab().set_fault("resend", Fault { status: Some(503), ..Fault::default() }).unwrap();
    let users: Vec<User> = (0..20).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;

    eventually("trials and rows are there while mails are not", SOON, || async {
        let trials = env.effects_by_user("stripe", "subscriptions.create").len();
        (trials == users.len() && env.rows().await == 20).then_some(())
    })
    .await;
    let requests = || {
        let filter = usher_lab::Filter { provider: Some("resend".into()), ..usher_lab::Filter::default() };
        env.lab().requests(&filter).unwrap().len()
    };
    eventually("it is tried again whether mails go out", SOON, || async {
        (requests() > FAILURES_THAT_OPEN_A_BREAKER).then_some(())
    })
    .await;
    assert!(requests() < 10 * users.len(), "the destination is left alone: {}", requests());
    assert_eq!(env.effects("resend").len(), 0);

    env.lab().end_fault("resend").unwrap();
    let runs = env.all_ended(60, SOON).await;
    assert!(runs.iter().all(|run| run.state == "done"), "nobody's work is lost");
    let mails = env.effects_by_user("resend", "emails.send");
    assert!(mails.len() == users.len() && mails.values().all(|count| *count == 1), "one mail each: {mails:?}");
    env.end().await;
}

async fn an_effect_whose_answer_was_lost_happens_once(backend: Backend) {
    let env = TestEnv::start(backend).await;
    for provider in ["resend", "stripe"] {
        let dropped = Fault { drop_after_effect: true, for_seconds: Some(2.0), ..Fault::default() };
        env.lab().set_fault(provider, dropped).unwrap();
    }
    let users: Vec<User> = (0..10).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    env.all_ended(30, SOON).await;
    for (provider, operation) in
        [("resend", "emails.send"), ("stripe", "customers.create"), ("stripe", "subscriptions.create")]
    {
        let effects = env.effects_by_user(provider, operation);
        assert!(effects.len() == 10 && effects.values().all(|count| *count == 1), "{operation}: {effects:?}");
    }
    env.end().await;
}

const MAIL: &str = r#"
on = ["clerk/user.created", "clerk/user.updated"]
retry = { attempts = 3, first = "10ms", max = "50ms" }
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "Dear {{ user.first_name }}"
text = "hello"
tags = { clerk_user_id = "{{ user.id }}" }
"#;

async fn a_rejection_becomes_a_dead_letter_and_the_next_event_goes_on(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let poison = User { first_name: "Poison".into(), ..User::new() };
    let refused = Fault { status: Some(422), containing: Some("Poison".into()), ..Fault::default() };
    env.lab().set_fault("resend", refused).unwrap();
    let first = poison.created();
    env.send(&first).await;
    let letter = eventually("the run is dead", SOON, || async {
        env.runs(&RunFilter { states: vec![RunState::Dead], ..RunFilter::default() }).await.pop()
    })
    .await;
    assert_eq!((letter.event.as_str(), letter.reason.as_deref()), (first.id.as_str(), Some("invalid_request")));

    let well = User { first_name: "Ann".into(), ..poison.changed() };
    env.send(&well.updated()).await;
    let runs = env.all_ended(2, SOON).await;
    assert_eq!(runs.iter().filter(|run| run.state == "done").count(), 1, "the next event of the same user");

    // The published dead letter holds the event as received and the reason of its failure.
    let log = env.log().await;
    let mut letters = log.subscribe(&env.topic("test"), &env.topic("dlq.mail")).await.expect("subscribed");
    let record = loop {
        match letters.events.recv().await.expect("the log goes on") {
            LogEvent::Assigned { assignment, partitions } => {
                let starts = partitions.iter().map(|assigned| (assigned.partition, assigned.low)).collect();
                letters.control.start(assignment, starts);
            }
            LogEvent::Records { mut records, .. } => break records.remove(0).1,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(record.body, first.body.as_bytes());
    assert_eq!(record.key.as_str(), format!("clerk/default/{}", first.id));
    for (name, value) in [
        ("usher-flow", "mail"),
        ("usher-step", "mail"),
        ("usher-reason", "invalid_request"),
        ("usher-attempts", "1"),
        ("usher-type", "user.created"),
        ("svix-id", &first.id),
    ] {
        assert_eq!(record.header(name), Some(value), "{name}");
    }
    assert!(!record.header("usher-error").expect("the error").contains('@'), "no address in it");
    letters.control.close().await;
    env.end().await;
}

async fn retries_are_spent_where_others_are_served(backend: Backend) {
    let env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let broken = Fault { status: Some(500), containing: Some("Poison".into()), ..Fault::default() };
    env.lab().set_fault("resend", broken).unwrap();
    env.send(&User { first_name: "Poison".into(), ..User::new() }.created()).await;
    let dead = eventually("the run is dead", SOON, || async {
        // While no other request succeeds, the destination may be at fault, and failures do not use up the retries.
        env.send(&User::new().created()).await;
        env.runs(&RunFilter { states: vec![RunState::Dead], ..RunFilter::default() }).await.pop()
    })
    .await;
    assert_eq!(dead.reason.as_deref(), Some("retries_spent"));
    let filter = usher_lab::Filter { provider: Some("resend".into()), ..usher_lab::Filter::default() };
    let asked = env.lab().requests(&filter).unwrap();
    let failed = asked.iter().filter(|request| request.status == Some(500)).count();
    assert!(failed >= 3 && failed == usize::try_from(dead.attempts).unwrap(), "{failed} of {}", dead.attempts);
    env.end().await;
}
