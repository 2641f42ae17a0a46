//! A campaign of days, whose time passes while everything is dead: after each part of it, the programs and the services are
//! killed and started again later.
//!
//! On the embedded pair, the program is started with a clock that is ahead. A dispatcher on Kafka does not become ready with such a
//! clock, so on Kafka and Postgres everything in the store becomes older instead, which is the same for programs that are started
//! afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use usher_lab::Fault;
use usher_proto::Timestamp;
use usher_proto::text_signature::{STRIPE_PREFIX, TextSecret};
use usher_service::clock;
use usher_store::{RunFilter, RunRecord};
use usher_tests::backend::{Backend, Services};
use usher_tests::broker::Broker;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::fake_clock::FakeClock;
use usher_tests::needs;
use usher_tests::postgres::{Down, Postgres};
use usher_tests::test_env::{Options, SOON, TestEnv};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Flows of the environment. `onboarding` runs only where it is named.
const FLOWS: &[&str] = &["onboarding", "trial", "trial-mail"];

/// Secret of Stripe's webhooks.
const STRIPE: &str = "whsec_c2VjcmV0IG9mIHN0cmlwZXMgd2ViaG9va3M";

/// Kafka and Postgres of the test's own, which are killed, too.
struct OwnServices {
    broker: Broker,
    postgres: Postgres,
}

/// An environment in which time is injected.
struct Campaign {
    env: TestEnv,
    services: Option<OwnServices>,
    /// The mails that have been checked.
    checked: usize,
    /// The time of the first signup by the machine's clock.
    began: Timestamp,
    /// The time after the last signup of the first day.
    signed_up: Timestamp,
    /// Time that has passed without being waited for.
    ahead: Duration,
    /// The part of it by which the clock of the programs is ahead.
    clock: FakeClock,
}

impl Campaign {
    async fn start(services: Option<OwnServices>) -> Self {
        let backend = services.as_ref().map_or(Backend::Embedded, |services| {
            let kafka = services.broker.address();
            Backend::Real(Services { kafka, postgres: services.postgres.url(), pooler: None })
        });
        let mut settings = vec![
            ("USHER_FLOW", FLOWS.join(",")),
            ("USHER_UNSUBSCRIBE_SECRET", "0123456789abcdef0123456789abcdef".to_owned()),
            ("STRIPE_WEBHOOK_SECRET", STRIPE.to_owned()),
            ("USHER_PUBLIC_URL", "https://acme.test/hooks".to_owned()),
            // The group soon removes a member that was killed.
            ("USHER_KAFKA_SESSION_TIMEOUT_MS", "6000".to_owned()),
        ];
        if services.is_none() {
            settings.extend(FakeClock::default().variables());
        }
        let env = TestEnv::with(backend, Options { built_in: FLOWS, settings, ..Options::default() }).await;
        let now = clock::now();
        Self {
            env,
            services,
            checked: 0,
            began: now,
            signed_up: now,
            ahead: Duration::ZERO,
            clock: FakeClock::default(),
        }
    }

    /// Returns the webhook as it would be made at the injected time.
    fn now(&self, mut webhook: Webhook) -> Webhook {
        let mut body: Value = serde_json::from_str(&webhook.body).unwrap();
        body["timestamp"] = json!(clock::now().plus(self.clock.ahead).millis());
        webhook.body = body.to_string();
        webhook
    }

    async fn send(&self, webhook: Webhook) {
        self.env.send_until_kept(&self.now(webhook)).await;
    }

    /// Stripe tells of a subscription, in this state and with a trial of 14 days.
    async fn stripe(&self, kind: &str, user: &User, status: &str) {
        let now = clock::now().plus(self.clock.ahead).seconds();
        let object = json!({
            "id": format!("sub_{}", user.id), "object": "subscription", "customer": "cus_1", "status": status,
            "trial_start": now, "trial_end": now + 14 * 24 * 3600, "metadata": { "clerk_user_id": user.id },
        });
        let id = usher_tests::unique("evt_");
        let body = json!({ "id": id, "object": "event", "type": kind, "created": now, "data": { "object": object } })
            .to_string();
        let secrets = TextSecret::parse_list(STRIPE, STRIPE_PREFIX).unwrap();
        let signature = secrets[0].sign_stripe(&now.to_string(), body.as_bytes());
        let (status, answer) =
            self.env.post("/webhooks/stripe", &[("stripe-signature", signature)], body.into_bytes()).await;
        assert_eq!(status, 204, "{answer}");
    }

    /// Kills everything, and starts it again when `since` lies `passed` back.
    async fn pass(&mut self, since: Timestamp, passed: Duration) {
        self.env.kill_ingest().await;
        self.env.kill_dispatcher().await;
        let ahead = since.plus(passed).since(clock::now());
        if let Some(OwnServices { broker, postgres }) = &mut self.services {
            broker.kill();
            postgres.restart(Down::Immediate);
            self.env.age_store(ahead.saturating_sub(self.ahead)).await;
            broker.start().await;
        } else {
            self.clock = FakeClock { ahead };
            self.env.set_clock(self.clock);
        }
        self.ahead = ahead;
        self.env.start_dispatcher().await;
        self.env.start_ingest().await;
    }

    /// Somebody else signs up, as happens every day. Without an accepted webhook, a program whose store is a file, and was not used
    /// for a day, ends no wait for ten minutes: nothing else proves its clock.
    async fn stranger(&self) -> User {
        let stranger = User::new();
        self.send(stranger.created()).await;
        stranger
    }

    /// Waits until exactly these mails have been sent since the last call. Each is who, what and to where.
    async fn sent(&mut self, when: &str, expected: &[(&User, &str, Option<&str>)]) {
        let mut expected: Vec<_> = expected
            .iter()
            .map(|(user, purpose, to)| {
                (user.id.clone(), (*purpose).to_owned(), to.unwrap_or_else(|| address(user)).to_owned())
            })
            .collect();
        expected.sort();
        eventually(&format!("{when}: there are {} new mails", expected.len()), SOON, || async {
            (self.env.effects("resend").len() >= self.checked + expected.len()).then_some(())
        })
        .await;
        self.settled().await;
        let mails = self.env.effects("resend");
        let purpose = |mail: &Value| {
            let tags = mail["tags"].as_array().unwrap().clone();
            let purpose = tags.iter().find(|tag| tag["name"] == "purpose").unwrap();
            purpose["value"].as_str().unwrap().to_owned()
        };
        let mut sent: Vec<_> = mails[self.checked..]
            .iter()
            .map(|mail| (mail.user.clone().unwrap(), purpose(&mail.body), mail.to.clone().unwrap()))
            .collect();
        sent.sort();
        assert_eq!(sent, expected, "{when}");
        self.checked = mails.len();
    }

    /// Waits until no run has anything to do now.
    async fn settled(&self) {
        eventually("every run waits or has ended", SOON, || async {
            let now = clock::now().plus(self.clock.ahead);
            let has_nothing_to_do = |run: &RunRecord| match run.state.as_str() {
                "waiting" => run.due_at.is_none_or(|due| due > now),
                state => ["done", "cancelled"].contains(&state),
            };
            self.env.runs(&RunFilter::default()).await.iter().all(has_nothing_to_do).then_some(())
        })
        .await;
    }

    /// Returns the number of runs of a user by flow and state.
    async fn states(&self, user: &str) -> BTreeMap<(String, String), usize> {
        let mut states = BTreeMap::new();
        for run in self.env.runs(&RunFilter::default()).await {
            if run.user.as_deref() == Some(user) {
                *states.entry((run.flow, run.state)).or_default() += 1;
            }
        }
        states
    }

    async fn is(&self, user: &User, flow: &str, state: &str) {
        eventually(&format!("the run of {flow} is {state}"), SOON, || async {
            self.states(&user.id).await.contains_key(&(flow.to_owned(), state.to_owned())).then_some(())
        })
        .await;
    }
}

fn address(user: &User) -> &str {
    user.email.as_deref().unwrap()
}

/// The free plan of Clerk Billing, which everybody has.
fn free_plan(user: &User) -> Webhook {
    let data = json!({
        "object": "subscription_item", "id": usher_tests::unique("csub_item_"), "status": "active", "is_free_trial": false,
        "plan_id": "cplan_1", "plan": { "id": "cplan_1", "slug": "plan", "name": "Plan", "is_recurring": true, "amount": 0,
        "currency": "USD" }, "payer": { "object": "commerce_payer", "id": "cpayer_1", "user_id": user.id, "organization_id": "" },
    });
    Webhook::new("subscriptionItem.active", &user.id, &data)
}

async fn fourteen_days(services: Option<OwnServices>) {
    let mut days = Campaign::start(services).await;
    let stays = User::new();
    let leaves = User::new();
    let moves = User::new();
    let buys = User::new();
    // Two whose trials Stripe tells of: one goes on, one is ended on the fifth day.
    let tries = User::new();
    let ends = User::new();
    days.began = clock::now();
    for user in [&stays, &leaves, &moves, &buys, &tries, &ends] {
        days.send(user.created()).await;
        days.send(free_plan(user)).await;
    }
    let everybody = [&stays, &leaves, &moves, &buys, &tries, &ends].map(|user| (user, "welcome", None));
    days.sent("day 0", &everybody).await;
    for user in [&tries, &ends] {
        days.stripe("customer.subscription.created", user, "trialing").await;
        days.is(user, "onboarding", "cancelled").await;
        days.is(user, "trial-mail", "waiting").await;
    }
    for user in [&stays, &leaves, &moves, &buys] {
        days.is(user, "onboarding", "waiting").await;
        days.is(user, "trial", "done").await;
    }
    days.signed_up = clock::now();
    let (began, signed_up) = (days.began, days.signed_up);

    days.pass(signed_up, 2 * DAY + 6 * HOUR).await;
    let second_day = days.stranger().await;
    days.send(leaves.deleted()).await;
    let moved = User { email: Some("moved@elsewhere.test".to_owned()), ..moves.changed() };
    days.send(moved.updated()).await;
    days.is(&leaves, "onboarding", "cancelled").await;
    days.sent("day 2", &[(&second_day, "welcome", None)]).await;

    days.pass(began, 3 * DAY - 10 * MINUTE).await;
    let early = days.stranger().await;
    days.sent("ten minutes before the third day has passed", &[(&early, "welcome", None)]).await;

    // The destination is out of order for an hour.
    days.env.lab().set_fault("resend", Fault { status: Some(503), ..Fault::default() }).unwrap();
    days.pass(signed_up, 3 * DAY).await;
    let unlucky = days.stranger().await;
    eventually("all three offers and a welcome are tried", SOON, || async {
        let struck: u64 = days.env.lab().faults("resend").unwrap().iter().map(|fault| fault.struck).sum();
        (struck >= 4).then_some(())
    })
    .await;
    assert_eq!(days.env.effects("resend").len(), days.checked, "nothing is sent");
    days.env.lab().end_fault("resend").unwrap();
    days.pass(signed_up, 3 * DAY + HOUR).await;
    let third_day = days.stranger().await;
    let offered = [
        (&unlucky, "welcome", None),
        (&third_day, "welcome", None),
        (&stays, "trial-offer", None),
        (&moves, "trial-offer", Some("moved@elsewhere.test")),
        (&buys, "trial-offer", None),
    ];
    days.sent("an hour after the third day", &offered).await;
    let offered_at = clock::now().plus(days.ahead);
    let late = offered_at.since(signed_up.plus(3 * DAY));
    assert!(late < HOUR + 5 * MINUTE, "an outage of an hour delays by an hour: {late:?}");

    days.pass(signed_up, 5 * DAY).await;
    let fifth_day = days.stranger().await;
    days.stripe("customer.subscription.created", &buys, "active").await;
    days.stripe("customer.subscription.updated", &tries, "trialing").await;
    days.stripe("customer.subscription.deleted", &ends, "canceled").await;
    days.is(&ends, "trial-mail", "cancelled").await;
    days.is(&buys, "onboarding", "cancelled").await;
    days.sent("day 5", &[(&fifth_day, "welcome", None)]).await;

    // The stranger of the second day, whose three days had no outage in them.
    days.pass(signed_up, 5 * DAY + 7 * HOUR).await;
    let later = days.stranger().await;
    days.sent("three days after the second", &[(&later, "welcome", None), (&second_day, "trial-offer", None)]).await;

    days.pass(signed_up, 7 * DAY).await;
    let seventh_day = days.stranger().await;
    days.sent(
        "day 7",
        &[
            (&seventh_day, "welcome", None),
            (&early, "trial-offer", None),
            (&unlucky, "trial-offer", None),
            (&third_day, "trial-offer", None),
            (&tries, "trial-mail", None),
        ],
    )
    .await;
    days.pass(offered_at, 4 * DAY).await;
    let eighth = days.stranger().await;
    days.sent(
        "seven days and the hour",
        &[(&eighth, "welcome", None), (&stays, "check-in", None), (&moves, "check-in", Some("moved@elsewhere.test"))],
    )
    .await;

    days.pass(signed_up, 14 * DAY).await;
    let last = days.stranger().await;
    days.sent(
        "day 14",
        &[
            (&last, "welcome", None),
            (&second_day, "check-in", None),
            (&early, "check-in", None),
            (&unlucky, "check-in", None),
            (&third_day, "check-in", None),
            (&later, "trial-offer", None),
            (&eighth, "trial-offer", None),
            (&fifth_day, "trial-offer", None),
            (&seventh_day, "trial-offer", None),
        ],
    )
    .await;
    for (user, ended) in [(&stays, "done"), (&leaves, "cancelled"), (&moves, "done"), (&buys, "cancelled")] {
        days.is(user, "onboarding", ended).await;
    }
    days.is(&tries, "trial-mail", "done").await;
    days.env.end().await;
}

#[needs(faketime)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_of_fourteen_days_embedded() {
    fourteen_days(None).await;
}

#[needs(kafka_libs, postgres_programs)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_of_fourteen_days_on_kafka_and_postgres() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::prepare(folder.path(), &folder.path().join("kafka"));
    let postgres = Postgres::start();
    broker.start().await;
    fourteen_days(Some(OwnServices { broker, postgres })).await;
}
