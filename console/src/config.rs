//! Settings of the console, read from the environment and checked.

use std::net::SocketAddr;

use axum::http::HeaderName;
use usher_service::options::Environment;
use usher_service::{ConfigError, Secret};

use crate::access::{AccessPolicy, AllowedHosts};

/// Name of a caller who needs no token, unless another one is set.
const ON_LOOPBACK: &str = "console";
/// Retention of ended runs, unless the dispatcher is told another one.
const RETENTION: &str = "35d";
/// Shortest token, in bytes: a guess must not succeed.
const SHORTEST_TOKEN: usize = 16;

/// Settings of the console.
#[derive(Debug, Clone)]
pub struct ConsoleConfig {
    pub(crate) access: AccessPolicy,
    /// Path below which the console is served: empty, or such as `/x/y`.
    pub(crate) base: String,
    /// Name of the environment, shown on every page.
    pub(crate) name: String,
    /// The retention of ended runs, in words.
    pub(crate) retention: String,
}

impl ConsoleConfig {
    /// Reads the settings of a console on a server that is bound to `address`.
    ///
    /// # Errors
    ///
    /// A setting is invalid, or its file cannot be read.
    pub fn new(address: SocketAddr, environment: &Environment) -> Result<Self, ConfigError> {
        let token = |name: &str| -> Result<Option<Secret>, ConfigError> {
            let Some(token) = environment.get(name)? else { return Ok(None) };
            if token.len() < SHORTEST_TOKEN || token.contains(|c: char| c.is_whitespace() || !c.is_ascii()) {
                let why = format!(
                    "at least {SHORTEST_TOKEN} characters of ASCII without blanks, such as `openssl rand -hex 24` prints"
                );
                return Err(ConfigError::new(name, why));
            }
            Ok(Some(Secret::new(token)))
        };
        let operator_token = token("USHER_CONSOLE_TOKEN")?;
        let reader_token = token("USHER_CONSOLE_READ_TOKEN")?;
        if reader_token.is_some() && reader_token == operator_token {
            return Err(ConfigError::new("USHER_CONSOLE_READ_TOKEN", "another one than USHER_CONSOLE_TOKEN is wanted"));
        }
        let user_header = environment.get("USHER_CONSOLE_USER_HEADER")?.map(|name| name.to_ascii_lowercase());
        if user_header.as_ref().is_some_and(|name| name.parse::<HeaderName>().is_err()) {
            let why = "it is the name of a header, such as X-Forwarded-User";
            return Err(ConfigError::new("USHER_CONSOLE_USER_HEADER", why));
        }
        let on_loopback = address.ip().is_loopback();
        let hosts = AllowedHosts::new(on_loopback, &list(environment.get("USHER_CONSOLE_HOSTS")?));
        let operators = list(environment.get("USHER_CONSOLE_OPERATORS")?);
        if !operators.is_empty() && user_header.is_none() {
            let why = "it names users of the header that USHER_CONSOLE_USER_HEADER names, which is not set";
            return Err(ConfigError::new("USHER_CONSOLE_OPERATORS", why));
        }
        Ok(Self {
            access: AccessPolicy {
                on_loopback,
                local_name: ON_LOOPBACK.to_owned(),
                operator_token,
                reader_token,
                user_header,
                operators,
                hosts,
            },
            base: base_path(environment.get("USHER_CONSOLE_BASE_PATH")?)?,
            retention: environment.get("USHER_RUN_RETENTION")?.unwrap_or_else(|| RETENTION.to_owned()),
            name: environment.get("USHER_CONSOLE_NAME")?.unwrap_or_else(|| address.to_string()),
        })
    }

    /// Sets the name under which the actions of callers without a token are recorded, on loopback.
    #[must_use]
    pub fn acting_as(mut self, name: &str) -> Self {
        self.access.local_name = name.to_owned();
        self
    }

    /// Returns where the console is, for the operator who starts the program, or why it is closed.
    pub fn describe_place(&self, address: SocketAddr) -> String {
        let place = format!("http://{address}{}/", self.base);
        let is_closed = !self.access.is_open() && !self.access.has_token() && self.access.user_header.is_none();
        if is_closed {
            format!("closed: {place} is not on loopback, and USHER_CONSOLE_TOKEN is not set")
        } else {
            place
        }
    }
}

/// Returns the parts of a list that commas or blanks separate.
fn list(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    text.split([',', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Returns the path below which the console is served, without a slash at its end.
fn base_path(text: Option<String>) -> Result<String, ConfigError> {
    let text = text.unwrap_or_default();
    let path = text.strip_suffix('/').unwrap_or(&text);
    let is_segment = |segment: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        !segment.is_empty() && segment.chars().all(is_plain) && segment.chars().any(|c| c != '.')
    };
    let is_path = path.is_empty() || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment));
    match is_path {
        true => Ok(path.to_owned()),
        false => Err(ConfigError::new("USHER_CONSOLE_BASE_PATH", "it is a path such as /usher or /x/y")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config<const N: usize>(variables: [(&str, &str); N]) -> Result<ConsoleConfig, String> {
        let address = "127.0.0.1:8081".parse().expect("an address");
        ConsoleConfig::new(address, &Environment::from_vars(variables)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_base_path_has_no_end_slash_and_nothing_that_leads_elsewhere() {
        for (text, base) in [("", ""), ("/", ""), ("/x/y", "/x/y"), ("/x/y/", "/x/y"), ("/a.b", "/a.b")] {
            assert_eq!(
                config([("USHER_CONSOLE_BASE_PATH", text)]).map(|config| config.base),
                Ok(base.to_owned()),
                "{text}"
            );
        }
        for text in ["x", "//evil.test", "/x//y", "/..", "/x/./y", "/x?y", "/x y", "https://evil.test", "/x\"y"] {
            assert!(config([("USHER_CONSOLE_BASE_PATH", text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused_and_not_repeated() {
        for name in ["USHER_CONSOLE_TOKEN", "USHER_CONSOLE_READ_TOKEN"] {
            for token in ["hidden", "hidden hidden hidden hidden", "hidden-hidden-hidden-\u{e9}"] {
                let error = config([(name, token)]).expect_err(token);
                assert!(error.starts_with(name) && !error.contains("hidden"), "{error}");
            }
        }
        let same = "0123456789abcdef";
        assert!(config([("USHER_CONSOLE_TOKEN", same), ("USHER_CONSOLE_READ_TOKEN", same)]).is_err());
        assert!(config([("USHER_CONSOLE_TOKEN", same)]).is_ok_and(|config| !config.access.is_open()));
        assert!(config([]).is_ok_and(|config| config.access.is_open()));
    }

    #[test]
    fn the_proxy_s_settings_belong_together() {
        assert!(config([("USHER_CONSOLE_OPERATORS", "ann")]).is_err());
        assert!(config([("USHER_CONSOLE_USER_HEADER", "X Forwarded")]).is_err());
        let both = config([("USHER_CONSOLE_USER_HEADER", "X-User"), ("USHER_CONSOLE_OPERATORS", "ann, bob")]);
        let access = both.expect("fine").access;
        assert_eq!((access.user_header.as_deref(), access.operators.len()), (Some("x-user"), 2));
        assert!(!access.is_open(), "loopback alone does not suffice behind a proxy");
    }
}
