//! Thousands of users sign up with every flow enabled, while every destination fails now and then, sometimes after the
//! effect. At the end every user has every effect once. If a destination cannot report its effects, the flow's
//! `on_unknown_outcome` decides, and each such case is counted.
//!
//! A short version runs with the other tests; `just signups` runs the full one.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use usher_lab::{Entry, Fault, Filter};
use usher_tests::backend::{Backend, log_once};
use usher_tests::events::{User, Webhook};
use usher_tests::test_env::{Options, TestEnv};

usher_tests::on_both_backends!(everybody_who_signs_up_has_everything_once);

/// The built-in flows that run unless others are named. Files beside this one cover the operations that they do not use.
const BUILT_IN: &[&str] =
    &["account-security", "auth-email", "db-sync", "email", "newsletter", "notify", "search", "trial"];
const MORE: [(&str, &str); 5] = [
    ("letter", include_str!("signups/letter.toml")),
    ("post-twice", include_str!("signups/post-twice.toml")),
    ("post-once", include_str!("signups/post-once.toml")),
    ("hook", include_str!("signups/hook.toml")),
    ("hook-once", include_str!("signups/hook-once.toml")),
];
/// Number of signups from which on the test counts as the full one, in which a tenth of the failures come
/// after the effect.
const FULL: usize = 10_000;
/// Runs per signup: all flows except the one about changes; one of them starts on the event of the code.
const RUNS: usize = BUILT_IN.len() + MORE.len() - 1;
const DESTINATIONS: [&str; 8] = ["resend", "stripe", "novu", "mailchimp", "algolia", "nylas", "smtp", "http"];

async fn everybody_who_signs_up_has_everything_once(backend: Backend) {
    let signups: usize = std::env::var("USHER_SIGNUPS").map_or(100, |count| count.parse().unwrap());
    let name = backend.name();
    // With few signups, more answers are lost, so that enough cases occur.
    let lost = if signups < FULL { 0.05 } else { 0.01 };
    let options = Options { built_in: BUILT_IN, flows: MORE.to_vec(), ..Options::default() };
    let env = TestEnv::with(backend, options).await;
    for destination in DESTINATIONS {
        let refused = if destination == "smtp" { 451 } else { 503 };
        let faults = vec![
            Fault { status: Some(refused), share: 0.09, ..Fault::default() },
            Fault { drop_after_effect: true, share: lost, ..Fault::default() },
        ];
        env.lab().set_faults(destination, faults).unwrap();
    }

    let users: Vec<User> = (0..signups).map(|_| User::new()).collect();
    let webhooks: Vec<Webhook> = users.iter().flat_map(|user| [code(user), user.created()]).collect();
    let begun = Instant::now();
    env.send_all(&webhooks).await;
    let deadline = Duration::from_secs(240) + Duration::from_secs(signups as u64 / 4);
    let runs = env.all_ended(signups * RUNS, deadline).await;
    let took = begun.elapsed().as_secs_f64();

    let all: BTreeSet<&str> = users.iter().map(|user| user.id.as_str()).collect();
    let mut counted = Vec::new();
    // Destinations with an idempotency key, a lookup or an idempotent write: once for every user.
    for (what, provider, which) in [
        ("codes", "resend", &(|it: &Entry| it.operation == "emails.send" && it.body["subject"] == SUBJECT) as &Which),
        ("welcomes", "resend", &|it: &Entry| it.operation == "emails.send" && it.body["subject"] != SUBJECT),
        ("customers", "stripe", &|it: &Entry| it.operation == "customers.create"),
        ("subscriptions", "stripe", &|it: &Entry| it.operation == "subscriptions.create"),
        ("letters", "nylas", &|it: &Entry| it.operation == "messages.send"),
        ("notifications", "novu", &|it: &Entry| it.operation == "events.trigger"),
        ("hooks", "http", &|it: &Entry| it.body["flow"] == "hook"),
    ] {
        let times = times(&env.effects(provider), which, &users);
        assert_eq!(times.keys().copied().collect::<BTreeSet<_>>(), all, "{what}: everybody");
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "{what}: {twice:?}");
        counted.push(format!("{what} {}", times.len()));
    }
    for (what, provider) in [("members", "mailchimp"), ("records", "algolia"), ("metadata", "clerk")] {
        // A repeated write leaves the same object.
        let times = times(&env.effects(provider), &|_| true, &users);
        assert_eq!(times.keys().copied().collect::<BTreeSet<_>>(), all, "{what}: everybody");
        counted.push(format!("{what} {}", times.len()));
    }
    assert_eq!(usize::try_from(env.rows().await).unwrap(), signups);

    // Without them the flow decides. A refused request had no effect; an unanswered one had its effect.
    let post = |flow: &'static str| move |it: &Entry| it.body["headers"]["subject"] == flow;
    let twice = post("post-twice");
    let once = post("post-once");
    let sent = times(&env.effects("smtp"), &twice, &users);
    let lost = unanswered(&env, "smtp", &twice).len();
    assert_eq!((sent.len(), sent.values().sum::<usize>()), (signups, signups + lost), "once more for each lost answer");
    let set = |users: Vec<String>| users.into_iter().collect::<BTreeSet<_>>();
    let in_doubt = |flow: &str| -> BTreeSet<String> {
        let dead = runs.iter().filter(|run| run.flow == flow && run.state == "dead");
        let dead: Vec<_> = dead.inspect(|run| assert_eq!(run.reason.as_deref(), Some("in_doubt"), "{run:?}")).collect();
        dead.into_iter().filter_map(|run| run.user.clone()).collect()
    };
    let sent = times(&env.effects("smtp"), &once, &users);
    assert!(sent.len() == signups && sent.values().all(|times| *times == 1), "never twice");
    let given_up = in_doubt("post-once");
    assert_eq!(given_up, set(unanswered(&env, "smtp", &once)), "given up where the answer was lost, and nowhere else");
    let hook = |it: &Entry| it.body["flow"] == "hook-once";
    let hooks = times(&env.effects("http"), &hook, &users);
    assert!(hooks.values().all(|times| *times == 1), "never twice");
    let hooks_given_up = in_doubt("hook-once");
    assert_eq!(
        hooks_given_up,
        set(unanswered(&env, "http", &hook)),
        "given up where it is not known, and nowhere else"
    );
    let dead = runs.iter().filter(|run| run.state == "dead").count();
    assert_eq!(dead, given_up.len() + hooks_given_up.len());
    assert!(runs.iter().all(|run| run.state == "done" || run.state == "dead"));

    log_once(&format!(
        "signups on {name}: {signups} in {took:.0} s, {} runs: {}; rows {signups}\n  by mail without a key: {lost} of them \
         twice for {lost} lost answers where the flow says \"send\", {} given up for as many where it says \"dead_letter\"; \
         {} hooks given up for as many 503s and lost answers",
        runs.len(),
        counted.join(", "),
        given_up.len(),
        hooks_given_up.len(),
    ));
    env.end().await;
}

const SUBJECT: &str = "482913 is your code";

/// Returns the event of a mail with a code that Clerk leaves to Usher to send.
fn code(user: &User) -> Webhook {
    let data = json!({
        "id": usher_tests::unique("ema_"), "object": "email", "slug": "verification_code", "user_id": user.id,
        "to_email_address": user.email, "subject": SUBJECT, "body": "<p>482913</p>", "body_plain": "482913",
        "status": "queued", "delivered_by_clerk": false, "data": {"otp_code": "482913"},
    });
    Webhook::new("email.created", &user.id, &data)
}

type Which<'a> = dyn Fn(&Entry) -> bool + 'a;

/// Returns how often each user had an effect. The user is identified by id or address.
fn times<'a>(effects: &[Arc<Entry>], which: &Which<'_>, users: &'a [User]) -> BTreeMap<&'a str, usize> {
    let by_id: BTreeMap<&str, &str> = users.iter().map(|user| (user.id.as_str(), user.id.as_str())).collect();
    let by_address: BTreeMap<&str, &str> =
        users.iter().filter_map(|user| Some((user.email.as_deref()?, user.id.as_str()))).collect();
    let mut times = BTreeMap::new();
    for effect in effects.iter().filter(|effect| which(effect)) {
        let user = effect.user.as_deref().and_then(|user| by_id.get(user));
        let user = user.or_else(|| by_address.get(effect.to.as_deref()?));
        *times.entry(*user.unwrap_or_else(|| panic!("whose is {effect:?}"))).or_default() += 1;
    }
    times
}

/// Returns the users of requests with an unknown outcome: unanswered, or answered 503, which leaves the outcome open.
fn unanswered(env: &TestEnv, provider: &str, which: &Which<'_>) -> Vec<String> {
    let requests = env.lab().requests(&Filter { provider: Some(provider.into()), ..Filter::default() }).unwrap();
    let open = requests.iter().filter(|it| which(it) && it.status.is_none_or(|status| status == 503));
    open.filter_map(|it| it.user.clone()).collect()
}
