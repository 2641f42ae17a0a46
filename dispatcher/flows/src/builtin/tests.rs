//! Tests that each built-in flow passes its check and prepares a request from every event that Clerk may send.

mod starting;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use usher_connectors::{Connectors, StepInput};
use usher_engine::Run;
use usher_engine::field_diff::PreviousFields;
use usher_proto::Subject;
use usher_proto::{Event, EventId, Instance, Key, Source, SubjectId, Timestamp};
use usher_service::options::Environment;
use usher_sql::{Database, DatabaseAddress};

use super::*;
use crate::rehearsal::unbegun_run;
use crate::{Action, Context, Flow, PreviewEvent, evaluate, render};

const AT: Timestamp = Timestamp::from_millis(1_767_261_600_250);

/// Returns all samples: those used in the tests of keys, and those that `usher send` sends.
fn samples() -> Vec<(String, Value)> {
    let mut samples = Vec::new();
    for folder in ["../../ingest/tests/clerk", "../../clerk/src/samples"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(folder).expect("the samples are there") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read(&path).expect("a file");
            let sample: Value = serde_json::from_slice(&text).expect("JSON");
            if sample["type"].is_string() {
                samples.push((path.file_name().expect("a name").display().to_string(), sample));
            }
        }
    }
    assert!(samples.len() > 30, "{}", samples.len());
    samples
}

/// Returns variants of the sample: for each field that an event may lack, one without the field, one with null, and for
/// a string one with an empty string.
fn variants(sample: &Value) -> Vec<(String, Value)> {
    let mut variants = Vec::new();
    for field in sample["data"].as_object().expect("data").keys() {
        // The object of an event and the address of a mail are always present.
        if ["id", "object", "to_email_address"].contains(&field.as_str()) {
            continue;
        }
        let mut without = sample.clone();
        without["data"].as_object_mut().expect("data").remove(field);
        variants.push((format!("without {field}"), without));
        let mut valueless = vec![Value::Null];
        valueless.extend(sample["data"][field].is_string().then(|| json!("")));
        for value in valueless {
            let what = format!("{field} {value}");
            let mut sample = sample.clone();
            sample["data"][field] = value;
            variants.push((what, sample));
        }
    }
    variants
}

fn event(sample: &Value) -> Event {
    Event {
        id: EventId::new("msg_1"),
        kind: sample["type"].as_str().expect("a type").into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
        occurred_at: AT,
        received_at: AT,
        provenance: Vec::new(),
        body: Bytes::from(sample.to_string()),
    }
}

/// Returns a flow of the folder with examples.
fn example(name: &str, toml: &str) -> Flow {
    let (name, file) = (name.to_owned(), format!("flows/examples/{name}.toml"));
    let source = FlowSource { name, file, toml: toml.to_owned(), templates: BTreeMap::new() };
    let flow = Flow::check(source).expect("it checks");
    assert_eq!(flow.warnings, [], "nothing in it is doubtful");
    flow
}

fn flow(name: &str) -> Flow {
    let source = builtin().into_iter().find(|source| source.name == name).expect("a built-in flow");
    Flow::check(source).expect("it checks")
}

/// Returns connectors that send no requests.
fn connectors(flow: &Flow) -> Connectors {
    let environment = Environment::from_vars([
        ("USHER_FROM", "Acme <hello@acme.test>"),
        ("RESEND_API_KEY", "re_x"),
        ("SMTP_URL", "smtp://127.0.0.1:1"),
        ("STRIPE_SECRET_KEY", "sk_test_x"),
        ("STRIPE_PRICE_ID", "price_x"),
        ("MAILCHIMP_API_KEY", "x-us1"),
        ("MAILCHIMP_LIST_ID", "abc"),
        ("NOVU_SECRET_KEY", "x"),
        ("ALGOLIA_APP_ID", "X"),
        ("ALGOLIA_API_KEY", "x"),
        ("ALGOLIA_INDEX", "people"),
        ("CLERK_SECRET_KEY", "sk_test_x"),
        ("NYLAS_API_KEY", "x"),
        ("NYLAS_GRANT_ID", "x"),
    ]);
    usher_service::telemetry::install_tls();
    let used: Vec<&str> = flow.connectors().collect();
    let database = DatabaseAddress::parse("USHER_STORE", "sqlite:/nowhere/at/all.db").expect("an address");
    usher_connectors::open(&used, &environment, &Database::open(&database).expect("nothing is opened"))
        .expect("all is set")
}

/// Returns a run that has not executed any step.
fn run(flow: &Flow, event: &Event) -> Run {
    Run { flow_version: flow.version.clone(), ..unbegun_run(event) }
}

/// Returns the steps that send a request, each with its request. Empty if the flow does not start on the event.
fn requests(
    flow: &Flow,
    connectors: &Connectors,
    sample: &Value,
    subject: Option<&Subject>,
    before: Option<PreviousFields>,
) -> Result<BTreeMap<String, String>, String> {
    let event = event(sample);
    let mut requests = BTreeMap::new();
    if !flow.starts(&event) {
        return Ok(requests);
    }
    // Every step has a result, as if it had created an object.
    let results = (0..flow.steps.len()).map(|step| (step, json!({ "id": "cus_1" }))).collect();
    let run = Run { before, results, ..run(flow, &event) };
    let context = Context::new(flow, &run, subject).map_err(|error| error.to_string())?;
    let told = |error: &dyn std::fmt::Display| error.to_string();
    if !flow.wants(&context).map_err(|error| told(&error))? {
        return Ok(requests);
    }
    for step in &flow.steps {
        let Action::Call(call) = &step.action else { continue };
        let holds = |expression: &str| {
            evaluate(expression, &context).map(|value| value.is_some_and(|value| value.is_true())).map_err(|e| told(&e))
        };
        let due = step.when.as_deref().map_or(Ok(true), holds)?;
        let there = call.needs.as_ref().map_or(Ok(true), |needs| holds(&needs.value))?;
        if !due || !there {
            continue;
        }
        let mut context = context.clone();
        if call.marketing.is_some() {
            context.set_unsubscribe_url("https://acme.test/unsubscribe/x");
        }
        let mut params = render(flow, call, &context).map_err(|error| told(&error))?;
        usher_connectors::fit(&call.connector, &call.operation, &mut params).map_err(|error| told(&error))?;
        let inputs = StepInput { operation: &call.operation, params: &params, event: &event, known: None, rerun: 0 };
        let request = connectors[&call.connector].prepare(&inputs).map_err(|error| told(&error))?;
        requests.insert(step.name.clone(), String::from_utf8_lossy(&request).into_owned());
    }
    Ok(requests)
}

fn subject(snapshot: Option<&Value>) -> Subject {
    Subject { snapshot: snapshot.map(Value::to_string), deleted: snapshot.is_none(), revision: 1 }
}

/// Returns previous fields in which every field that the flow stores had another value.
fn all_changed(flow: &Flow) -> Option<PreviousFields> {
    let before = |field: &String| (field.clone(), if field == "email" { json!("old@mail.test") } else { json!(1) });
    let fields: Map<String, Value> = flow.remember.iter().map(before).collect();
    (!fields.is_empty()).then(|| PreviousFields { fields, changed: flow.remember.clone() })
}

#[test]
fn the_built_in_flows_pass_their_own_check() {
    for source in builtin() {
        let name = source.name.clone();
        if let Err(problems) = Flow::check(source) {
            panic!("{name}: {problems:?}");
        }
    }
}

#[tokio::test]
async fn every_flow_makes_its_requests_of_whatever_clerk_may_send() {
    let samples = samples();
    let person = samples.iter().find(|(name, _)| name == "user.created.json").expect("a person").1["data"].clone();
    let flows = builtin().into_iter().map(|source| Flow::check(source).expect("it checks"));
    // A scheduled flow starts on no event of Clerk.
    for flow in flows.filter(|flow| flow.schedule.is_none()) {
        let connectors = connectors(&flow);
        let mut asked = 0;
        for (name, sample) in samples.iter().filter(|(_, sample)| flow.starts_on(&event(sample))) {
            let mut ask = |variant: &str, sample: &Value, known: Option<Subject>, before| {
                let made = requests(&flow, &connectors, sample, known.as_ref(), before);
                asked += made.unwrap_or_else(|error| panic!("{} of {name} {variant}: {error}", flow.name)).len();
            };
            for known in [None, Some(subject(None)), Some(subject(Some(&person)))] {
                for before in [None, Some(PreviousFields::default()), all_changed(&flow)] {
                    ask("as it is", sample, known.clone(), before);
                }
            }
            for (variant, sample) in variants(sample) {
                ask(&variant, &sample, None, all_changed(&flow));
            }
        }
        let starts_on_clerk = flow.on.iter().any(|pattern| pattern.source() == Source::Clerk);
        assert!(asked > 0 || !starts_on_clerk, "{} does something", flow.name);
    }
}

fn sample(name: &str) -> Value {
    samples().into_iter().find(|(known, _)| known == name).expect("a sample").1
}

/// A person who signs up chooses both the name and the address that is written to.
#[tokio::test]
async fn no_built_in_mail_carries_an_advertisement_for_a_name() {
    let name = "Win $500 at https://evil.test";
    for (flow, kind, known) in [
        ("email", "user.created", false),
        ("onboarding", "user.created", false),
        ("account-security", "user.updated", true),
    ] {
        let flow = self::flow(flow);
        let connectors = connectors(&flow);
        let mails = |first_name: &str| {
            let mut sample = sample(&format!("{kind}.json"));
            sample["data"]["first_name"] = json!(first_name);
            requests(&flow, &connectors, &sample, None, all_changed(&flow).filter(|_| known)).expect("it renders")
        };
        assert!(mails("Zo\u{eb}").values().all(|mail| mail.contains("Zo\u{eb}")), "{}", flow.name);
        let advertising = mails(name);
        assert!(!advertising.is_empty());
        for (step, mail) in advertising {
            assert!(!mail.contains("evil") && !mail.contains("$500"), "{step}: {mail}");
        }
    }
}

#[test]
fn the_digest_asks_a_service_for_its_words_and_sends_them_to_those_who_want_them() {
    let flow = flow("digest");
    assert!(!flow.enabled, "it needs a service");
    let person = |digest: Value| {
        let mut person = sample("user.created.json")["data"].clone();
        person["public_metadata"] = json!({ "digest": digest });
        person.to_string()
    };
    let wants = [json!(true), json!(false), Value::Null].map(|digest| flow.selects(&person(digest)));
    assert_eq!(wants, [Ok(true), Ok(false), Ok(false)]);
    let firing = PreviewEvent::of_schedule(&flow).expect("it is scheduled");
    assert!(flow.starts(&firing.event));
    let words = |words: Value| {
        let results = BTreeMap::from([(0, words)]);
        let run = Run { results, ..run(&flow, &firing.event) };
        let known = Subject { snapshot: Some(person(json!(true))), deleted: false, revision: 1 };
        let mut context = Context::new(&flow, &run, Some(&known)).expect("a context");
        context.set_unsubscribe_url("https://acme.test/unsubscribe/x");
        let Action::Call(call) = &flow.steps[1].action else { panic!("it is a call") };
        let due = evaluate(flow.steps[1].when.as_deref().expect("a condition"), &context).expect("it is one");
        due.is_some_and(|due| due.is_true()).then(|| render(&flow, call, &context).expect("it renders"))
    };
    let mail = words(json!({ "subject": "Seven days", "html": "<b>News</b>", "text": "News & more" })).expect("a mail");
    assert_eq!(mail["subject"], "Seven days");
    for (part, content) in [("html", "<b>News</b>"), ("text", "News & more")] {
        let text = mail[part].as_str().expect("a text");
        assert!(text.contains(content) && text.contains("unsubscribe"), "{part}: {text}");
    }
    let plain = words(json!({ "subject": null, "html": null, "text": "News & <more>" })).expect("a mail");
    assert_eq!(plain["subject"], "Your week");
    assert!(plain["html"].as_str().expect("a text").contains("News &amp; &lt;more&gt;"), "it is escaped");
    assert_eq!(words(json!({ "subject": "Nothing", "html": null, "text": null })), None, "nothing to say");
}

#[test]
fn auth_email_takes_what_clerk_does_not_send_itself_and_lets_codes_expire() {
    let flow = flow("auth-email");
    let mail = |name: &str| event(&sample(&format!("email.created.{name}.json")));
    assert!(!flow.starts(&mail("verification_code.delivered-by-clerk")));
    for name in ["verification_code", "verification_code.sign-up-no-user", "magic_link_sign_in"] {
        assert!(flow.starts(&mail(name)));
        assert!(flow.expires_at(&mail(name)).is_some_and(|at| at.since(AT).as_secs() == 600), "{name}");
    }
    assert!(flow.starts(&mail("invitation.user-id-null")));
    assert_eq!(flow.expires_at(&mail("invitation.user-id-null")), None, "an invitation is worth something for long");
    let mut unknown = sample("email.created.verification_code.json");
    unknown["data"]["slug"] = Value::Null;
    assert!(flow.starts(&event(&unknown)) && flow.expires_at(&event(&unknown)).is_some(), "by the code in it");
}

#[tokio::test]
async fn auth_email_goes_by_another_destination_with_one_word() {
    let source = builtin().into_iter().find(|source| source.name == "auth-email").expect("it is built in");
    for connector in ["resend", "smtp", "nylas"] {
        let toml = source.toml.replace("\"resend.send\"", &format!("\"{connector}.send\""));
        let flow = Flow::check(FlowSource { toml, ..source.clone() }).expect("it checks");
        let made = requests(&flow, &connectors(&flow), &sample("email.created.json"), None, None).expect("a request");
        assert!(made["mail"].contains("nell.adeyemi@northwind.test"), "{connector}: {made:?}");
    }
}

#[tokio::test]
async fn account_security_writes_of_changes_only_and_to_the_former_address_too() {
    let flow = flow("account-security");
    let connectors = connectors(&flow);
    let sample = sample("user.updated.json");
    let steps = |fields: Value, changed: &[&str]| {
        let fields = fields.as_object().expect("fields").clone();
        let before = PreviousFields { fields, changed: changed.iter().map(|name| (*name).to_owned()).collect() };
        let made = requests(&flow, &connectors, &sample, None, Some(before)).expect("it renders");
        made.into_keys().collect::<Vec<_>>()
    };
    assert!(steps(json!({"email": "a@b.test"}), &[]).is_empty());
    assert_eq!(steps(json!({"email": "a@b.test"}), &["email"]), ["former-address", "notice"]);
    assert!(steps(json!({"email": null}), &["email"]).is_empty(), "the first address is no news to anybody");
    assert_eq!(steps(json!({"totp_enabled": false}), &["totp_enabled"]), ["notice"]);
}

#[tokio::test]
async fn the_customer_of_a_trial_is_updated_by_changes_of_address_or_name_only() {
    let flow = flow("trial");
    let connectors = connectors(&flow);
    let steps = |kind: &str, changed: &[&str]| {
        let mut sample = sample("user.updated.json");
        sample["type"] = json!(kind);
        let changed = changed.iter().map(|name| (*name).to_owned()).collect();
        let before = PreviousFields { fields: Map::new(), changed };
        let made = requests(&flow, &connectors, &sample, None, Some(before)).expect("it renders");
        made.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(steps("user.created", &[]), ["customer", "trial", "write-back"]);
    assert_eq!(steps("user.updated", &[]), [""; 0]);
    assert_eq!(steps("user.updated", &["email"]), ["update"]);
    assert_eq!(steps("user.updated", &["email", "name"]), ["update"]);
    assert_eq!(steps("user.deleted", &[]), ["end"]);
}

#[tokio::test]
async fn the_newsletter_takes_away_only_what_nobody_has_and_puts_back_what_somebody_has_got() {
    let flow = flow("newsletter");
    let steps = |kind: &str, changed: bool, used: bool, results: Value| {
        let mut sample = sample("user.updated.json");
        sample["type"] = json!(kind);
        let data =
            if kind == "user.deleted" { json!({ "object": "user", "deleted": true }) } else { sample["data"].take() };
        sample["data"] = data;
        let fields = json!({ "email": "old@mail.test" }).as_object().expect("fields").clone();
        let changed = changed.then(|| "email".to_owned()).into_iter().collect();
        let results = results.as_object().expect("results").iter();
        let results = results.map(|(step, result)| (step.parse().expect("a number"), result.clone())).collect();
        let run = Run { before: Some(PreviousFields { fields, changed }), results, ..run(&flow, &event(&sample)) };
        let mut context = Context::new(&flow, &run, None).expect("it reads");
        if used {
            context.set_address_still_used();
        }
        let due = |step: &&crate::FlowStep| {
            let value = evaluate(step.when.as_deref().expect("a condition"), &context).expect("it evaluates");
            value.is_some_and(|value| value.is_true())
        };
        flow.steps.iter().filter(due).map(|step| step.name.clone()).collect::<Vec<_>>()
    };
    let nothing = || json!({});
    assert_eq!(steps("user.updated", false, false, nothing()), [""; 0]);
    assert_eq!(steps("user.updated", true, false, nothing()), ["member", "former"]);
    assert_eq!(steps("user.updated", true, true, nothing()), ["member"], "somebody else has it");
    assert_eq!(steps("user.deleted", false, false, nothing()), ["former"]);
    assert_eq!(steps("user.deleted", false, true, nothing()), [""; 0]);
    let archived = json!({ "0": { "status": "pending" }, "1": { "status": "deleted" } });
    assert_eq!(steps("user.updated", true, true, archived.clone()), ["member", "again"]);
    assert_eq!(
        steps("user.updated", true, false, archived),
        ["member", "former"],
        "and so there is nobody to put back"
    );
    let moved = json!({ "0": { "status": "subscribed", "moved": true } });
    assert_eq!(steps("user.updated", true, true, moved), ["member", "again"]);
    assert_eq!(steps("user.deleted", false, true, json!({ "1": { "status": "deleted" } })), ["again"]);
}

/// A person of the newsletter by Resend: the flow's requests for what an event says and what was known before it.
#[tokio::test]
async fn the_newsletter_by_resend_takes_who_agrees_and_lets_go_who_does_not() {
    let flow = example("newsletter-resend", include_str!("../../../../flows/examples/newsletter-resend.toml"));
    let connectors = connectors(&flow);
    let ask = |kind: &str, agrees: Value, before: Value, changed: &[&str]| {
        let data = match kind {
            "user.deleted" => json!({ "object": "user", "id": "user_1", "deleted": true }),
            _ => json!({
                "object": "user", "id": "user_1", "primary_email_address_id": "idn_1", "first_name": "Ann", "last_name": null,
                "email_addresses": [{ "id": "idn_1", "email_address": "ann@mail.test" }],
                "unsafe_metadata": { "newsletter": agrees },
            }),
        };
        let fields = before.as_object().expect("fields").clone();
        let before = PreviousFields { fields, changed: changed.iter().map(|name| (*name).to_owned()).collect() };
        let sample = json!({ "type": kind, "data": data });
        let made = requests(&flow, &connectors, &sample, None, Some(before)).expect("nothing dies");
        let of = |(step, request): (String, String)| {
            let request: Value = serde_json::from_str(&request).expect("JSON");
            format!("{step}: {} {}", request["operation"], request["email"]).replace('"', "")
        };
        made.into_iter().map(of).collect::<Vec<_>>()
    };
    let agreed = || json!({ "email": "ann@mail.test", "unsafe_metadata": { "newsletter": true } });
    let contact = "contact: put_contact ann@mail.test";
    assert_eq!(ask("user.created", json!(true), json!({}), &[]), [contact]);
    assert_eq!(ask("user.created", Value::Null, json!({}), &[]), [""; 0]);
    assert_eq!(ask("user.updated", json!(true), agreed(), &[]), [""; 0], "a sign-in");
    assert_eq!(ask("user.updated", json!(true), json!({ "unsafe_metadata": {} }), &["unsafe_metadata"]), [contact]);
    let refused = "refused: delete_contact ann@mail.test";
    assert_eq!(ask("user.updated", json!(false), agreed(), &["unsafe_metadata"]), [refused]);
    let moved = json!({ "email": "old@mail.test", "unsafe_metadata": { "newsletter": true } });
    let former = "former: delete_contact old@mail.test";
    assert_eq!(ask("user.updated", json!(true), moved, &["email"]), [contact, former]);
    assert_eq!(ask("user.deleted", Value::Null, json!({ "email": "old@mail.test" }), &[]), [former]);
}

#[tokio::test]
async fn the_example_of_the_newsletter_passes_over_who_has_not_agreed() {
    let mut source = builtin().into_iter().find(|source| source.name == "newsletter").expect("a built-in flow");
    let example = "user.unsafe_metadata.newsletter == true";
    assert!(source.toml.contains(example), "the comment names it");
    source.toml = source.toml.replace("when  = \"user.email and", &format!("when  = \"{example} and user.email and"));
    let flow = Flow::check(source).expect("it checks");
    let connectors = connectors(&flow);
    for (metadata, is_member) in [
        (json!({ "unsafe_metadata": { "newsletter": true } }), true),
        (json!({ "unsafe_metadata": { "newsletter": false } }), false),
        (json!({ "unsafe_metadata": { "newsletter": "yes" } }), false),
        (json!({ "unsafe_metadata": {} }), false),
        (json!({ "unsafe_metadata": null }), false),
        (json!({}), false),
    ] {
        let mut data = json!({
            "object": "user", "id": "user_1", "primary_email_address_id": "idn_1", "first_name": "Ann", "last_name": null,
            "email_addresses": [{ "id": "idn_1", "email_address": "ann@mail.test" }],
        });
        data.as_object_mut().expect("an object").extend(metadata.as_object().expect("an object").clone());
        let sample = json!({ "type": "user.created", "data": data });
        let made = requests(&flow, &connectors, &sample, None, None).expect("nothing dies");
        assert_eq!(made.contains_key("member"), is_member, "{metadata}");
    }
}
