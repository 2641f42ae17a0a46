//! Connectors that build requests and send none. They rehearse flows before anything is configured.

use usher_service::ConfigError;
use usher_service::options::Environment;

use super::{CONNECTORS, Connectors, FROM, StepUse, http, open_with};

/// Opens the connectors that a flow uses with placeholder settings, to build its requests without sending them. `uses`
/// are its steps, each with its connector's name.
///
/// # Errors
///
/// A connector cannot be opened, although its settings are valid.
pub fn for_rehearsal(uses: &[(&str, StepUse<'_>)]) -> Result<Connectors, ConfigError> {
    usher_service::telemetry::install_tls();
    let placeholders = CONNECTORS.iter().flat_map(|spec| spec.placeholders);
    let environment = Environment::from_vars([(FROM, "Acme <hello@acme.test>")]);
    let environment = placeholders.fold(environment, |all, (name, value)| all.with(name, *value));
    let environment =
        http::rehearsal_secrets(uses).into_iter().fold(environment, |all, (name, value)| all.with(&name, value));
    let used: Vec<&str> = uses.iter().map(|(connector, _)| *connector).collect();
    open_with(&used, &environment, None)
}
