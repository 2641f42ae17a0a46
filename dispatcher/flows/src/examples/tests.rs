//! Tests that each example is a good flow whose requests the double of its service accepts.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use usher_clerk::event_types::EVENT_TYPES;
use usher_clerk::samples;
use usher_connectors::{CallGate, Connectors, StepInput};
use usher_engine::{Outcome, Run};
use usher_lab::{Filter, Lab, LabHandle};
use usher_proto::{Event, EventId, Instance, Key, Source, Subject, SubjectId, Timestamp};
use usher_service::options::Environment;
use usher_sql::{Database, DatabaseAddress};

use super::*;
use crate::rehearsal::unbegun_run;
use crate::{Action, Context, Flow, evaluate, render};

fn event(id: &str, sample: &Value) -> Event {
    Event {
        id: EventId::new(id),
        kind: sample["type"].as_str().expect("a type").into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
        occurred_at: Timestamp::from_millis(1_767_261_600_250),
        received_at: Timestamp::from_millis(1_767_261_600_250),
        provenance: Vec::new(),
        body: Bytes::from(sample.to_string()),
    }
}

fn run(flow: &Flow, event: &Event) -> Run {
    Run { flow_version: flow.version.clone(), ..unbegun_run(event) }
}

/// Returns the connectors of a flow with the lab's settings.
fn connectors(flow: &Flow, lab: &LabHandle) -> Connectors {
    usher_service::telemetry::install_tls();
    let settings = usher_lab::settings(&lab.url());
    let environment = settings.into_iter().fold(Environment::from_vars([]), |all, (name, value)| all.with(name, value));
    let used: Vec<&str> = flow.connectors().collect();
    let database = DatabaseAddress::parse("USHER_STORE", "sqlite:/nowhere/at/all.db").expect("an address");
    usher_connectors::open(&used, &environment, &Database::open(&database).expect("nothing is opened"))
        .expect("all is set")
}

/// Returns the requests of the steps that are due for a sample, each with its connector's name.
fn requests(flow: &Flow, connectors: &Connectors, id: &str, sample: &Value) -> Vec<(String, Vec<u8>)> {
    let event = event(id, sample);
    let user = json!({
        "id": "user_1", "object": "user", "first_name": "Nell", "last_name": null, "created_at": 1_767_261_600_250_u64,
        "primary_email_address_id": "idn_1", "email_addresses": [{ "id": "idn_1", "email_address": "nell@work.test" }],
    });
    let is_of_user = event.kind.starts_with("user.") && event.kind != "user.deleted";
    let subject = is_of_user.then(|| Subject { snapshot: Some(user.to_string()), deleted: false, revision: 1 });
    let context = Context::new(flow, &run(flow, &event), subject.as_ref()).expect("an event");
    let mut requests = Vec::new();
    for step in &flow.steps {
        let Action::Call(call) = &step.action else { continue };
        let holds = |when: &str| evaluate(when, &context).expect("it evaluates").is_some_and(|value| value.is_true());
        if !step.when.as_deref().is_none_or(holds) {
            continue;
        }
        let params = render(flow, call, &context).expect("it renders");
        let input = StepInput { operation: &call.operation, params: &params, event: &event, known: None, rerun: 0 };
        let request = connectors[&call.connector].prepare(&input).expect("a request");
        requests.push((call.connector.clone(), request));
    }
    requests
}

#[test]
fn every_example_is_a_good_flow_and_every_file_an_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../flows/examples");
    let files = std::fs::read_dir(folder).expect("the folder").count();
    assert_eq!(files, examples().len());
    for source in examples() {
        let file = source.file.clone();
        let flow = Flow::check(source).unwrap_or_else(|problems| panic!("{file}: {problems:?}"));
        let calls_http = flow.connectors().any(|connector| connector == "http");
        assert_eq!(
            flow.secrets().count() > 0,
            calls_http,
            "{file}: the key of a service without a connector is a secret"
        );
        let warnings: Vec<String> = flow.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, Vec::<String>::new(), "{file}");
    }
}

#[tokio::test]
async fn the_service_of_every_example_takes_what_it_sends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let stop = tokio_util::sync::CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let lab = Lab::start(listener, stop).expect("a lab");
    for source in examples() {
        let name = source.name.clone();
        let flow = Flow::check(source).expect("it checks");
        if flow.connectors().all(|connector| connector != "http") {
            // Its connector has its own tests.
            continue;
        }
        let connectors = connectors(&flow, &lab);
        for connector in connectors.values() {
            let uses: Vec<_> = flow.uses().map(|(_, used)| used).collect();
            connector.check(&uses).await.expect("the lab has its secrets");
        }
        let starts = |kind: &&&str| flow.on.iter().any(|pattern| pattern.takes(kind));
        let samples = EVENT_TYPES.iter().filter(starts).flat_map(|kind| samples::of_type(kind));
        let mut sent = 0;
        for (number, sample) in samples.enumerate() {
            for (connector, request) in requests(&flow, &connectors, &format!("msg_{name}_{number}"), &sample) {
                let key = format!("usher/{name}/step/msg_{number}/0");
                let outcome = connectors[&connector].attempt(&request, &key, &CallGate::open()).await;
                assert!(matches!(outcome, Outcome::Done(_)), "{name}: {sample}: {outcome:?}");
                sent += 1;
                // A repetition is a success, too, whether or not the service recognises it.
                let outcome = connectors[&connector].attempt(&request, &key, &CallGate::open()).await;
                assert!(matches!(outcome, Outcome::Done(_)), "{name}, again: {outcome:?}");
            }
        }
        let effects =
            lab.lab().effects(&Filter { provider: Some(name.clone()), ..Filter::default() }).expect("a double");
        let recognises = ["loops", "segment"].contains(&name.as_str());
        assert_eq!(effects.len(), if recognises { sent } else { 2 * sent }, "{name}");
        assert!(sent > 0, "{name}");
    }
}
