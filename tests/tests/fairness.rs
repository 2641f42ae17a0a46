//! A user whose event always fails must not delay other users. The test measures the latency of all other users'
//! events, compared with the same events without the failure.
//!
//! `just fairness` runs it in a release build, because it measures time.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use usher_lab::{Fault, Filter};
use usher_proto::Timestamp;
use usher_service::clock;
use usher_tests::backend::{Backend, log_once};
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::ledger::Mark;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    #[ignore = "it measures, for minutes: just fairness"]
    one_users_trouble_delays_nobody_else,
);

/// Number of runs with the failure, and of the runs without it that alternate with them.
const RUNS: usize = 7;
/// Events per second.
const RATE: u32 = 60;
/// Events per run, for fifteen seconds.
const EVENTS: usize = 900;
/// Number of unaffected users. Enough that the events of one user do not wait for each other.
const OTHERS: usize = 100;
/// One in this many events belongs to the affected user.
const TROUBLED: usize = 20;
/// Maximum ratio of the other users' p99 latencies with and without the failure.
const BOUND: f64 = 1.5;

const MAIL: &str = r#"
on = ["clerk/user.created", "clerk/user.updated"]
retry = { attempts = 1000, first = "50ms", max = "2s" }
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "Change {{ event.data.public_metadata.seq }}"
text = "hello"
tags = { clerk_user_id = "{{ user.id }}", flow = "mail", step = "mail", event = "{{ event.id }}" }
"#;

/// Latencies of all other users' events of one run, in ms from acknowledgement to effect.
#[derive(Debug, Clone, Copy)]
struct Measured {
    p50: i64,
    p99: i64,
    /// Number of attempts of the failing event before the fault was ended.
    tried: usize,
}

async fn one_users_trouble_delays_nobody_else(backend: Backend) {
    let name = backend.name();
    let env = TestEnv::with(backend, Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    // A warm-up run opens connections and fills caches.
    run(&env, false).await;
    let mut without = Vec::new();
    let mut with = Vec::new();
    for number in 0..RUNS {
        // The order alternates, because the first run of a pair may differ from the second.
        for trouble in [number % 2 == 1, number % 2 == 0] {
            let measured = run(&env, trouble).await;
            if trouble { with.push(measured) } else { without.push(measured) }
        }
    }
    env.end().await;

    let mut table = format!("fairness on {name}: {RATE} events/s, ms from acknowledgement to effect, of all others\n");
    table += "  run     without p50   p99    with trouble p50   p99   tries of the failing event\n";
    for (number, (a, b)) in without.iter().zip(&with).enumerate() {
        let number = number + 1;
        let tried = b.tried;
        table += &format!("  {number:<6}{:>13}{:>6}{:>20}{:>6}{tried:>29}\n", a.p50, a.p99, b.p50, b.p99);
    }
    let medians = |of: fn(&Measured) -> i64| (median(&without, of), median(&with, of));
    let (a50, b50) = medians(|run| run.p50);
    let (a99, b99) = medians(|run| run.p99);
    let ratio = b99 / a99;
    table += &format!("  median{a50:>13}{a99:>6}{b50:>20}{b99:>6}   ratio of p99: {ratio:.2}");
    log_once(&table);
    assert!(with.iter().all(|run| run.tried > 5), "there was trouble");
    assert!(ratio <= BOUND, "{ratio} is more than {BOUND}");
}

/// Returns the median, at least 1 ms so that it can be a divisor.
fn median(runs: &[Measured], of: fn(&Measured) -> i64) -> f64 {
    let mut values: Vec<i64> = runs.iter().map(of).collect();
    values.sort_unstable();
    f64::from(i32::try_from(values[values.len() / 2].max(1)).unwrap())
}

/// Sends the events of one run, with or without the failure.
async fn run(env: &TestEnv, trouble: bool) -> Measured {
    env.lab().forget();
    let (webhooks, troubled) = webhooks();
    let own: Vec<&str> = troubled.iter().map(|index| webhooks[*index].id.as_str()).collect();
    let failing = own[0];
    if trouble {
        let fault = Fault { status: Some(503), containing: Some(failing.to_owned()), ..Fault::default() };
        env.lab().set_fault("resend", fault).unwrap();
    }

    let begin = Instant::now();
    let sends = webhooks.iter().enumerate().map(|(index, webhook)| async move {
        let due = Duration::from_secs(1) / RATE * u32::try_from(index).unwrap();
        tokio::time::sleep_until(begin + due).await;
        env.send(webhook).await;
        (webhook.id.as_str(), clock::now())
    });
    let mut acknowledged: BTreeMap<&str, Timestamp> = futures::future::join_all(sends).await.into_iter().collect();
    acknowledged.retain(|event, _| !own.contains(event));
    let effects = eventually("all the others' effects are there", SOON, || async {
        let effects = mails(env);
        acknowledged.keys().all(|event| effects.iter().any(|effect| effect.event == **event)).then_some(effects)
    })
    .await;

    let mut tried = 0;
    if trouble {
        let early: Vec<&Mark> = effects.iter().filter(|effect| own.contains(&effect.event.as_str())).collect();
        assert!(early.is_empty(), "the failing event is not over: {early:?}");
        let requests = env.lab().requests(&Filter::default()).unwrap();
        tried = requests.iter().filter_map(|entry| Mark::of(entry)).filter(|mark| mark.event == failing).count();
        env.lab().end_fault("resend").unwrap();
    }
    eventually("the effects of the troubled user are there, in order", SOON, || async {
        let effects = mails(env);
        let theirs: Vec<&str> = effects.iter().map(|mark| mark.event.as_str()).filter(|e| own.contains(e)).collect();
        assert!(own.starts_with(&theirs), "in the order of the events");
        (theirs.len() == own.len()).then_some(())
    })
    .await;
    let late = |effect: &Mark| Some(effect.at - acknowledged.get(effect.event.as_str())?.millis());
    let mut latencies: Vec<i64> = effects.iter().filter_map(late).collect();
    assert_eq!(latencies.len(), acknowledged.len(), "each once");
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 100];
    Measured { p50: at(50), p99: at(99), tried }
}

fn mails(env: &TestEnv) -> Vec<Mark> {
    env.effects("resend").iter().filter_map(|entry| Mark::of(entry)).collect()
}

/// Returns the events of a run and the indexes of those of the affected user, which include the first.
fn webhooks() -> (Vec<Webhook>, Vec<usize>) {
    let mut others: Vec<User> = (0..OTHERS).map(|_| User::new()).collect();
    let mut troubled = User::new();
    let of = |index: usize| index.is_multiple_of(TROUBLED);
    let webhook = |index: usize| {
        let user = if of(index) { &mut troubled } else { &mut others[index % OTHERS] };
        let webhook = if user.seq == 1 { user.created() } else { user.updated() };
        *user = user.changed();
        webhook
    };
    ((0..EVENTS).map(webhook).collect(), (0..EVENTS).filter(|index| of(*index)).collect())
}
