//! Signing secrets, by the name that a flow gives them.

use std::collections::BTreeMap;

use usher_proto::signature::SigningSecret;
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::SPEC;
use crate::placeholder::named_in;
use crate::{PrepareError, StepUse};

/// Secret for receivers for which a flow names no other. With the suffix `_NAME`, the secret of `secret = "name"`.
pub(super) const SECRET: &str = "HTTP_SIGNING_SECRET";
/// A valid secret that signs nothing.
pub(crate) const REHEARSAL_SECRET: &str = "whsec_cmVoZWFyc2FsLXJlaGVhcnNhbC1yZWhlYXJzYWw=";

/// A value that may be the whole address of a request, or a part of any text.
const REHEARSAL_VALUE: &str = "https://rehearsal.invalid/secret";

/// Secrets by name. The secret without a name has the empty name.
pub(super) struct NamedSecrets(BTreeMap<String, Vec<SigningSecret>>);

impl NamedSecrets {
    /// Reads `HTTP_SIGNING_SECRET` and the variables that begin with `HTTP_SIGNING_SECRET_`.
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let mut secrets = BTreeMap::new();
        if let Some(text) = environment.get(SECRET)? {
            secrets.insert(String::new(), read(SECRET, &text)?);
        }
        for (name, text) in environment.with_prefix(&format!("{SECRET}_"))? {
            secrets.insert(name.to_ascii_lowercase(), read(&format!("{SECRET}_{name}"), &text)?);
        }
        Ok(Self(secrets))
    }

    /// Returns the secrets that sign under a name: several while one replaces another.
    pub(super) fn get(&self, name: Option<&str>) -> Result<&[SigningSecret], PrepareError> {
        let found = self.0.get(name.unwrap_or_default());
        found.map(Vec::as_slice).ok_or_else(|| PrepareError(format!("{} is not set", variable(name))))
    }
}

/// Returns the variable that holds the secret of this name.
pub(super) fn variable(secret: Option<&str>) -> String {
    secret.map_or_else(|| SECRET.to_owned(), |name| format!("{SECRET}_{}", name.to_ascii_uppercase()))
}

/// Returns variables for all secrets that steps name, with values that open nothing. `uses` are the steps, each with its
/// connector's name.
pub(crate) fn rehearsal_secrets(uses: &[(&str, StepUse<'_>)]) -> Vec<(String, &'static str)> {
    let of_ours = uses.iter().filter(|(connector, _)| *connector == SPEC.name);
    let mut secrets = Vec::new();
    for (_, used) in of_ours {
        secrets.extend(used.text("secret").map(|name| (variable(Some(name)), REHEARSAL_SECRET)));
        let named = used.params.values().flat_map(named_in);
        secrets.extend(named.map(|name| (name, REHEARSAL_VALUE)));
    }
    secrets
}

/// Parses the secrets in a variable, separated by spaces. Both sign while one replaces another.
fn read(variable: &str, text: &str) -> Result<Vec<SigningSecret>, ConfigError> {
    SigningSecret::parse_list(text).map_err(|error| ConfigError::new(variable, error))
}
