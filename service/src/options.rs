//! Options from the command line, the environment, and files named by the environment.
//!
//! Every option of Usher is also a variable, and a variable `X` may be given as `X_FILE` naming a file, the way
//! containers hand over secrets. clap does the first two; this adds the third.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, error::ErrorKind};

use crate::ConfigError;
use crate::settings;
use usher_proto::Instance;

/// A snapshot of the environment in which `X_FILE` has been resolved to `X` on reading.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The process's own. Variables that are no UTF-8 are left out.
    pub fn from_process() -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self { variables: std::env::vars_os().filter_map(text).collect() }
    }

    /// Exactly these, for tests and for processes that are configured by another.
    pub fn from_vars<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self { variables: variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }

    /// With `name` set to `value`, whatever it was.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.remove(&format!("{name}_FILE"));
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// The variables that hold something, as they are set.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        text.filter(|(_, value)| !value.is_empty())
    }

    /// The value of `name`, or the content of the file that `<name>_FILE` names, without the line ends after it. Empty
    /// is unset. Giving both is an error, as is a file that cannot be read. A name that is not in the list of settings
    /// would be refused at the start of any program: nobody could give it.
    pub fn get(&self, name: &str) -> Result<Option<String>, ConfigError> {
        debug_assert!(settings::is_known(name), "{name} is looked up and stands in no list of settings");
        self.value(name)
    }

    /// See [`Environment::get`].
    pub(crate) fn value(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let filled = |name: &str| self.variables.get(name).filter(|value| !value.is_empty());
        let file_name = format!("{name}_FILE");
        match (filled(name), filled(&file_name)) {
            (Some(_), Some(_)) => Err(ConfigError::new(name, format!("set this or {file_name}, not both"))),
            (Some(value), None) => Ok(Some(value.clone())),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ConfigError::new(&file_name, format!("cannot read {path:?}: {error}")))?;
                Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()).filter(|text| !text.is_empty()))
            }
            (None, None) => Ok(None),
        }
    }

    /// What one of a sender's instances goes by: `X_<INSTANCE>` stands for `X`. Nothing else is there but addresses
    /// (`..._BASE_URL`) and what is Usher's own, so that one instance never uses another's accounts. The default instance
    /// goes by the plain names.
    #[must_use]
    pub fn scoped_to(&self, instance: &str) -> Self {
        if instance == Instance::DEFAULT {
            return self.clone();
        }
        let suffix = instance_suffix(instance);
        let in_file = format!("{suffix}_FILE");
        let shared = |name: &str| name.starts_with("USHER_") || name.contains("_BASE_URL");
        let mut variables = BTreeMap::new();
        for (name, value) in self.variables.iter().filter(|(name, _)| shared(name)) {
            variables.insert(name.clone(), value.clone());
        }
        let mut own = Self { variables };
        for (name, value) in &self.variables {
            if let Some(plain) = name.strip_suffix(&suffix) {
                own = own.with(plain, value.clone());
            } else if let Some(plain) = name.strip_suffix(&in_file) {
                own.variables.remove(plain);
                own.variables.insert(format!("{plain}_FILE"), value.clone());
            }
        }
        own
    }

    /// The variables whose names begin with `prefix`: what follows it, and the value, files resolved.
    pub fn with_prefix(&self, prefix: &str) -> Result<Vec<(String, String)>, ConfigError> {
        let mut found = Vec::new();
        for name in self.variables.keys().filter(|name| name.starts_with(prefix)) {
            let name = name.strip_suffix("_FILE").unwrap_or(name);
            if let (Some(rest), Some(value)) = (name.strip_prefix(prefix), self.value(name)?) {
                found.push((rest.to_owned(), value));
            }
        }
        found.dedup();
        Ok(found)
    }
}

/// What the names of an instance's variables end in: `_STAGING` for `staging`.
pub fn instance_suffix(instance: &str) -> String {
    format!("_{}", instance.to_uppercase().replace('-', "_"))
}

/// Parses the process's command line into `T`; variables and files stand in for options that are not given. Variables
/// that are misspelt are refused. Prints help or the error and says with which code to exit instead.
pub fn parse<T: CommandFactory + FromArgMatches>(environment: &Environment) -> Result<T, u8> {
    parse_from(std::env::args_os(), environment)
}

fn parse_from<T: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<T, u8> {
    let matches: Result<ArgMatches, clap::Error> = fill(T::command(), environment)
        .map_err(|bad| clap::Error::raw(ErrorKind::InvalidValue, format!("{bad}\n")))
        .and_then(|command| command.try_get_matches_from(arguments));
    let parsed = matches.and_then(|matches| T::from_arg_matches(&matches));
    let asks_for_help = parsed.as_ref().is_err_and(|error| !error.use_stderr());
    let parsed = match settings::refuse_unknown(environment) {
        // A name that seems to be missing may have been misspelt.
        Err(unknown) if !asks_for_help => Err(clap::Error::raw(ErrorKind::InvalidValue, format!("{unknown}\n"))),
        _ => parsed,
    };
    parsed.map_err(|error| {
        // Nothing sensible is left to do when the terminal itself is gone.
        let _ = error.print();
        if error.use_stderr() { crate::exit::USAGE } else { crate::exit::OK }
    })
}

/// Makes the files' contents the defaults of the options that name a variable, in `command` and all below it. The value
/// of a variable is never shown in help, for some are secret.
fn fill(mut command: Command, environment: &Environment) -> Result<Command, ConfigError> {
    let mut from_files = Vec::new();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_env().and_then(|name| name.to_str()) else { continue };
        debug_assert!(settings::is_known(name) || is_of_others(name), "{name} stands in no list of settings");
        let in_file = environment.variables.contains_key(&format!("{name}_FILE"));
        if let (true, Some(value)) = (in_file, environment.value(name)?) {
            from_files.push((argument.get_id().clone(), value));
        }
    }
    for (id, value) in from_files {
        command = command.mut_arg(id, |argument| argument.default_value(value).hide_default_value(true));
    }
    command = command.mut_args(|argument| argument.hide_env_values(true));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        let filled = fill(command.find_subcommand(&name).cloned().unwrap_or_default(), environment)?;
        command = command.mut_subcommand(&name, |_| filled);
    }
    Ok(command)
}

/// Variables that a shell sets, and options take up.
fn is_of_others(name: &str) -> bool {
    name == "USER"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser, Debug)]
    struct Options {
        #[arg(long, env = "USHER_TEST_OPTIONS", default_value = "fallback")]
        word: String,
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        file
    }

    #[test]
    fn a_file_stands_in_for_a_variable_and_loses_to_the_command_line() {
        let file = file("from the file\n");
        let environment =
            Environment::from_vars([("USHER_TEST_OPTIONS_FILE", file.path().to_str().expect("a UTF-8 path"))]);
        let parse = |arguments: &[&str]| {
            parse_from::<Options>(arguments.iter().map(OsString::from), &environment).expect("it parses").word
        };
        assert_eq!(parse(&["x"]), "from the file");
        assert_eq!(parse(&["x", "--word", "given"]), "given");
    }

    #[test]
    fn a_misspelt_variable_is_refused_and_help_is_still_shown() {
        let environment = Environment::from_vars([("USHER_FORM", "a")]);
        let parse = |arguments: &[&str]| parse_from::<Options>(arguments.iter().map(OsString::from), &environment);
        assert_eq!(parse(&["x"]).expect_err("refused"), crate::exit::USAGE);
        assert_eq!(parse(&["x", "--nonsense"]).expect_err("refused"), crate::exit::USAGE);
        assert_eq!(parse(&["x", "--help"]).expect_err("help"), crate::exit::OK);
    }

    #[test]
    fn a_variable_and_its_file_together_are_refused() {
        let environment = Environment::from_vars([("KEY", "a"), ("KEY_FILE", "/nowhere")]);
        let error = environment.value("KEY").expect_err("which of the two?");
        assert_eq!(error.to_string(), "KEY: set this or KEY_FILE, not both");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Environment::from_vars([("KEY_FILE", "/nowhere/at/all")]).value("KEY").expect_err("no such file");
        assert!(error.to_string().starts_with("KEY_FILE: cannot read \"/nowhere/at/all\""), "{error}");
    }

    #[test]
    fn an_empty_variable_is_unset() {
        assert_eq!(Environment::from_vars([("KEY", "")]).value("KEY").expect("fine"), None);
    }

    #[test]
    fn a_prefix_finds_values_and_files_once() {
        let file = file("two");
        let path = file.path().to_str().expect("a UTF-8 path");
        let environment = Environment::from_vars([("P_A", "one"), ("P_B_FILE", path), ("Q", "no")]);
        let found = environment.with_prefix("P_").expect("fine");
        assert_eq!(found, [("A".to_owned(), "one".to_owned()), ("B".to_owned(), "two".to_owned())]);
    }

    #[test]
    fn an_instance_has_what_is_its_own_and_no_account_of_another() {
        let secret = file("re_file\n");
        let environment = Environment::from_vars([
            ("RESEND_API_KEY", "re_live"),
            ("STRIPE_SECRET_KEY", "sk_live"),
            ("STRIPE_SECRET_KEY_PRE_VIEW", "sk_test"),
            ("RESEND_API_KEY_PRE_VIEW_FILE", secret.path().to_str().expect("a path")),
            ("RESEND_BASE_URL", "http://lab"),
            ("USHER_FROM", "hello@acme.test"),
        ]);
        let own = environment.scoped_to("pre-view");
        let get = |name: &str| own.get(name).expect("fine");
        assert_eq!(get("STRIPE_SECRET_KEY").as_deref(), Some("sk_test"));
        assert_eq!(get("RESEND_API_KEY").as_deref(), Some("re_file"));
        assert_eq!(
            (get("RESEND_BASE_URL").as_deref(), get("USHER_FROM").as_deref()),
            (Some("http://lab"), Some("hello@acme.test"))
        );
        assert_eq!(environment.scoped_to("staging").get("RESEND_API_KEY"), Ok(None));
        assert_eq!(environment.scoped_to("default").get("RESEND_API_KEY"), Ok(Some("re_live".to_owned())));
    }
}
