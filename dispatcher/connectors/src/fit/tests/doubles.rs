//! The doubles refuse the same values as the real destinations. They must accept every request that leaves, whatever
//! the descriptive texts contain.

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_engine::Outcome;
use usher_service::options::Environment;
use usher_sql::{Database, DatabaseAddress};

use super::*;
use crate::CallGate;
use crate::testing::prepare_once;

/// Parameters in which the destinations accept a text; `HERE` marks its place.
fn steps() -> Vec<(&'static str, &'static str, Value)> {
    let mail = json!({
        "to": ["HERE <dana@m\u{fc}nchen.test>", "a@b.test"], "from": "Acme <hello@acme.test>", "reply_to": "HERE <c@d.test>",
        "cc": "HERE <e@m\u{fc}nchen.test>", "bcc": ["HERE <f@b.test>"],
        "subject": "x HERE", "text": "x HERE", "html": "x HERE", "headers": { "X-Name": "HERE" },
    });
    let mut tagged = mail.clone();
    tagged["tags"] = json!({ "plan": "xHERE", "clerk_user_id": "user_1" });
    let customer = json!({
        "full_name": "x HERE", "email": "HERE <dana@m\u{fc}nchen.test>", "metadata": { "note": "HERE", "clerk_user_id": "user_1" },
    });
    let trigger = json!({
        "workflow": "w", "subscriber_id": "user_1", "email": "HERE <dana@m\u{fc}nchen.test>", "first_name": "HERE",
        "last_name": "HERE", "data": r#"{"a":1}"#, "payload": r#"{"a":1}"#,
    });
    let contact = json!({
        "email": "HERE <dana@m\u{fc}nchen.test>", "first_name": "HERE", "last_name": "HERE", "properties": { "note": "HERE" },
    });
    let subscriber = json!({
        "subscriber_id": "user_1", "email": "HERE <dana@m\u{fc}nchen.test>", "first_name": "HERE", "last_name": "HERE",
        "phone": null,
    });
    vec![
        ("resend", "send", tagged),
        ("smtp", "send", mail.clone()),
        ("nylas", "send", mail),
        ("stripe", "create_customer", customer),
        ("resend", "put_contact", contact),
        ("novu", "trigger", trigger),
        ("novu", "put_subscriber", subscriber),
        ("algolia", "save", json!({ "object_id": "user_1", "fields": { "name": "HERE" } })),
    ]
}

fn put(value: &mut Value, text: &str) {
    match value {
        Value::String(place) => *place = place.replace("HERE", text),
        Value::Array(items) => items.iter_mut().for_each(|item| put(item, text)),
        Value::Object(fields) => fields.values_mut().for_each(|field| put(field, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[tokio::test]
async fn what_leaves_is_taken_whatever_the_decoration_holds() {
    usher_service::telemetry::install_tls();
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let lab = usher_lab::Lab::start(listener, stop.clone()).expect("a lab");
    let own = Environment::from_vars([("RESEND_API_KEY", "re_lab"), ("STRIPE_SECRET_KEY", "sk_test_lab")]);
    let settings = usher_lab::settings(&lab.url()).into_iter();
    let bases = [("RESEND_BASE_URL", "resend"), ("STRIPE_BASE_URL", "stripe")];
    let bases = bases.map(|(name, provider)| (name, lab.base_url(provider).expect("it has one")));
    let environment = settings.fold(own, |all, (name, value)| all.with(name, value));
    let environment = bases.into_iter().fold(environment, |all, (name, value)| all.with(name, value));
    let environment = environment.with("SMTP_URL", lab.smtp_url());
    let database = DatabaseAddress::parse("USHER_STORE", "sqlite:/nowhere/at/all.db").expect("an address");
    let database = Database::open(&database).expect("nothing is opened");
    let mut rng = StdRng::seed_from_u64(16);
    for (name, operation, wanted) in steps() {
        let opened = crate::open(&[name], &environment, &database).expect("all is set");
        for n in 0..40 {
            // A header's value may contain a link and is never cut: a longer one is refused by name.
            let text = hostile(&mut rng);
            let mut params = wanted.clone();
            put(&mut params, &text);
            let place = format!("{name}.{operation} {params}");
            let fields = params.as_object_mut().expect("a table");
            if let Err(unfit) = fit(name, operation, fields) {
                assert!(unfit.what.starts_with("headers.X-Name is longer than"), "{unfit}: {place}");
                continue;
            }
            let request = prepare_once(&*opened[name], operation, &params, &Value::Null, 0).expect(&place);
            let outcome = opened[name].attempt(&request, &format!("key-{n}"), &CallGate::open()).await;
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}: {place}");
        }
    }
    stop.cancel();
}
