//! The request of a step: from a run and its subject to the bytes that are stored and sent.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use usher_connectors::StepUse;
use usher_dispatcher::first_claims;
use usher_engine::Run;
use usher_flows::{Action, Flow, FlowSource};
use usher_proto::suppression::SuppressionEntry;
use usher_proto::{AddressDigest, Subject, SubjectId};
use usher_sql::{Database, DatabaseAddress};
use usher_store::{MailRecipients, SqlStore, StoreError, SubjectStore};

use crate::{Work, samples};

/// A flow with one request.
pub(crate) const HTTP: &str = r#"
on = ["clerk/user.*"]
[[step]]
name = "post"
use = "http.post"
url = "https://receiver.test/users"
body = { user = "{{ user.id }}", text = "a text of some length, as a small message has it" }
"#;

/// A flow with one mail.
pub(crate) const MAIL: &str = r#"
on = ["clerk/user.*"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "Welcome{% if user.first_name %}, {{ user.first_name }}{% endif %}"
html = "<html><body><h1>Hello {{ user.first_name or 'there' }}</h1><p>Your account {{ user.id }} is ready.</p></body></html>"
"#;

/// Knows nobody and suppresses nobody.
struct Nobody;

#[async_trait]
impl SubjectStore for Nobody {
    async fn subjects(&self, _: &[SubjectId]) -> Result<HashMap<SubjectId, Subject>, StoreError> {
        Ok(HashMap::new())
    }

    async fn is_used(&self, _: &SubjectId, _: AddressDigest) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn listed(&self, mails: &[MailRecipients]) -> Result<Vec<Vec<SuppressionEntry>>, StoreError> {
        Ok(vec![Vec::new(); mails.len()])
    }
}

pub(crate) fn work(flow: &str, times: usize) -> Work {
    let source =
        FlowSource { name: "flow".into(), file: "flow.toml".into(), toml: flow.to_owned(), templates: BTreeMap::new() };
    let flow = Arc::new(Flow::read(source).expect("a flow"));
    let Action::Call(call) = &flow.steps[0].action else { panic!("the step calls a connector") };
    let step =
        StepUse { flow: &flow.name, step: &flow.steps[0].name, operation: &call.operation, params: &call.params };
    let connectors = usher_connectors::for_rehearsal(&[(&call.connector, step)]).expect("connectors");

    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("sqlite:{}", folder.path().join("store.db").display());
    let address = DatabaseAddress::parse("USHER_STORE", &address).expect("an address");
    let database = Database::open(&address).expect("a file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    // Is asked for older versions of the flow, of which there are none.
    let store = runtime.block_on(SqlStore::open(database.clone(), 1)).expect("a store");
    // The maker starts a task that gathers what it reads.
    let _entered = runtime.enter();
    let maker = first_claims(flow.clone(), connectors, Arc::new(Nobody), Arc::new(store), &database);

    let body: Value = serde_json::from_slice(&samples::body()).expect("JSON");
    let subject = Subject { snapshot: Some(body["data"].to_string()), deleted: false, revision: 1 };
    let run = |number| samples::run(samples::event(number), number, &flow.version, &call.connector);
    let mut runs: Vec<Run> = (0..times).map(run).collect();
    Box::new(move || {
        let run = runs.pop().expect("one for each time");
        let claim = runtime.block_on(maker.first_claim(&run, Some(&subject)));
        black_box(claim.expect("the step makes a request"));
    })
}
