//! The life cycle of customers and subscriptions.

use serde_json::json;

use super::super::support::LabBench;

async fn customer(bench: &LabBench, form: &str) -> String {
    bench.post("/v1/customers", "", form).await.body["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_customer_is_created_read_changed_and_deleted() {
    let bench = LabBench::new().await;
    let form = "email=dana%40work.test&name=Dana&metadata[clerk_user_id]=user_1&metadata[plan]=trial\
                &preferred_locales[]=pt&address[city]=Porto";
    let made = bench.post("/v1/customers", "", form).await;
    assert_eq!(made.status, 200);
    let id = made.body["id"].as_str().expect("an id");
    assert!(id.starts_with("cus_") && id.len() == 18, "{id}");
    assert_eq!((&made.body["email"], &made.body["livemode"]), (&json!("dana@work.test"), &json!(false)));
    assert_eq!(made.body["metadata"], json!({"clerk_user_id": "user_1", "plan": "trial"}));
    assert_eq!(made.body["preferred_locales"], json!(["pt"]));
    assert_eq!(made.body["address"], json!({"city": "Porto"}));

    let path = format!("/v1/customers/{id}");
    assert_eq!(bench.get(&path).await.body, made.body);
    let changed = bench.post(&path, "", "name=&metadata[plan]=&metadata[seats]=3").await;
    assert_eq!(changed.body["name"], json!(null));
    assert_eq!(changed.body["metadata"], json!({"clerk_user_id": "user_1", "seats": "3"}));

    let gone = json!({"id": id, "object": "customer", "deleted": true});
    assert_eq!(bench.delete(&path).await.body, gone);
    let read = bench.get(&path).await;
    assert_eq!((read.status, read.body), (200, gone));
    assert_eq!(bench.delete(&path).await.error().2, Some("resource_missing"));
    assert_eq!(bench.post(&path, "", "name=x").await.status, 404);

    let effects = bench.effects();
    let operations: Vec<&str> = effects.iter().map(|effect| effect.operation.as_ref()).collect();
    assert_eq!(operations, ["customers.create", "customers.update", "customers.delete"]);
    for effect in &effects {
        assert_eq!((effect.user.as_deref(), effect.to.as_deref()), (Some("user_1"), Some("dana@work.test")));
    }
    assert_eq!(effects[0].body["metadata"]["plan"], "trial");
}

#[tokio::test]
async fn two_customers_may_share_an_address_and_are_found_by_its_exact_case() {
    let bench = LabBench::new().await;
    let first = customer(&bench, "email=dana%40work.test").await;
    let second = customer(&bench, "email=dana%40work.test").await;
    customer(&bench, "email=Dana%40work.test").await;
    let ids = async |query: &str| {
        let reply = bench.get(&format!("/v1/customers?{query}")).await;
        let data = reply.body["data"].as_array().expect("a list").clone();
        let ids: Vec<_> = data.iter().map(|customer| customer["id"].as_str().unwrap_or_default().to_owned()).collect();
        (ids, reply.body["has_more"] == true)
    };
    assert_eq!(ids("email=dana%40work.test").await, (vec![second.clone(), first.clone()], false));
    assert_eq!(ids("email=dana%40work.test&limit=1").await, (vec![second.clone()], true));
    let next = format!("email=dana%40work.test&limit=1&starting_after={second}");
    assert_eq!(ids(&next).await, (vec![first.clone()], false));
    assert_eq!(ids("email=DANA%40work.test").await, (vec![], false));

    bench.post(&format!("/v1/customers/{first}"), "", "email=lee%40work.test").await;
    bench.delete(&format!("/v1/customers/{second}")).await;
    assert_eq!(ids("email=dana%40work.test").await, (vec![], false));
    assert_eq!(ids("email=lee%40work.test").await, (vec![first], false));
    assert_eq!(ids("").await.0.len(), 2);
    assert_eq!(bench.get("/v1/customers?starting_after=cus_none").await.error().3, Some("starting_after"));
}

#[tokio::test]
async fn customers_are_found_by_metadata_once_the_index_has_them_and_listed_at_once() {
    let bench = LabBench::new().await;
    let wanted = customer(&bench, "metadata[clerk_user_id]=user_1&metadata[plan]=it%27s").await;
    customer(&bench, "metadata[clerk_user_id]=user_2&metadata[plan]=it%27s").await;
    let ids = async |query: &str| {
        let reply = bench.get(&format!("/v1/customers{query}")).await;
        let data = reply.body["data"].as_array().unwrap_or_else(|| panic!("a list: {reply:?}")).clone();
        data.iter().map(|customer| customer["id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let search = "/search?query=metadata%5B%27clerk_user_id%27%5D%3A%27user_1%27%20AND%20\
                  metadata%5B%27plan%27%5D%3A%27it%5C%27s%27";
    assert_eq!(ids(search).await, Vec::<String>::new(), "the index is not that fast");
    let now = usher_service::clock::now().seconds();
    assert_eq!(ids(&format!("?created[gte]={}&created[lte]={}", now - 60, now + 60)).await.len(), 2);
    assert_eq!(ids(&format!("?created[gt]={}", now + 60)).await.len(), 0);
    let found = async {
        while ids(search).await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), found).await.expect("the index follows");
    assert_eq!(ids(search).await, std::slice::from_ref(&wanted));
    bench.delete(&format!("/v1/customers/{wanted}")).await;
    assert_eq!(ids(search).await, Vec::<String>::new());
    assert_eq!(bench.get("/v1/customers/search?query=email:%27x%27").await.error().3, Some("query"));
}

#[tokio::test]
async fn a_trial_begins_now_and_ends_after_its_days() {
    let bench = LabBench::new().await;
    let id = customer(&bench, "email=dana%40work.test&metadata[clerk_user_id]=user_1").await;
    let form = format!(
        "customer={id}&items[0][price]=price_pro&trial_period_days=14&metadata[source]=usher\
         &trial_settings[end_behavior][missing_payment_method]=cancel"
    );
    let made = bench.post("/v1/subscriptions", "k1", &form).await;
    assert_eq!((made.status, &made.body["status"]), (200, &json!("trialing")), "{made:?}");
    let time = |name: &str| made.body[name].as_i64().expect("a time");
    assert_eq!(time("trial_end") - time("trial_start"), 14 * 24 * 60 * 60);
    assert_eq!(time("trial_start"), time("created"));
    let item = &made.body["items"]["data"][0];
    assert!(item["id"].as_str().is_some_and(|id| id.starts_with("si_")));
    assert_eq!((&item["price"]["id"], &item["current_period_end"]), (&json!("price_pro"), &made.body["trial_end"]));
    assert_eq!(made.body["trial_settings"]["end_behavior"]["missing_payment_method"], "cancel");

    let effect = bench.effects().pop().expect("an effect");
    assert_eq!(effect.operation, "subscriptions.create");
    assert_eq!((effect.user.as_deref(), effect.to.as_deref()), (Some("user_1"), Some("dana@work.test")));
    assert_eq!(effect.body["items"], json!([{"price": "price_pro"}]));
}

#[tokio::test]
async fn a_subscriptions_own_metadata_says_whose_it_is() {
    let bench = LabBench::new().await;
    let id = customer(&bench, "metadata[clerk_user_id]=user_1").await;
    let form = format!("customer={id}&items[0][price]=price_1&trial_period_days=1&metadata[clerk_user_id]=user_2");
    let made = bench.post("/v1/subscriptions", "", &form).await;
    bench.delete(&format!("/v1/subscriptions/{}", made.body["id"].as_str().expect("an id"))).await;
    let users: Vec<_> = bench.effects().iter().map(|effect| effect.user.clone()).collect();
    assert_eq!(users, [Some("user_1".into()), Some("user_2".into()), Some("user_2".to_owned())]);
}

#[tokio::test]
async fn a_subscription_is_listed_canceled_once_and_then_hidden() {
    let bench = LabBench::new().await;
    let id = customer(&bench, "name=Dana").await;
    let form = format!("customer={id}&items[0][price]=price_1&trial_period_days=1");
    let made = bench.post("/v1/subscriptions", "", &form).await;
    let path = format!("/v1/subscriptions/{}", made.body["id"].as_str().expect("an id"));
    assert_eq!(bench.get(&path).await.body, made.body);
    let listed = async |query: &str| {
        let reply = bench.get(&format!("/v1/subscriptions?customer={id}{query}")).await;
        reply.body["data"].as_array().map(Vec::len)
    };
    assert_eq!(listed("").await, Some(1));

    let canceled = bench.delete(&path).await;
    assert_eq!((canceled.status, &canceled.body["status"]), (200, &json!("canceled")));
    assert!(canceled.body["canceled_at"].is_i64());
    assert_eq!(bench.delete(&path).await.error().2, Some("resource_missing"));
    assert_eq!((listed("").await, listed("&status=all").await), (Some(0), Some(1)));
    assert_eq!(bench.get("/v1/subscriptions?customer=cus_none").await.error().3, Some("customer"));
}

#[tokio::test]
async fn without_a_trial_somebody_must_be_able_to_pay() {
    let bench = LabBench::new().await;
    let poor = customer(&bench, "name=Dana").await;
    let rich = customer(&bench, "name=Lee&payment_method=pm_card_visa").await;
    let status = async |form: String| {
        let reply = bench.post("/v1/subscriptions", "", &form).await;
        (reply.status, reply.body["status"].as_str().map(str::to_owned))
    };
    let order = |customer: &str, rest: &str| format!("customer={customer}&items[0][price]=price_1{rest}");
    assert_eq!(status(order(&poor, "")).await, (400, None));
    assert_eq!(status(order(&rich, "")).await, (200, Some("active".into())));
    assert_eq!(status(order(&rich, "&trial_end=now")).await, (200, Some("active".into())));
    let invoice = "&collection_method=send_invoice&days_until_due=14";
    assert_eq!(status(order(&poor, invoice)).await, (200, Some("active".into())));
    let later = "&payment_behavior=default_incomplete";
    assert_eq!(status(order(&poor, later)).await, (200, Some("incomplete".into())));
}

#[tokio::test]
async fn deleting_a_customer_cancels_its_subscriptions() {
    let bench = LabBench::new().await;
    let id = customer(&bench, "name=Dana").await;
    let form = format!("customer={id}&items[0][price]=price_1&trial_period_days=1");
    let made = bench.post("/v1/subscriptions", "", &form).await;
    bench.delete(&format!("/v1/customers/{id}")).await;
    let path = format!("/v1/subscriptions/{}", made.body["id"].as_str().expect("an id"));
    assert_eq!(bench.get(&path).await.body["status"], "canceled");
    assert_eq!(bench.post("/v1/subscriptions", "", &form).await.error().3, Some("customer"));
}

#[tokio::test]
async fn an_id_is_shown_as_its_object_where_that_is_asked_for() {
    let bench = LabBench::new().await;
    let id = customer(&bench, "email=dana%40work.test").await;
    let order = format!("customer={id}&items[0][price]=price_1&trial_period_days=7");
    let made = bench.post("/v1/subscriptions", "", &format!("{order}&expand[]=customer&expand[]=latest_invoice")).await;
    assert_eq!((&made.body["customer"]["id"], &made.body["customer"]["email"]), (&json!(id), &json!("dana@work.test")));
    assert_eq!(made.body["latest_invoice"]["object"], "invoice");
    let listed = bench.get("/v1/subscriptions?expand[]=data.customer").await;
    assert_eq!(listed.body["data"][0]["customer"]["id"], json!(id));
    assert_eq!(bench.get("/v1/subscriptions").await.body["data"][0]["customer"], json!(id));
    assert_eq!(bench.get("/v1/subscriptions?expand[]=customer").await.error().3, Some("expand"));
}

/// Checks the fields that Stripe's OpenAPI document requires, which its libraries read without checking
/// for their presence.
#[tokio::test]
async fn a_subscription_has_every_field_that_is_required() {
    let bench = LabBench::new().await;
    let id = customer(&bench, "email=dana%40work.test").await;
    let order = format!("customer={id}&items[0][price]=price_1&trial_period_days=7");
    let made = bench.post("/v1/subscriptions", "", &order).await.body;
    for field in ["automatic_tax", "billing_mode", "default_tax_rates", "discounts", "invoice_settings", "schedule"] {
        assert!(made.get(field).is_some(), "{field}");
    }
    let item = &made["items"]["data"][0];
    for field in ["billing_scheme", "created", "currency", "metadata", "product", "recurring", "type", "unit_amount"] {
        assert!(item["price"].get(field).is_some(), "{field}");
    }
    for field in ["discounts", "tax_rates", "billing_thresholds"] {
        assert!(item.get(field).is_some(), "{field}");
    }
}
