//! Connectors that build requests and send none. They rehearse flows before anything is configured.

use std::sync::Arc;

use usher_service::ConfigError;
use usher_service::options::Environment;

use super::{Connectors, FROM, database, open_with, webhook};

/// Opens a flow's connectors with placeholder settings, to build its requests without sending them.
///
/// # Errors
///
/// A connector cannot be opened, although its settings are valid.
pub(crate) fn for_rehearsal(flow: &crate::flows::Flow) -> Result<Connectors, ConfigError> {
    usher_service::telemetry::install_tls();
    let environment = webhook::named_secrets(flow)
        .fold(Environment::from_vars(REHEARSAL), |environment, variable| environment.with(&variable, REHEARSAL_SECRET));
    let used: Vec<&str> = flow.connectors().collect();
    open_with(&used, &environment, || Arc::new(database::Unconnected))
}

const REHEARSAL_SECRET: &str = "whsec_cmVoZWFyc2FsLXJlaGVhcnNhbC1yZWhlYXJzYWw=";

/// Valid placeholder settings for every connector that needs some.
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
    // Allows `http://`, so that such an address is judged by its host alone.
    ("HTTP_ALLOW_PLAIN", "true"),
];
