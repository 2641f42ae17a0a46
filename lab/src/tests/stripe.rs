//! Tests that the double follows Stripe's rules.

mod keys;
mod objects;

use axum::http::Method;

use super::support::{FORM, JSON, LabBench, STRIPE_KEY};

const INVALID: &str = "invalid_request_error";

#[tokio::test]
async fn a_secret_key_opens_as_bearer_and_as_basic_user() {
    let bench = LabBench::new().await;
    let cases = [
        ("Bearer sk_test_abc", 200),
        ("bearer rk_live_abc", 200),
        // `sk_test_abc` and no password.
        ("Basic c2tfdGVzdF9hYmM6", 200),
        // `sk_test_abc` and a password.
        ("Basic c2tfdGVzdF9hYmM6eA==", 401),
        ("Basic !", 401),
        ("Bearer pk_test_abc", 401),
        ("Bearer sk_", 401),
        ("Bearer re_abc", 401),
    ];
    for (value, status) in cases {
        let reply =
            bench.ask(Method::POST, "/stripe/v1/customers", &[("authorization", value), FORM], "name=Dana").await;
        assert_eq!(reply.status, status, "{value}");
        assert!(reply.header("request-id").is_some_and(|id| id.starts_with("req_")), "{value}");
        assert!(!reply.body.to_string().contains("abc"), "{value}");
    }
    let reply = bench.ask(Method::GET, "/stripe/v1/customers", &[], "").await;
    assert_eq!(reply.error(), (401, INVALID, None, None));
    assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"Stripe\""));
}

#[tokio::test]
async fn a_json_body_is_refused() {
    let bench = LabBench::new().await;
    let reply = bench.ask(Method::POST, "/stripe/v1/customers", &[STRIPE_KEY, JSON], r#"{"name":"Dana"}"#).await;
    assert_eq!(reply.error(), (400, INVALID, None, None));
    assert!(bench.effects().is_empty());
}

#[tokio::test]
async fn an_unknown_path_is_named() {
    let bench = LabBench::new().await;
    for path in ["/v1/invoices", "/v1/subscriptions/search/x", "/v2/core/accounts", "/"] {
        let reply = bench.get(path).await;
        assert_eq!(reply.error(), (404, INVALID, None, None), "{path}");
    }
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let bench = LabBench::new().await;
    let customer = bench.post("/v1/customers", "", "name=Dana").await;
    let id = customer.body["id"].as_str().expect("an id");
    let order = format!("customer={id}&items[0][price]=price_1");
    let unknown = |param| (400, INVALID, Some("parameter_unknown"), Some(param));
    let missing = |param| (400, INVALID, Some("parameter_missing"), Some(param));
    let integer = |param| (400, INVALID, Some("parameter_invalid_integer"), Some(param));
    let plain = |param| (400, INVALID, None, Some(param));
    let gone = |param| (400, INVALID, Some("resource_missing"), Some(param));
    let long = format!("metadata[{}]", "k".repeat(41));
    let far = usher_service::clock::now().seconds() + 800 * 24 * 60 * 60;

    let customers = [
        ("idempotency_key=k".into(), unknown("idempotency_key")),
        ("email=nobody".into(), (400, INVALID, Some("email_invalid"), Some("email"))),
        (
            format!("email={}%40work.test", "x".repeat(512)),
            (400, INVALID, Some("parameter_invalid_string"), Some("email")),
        ),
        (format!("name={}", "n".repeat(257)), (400, INVALID, Some("parameter_invalid_string"), Some("name"))),
        (format!("phone={}", "1".repeat(21)), (400, INVALID, Some("parameter_invalid_string"), Some("phone"))),
        ("expand=subscriptions".into(), plain("expand")),
        ("expand[]=nothing".into(), plain("expand")),
        ("email[a]=b".into(), plain("email")),
        ("metadata=x".into(), plain("metadata")),
        ("metadata[a][b]=c".into(), plain("metadata[a]")),
        (format!("{long}=c"), plain(&long)),
        (format!("metadata[k]={}", "v".repeat(501)), plain("metadata[k]")),
    ];
    for (form, expected) in customers {
        assert_eq!(bench.post("/v1/customers", "", &form).await.error(), expected, "{form}");
    }

    let subscriptions = [
        ("items[0][price]=price_1".into(), missing("customer")),
        (format!("customer={id}"), missing("items")),
        (format!("customer={id}&items[0][quantity]=1"), missing("items[0][price]")),
        (format!("{order}&items[0][plan]=x"), unknown("items[0][plan]")),
        (format!("{order}&trial_period_days=soon"), integer("trial_period_days")),
        (format!("{order}&trial_period_days=731"), integer("trial_period_days")),
        (format!("{order}&trial_period_days=7&trial_end=1"), plain("trial_end")),
        (format!("{order}&trial_end=1"), plain("trial_end")),
        (format!("{order}&trial_end={far}"), plain("trial_end")),
        (format!("{order}&payment_behavior=hope"), plain("payment_behavior")),
        (
            format!("{order}&trial_settings[end_behavior][missing_payment_method]=x"),
            plain("trial_settings[end_behavior][missing_payment_method]"),
        ),
        (format!("customer={id}&items[0][price]=gold&trial_period_days=7"), gone("items[0][price]")),
        ("customer=cus_none&items[0][price]=price_1".into(), gone("customer")),
        // Without a trial a payment method is required, and the customer has none.
        (order.clone(), gone("customer")),
    ];
    for (form, expected) in subscriptions {
        assert_eq!(bench.post("/v1/subscriptions", "", &form).await.error(), expected, "{form}");
    }
    for (path, expected) in
        [("limit=0", integer("limit")), ("limit=101", integer("limit")), ("query=x", unknown("query"))]
    {
        assert_eq!(bench.get(&format!("/v1/customers?{path}")).await.error(), expected, "{path}");
    }
    assert_eq!(bench.effects().len(), 1);
}

#[tokio::test]
async fn an_error_links_to_its_code_and_to_its_request() {
    let bench = LabBench::new().await;
    let reply = bench.get("/v1/customers/cus_none").await;
    assert_eq!(reply.error(), (404, INVALID, Some("resource_missing"), Some("id")));
    let error = &reply.body["error"];
    assert_eq!(error["doc_url"], "https://stripe.com/docs/error-codes/resource-missing");
    let request = reply.header("request-id").expect("a request id");
    assert!(error["request_log_url"].as_str().is_some_and(|url| url.ends_with(request)), "{error}");
}
