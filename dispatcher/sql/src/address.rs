//! Addresses of databases: the address as configured, its supported parameters, and its form in messages.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use sqlx::any::AnyConnectOptions;
use usher_service::ConfigError;
use usher_service::Secret;

use super::Dialect;
use super::fault::{self, DatabaseFault};

/// Parameters of a Postgres address that are supported: those of the driver, and [`SCHEMA`].
const UNDERSTOOD: [&str; 19] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    SCHEMA,
];
/// The supported parameters that name a file.
const FILES: [&str; 7] = ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];
/// The parameter that names the schema, spelled as other tools write it into an address.
const SCHEMA: &str = "schema";
/// Maximum length of a name in bytes. Postgres truncates longer names.
const MAX_NAME: usize = 63;

/// The address of a database: `postgres://...` or `sqlite:PATH`. Never printed, because it may contain a password.
#[derive(Debug, Clone)]
pub struct DatabaseAddress {
    pub(super) dialect: Dialect,
    pub(super) url: Secret,
    /// The schema of the tables. `None` if they are in the server's default schema.
    pub(super) schema: Option<String>,
    variable: String,
    place: String,
    ignored: Vec<String>,
}

/// Two addresses are equal if they name the same place; the variables that name it are not compared.
impl PartialEq for DatabaseAddress {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url && self.schema == other.schema
    }
}

impl Eq for DatabaseAddress {}

impl DatabaseAddress {
    /// Parses `text`, the value of the setting `variable`.
    ///
    /// # Errors
    ///
    /// The text is not the address of a database, or names a file that cannot be read.
    pub fn parse(variable: &str, text: &str) -> Result<Self, ConfigError> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Self::postgres(variable, text)
        } else if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            let path = path.strip_prefix("//").unwrap_or(path);
            let url = format!("sqlite://{path}?mode=rwc");
            if AnyConnectOptions::from_str(&url).is_err() {
                return Err(unreadable(variable));
            }
            Ok(Self {
                dialect: Dialect::Sqlite,
                url: Secret::new(url),
                schema: None,
                variable: variable.to_owned(),
                place: path.to_owned(),
                ignored: Vec::new(),
            })
        } else {
            Err(ConfigError::new(variable, "it may be postgres://user:password@host/database or sqlite:PATH"))
        }
    }

    fn postgres(variable: &str, text: &str) -> Result<Self, ConfigError> {
        let mut url = AnyConnectOptions::from_str(text).map_err(|_| unreadable(variable))?.database_url;
        let all: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let understood = |name: &str| UNDERSTOOD.contains(&name) || name.starts_with("options[");
        let (kept, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, _)| understood(name));
        let value = |name: &str| kept.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        for (name, path) in kept.iter().filter(|(name, _)| FILES.contains(&name.as_str())) {
            // The driver also accepts the text of a certificate.
            if !path.starts_with("-----BEGIN") {
                let problem = |error| ConfigError::new(variable, format!("{name}: cannot read {path:?}: {error}"));
                File::open(path).map_err(problem)?;
            }
        }
        let host = value("host").or(value("hostaddr")).or(url.host_str().map(str::to_owned));
        let port = value("port").or(url.port().map(|port| port.to_string()));
        let database = value("dbname").or(Some(url.path().trim_start_matches('/').to_owned()));
        let place = format!(
            "{}:{}/{}",
            host.filter(|host| !host.is_empty()).unwrap_or_else(|| "localhost".to_owned()),
            port.unwrap_or_else(|| "5432".to_owned()),
            database.unwrap_or_default()
        );
        let schema = value(SCHEMA);
        let rest: Vec<&(String, String)> = kept.iter().filter(|(name, _)| name != SCHEMA).collect();
        url.set_query(None);
        if !rest.is_empty() {
            url.query_pairs_mut().extend_pairs(rest);
        }
        let mut ignored: Vec<String> = others.into_iter().map(|(name, _)| name).collect();
        ignored.dedup();
        let url = Secret::new(url.as_str().to_owned());
        let address =
            Self { dialect: Dialect::Postgres, url, schema: None, variable: variable.to_owned(), place, ignored };
        match schema {
            None => Ok(address),
            Some(schema) => address.in_schema(variable, &schema),
        }
    }

    /// Returns the same address, with its tables in the schema that the setting `variable` names.
    ///
    /// # Errors
    ///
    /// The address is a SQLite file, which has no schemas, or Postgres does not accept the name.
    pub fn in_schema(self, variable: &str, schema: &str) -> Result<Self, ConfigError> {
        if self.dialect == Dialect::Sqlite {
            return Err(ConfigError::new(
                variable,
                format!("{} is a SQLite file, which has no schemas", self.variable),
            ));
        }
        if schema.is_empty() || schema.len() > MAX_NAME || schema.contains('\0') || schema.starts_with("pg_") {
            let why = format!("it is a name of 1 to {MAX_NAME} bytes that does not begin with pg_");
            return Err(ConfigError::new(variable, why));
        }
        Ok(Self { schema: Some(schema.to_owned()), ..self })
    }

    /// Returns the same address, named by another setting.
    #[must_use]
    pub fn named(self, variable: &str) -> Self {
        Self { variable: variable.to_owned(), ..self }
    }

    /// Returns the path of a SQLite file; `None` for Postgres.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let path = self.url.expose().strip_prefix("sqlite://")?;
        Some(PathBuf::from(path.split_once('?').map_or(path, |(path, _)| path)))
    }

    /// Returns the path of a SQLite file that Usher creates if it does not exist; `None` for Postgres and for an
    /// address made by [`existing`](Self::existing).
    pub(super) fn own_file(&self) -> Option<&Path> {
        self.url.expose().strip_prefix("sqlite://")?.strip_suffix("?mode=rwc").map(Path::new)
    }

    /// Returns the same address, but a file that does not exist is not created. Used to inspect the database
    /// of another application.
    #[must_use]
    pub fn existing(&self) -> Self {
        Self { url: Secret::new(self.url.expose().replace("?mode=rwc", "?mode=rw")), ..self.clone() }
    }

    /// Returns the name of the setting that contains the address.
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// Returns the names of the address's parameters that are ignored because they are not supported.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Returns the statement that makes the schema the search path of the session; empty without a schema.
    pub(super) fn search_path(&self) -> String {
        self.schema.as_deref().map(|schema| format!("SET search_path = {};", quoted(schema))).unwrap_or_default()
    }

    /// Describes a problem in one line without secrets: setting, place, cause and remedy.
    pub fn complaint(&self, error: &sqlx::Error) -> ConfigError {
        self.says(DatabaseFault::of(error), &fault::describe(error), error)
    }

    /// Describes a problem during a migration in the same way.
    pub(crate) fn complaint_of_tables(&self, error: &sqlx::migrate::MigrateError) -> ConfigError {
        let problem = fault::describe_migration(error);
        match (fault::root(error), DatabaseFault::of_migration(error)) {
            (Some(inner), fault) if DatabaseFault::of(inner) != DatabaseFault::Unclear => {
                self.says(fault, &problem, inner)
            }
            // SQLite has no specific code for a table that already exists.
            (Some(_), _) => ConfigError::new(&self.variable, format!("{}: {problem}; {}", self.place, self.foreign())),
            (None, _) => ConfigError::new(&self.variable, format!("{}: {problem}", self.place)),
        }
    }

    fn says(&self, fault: DatabaseFault, problem: &str, error: &sqlx::Error) -> ConfigError {
        let place = &self.place;
        let text = match (fault, error) {
            (DatabaseFault::Damaged, _) => format!("{place}: {}", fault::damaged(problem)),
            (DatabaseFault::Transient, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => {
                format!("no connection to {place}: {problem}")
            }
            (DatabaseFault::NeedsOperator, sqlx::Error::Io(_) | sqlx::Error::Tls(_)) => {
                let why =
                    "name the authority that signed the server's certificate with sslrootcert=PATH in the address";
                format!("{place}: the secure connection fails: {problem}; {why}")
            }
            (DatabaseFault::NeedsOperator, sqlx::Error::Database(database)) => {
                let code = database.code().unwrap_or_default();
                format!("{place}: {problem}; {}", self.right(&code))
            }
            _ => format!("{place}: {problem}"),
        };
        ConfigError::new(&self.variable, text)
    }

    /// Returns the remedy for an error code.
    fn right(&self, code: &str) -> String {
        let schema = self.schema_variable();
        let primary = code.parse::<i32>().map(|code| code & 0xff);
        match (code.get(..2).unwrap_or_default(), primary) {
            ("28", Err(_) | Ok(_)) if code.len() == 5 => "set a user and password that the server takes".to_owned(),
            ("3D", _) => "create the database, or name one that exists".to_owned(),
            ("3F", _) => format!("create the schema, or name another one with {schema}"),
            _ if code == "42501" => {
                format!("give the user the right to create there, or name a schema where it may with {schema}")
            }
            ("42", _) => self.foreign(),
            (_, Ok(14)) => "its folder must exist and be writable".to_owned(),
            (_, Ok(3 | 8 | 23)) => "the file and its folder must be writable".to_owned(),
            _ => "see the server's log".to_owned(),
        }
    }

    fn foreign(&self) -> String {
        let other = match self.dialect {
            Dialect::Postgres => format!("name a schema of Usher's own with {}", self.schema_variable()),
            Dialect::Sqlite => "name another file".to_owned(),
        };
        format!("its tables are not as Usher made them: {other}")
    }

    /// Returns the setting that names the schema of this address.
    fn schema_variable(&self) -> String {
        match self.variable.strip_prefix("DATABASE_URL") {
            Some(instance) => format!("DATABASE_SCHEMA{instance}"),
            None => "USHER_STORE_SCHEMA".to_owned(),
        }
    }
}

fn unreadable(variable: &str) -> ConfigError {
    ConfigError::new(variable, "the address cannot be read")
}

/// Quotes a name as an SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_are_not_understood_are_named_and_the_schema_is_taken() {
        let text = "postgres://u:p@h:6432/d?schema=usher&pgbouncer=true&connection_limit=5&sslmode=require";
        let address = DatabaseAddress::parse("USHER_STORE", text).expect("an address");
        assert_eq!(address.ignored(), ["pgbouncer", "connection_limit"]);
        assert_eq!(address.schema.as_deref(), Some("usher"));
        assert_eq!(address.url.expose(), "postgres://u:p@h:6432/d?sslmode=require");
        assert_eq!(address.place, "h:6432/d");
        let other = address.clone().in_schema("USHER_STORE_SCHEMA", "a\"b").expect("a name");
        assert_eq!(other.search_path(), "SET search_path = \"a\"\"b\";");
        assert!(other != address && address == address.clone().named("DATABASE_URL"));
        for bad in ["", "pg_x", &"x".repeat(64)] {
            assert!(address.clone().in_schema("USHER_STORE_SCHEMA", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_has_no_schemas_and_a_certificate_that_is_not_there_is_said() {
        let file = DatabaseAddress::parse("USHER_STORE", "sqlite:/tmp/x.db").expect("an address");
        assert!(file.in_schema("USHER_STORE_SCHEMA", "usher").is_err());
        let error = DatabaseAddress::parse("USHER_STORE", "postgres://h/d?sslrootcert=/nowhere/ca.pem");
        assert!(error.expect_err("no file").to_string().contains("/nowhere/ca.pem"));
    }

    #[test]
    fn a_complaint_names_setting_place_cause_and_remedy_and_no_password() {
        let address = DatabaseAddress::parse("USHER_STORE", "postgres://u:hunter2@h/d").expect("an address");
        let refused = sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let text = address.complaint(&refused).to_string();
        assert_eq!(text, "USHER_STORE: no connection to h:5432/d: connection refused");
    }
}
