//! Variables of the environment that flow files name, as in `{{ setting.USHER_REPLIES_TO }}`. Their values become part of
//! requests, which are stored and shown to operators, so no secret can be named.

use std::collections::{BTreeMap, BTreeSet};

use usher_proto::Instance;
use usher_service::ConfigError;
use usher_service::options::{Environment, name_at};

/// The top-level name below which flow files name variables.
pub(super) const SETTING: &str = "setting";
/// The value of every variable in rehearsals. It is both a text and an address, because some become recipients.
const PLACEHOLDER: &str = "setting@usher.test";

/// The variables that a flow names, and their values at each of its instances.
#[derive(Debug, Clone, Default)]
pub struct FlowSettings {
    names: BTreeSet<String>,
    values: BTreeMap<Instance, BTreeMap<String, String>>,
}

impl FlowSettings {
    /// Creates the settings of these names, without values.
    pub(super) fn named(names: BTreeSet<String>) -> Self {
        Self { names, values: BTreeMap::new() }
    }

    /// The names of the variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Reads the values for these instances, in place of earlier ones. Returns the variables that are not set, as
    /// operators would have to set them: for an instance with its name at the end.
    ///
    /// # Errors
    ///
    /// The file that a variable names cannot be read.
    pub fn read(
        &mut self,
        instances: &BTreeSet<Instance>,
        environment: &Environment,
    ) -> Result<Vec<String>, ConfigError> {
        let mut missing = Vec::new();
        for instance in instances {
            let scoped = environment.scoped_to(instance.as_str());
            let mut values = BTreeMap::new();
            for name in &self.names {
                match scoped.named_by_flow(name)? {
                    Some(value) => {
                        values.insert(name.clone(), value);
                    }
                    None => missing.push(name_at(name, instance.as_str())),
                }
            }
            self.values.insert(instance.clone(), values);
        }
        Ok(missing)
    }

    /// Returns the values at an instance. A variable that is not set is absent.
    pub(super) fn of(&self, instance: &str) -> BTreeMap<String, String> {
        self.values.get(instance).cloned().unwrap_or_default()
    }

    /// Returns a placeholder for every variable.
    pub(super) fn placeholders(&self) -> BTreeMap<String, String> {
        self.names.iter().map(|name| (name.clone(), PLACEHOLDER.to_owned())).collect()
    }
}

/// Returns the reason for which a flow cannot name this variable; `None` if it can.
pub(super) fn objection(name: &str) -> Option<String> {
    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if !is_name {
        return Some(format!(
            "{SETTING}.{name} is no variable of the environment: its name has capital letters, digits and _"
        ));
    }
    usher_service::settings::is_for_itself(name).then(|| {
        let open = usher_service::settings::OPEN_TO_FLOWS.join(" and ");
        format!("{SETTING}.{name}: of Usher's own settings, flows may name {open} only; others may hold secrets")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_for_each_instance_and_what_is_missing_is_told_by_its_whole_name() {
        let instances: BTreeSet<Instance> = [Instance::default(), "staging".parse().expect("a name")].into();
        let mut settings = FlowSettings::named(["USHER_REPLIES_TO".to_owned(), "TEAM".to_owned()].into());
        let environment = Environment::from_vars([("USHER_REPLIES_TO", "help@acme.test"), ("TEAM_STAGING", "blue")]);
        assert_eq!(settings.read(&instances, &environment), Ok(vec!["TEAM".to_owned()]));
        assert_eq!(settings.of("default"), [("USHER_REPLIES_TO".into(), "help@acme.test".into())].into());
        // Settings of Usher itself hold at every instance that has none of its own.
        let both = [("TEAM".into(), "blue".into()), ("USHER_REPLIES_TO".into(), "help@acme.test".into())];
        assert_eq!(settings.of("staging"), both.into());
        let nothing = Environment::from_vars([("USHER_REPLIES_TO", "help@acme.test"), ("TEAM", "red")]);
        assert_eq!(settings.read(&instances, &nothing), Ok(vec!["TEAM_STAGING".to_owned()]));
        assert_eq!(settings.of("other"), BTreeMap::new());
    }

    #[test]
    fn what_may_hold_a_secret_cannot_be_named() {
        for name in ["USHER_REPLIES_TO", "USHER_FROM", "TEAM_CHANNEL"] {
            assert_eq!(objection(name), None, "{name}");
        }
        for name in ["STRIPE_SECRET_KEY", "STRIPE_SECRET_KEY_STAGING", "USHER_STORE", "DATABASE_URL", "team", "A-B", ""]
        {
            assert!(objection(name).is_some(), "{name}");
        }
    }
}
