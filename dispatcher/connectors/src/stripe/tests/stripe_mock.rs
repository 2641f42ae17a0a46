//! Stripe's own stripe-mock, which checks every request against Stripe's published specification: paths, names, nesting
//! and types. It stores no state: every id exists, and every list contains the same examples. `USHER_TEST_STRIPE_MOCK`
//! holds its address.

use super::*;
use crate::CallGate;

#[usher_needs::needs(stripe_mock)]
#[tokio::test]
async fn stripes_own_mock_takes_everything_we_ask() {
    let address = crate::tests::real("USHER_TEST_STRIPE_MOCK");
    usher_service::telemetry::install_tls();
    let stripe = connector(&format!("http://{address}"));
    let metadata = json!({"clerk_user_id": "user_1"});
    for (operation, params) in [
        (CREATE_CUSTOMER, json!({})),
        (
            CREATE_CUSTOMER,
            json!({"email": "a@b.test", "full_name": "Zoë", "phone": "+15550100", "metadata": metadata.clone()}),
        ),
        (
            UPDATE_CUSTOMER,
            json!({"customer": "cus_1", "email": "a@b.test", "full_name": "Zoë", "phone": "+15550100", "metadata": metadata}),
        ),
        (UPDATE_CUSTOMER, json!({"found_by": metadata, "full_name": "Zoë"})),
        (UPDATE_CUSTOMER, json!({"email": "a@b.test"})),
        (CREATE_SUBSCRIPTION, json!({"customer": "cus_1", "trial_days": 14, "metadata": metadata.clone()})),
        (CREATE_SUBSCRIPTION, json!({"customer": "cus_1", "price": "price_2"})),
        (CANCEL_SUBSCRIPTION, json!({"subscription": "sub_1"})),
        (CANCEL_SUBSCRIPTIONS, json!({"customer": "cus_1"})),
        (CANCEL_SUBSCRIPTIONS, json!({"metadata": metadata.clone()})),
        (DELETE_CUSTOMER, json!({"customer": "cus_1"})),
        (DELETE_CUSTOMER, json!({})),
    ] {
        let request = prepared(&stripe, operation, &params).expect("a request");
        let outcome = stripe.attempt(&request, TRIAL, &CallGate::open()).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{operation} {params}: {outcome:?}");
        // None of its examples carries our mark, and cancelling or deleting can simply be repeated.
        assert_eq!(stripe.lookup(&request, TRIAL, &CallGate::open()).await, Lookup::Absent, "{operation} {params}");
    }
    let wrong = br#"{"path":"/v1/customers","form":"nmae=Dana"}"#;
    let outcome = stripe.attempt(wrong, TRIAL, &CallGate::open()).await;
    crate::assert_outcome(&outcome, Err(Reason::InvalidRequest), "it does check");
}
