//! The first requests of a flow's runs, made without a dispatcher around them: measurements count the work of one.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use usher_connectors::Connectors;
use usher_engine::clock::ClockState;
use usher_flows::Flow;
use usher_service::Readiness;
use usher_service::options::Environment;
use usher_sql::{Database, Outage};
use usher_store::{FirstClaims, FlowStore, SubjectStore};

use super::execute::RequestMaker;
use super::gathered_read;
use super::versions::Versions;

/// Returns the maker of a flow's first requests, with the code that a dispatcher makes them with. Nobody's address is
/// suppressed by a setting. `people` answers for subjects and suppressions, `flows` for older versions of the flow, and failures
/// of either count as an outage of `database`.
pub fn first_claims(
    flow: Arc<Flow>,
    connectors: Connectors,
    people: Arc<dyn SubjectStore>,
    flows: Arc<dyn FlowStore>,
    database: &Database,
) -> Arc<dyn FirstClaims> {
    Arc::new(RequestMaker {
        versions: Versions::new(flow, flows, Environment::from_vars([])),
        suppressions: gathered_read::suppressions(people.clone()),
        people,
        connectors: Arc::new(connectors),
        suppression: Arc::default(),
        clock: watch::Sender::new(ClockState::Right).subscribe(),
        wait_speed: 1,
        outage: Outage::of(database, "store", Readiness::needing(["store"])),
        stop: CancellationToken::new(),
    })
}
