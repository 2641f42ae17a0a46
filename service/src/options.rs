//! Options from the command line, the environment, and files named by the environment.
//!
//! Every option of Usher can also be set by an environment variable. A variable `X` can be given as `X_FILE`, which
//! names a file, as containers pass secrets. `clap` reads the first two; this module adds the third.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, error::ErrorKind};
use usher_proto::Instance;

use crate::ConfigError;
use crate::settings;

/// A snapshot of the environment. Reading `X` also resolves `X_FILE`.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Takes the environment of the process. Variables that are not UTF-8 are left out.
    #[expect(clippy::disallowed_methods, reason = "this function is the owner")]
    pub fn from_process() -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self { variables: std::env::vars_os().filter_map(text).collect() }
    }

    /// Creates an environment of exactly these variables, for tests and for processes that another program configures.
    pub fn from_vars<const N: usize>(variables: [(&str, &str); N]) -> Self {
        Self { variables: variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }

    /// Sets `name` to `value`, replacing any earlier value and `<name>_FILE`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.remove(&format!("{name}_FILE"));
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// Iterates over the variables that are not empty, without resolving files.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        text.filter(|(_, value)| !value.is_empty())
    }

    /// Returns the value of `name`, or the content of the file that `<name>_FILE` names, without trailing line ends.
    /// `None` if it is unset or empty. `name` must be in the list of settings, because every program refuses unknown
    /// names at its start and nobody could set it.
    ///
    /// # Errors
    ///
    /// Both `name` and `<name>_FILE` are set, or the file cannot be read.
    ///
    /// # Panics
    ///
    /// In debug builds, if `name` is not in the list of settings.
    pub fn get(&self, name: &str) -> Result<Option<String>, ConfigError> {
        debug_assert!(settings::is_known(name), "{name} is looked up and stands in no list of settings");
        self.value(name)
    }

    /// As [`Environment::get`], for a variable that a flow file names. Settings of Usher itself are not given out, but for
    /// those that are open to flows.
    ///
    /// # Errors
    ///
    /// Both `name` and `<name>_FILE` are set, or the file cannot be read.
    pub fn named_by_flow(&self, name: &str) -> Result<Option<String>, ConfigError> {
        if settings::is_for_itself(name) { Ok(None) } else { self.value(name) }
    }

    /// Returns the value of a variable that a flow names as a secret, or the content of the file that `<name>_FILE` names.
    /// `None` if it is unset or empty.
    ///
    /// # Errors
    ///
    /// The name is not one that a secret may have, both variables are set, or the file cannot be read. The error does not
    /// repeat the value.
    pub fn secret(&self, name: &str) -> Result<Option<String>, ConfigError> {
        settings::check_secret_name(name).map_err(|why| ConfigError::new(name, why))?;
        self.value(name)
    }

    /// As [`Environment::get`], for any name.
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

    /// Returns the environment of one instance of a sender. `X_<INSTANCE>` becomes `X`. Apart from `USHER_*` and
    /// addresses (`..._BASE_URL`) nothing is inherited, so an instance cannot use another's accounts. The default
    /// instance uses the plain names.
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

    /// Returns the variables whose names begin with `prefix`: the rest of the name, and the value with files resolved.
    ///
    /// # Errors
    ///
    /// A variable is set both directly and as `<name>_FILE`, or a file cannot be read.
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

/// Returns the name of an instance's variable: `name` for the default instance, and for another with its suffix.
pub fn name_at(name: &str, instance: &str) -> String {
    if instance == Instance::DEFAULT { name.to_owned() } else { format!("{name}{}", instance_suffix(instance)) }
}

/// Returns the suffix of an instance's environment variables: `_STAGING` for `staging`.
pub fn instance_suffix(instance: &str) -> String {
    format!("_{}", instance.to_uppercase().replace('-', "_"))
}

/// Parses the command line of the process into `T`. Environment variables and files replace options that are not given,
/// and misspelt variables are refused.
///
/// # Errors
///
/// The process must exit with the returned code: after the help text was requested and printed, or after an invalid
/// option or variable was reported.
pub fn parse<T: CommandFactory + FromArgMatches>(environment: &Environment) -> Result<T, u8> {
    parse_from(std::env::args_os(), environment)
}

/// Returns the name by which the process was started, without its folder. `None` if there is none, or it is not UTF-8.
pub fn program_name() -> Option<String> {
    let path = std::path::PathBuf::from(std::env::args_os().next()?);
    Some(path.file_name()?.to_str()?.to_owned())
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
        // A setting that seems to be missing may have been misspelt, so the unknown name is reported first.
        Err(unknown) if !asks_for_help => Err(clap::Error::raw(ErrorKind::InvalidValue, format!("{unknown}\n"))),
        _ => parsed,
    };
    parsed.map_err(|error| {
        // If the terminal is gone, the error cannot be printed.
        let _ = error.print();
        if error.use_stderr() { crate::exit::USAGE } else { crate::exit::OK }
    })
}

/// Makes the contents of files the defaults of the options that name a variable, in `command` and all its subcommands.
/// Help never shows the value of a variable, because some are secret.
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

/// True for variables that the shell sets and that serve as defaults of options.
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
