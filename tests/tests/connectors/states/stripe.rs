//! Customers, subscriptions and prices in each state.

use serde_json::{Value, json};
use usher_engine::Outcome;
use usher_proto::Reason;

use super::super::lab::{ConnectorBench, carry_out};
use super::super::subject::subject;

#[tokio::test]
async fn what_is_gone_cannot_be_used_and_need_not_be_taken_away() {
    let bench = ConnectorBench::new().await;
    let connector = bench.open(subject("stripe"));
    let ask = async |operation: &str, params: Value| carry_out(&*connector, operation, params, Value::Null).await;
    let done = async |operation: &str, params: Value| match ask(operation, params).await {
        Outcome::Done(effect) => effect.result,
        other => panic!("{operation}: {other:?}"),
    };
    let refused = async |params: Value| match ask("create_subscription", params).await {
        Outcome::Reject { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    let customer = done("create_customer", json!({ "email": "dana@work.test" })).await["id"].clone();
    let trial = json!({ "customer": customer, "price": "price_lab", "trial_days": 14 });
    // Allows a second request with the same key; in production every step of every run has its own key.
    bench.lab.lab().forget_keys("stripe").unwrap();
    let subscription = done("create_subscription", trial.clone()).await["id"].clone();

    let cancel = json!({ "subscription": subscription });
    assert_eq!(done("cancel_subscription", cancel.clone()).await["cancelled"], json!([subscription]));
    assert_eq!(done("cancel_subscription", cancel).await["cancelled"], json!([]), "it is cancelled already");
    let all = json!({ "customer": customer });
    assert_eq!(done("cancel_subscriptions", all.clone()).await["cancelled"], json!([]));

    for (price, reason) in [("price_inactive", Reason::Configuration), ("none", Reason::Configuration)] {
        bench.lab.lab().forget_keys("stripe").unwrap();
        let params = json!({ "customer": customer, "price": price, "trial_days": 14 });
        assert_eq!(refused(params).await, reason, "{price}");
    }
    assert_eq!(done("delete_customer", all.clone()).await["deleted"], json!([customer]));
    assert_eq!(done("delete_customer", all.clone()).await["deleted"], json!([]), "it is deleted already");
    assert_eq!(done("cancel_subscriptions", all).await["cancelled"], json!([]), "nobody has any");
    bench.lab.lab().forget_keys("stripe").unwrap();
    assert_eq!(refused(trial).await, Reason::NotFound, "a deleted customer");
}
