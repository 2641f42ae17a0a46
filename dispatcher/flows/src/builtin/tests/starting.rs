//! The events that start runs and that end them, by the expressions of flows.

use super::*;

#[test]
fn an_expression_that_cannot_be_evaluated_starts_a_run_that_looks_again() {
    let toml = "on = [\"clerk/*\"]\nif = \"event.data.one.two == 3\"\nexpires_after = \"1m\"\n\
                expires_if = \"event.data.one.two == 3\"\n[[step]]\nuse = \"database.sync_user\"\n";
    let source =
        FlowSource { name: "test".into(), file: "test.toml".into(), toml: toml.into(), templates: BTreeMap::new() };
    let flow = Arc::new(Flow::read(source).expect("it can run"));
    let of = |data: Value| event(&json!({ "type": "user.created", "data": data }));
    assert!(flow.starts(&of(json!({"one": {"two": 3}}))) && !flow.starts(&of(json!({"one": {"two": 4}}))));
    assert!(flow.starts(&of(json!({"one": {}}))) && flow.starts(&of(json!({}))), "neither yes nor no");
    assert!(Context::of_event(&of(json!({}))).is_ok_and(|context| flow.wants(&context).is_err()));
    assert!(flow.expires_at(&of(json!({}))).is_some() && flow.expires_at(&of(json!({"one": {"two": 4}}))).is_none());
    let unreadable = Event { body: Bytes::from_static(b"<xml>"), ..of(json!({})) };
    assert!(flow.starts(&unreadable), "it is seen, as a run that is given up");
}

#[test]
fn the_onboarding_ends_with_a_subscription_and_not_with_the_free_plan() {
    let flow = flow("onboarding");
    assert!(!flow.enabled, "`email` sends the same welcome");
    let ends = |source: Source, kind: &str, data: Value| {
        flow.cancels_on(&Event { source, ..event(&json!({ "type": kind, "data": data })) })
    };
    assert!(ends(Source::Clerk, "user.deleted", json!({ "id": "user_1", "object": "user", "deleted": true })));
    let item = |amount: u64| json!({ "object": "subscription_item", "plan": { "amount": amount } });
    assert!(ends(Source::Clerk, "subscriptionItem.active", item(900)));
    assert!(!ends(Source::Clerk, "subscriptionItem.active", item(0)));
    for kind in ["customer.subscription.created", "customer.subscription.updated"] {
        let subscription = |status: &str| json!({ "object": { "object": "subscription", "status": status } });
        for (status, is_bought) in [("active", true), ("trialing", true), ("incomplete", false), ("canceled", false)] {
            assert_eq!(ends(Source::Stripe, kind, subscription(status)), is_bought, "{kind} {status}");
        }
    }
}

#[test]
fn a_trial_has_its_mail_a_week_before_its_end_and_none_if_it_is_short_or_has_ended() {
    const DAY: i64 = 24 * 3600;
    let now = Timestamp::from_seconds(AT.seconds());
    let flow = flow("trial-mail");
    let told = |kind: &str, status: &str, days: i64| {
        let object = json!({ "object": "subscription", "id": "sub_1", "status": status,
            "trial_start": now.seconds(), "trial_end": now.seconds() + days * DAY });
        let body = json!({ "type": kind, "data": { "object": object } });
        Event { source: Source::Stripe, ..event(&body) }
    };
    let created = "customer.subscription.created";
    assert!(flow.starts(&told(created, "trialing", 14)));
    assert!(!flow.starts(&told(created, "trialing", 7)) && !flow.starts(&told(created, "active", 14)));
    let trial = told(created, "trialing", 14);
    let context = Context::new(&flow, &run(&flow, &trial), None).expect("it reads");
    let Action::Wait(wait) = &flow.steps[0].action else { panic!("it waits first") };
    assert_eq!(wait.end(&context, now).map(|end| end.since(now).as_secs()), Ok(7 * 24 * 3600));

    assert!(flow.cancels_on(&event(&json!({ "type": "user.deleted", "data": { "object": "user", "deleted": true } }))));
    assert!(flow.cancels_on(&told("customer.subscription.deleted", "canceled", 14)));
    assert!(flow.cancels_on(&told("customer.subscription.updated", "active", 14)));
    assert!(!flow.cancels_on(&told("customer.subscription.updated", "trialing", 14)), "a new card ends nothing");
}

#[test]
fn an_event_cancels_unless_its_condition_is_false() {
    let toml = "on = [\"clerk/user.created\"]\ncancel_on = [\"clerk/user.deleted\", \"clerk/subscriptionItem.active\"]\n\
                cancel_if = \"event.type == 'user.deleted' or event.data.plan.amount > 0\"\n\
                [[step]]\nuse = \"database.sync_user\"\n";
    let source =
        FlowSource { name: "test".into(), file: "test.toml".into(), toml: toml.into(), templates: BTreeMap::new() };
    let flow = Flow::check(source).expect("it checks");
    let cancels = |kind: &str, data: Value| flow.cancels_on(&event(&json!({ "type": kind, "data": data })));
    assert!(cancels("user.deleted", json!({ "id": "user_1", "deleted": true })));
    assert!(cancels("subscriptionItem.active", json!({ "plan": { "amount": 900 } })));
    assert!(!cancels("subscriptionItem.active", json!({ "plan": { "amount": 0 } })), "the plan that everybody has");
    assert!(cancels("subscriptionItem.active", json!({})), "it cannot be evaluated");
    assert!(!cancels("user.created", json!({ "plan": { "amount": 900 } })), "another type");
}
