//! Connectors, one file and one folder per destination.
//!
//! A connector contains all knowledge about its destination and none about flows, retries or the store: it turns
//! parameters into an exact request, sends the request, and classifies the answer as an outcome. `<name>.rs` has the
//! [`ConnectorSpec`], the settings and the client; `<name>/request.rs` builds the request, `<name>/classify.rs` has the
//! meaning of the answers, and `<name>/lookup.rs` finds the effect of a request whose answer was lost. A new connector
//! also has its `mod` line, a line in [`CONNECTORS`], and lines in `limits.rs`: see docs/adding-a-destination.md.

mod call_gate;
mod connector;
mod spec;
mod step_input;

mod answer;
mod attachments;
mod client;
mod fit;
mod limits;
mod path;
mod placeholder;
mod rehearsal;
mod stored;

mod algolia;
mod clerk;
mod database;
mod http;
mod mailchimp;
mod novu;
mod nylas;
mod resend;
mod smtp;
mod stripe;

use std::time::Duration;

pub use call_gate::{CallGate, Observed, RequestGate};
pub use connector::{Connector, Connectors, Idempotency, Lookup, SubjectChange};
pub use database::USERS_TABLES;
pub use fit::Unfit;
pub use fit::{check, fit, phones};
pub use http::{AddressPart, address_parts};
pub use placeholder::{SECRETS, data_placeholder, secret_name, secret_placeholder};
pub use rehearsal::for_rehearsal;
pub use spec::HEADERS;
pub use spec::{ConnectorSpec, DefaultQuota, Operation, Param, ParamType};
use spec::{clearing, optional, optional_or, required};
pub use step_input::default_sender;
use step_input::{FROM, cannot_set, is_template, not_an_address};
pub use step_input::{PrepareError, StepInput, StepUse};
use usher_quota::Quota;
use usher_service::ConfigError;
use usher_service::options::Environment;
use usher_sql::Database;

/// Default time limit of one attempt as a whole; a step may set another one.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(30);

/// Time for which a destination is relied on to remember an idempotency key. Destinations promise a day; the difference
/// allows for clock skew.
const KEYS_LIVE: Duration = Duration::from_secs(23 * 3600);

/// All connectors.
pub const CONNECTORS: &[ConnectorSpec] = &[
    resend::SPEC,
    smtp::SPEC,
    stripe::SPEC,
    database::SPEC,
    http::SPEC,
    mailchimp::SPEC,
    novu::SPEC,
    algolia::SPEC,
    nylas::SPEC,
    clerk::SPEC,
];

/// Returns the connector of this name, or `None` if there is none.
pub fn spec(name: &str) -> Option<&'static ConnectorSpec> {
    CONNECTORS.iter().find(|spec| spec.name == name)
}

/// Returns the operations of all connectors, each with its connector's name.
pub fn operations() -> impl Iterator<Item = (&'static str, &'static Operation)> {
    CONNECTORS.iter().flat_map(|spec| spec.operations.iter().map(|operation| (spec.name, operation)))
}

/// Returns the connector's operation of this name, or `None` if there is none.
pub fn operation(connector: &str, name: &str) -> Option<&'static Operation> {
    spec(connector)?.operations.iter().find(|operation| operation.name == name)
}

/// Returns the names of the secrets that a step's parameters name, as the flow file has them.
pub fn secrets_of(params: &serde_json::Map<String, serde_json::Value>) -> std::collections::BTreeSet<String> {
    params.values().flat_map(placeholder::named_in).collect()
}

/// Returns the quota of a connector's account, and true if it is only assumed. Reads `<NAME>_QUOTA`.
///
/// # Errors
///
/// `<NAME>_QUOTA` is not a quota.
pub fn quota(connector: &str, environment: &Environment) -> Result<(Quota, bool), ConfigError> {
    let variable = format!("{}_QUOTA", connector.to_uppercase());
    let read = |text: &str| text.parse().map_err(|error| ConfigError::new(&variable, error));
    if let Some(text) = environment.get(&variable)? {
        return Ok((read(&text)?, false));
    }
    match spec(connector).and_then(|spec| spec.default_quota) {
        Some(DefaultQuota { limit, is_assumed }) => Ok((read(limit)?, is_assumed)),
        None => Ok(Default::default()),
    }
}

/// True if a connector is meant to be used: the environment has one of its settings, or it needs none.
///
/// # Errors
///
/// A setting cannot be read.
pub fn is_configured(connector: &str, environment: &Environment) -> Result<bool, ConfigError> {
    match spec(connector).and_then(|spec| spec.settings) {
        None => Ok(true),
        Some(prefix) if prefix.ends_with('_') => Ok(!environment.with_prefix(prefix)?.is_empty()),
        Some(name) => Ok(environment.get(name)?.is_some()),
    }
}

/// Opens the connectors that `used` names, each from its own settings. Missing settings are reported here, before
/// anything starts. `database` is the database that users are written to.
///
/// # Errors
///
/// A setting is missing or invalid, or a name is not a connector's.
pub fn open(used: &[&str], environment: &Environment, database: &Database) -> Result<Connectors, ConfigError> {
    open_with(used, environment, Some(database))
}

fn open_with(used: &[&str], environment: &Environment, database: Option<&Database>) -> Result<Connectors, ConfigError> {
    let open = |name: &&str| {
        let spec = spec(name).ok_or_else(|| ConfigError::new("use", format!("there is no connector {name}")))?;
        Ok(((*name).to_owned(), (spec.open)(environment, database)?))
    };
    used.iter().map(open).collect()
}

/// Returns the setting `name`, or an error with the description `what` if it is not set.
fn setting(environment: &Environment, name: &str, what: &str) -> Result<String, ConfigError> {
    environment.get(name)?.ok_or_else(|| ConfigError::new(name, format!("not set: {what}")))
}

#[cfg(test)]
mod testing;

/// Asserts that an outcome is a retry for this cause, or a rejection for this reason.
#[cfg(test)]
fn assert_outcome(
    outcome: &usher_engine::Outcome,
    expected: Result<usher_engine::Cause, usher_proto::Reason>,
    case: &str,
) {
    use usher_engine::Outcome;
    let found = match outcome {
        Outcome::Retry { cause, .. } => Some(Ok(*cause)),
        Outcome::Reject { reason, .. } => Some(Err(*reason)),
        Outcome::Done(_) | Outcome::Overtaken => None,
    };
    assert_eq!(found, Some(expected), "{case}");
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPT_DEADLINE, CONNECTORS, ConnectorSpec};

    /// Each connector has a section of its own.
    #[test]
    fn the_documentation_names_every_operation_parameter_and_variable() {
        let document = include_str!("../../../docs/destinations.md");
        for ConnectorSpec { name: connector, operations, .. } in CONNECTORS {
            let (_, section) = document.split_once(&format!("\n## `{connector}`\n")).expect(connector);
            let section = section.split("\n## ").next().unwrap_or_default();
            let named = |name: &str| section.contains(&format!("`{name}`"));
            for operation in *operations {
                assert!(named(&format!("{connector}.{}", operation.name)), "{connector}.{}", operation.name);
                for param in operation.params {
                    assert!(named(param.name), "{connector}.{}: {}", operation.name, param.name);
                    assert!(param.variable.is_none_or(named), "{connector}: {:?}", param.variable);
                }
                assert!(named("template") || !operation.takes_template, "{connector}: template");
            }
            for part in ["**Needed**", "**Does**", "**Limits**", "**Once**", "\n| answer | outcome |", "```toml"] {
                assert!(section.contains(part), "{connector}: {part}");
            }
        }
        assert!(document.contains(&format!("may take {} s", ATTEMPT_DEADLINE.as_secs())));
    }

    /// Returns the value of a variable that names a real service to test against. Panics if it is not set: a test
    /// that needs the service says so with `needs`, and is ignored without it.
    #[expect(clippy::disallowed_methods, reason = "a variable names the service to test against")]
    pub(super) fn real(variable: &str) -> String {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
        value.unwrap_or_else(|| panic!("{variable} is not set: it names what this test needs (docs/testing.md)"))
    }
}
