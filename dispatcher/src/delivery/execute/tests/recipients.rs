//! Recipients that an attempt does not write to.

use serde_json::Value;
use usher_engine::SkipReason;
use usher_proto::suppression::{ALL_LISTS, SuppressionChange, SuppressionKind};
use usher_proto::unsubscribe::UnsubscribeSecrets;
use usher_proto::{AddressDigest, Offset};
use usher_service::options::Environment;
use usher_suppression::SuppressionPolicy;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

impl Scene {
    /// Applies these suppression settings.
    fn with<const N: usize>(mut self, settings: [(&str, &str); N]) -> Self {
        let policy = SuppressionPolicy::from_environment(&Environment::from_vars(settings), None);
        let RequestMaker { people, connectors, clock, outage, stop, .. } = &*self.executor.requests;
        self.executor.requests = Arc::new(RequestMaker {
            versions: Versions::new(self.flow.clone(), self.store.clone(), Environment::from_vars([])),
            people: people.clone(),
            suppressions: gathered_read::suppressions(self.store.clone()),
            connectors: connectors.clone(),
            suppression: Arc::new(policy.expect("good settings")),
            clock: clock.clone(),
            wait_speed: 1,
            outage: outage.clone(),
            stop: stop.clone(),
        });
        self
    }

    /// Admits a suppression change of an address.
    async fn told(&self, kind: SuppressionKind, address: &str, scope: &str) {
        let change = SuppressionChange {
            kind,
            address: AddressDigest::of(address),
            scope: scope.into(),
            reason: "test".into(),
            by: String::new(),
            instance: None,
        };
        let subject = SubjectId::new(Source::Usher, &Instance::default(), &Key::new("k"));
        let event =
            change.clone().into_event(EventId::new(format!("e{:x}", rand::random::<u64>())), subject, clock::now());
        let arrival = Arrival { starts: false, suppression: Some(change), ..Arrival::starting(Offset(1), event) };
        let batch = Batch {
            refused: Vec::new(),
            partition: Partition(0),
            epoch: self.epoch,
            frontier: Offset(2),
            arrivals: vec![arrival],
            flow_version: self.run.flow_version.clone(),
            connector: None,
            begins: BTreeSet::new(),
        };
        self.store.admit("test", &batch).await.expect("it is admitted");
    }

    async fn held(&self) -> Option<SkipReason> {
        match self.executor.work(&self.run, self.epoch).await {
            StepReport::HeldBack { held, next: NextStep::End, .. } => Some(held),
            StepReport::Attempted { outcome: Outcome::Done(_), .. } => None,
            other => panic!("neither done nor held back: {other:?}"),
        }
    }

    /// Returns the parameters of the last request.
    fn sent(&self) -> Value {
        let requests = self.fake.requests.lock().expect("no panic while it is held");
        serde_json::from_slice(requests.last().expect("something was sent")).expect("JSON")
    }
}

async fn to(to: &str) -> Scene {
    scene(&FLOW.replace("\"a@b.test\"", to), Idempotency::Natural, Lookup::Unknown, done).await
}

#[tokio::test]
async fn nobody_is_written_to_whom_the_settings_or_the_store_leave_out() {
    assert_eq!(to("\"a@b.test\"").await.held().await, None);
    assert_eq!(to("\"A <a+clerk_test@b.test>\"").await.held().await, Some(SkipReason::HeldBack));
    let scene = to("\"a@b.test\"").await.with([("USHER_DELIVER_ONLY_TO", "*@c.test")]);
    assert_eq!(scene.held().await, Some(SkipReason::HeldBack));
    let scene = to("\"a@b.test\"").await;
    scene.told(SuppressionKind::Unsubscribed, "a@b.test", "news").await;
    assert_eq!(scene.held().await, None, "this is no mail of that list");
    scene.told(SuppressionKind::Suppressed, "A@B.test", ALL_LISTS).await;
    assert_eq!((scene.held().await, scene.asked()), (Some(SkipReason::Suppressed), 1));
}

#[tokio::test]
async fn of_several_only_those_are_left_out() {
    let scene = to("[\"a@b.test\", \"D <d@c.test>\"]").await.with([("USHER_DELIVER_ONLY_TO", "*@c.test")]);
    assert_eq!(scene.held().await, None);
    assert_eq!(scene.sent()["to"], json!(["D <d@c.test>"]));
}

#[tokio::test]
async fn a_text_that_might_be_two_addresses_is_given_up() {
    let outcome =
        to("\"{{ 'a@b.test' }}, d@c.test\"").await.with([("USHER_DELIVER_ONLY_TO", "*@c.test")]).outcome().await;
    assert!(matches!(outcome, Outcome::Reject { reason: Reason::InvalidAddress, .. }), "{outcome:?}");
}

/// Builds a scene whose flow has one step with these lines.
async fn step(lines: &str) -> Scene {
    let flow = format!("on = [\"clerk/user.created\"]\n[[step]]\nname = \"one\"\n{lines}");
    scene(&flow, Idempotency::Natural, Lookup::Unknown, done).await
}

#[tokio::test]
async fn nothing_goes_to_a_phone_number_for_tests() {
    let novu = "use = \"novu.trigger\"\nworkflow = \"w\"\nsubscriber_id = \"user_1\"\nfirst_name = \"Dana\"\n";
    let phone = "phone = \"+1 (201) 555-0123\"\n";
    assert_eq!(step(&format!("{novu}{phone}")).await.held().await, Some(SkipReason::HeldBack));
    let scene = step(&format!("{novu}{phone}email = \"a@b.test\"\n")).await;
    assert_eq!(scene.held().await, None);
    let told = json!({ "workflow": "w", "subscriber_id": "user_1", "first_name": "Dana", "email": "a@b.test" });
    assert_eq!(scene.sent(), told);
    let scene = step(&format!("{novu}phone = \"+1 201 555 1123\"\n")).await;
    assert_eq!(scene.held().await, None);
    assert_eq!(scene.sent()["phone"], "+1 201 555 1123");
    // The Stripe customer is created without the number.
    let scene = step(&format!("use = \"stripe.create_customer\"\nfull_name = \"Dana\"\n{phone}")).await;
    assert_eq!((scene.held().await, scene.sent()), (None, json!({ "full_name": "Dana" })));
}

#[tokio::test]
async fn decoration_is_made_to_fit_before_it_is_sent() {
    let scene = step(
        "use = \"resend.send\"\nto = \"{{ 'Dana\\nDoe' }} <dana@m\u{fc}nchen.test>\"\nsubject = \"Hi\\nDana\"\ntext = \"x\"\n\
         from = \"c@d.test\"\ntags = { plan = \"{{ 'pro plan' }}\" }\n",
    )
    .await;
    assert_eq!(scene.held().await, None);
    let sent = scene.sent();
    assert_eq!((&sent["to"], &sent["subject"]), (&json!("Dana Doe <dana@xn--mnchen-3ya.test>"), &json!("Hi Dana")));
    assert_eq!(sent["tags"], json!({ "plan": "pro_plan" }));
}

#[tokio::test]
async fn what_must_not_be_changed_is_given_up_as_what_it_is() {
    let long = "x".repeat(300);
    for (to, expected) in [
        ("{{ 'nobody' }}".to_owned(), "to is no address such as"),
        (format!("{{{{ '{long}' }}}}@work.test"), "the address in to is longer than 254 octets"),
    ] {
        let outcome = self::to(&format!("\"{to}\"")).await.outcome().await;
        let Outcome::Reject { reason: Reason::InvalidAddress, error } = &outcome else { panic!("{outcome:?}") };
        assert!(error.contains(expected), "{error}");
    }
    let novu = format!("use = \"novu.trigger\"\nworkflow = \"w\"\nsubscriber_id = \"{{{{ 'a\\n{long}' }}}}\"\n");
    let outcome = step(&novu).await.outcome().await;
    assert!(matches!(outcome, Outcome::Reject { reason: Reason::InvalidRequest, .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_kept_request_goes_to_nobody_who_is_left_out_meanwhile() {
    let timeout = || Outcome::retry(Cause::Timeout);
    let mut scene = scene(FLOW, Idempotency::Natural, Lookup::Unknown, timeout).await;
    let StepReport::Attempted { request, .. } = scene.executor.work(&scene.run, scene.epoch).await else { panic!() };
    scene.run.request = request;
    assert_eq!(scene.outcome().await, timeout());
    let requests = scene.fake.requests.lock().expect("no panic while it is held").clone();
    assert_eq!(requests[0], requests[1], "the very same goes out again");

    scene.told(SuppressionKind::Suppressed, "a@b.test", ALL_LISTS).await;
    assert_eq!((scene.held().await, scene.asked()), (Some(SkipReason::Suppressed), 2));
    let scene = scene.with([("USHER_DELIVER_ONLY_TO", "*@c.test")]);
    assert_eq!(scene.held().await, Some(SkipReason::HeldBack));
    // A request that was stored without its recipients.
    let scene = to("\"a@b.test\"").await.in_doubt_since(Duration::ZERO).with([("USHER_DELIVER_ONLY_TO", "*@b.test")]);
    assert_eq!(scene.held().await, Some(SkipReason::HeldBack));
}

#[tokio::test]
async fn marketing_mail_carries_its_link_and_ends_with_it() {
    let settings = [("USHER_UNSUBSCRIBE_SECRET", SECRET), ("USHER_PUBLIC_URL", "https://acme.test")];
    let own = "marketing = \"news\"\nheaders = { list-unsubscribe = \"<x>\", X-A = \"b\" }\nsubject";
    let flow = FLOW.replace("subject", own).replace("text = \"hello\"", "text = \"{{ unsubscribe_url }}\"");
    let scene = scene(&flow, Idempotency::Natural, Lookup::Unknown, done).await.with(settings);
    assert_eq!(scene.held().await, None);
    let sent = scene.sent();
    let url = sent["text"].as_str().expect("a text").to_owned();
    let expected = json!({
        "List-Unsubscribe": format!("<{url}>"), "List-Unsubscribe-Post": "List-Unsubscribe=One-Click", "X-A": "b",
    });
    assert_eq!(sent["headers"], expected);
    let token = url.strip_prefix("https://acme.test/unsubscribe/").expect("its place");
    let link = UnsubscribeSecrets::parse(SECRET).expect("a secret").verify(token).expect("it is signed");
    assert_eq!(
        (link.subject.key(), link.list.as_str(), link.address),
        ("user_1", "news", AddressDigest::of("a@b.test"))
    );
    assert_eq!((scene.held().await, scene.sent()), (None, sent), "the same each time");

    scene.told(SuppressionKind::Unsubscribed, "a@b.test", "news").await;
    assert_eq!(scene.held().await, Some(SkipReason::Unsubscribed));
    let outcome = to("\"a@b.test\"\nmarketing = \"news\"").await.outcome().await;
    assert!(matches!(outcome, Outcome::Reject { reason: Reason::Configuration, .. }), "{outcome:?}");
}
