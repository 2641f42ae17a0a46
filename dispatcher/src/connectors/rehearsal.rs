//! Connectors that make requests and send none: flows are rehearsed with them before anything is configured.

use std::sync::Arc;

use usher_service::ConfigError;
use usher_service::options::Environment;

use super::{Connectors, FROM, database, open_with, webhook};

/// The connectors of a flow with settings that are none, to make its requests and send nothing.
///
/// # Errors
/// One cannot be made, whatever its settings.
pub(crate) fn for_rehearsal(flow: &crate::flows::Flow) -> Result<Connectors, ConfigError> {
    usher_service::telemetry::install_tls();
    let environment = webhook::named_secrets(flow)
        .fold(Environment::from_vars(REHEARSAL), |environment, variable| environment.with(&variable, REHEARSAL_SECRET));
    let used: Vec<&str> = flow.connectors().collect();
    open_with(&used, &environment, || Arc::new(database::Unconnected))
}

const REHEARSAL_SECRET: &str = "whsec_cmVoZWFyc2FsLXJlaGVhcnNhbC1yZWhlYXJzYWw=";

/// Settings of the right form of every connector that needs some.
const REHEARSAL: [(&str, &str); 15] = [
    (FROM, "Acme <hello@acme.test>"),
    ("RESEND_API_KEY", "re_rehearsal"),
    ("SMTP_URL", "smtp://127.0.0.1:1"),
    ("STRIPE_SECRET_KEY", "sk_test_rehearsal"),
    ("STRIPE_PRICE_ID", "price_rehearsal"),
    ("MAILCHIMP_API_KEY", "rehearsal-us1"),
    ("MAILCHIMP_LIST_ID", "abc"),
    ("NOVU_SECRET_KEY", "rehearsal"),
    ("ALGOLIA_APP_ID", "REHEARSAL"),
    ("ALGOLIA_API_KEY", "rehearsal"),
    ("ALGOLIA_INDEX", "people"),
    ("NYLAS_API_KEY", "rehearsal"),
    ("NYLAS_GRANT_ID", "rehearsal"),
    ("HTTP_SIGNING_SECRET", REHEARSAL_SECRET),
    // Addresses without TLS are fit or not by what they are.
    ("HTTP_ALLOW_PLAIN", "true"),
];
