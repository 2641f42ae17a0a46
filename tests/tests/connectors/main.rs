//! Requirements for every HTTP connector: one suite, run against a server that misbehaves on request, and
//! against the lab.
#![allow(clippy::unwrap_used)]

mod log;
mod server;
mod subject;

mod addresses;
mod errors;
mod lab;
mod paths;
mod results;
mod specs;
mod states;
mod ugly;

/// Connectors without HTTP, which have suites of their own.
const ELSEWHERE: [&str; 2] = ["database", "smtp"];

#[test]
fn every_connector_is_under_test() {
    for usher_connectors::ConnectorSpec { name, .. } in usher_connectors::CONNECTORS {
        let tested = subject::SUBJECTS.iter().any(|subject| subject.name == *name);
        assert!(tested || ELSEWHERE.contains(name), "{name} is in no suite");
    }
}
