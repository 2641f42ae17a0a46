//! The signing secrets of a sender's instances, whatever the secrets' kind.

use std::collections::BTreeMap;
use std::fmt::Display;

use usher_proto::Instance;
use usher_service::ConfigError;
use usher_service::options::{Environment, instance_suffix};

use crate::error::Refusal;

/// Returns the setting of an instance's secrets: `variable`, and for a named instance its name behind it.
pub(crate) fn setting(variable: &str, instance: &Instance) -> String {
    match instance.is_default() {
        true => variable.to_owned(),
        false => format!("{variable}{}", instance_suffix(instance.as_str())),
    }
}

/// The signing secrets of a sender's instances.
#[derive(Clone)]
pub(super) struct InstanceSecrets<S>(BTreeMap<Instance, Vec<S>>);

impl<S> InstanceSecrets<S> {
    /// Reads `variable` for the default instance and `<variable>_<INSTANCE>` for each other instance. Each may hold
    /// several secrets, which `parse` reads. `None` if no secret is set.
    ///
    /// # Errors
    ///
    /// A secret or the name of an instance is invalid.
    pub(super) fn from_environment<E: Display>(
        variable: &str,
        environment: &Environment,
        parse: impl Fn(&str) -> Result<Vec<S>, E>,
    ) -> Result<Option<Self>, ConfigError> {
        let read = |variable: &str, text: &str| parse(text).map_err(|error| ConfigError::new(variable, error));
        let mut secrets = BTreeMap::new();
        if let Some(text) = environment.get(variable)? {
            secrets.insert(Instance::default(), read(variable, &text)?);
        }
        for (suffix, text) in environment.with_prefix(&format!("{variable}_"))? {
            let variable = format!("{variable}_{suffix}");
            let name = suffix.to_lowercase().replace('_', "-");
            let instance = name.parse().map_err(|error| ConfigError::new(&variable, error))?;
            secrets.insert(instance, read(&variable, &text)?);
        }
        Ok((!secrets.is_empty()).then_some(Self(secrets)))
    }

    /// Returns the setting of an instance's secrets, if it is not set.
    pub(super) fn unset(&self, variable: &str, instance: &Instance) -> Option<String> {
        (!self.0.contains_key(instance)).then(|| setting(variable, instance))
    }

    /// Returns the instance of this name and its secrets.
    ///
    /// # Errors
    ///
    /// No secret is configured for the instance.
    pub(super) fn of(&self, instance: &str) -> Result<(&Instance, &[S]), Refusal> {
        self.0.get_key_value(instance).map(|(name, secrets)| (name, secrets.as_slice())).ok_or(Refusal::NoSuchInstance)
    }
}
