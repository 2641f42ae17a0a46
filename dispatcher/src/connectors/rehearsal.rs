//! Connectors that build requests and send none. They rehearse flows before anything is configured.

use usher_service::ConfigError;
use usher_service::options::Environment;

use super::{CONNECTORS, Connectors, FROM, open_with, webhook};

/// Opens a flow's connectors with placeholder settings, to build its requests without sending them.
///
/// # Errors
///
/// A connector cannot be opened, although its settings are valid.
pub(crate) fn for_rehearsal(flow: &crate::flows::Flow) -> Result<Connectors, ConfigError> {
    usher_service::telemetry::install_tls();
    let placeholders = CONNECTORS.iter().flat_map(|spec| spec.placeholders);
    let environment = Environment::from_vars([(FROM, "Acme <hello@acme.test>")]);
    let environment = placeholders.fold(environment, |all, (name, value)| all.with(name, *value));
    let environment =
        webhook::named_secrets(flow).fold(environment, |all, variable| all.with(&variable, webhook::REHEARSAL_SECRET));
    let used: Vec<&str> = flow.connectors().collect();
    open_with(&used, &environment, None)
}
