//! Properties that hold for every body, checked with random ones.

use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::{Value, json};
use usher_proto::{Json, Source};
use usher_senders::{nylas, resend, stripe};

/// A failing input is printed, and not stored in a file.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::with_cases(256) }
}

/// Any value, with the names that are looked for more often than by chance.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "(user|org|cus|in)_[a-z0-9]{1,4}".prop_map(Value::from),
        "[a-zA-Z]{1,3}@x\\.test".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        let names = [
            "object",
            "metadata",
            "clerk_user_id",
            "parent",
            "subscription_details",
            "customer",
            "lines",
            "data",
            "id",
            "client_reference_id",
            "from",
            "email",
            "grant_id",
            "tags",
            "email_id",
        ];
        let name = prop::sample::select(names.to_vec());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..5)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whoever_an_event_concerns_the_key_is_no_address_and_of_the_sender_or_of_clerk(data in value()) {
        let text = json!({ "object": data, "tags": data, "email_id": data }).to_string();
        let data = Json::read(&text);
        let kinds = ["message.created", "grant.expired"];
        let of_nylas = kinds.map(|kind| (Source::Nylas, nylas::owner(kind, data, "evt-1")));
        let others = [(Source::Stripe, stripe::owner(data, "evt_1")), (Source::Resend, resend::owner(data, "msg_1"))];
        for (source, owner) in of_nylas.into_iter().chain(others) {
            prop_assert!(!owner.key.as_str().is_empty() && !owner.key.as_str().contains('@'), "{:?}", owner);
            prop_assert!(owner.source == source || owner.source == Source::Clerk, "{:?}", owner);
        }
    }

    #[test]
    fn a_user_in_the_metadata_is_the_owner_whatever_else_is_there(mut object in value(), user in "user_[a-zA-Z0-9]{1,27}") {
        if !object.is_object() {
            object = json!({});
        }
        object["metadata"] = json!({ "clerk_user_id": user });
        let text = json!({ "object": object }).to_string();
        let owner = stripe::owner(Json::read(&text), "evt_1");
        prop_assert_eq!((owner.source, owner.key.as_str()), (Source::Clerk, user.as_str()));
    }
}
