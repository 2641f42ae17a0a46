//! Tests against the lab's double of Stripe, which stores answers, errors included, and whose search index lags.

mod stripe_mock;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use usher_engine::Cause;
use usher_lab::{Fault, Filter, Lab, LabHandle};
use usher_proto::{Event, EventId, Instance, Key, Reason, Source, SubjectId};
use usher_service::clock;

use super::*;

const TRIAL: &str = "usher/trial/customer/msg_1/0";

struct Scene {
    lab: LabHandle,
    stripe: Stripe,
    _stop: DropGuard,
}

async fn scene() -> Scene {
    usher_service::telemetry::install_tls();
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let lab = Lab::start(listener, stop.clone()).expect("a lab");
    let stripe = connector(&lab.base_url("stripe").expect("stripe"));
    Scene { lab, stripe, _stop: stop.drop_guard() }
}

fn connector(base: &str) -> Stripe {
    let environment = Environment::from_vars([
        ("STRIPE_BASE_URL", base),
        ("STRIPE_SECRET_KEY", "sk_test_123"),
        ("STRIPE_PRICE_ID", "price_1"),
    ]);
    Stripe::from_environment(&environment).expect("settings")
}

fn event(kind: &str, data: &Value) -> Event {
    Event {
        id: EventId::new("msg_1"),
        kind: kind.into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
        occurred_at: clock::now(),
        received_at: clock::now(),
        provenance: Vec::new(),
        body: Bytes::from(json!({ "data": data }).to_string()),
    }
}

fn prepared(stripe: &Stripe, operation: &str, params: &Value) -> Result<Vec<u8>, PrepareError> {
    let params = params.as_object().expect("a table");
    let event = event("user.deleted", &json!({"id": "user_1", "object": "user"}));
    stripe.prepare(&StepInput { operation, params, event: &event, known: None, rerun: 0 })
}

impl Scene {
    async fn under(&self, key: &str, operation: &str, params: Value) -> Outcome {
        let request = prepared(&self.stripe, operation, &params).expect("a request");
        self.stripe.attempt(&request, key, &CallGate::open()).await
    }

    async fn done(&self, key: &str, operation: &str, params: Value) -> Value {
        match self.under(key, operation, params).await {
            Outcome::Done(effect) => effect.result,
            other => panic!("{operation} is not done: {other:?}"),
        }
    }

    /// Creates a customer with a trial subscription for the user, and returns both ids.
    async fn signed_up(&self, user: &str) -> (Value, Value) {
        let metadata = json!({ "clerk_user_id": user });
        let customer =
            self.done(&format!("c/{user}"), CREATE_CUSTOMER, json!({"email": "a@b.test", "metadata": metadata})).await;
        let trial = json!({ "customer": customer["id"], "trial_days": 14 });
        let subscription = self.done(&format!("s/{user}"), CREATE_SUBSCRIPTION, trial).await;
        (customer["id"].clone(), subscription["id"].clone())
    }

    fn fault(&self, fault: Fault) {
        self.lab.lab().set_fault("stripe", fault).expect("a fault");
    }

    fn well_again(&self) {
        self.lab.lab().end_fault("stripe").expect("stripe");
    }

    fn effects(&self, operation: &str) -> usize {
        let effects = self.lab.lab().effects(&Filter::default()).expect("effects");
        effects.iter().filter(|effect| effect.operation == operation && !effect.replayed).count()
    }
}

#[tokio::test]
async fn a_users_subscriptions_are_cancelled_however_new_the_customer_is() {
    let scene = scene().await;
    let (customer, subscription) = scene.signed_up("user_1").await;
    let (_, other) = scene.signed_up("user_2").await;
    let result = scene.done("k", CANCEL_SUBSCRIPTIONS, json!({})).await;
    assert_eq!((&result["customers"], &result["cancelled"]), (&json!([customer]), &json!([subscription])));
    assert_ne!(result["cancelled"], json!([other]));
    // Repeated, as after a crash: nothing is left to cancel, which counts as done.
    let again = scene.done("k", CANCEL_SUBSCRIPTIONS, json!({"customer": customer})).await;
    assert_eq!(again["cancelled"], json!([]));
    assert_eq!(scene.effects("subscriptions.cancel"), 1);
}

#[tokio::test]
async fn what_is_gone_already_is_done() {
    let scene = scene().await;
    let (customer, subscription) = scene.signed_up("user_1").await;
    let one = json!({ "subscription": subscription });
    assert_eq!(scene.done("k1", CANCEL_SUBSCRIPTION, one.clone()).await["cancelled"], json!([subscription]));
    assert_eq!(scene.done("k2", CANCEL_SUBSCRIPTION, one).await["cancelled"], json!([]));
    let by_metadata = json!({ "metadata": { "clerk_user_id": "user_1" } });
    assert_eq!(scene.done("k3", DELETE_CUSTOMER, by_metadata.clone()).await["deleted"], json!([customer]));
    let again = scene.done("k4", DELETE_CUSTOMER, by_metadata).await;
    assert_eq!((&again["id"], &again["deleted"]), (&json!("none"), &json!([])));
    let by_id = json!({ "customer": customer });
    assert_eq!(scene.done("k5", DELETE_CUSTOMER, by_id.clone()).await["deleted"], json!([]));
    assert_eq!(scene.done("k6", CANCEL_SUBSCRIPTIONS, by_id).await["cancelled"], json!([]));
    assert_eq!(scene.done("k7", CANCEL_SUBSCRIPTIONS, json!({"customer": "cus_none"})).await["cancelled"], json!([]));
}

#[tokio::test]
async fn nothing_is_deleted_by_an_empty_description() {
    let scene = scene().await;
    for params in [
        json!({"metadata": {}}),
        // The remaining metadata could match any customer.
        json!({"metadata": {"clerk_user_id": null, "plan": "trial"}}),
        json!({"customer": "cus_1/../x"}),
        json!({"customer": "?"}),
    ] {
        assert!(prepared(&scene.stripe, DELETE_CUSTOMER, &params).is_err(), "{params}");
    }
    let params = serde_json::Map::new();
    let event = event("organization.deleted", &json!({"id": "org_1"}));
    let inputs = StepInput { operation: DELETE_CUSTOMER, params: &params, event: &event, known: None, rerun: 0 };
    assert!(scene.stripe.prepare(&inputs).is_err(), "an organization is no user");
}

#[tokio::test]
async fn a_saved_failure_is_left_behind_when_the_look_up_finds_nothing() {
    let scene = scene().await;
    for email in [json!({"email": "a@b.test"}), json!({"phone": "+15550100"})] {
        let key = format!("{TRIAL}/{email}");
        scene.fault(Fault { status: Some(500), ..Fault::default() });
        assert_eq!(scene.under(&key, CREATE_CUSTOMER, email.clone()).await, Outcome::retry(Cause::Unavailable));
        scene.well_again();
        assert_eq!(scene.under(&key, CREATE_CUSTOMER, email.clone()).await, Outcome::retry(Cause::Replayed));
        scene.done(&format!("{key}/1"), CREATE_CUSTOMER, email).await;
    }
    assert_eq!(scene.effects("customers.create"), 2);
}

#[tokio::test]
async fn a_saved_failure_that_had_its_effect_is_done() {
    let scene = scene().await;
    let customer = scene.done("c", CREATE_CUSTOMER, json!({"email": "a@b.test"})).await["id"].clone();
    for (operation, params) in [
        (CREATE_CUSTOMER, json!({"email": "a@b.test"})),
        (CREATE_CUSTOMER, json!({"full_name": "Dana"})),
        (CREATE_SUBSCRIPTION, json!({"customer": customer, "trial_days": 14})),
    ] {
        // Stripe fails after it has written: the object was created under this key, and the key preserves the failure.
        let key = format!("{TRIAL}/{operation}/{params}");
        let made = scene.done(&key, operation, params.clone()).await;
        scene.lab.lab().forget_keys("stripe").expect("stripe");
        scene.fault(Fault { status: Some(500), ..Fault::default() });
        assert_eq!(scene.under(&key, operation, params.clone()).await, Outcome::retry(Cause::Unavailable));
        scene.well_again();
        assert_eq!(scene.done(&key, operation, params).await["id"], made["id"]);
    }
}

#[tokio::test]
async fn a_saved_refusal_stays_a_refusal() {
    let scene = scene().await;
    scene.fault(Fault { status: Some(402), ..Fault::default() });
    for _ in 0..2 {
        let outcome = scene.under(TRIAL, CREATE_CUSTOMER, json!({})).await;
        crate::assert_outcome(&outcome, Err(Reason::InvalidRequest), "402");
        scene.well_again();
    }
}

#[tokio::test]
async fn what_was_made_is_found_after_the_key_is_forgotten() {
    let scene = scene().await;
    let params = json!({"email": "A@b.test", "metadata": {"clerk_user_id": "user_1"}});
    let request = prepared(&scene.stripe, CREATE_CUSTOMER, &params).expect("a request");
    assert_eq!(scene.stripe.lookup(&request, TRIAL, &CallGate::open()).await, Lookup::Absent);
    // The answer is lost.
    scene.fault(Fault { drop_after_effect: true, ..Fault::default() });
    assert_eq!(scene.stripe.attempt(&request, TRIAL, &CallGate::open()).await, Outcome::retry(Cause::Interrupted));
    scene.well_again();
    let Lookup::Found(effect) = scene.stripe.lookup(&request, TRIAL, &CallGate::open()).await else {
        panic!("it is there")
    };
    assert!(effect.id.starts_with("cus_"), "{effect:?}");
    assert_eq!(scene.stripe.lookup(&request, "usher/trial/customer/msg_2/0", &CallGate::open()).await, Lookup::Absent);
    scene.fault(Fault { status: Some(503), ..Fault::default() });
    assert!(matches!(scene.stripe.lookup(&request, TRIAL, &CallGate::open()).await, Lookup::Later(_)));
}

#[tokio::test]
async fn a_request_kept_by_an_earlier_version_is_repeated_as_it_was() {
    let scene = scene().await;
    let kept = br#"{"path":"/v1/customers","form":"email=a%40b.test"}"#;
    assert!(matches!(scene.stripe.attempt(kept, TRIAL, &CallGate::open()).await, Outcome::Done(_)));
    let body = scene.lab.lab().effects(&Filter::default()).expect("effects")[0].body.clone();
    assert_eq!(*body, json!({"email": "a@b.test"}));
    assert_eq!(scene.stripe.lookup(kept, TRIAL, &CallGate::open()).await, Lookup::Unknown);
}

#[tokio::test]
async fn a_customer_gets_the_new_address_and_one_that_is_gone_needs_none() {
    let scene = scene().await;
    let (customer, _) = scene.signed_up("user_1").await;
    let (other, _) = scene.signed_up("user_2").await;
    let shown = || scene.lab.lab().effects(&Filter::default()).expect("effects").last().expect("an effect").clone();
    // The event's user is the default, and the customer is too new for the search index.
    let new = json!({ "email": "new@b.test", "full_name": "Dana Doe", "metadata": { "plan": "pro" } });
    let result = scene.done("k1", UPDATE_CUSTOMER, new.clone()).await;
    assert_eq!((&result["customers"], &result["updated"]), (&json!([customer]), &json!([customer])));
    assert_ne!(result["updated"], json!([other]));
    let result = shown().result.clone().expect("a customer");
    assert_eq!((&result["email"], &result["name"]), (&json!("new@b.test"), &json!("Dana Doe")));
    assert_eq!(result["metadata"]["plan"], "pro");
    assert_eq!(result["metadata"]["clerk_user_id"], "user_1", "what is not given stays");
    // Repeated under the same key with other values: an update has no key.
    let by_id = json!({ "customer": other, "phone": "+12015550123" });
    assert_eq!(scene.done("k1", UPDATE_CUSTOMER, by_id).await["updated"], json!([other]));
    let found = json!({ "found_by": { "plan": "pro" }, "full_name": "Zo\u{eb}" });
    assert_eq!(scene.done("k2", UPDATE_CUSTOMER, found).await["updated"], json!([customer]));

    let before = scene.effects("customers.update");
    assert_eq!(scene.done("k3", UPDATE_CUSTOMER, json!({})).await["updated"], json!([]), "nothing is given");
    scene.done("k4", DELETE_CUSTOMER, json!({ "customer": customer })).await;
    let gone = json!({ "customer": customer, "email": "new@b.test" });
    assert_eq!(scene.done("k5", UPDATE_CUSTOMER, gone).await["updated"], json!([]));
    assert_eq!(scene.done("k6", UPDATE_CUSTOMER, new).await["customers"], json!([]), "nobody has that user's id");
    assert_eq!(scene.effects("customers.update"), before);
}

#[test]
fn a_selection_that_comes_out_empty_selects_nobody_else() {
    usher_service::telemetry::install_tls();
    let stripe = connector("http://127.0.0.1:1");
    for (operation, params) in [
        (UPDATE_CUSTOMER, json!({"customer": null, "email": "a@b.test"})),
        (UPDATE_CUSTOMER, json!({"found_by": {}, "email": "a@b.test"})),
        (UPDATE_CUSTOMER, json!({"found_by": {"plan": null, "team": "a"}, "email": "a@b.test"})),
        (CANCEL_SUBSCRIPTIONS, json!({"customer": null})),
        (DELETE_CUSTOMER, json!({"customer": null})),
    ] {
        let error = prepared(&stripe, operation, &params).expect_err("it is refused").0;
        assert!(error.contains("came out empty"), "{operation} {params}: {error}");
    }
}
