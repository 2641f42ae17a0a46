//! Addresses of databases: the address as configured, its supported parameters, and its form in messages.

use std::fs::File;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use url::Url;
use usher_service::ConfigError;
use usher_service::Secret;

use super::connection::Target;
use super::fault::{self, DatabaseFault};
use super::postgres::{Host, PostgresAddress};
use super::tls::TlsMode;
use super::{Code, Dialect, MigrationError, SqlError};

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
/// Port of a server whose address names none.
const DEFAULT_PORT: u16 = 5432;
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
            if path.contains('?') {
                return Err(ConfigError::new(variable, "a SQLite file has no parameters: write sqlite:PATH"));
            }
            let url = format!("sqlite://{path}?mode=rwc");
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
        let mut url = Url::parse(text).map_err(|_| unreadable(variable))?;
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
        address.target().map_err(|error| ConfigError::new(variable, error.to_string()))?;
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

    /// Returns where the connections lead.
    ///
    /// # Errors
    ///
    /// A part of the address cannot be read.
    pub(super) fn target(&self) -> Result<Target, SqlError> {
        let text = self.url.expose();
        if let Some(path) = text.strip_prefix("sqlite://") {
            let (path, create) = match path.split_once('?') {
                Some((path, mode)) => (path, mode == "mode=rwc"),
                None => (path, false),
            };
            return Ok(Target::Sqlite { path: PathBuf::from(path), create });
        }
        let url = Url::parse(text).map_err(|_| unreadable_part("the address"))?;
        let settings = Dialect::settings(self.schema.as_deref()).into();
        Ok(Target::Postgres { address: Box::new(postgres_address(&url)?), settings })
    }

    /// Returns the path of a SQLite file that Usher creates if it does not exist; `None` for Postgres and for an
    /// address made by [`existing`](Self::existing).
    pub fn own_file(&self) -> Option<&Path> {
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

    /// Returns the schema of the tables; `None` if they are in the server's default schema.
    pub(super) fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Describes a problem in one line without secrets: setting, place, cause and remedy.
    pub fn complaint(&self, error: &SqlError) -> ConfigError {
        self.says(DatabaseFault::of(error), &error.to_string(), error)
    }

    /// Describes a problem during a migration in the same way.
    pub(crate) fn complaint_of_tables(&self, error: &MigrationError) -> ConfigError {
        let problem = error.to_string();
        match error {
            MigrationError::Database(inner) if DatabaseFault::of(inner) != DatabaseFault::Unclear => {
                self.says(DatabaseFault::of_migration(error), &problem, inner)
            }
            // SQLite has no specific code for a table that already exists.
            MigrationError::Database(_) => {
                ConfigError::new(&self.variable, format!("{}: {problem}; {}", self.place, self.foreign()))
            }
            MigrationError::Newer(_) | MigrationError::Changed(_) => {
                ConfigError::new(&self.variable, format!("{}: {problem}", self.place))
            }
        }
    }

    fn says(&self, fault: DatabaseFault, problem: &str, error: &SqlError) -> ConfigError {
        let place = &self.place;
        let text = match (fault, error) {
            (DatabaseFault::Damaged, _) => format!("{place}: {}", fault::damaged(problem)),
            (DatabaseFault::Transient, SqlError::Io(_) | SqlError::NoConnection) => {
                format!("no connection to {place}: {problem}")
            }
            (DatabaseFault::NeedsOperator, SqlError::Io(_) | SqlError::Tls(_)) => {
                let why =
                    "name the authority that signed the server's certificate with sslrootcert=PATH in the address";
                format!("{place}: the secure connection fails: {problem}; {why}")
            }
            (DatabaseFault::NeedsOperator, SqlError::Answer(answer)) => {
                format!("{place}: {problem}; {}", self.right(&answer.code))
            }
            _ => format!("{place}: {problem}"),
        };
        ConfigError::new(&self.variable, text)
    }

    /// Returns the remedy for an error code.
    fn right(&self, code: &Code) -> String {
        let schema = self.schema_variable();
        match code {
            Code::Sqlite(code) => match code & 0xff {
                14 => "its folder must exist and be writable".to_owned(),
                3 | 8 | 23 => "the file and its folder must be writable".to_owned(),
                _ => "see the server's log".to_owned(),
            },
            Code::Sqlstate(code) => match code.get(..2).unwrap_or_default() {
                "28" => "set a user and password that the server takes".to_owned(),
                "3D" => "create the database, or name one that exists".to_owned(),
                "3F" => format!("create the schema, or name another one with {schema}"),
                "42" if code == "42501" => {
                    format!("give the user the right to create there, or name a schema where it may with {schema}")
                }
                "42" => self.foreign(),
                _ => "see the server's log".to_owned(),
            },
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

fn unreadable_part(part: &str) -> SqlError {
    SqlError::Setting(format!("{part} cannot be read"))
}

/// Returns the folder of the socket of a server on this machine, or else the machine's name.
fn local_server(port: u16) -> String {
    let folders = ["/var/run/postgresql", "/private/tmp", "/tmp"];
    let has_socket = |folder: &&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    folders.into_iter().find(has_socket).unwrap_or("localhost").to_owned()
}

/// Escapes a part of the server's options, which are separated by spaces.
fn escaped(part: &str) -> String {
    part.replace('\\', "\\\\").replace(' ', "\\ ")
}

/// Reads the address of a server, with the names of parameters that libpq and its relatives use.
fn postgres_address(url: &Url) -> Result<PostgresAddress, SqlError> {
    let decoded = |part: &str, name: &str| {
        percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| unreadable_part(name))
    };
    let port = |text: &str| text.parse::<u16>().map_err(|_| unreadable_part("the port"));
    let host = |text: String| if text.starts_with('/') { Host::Unix(text.into()) } else { Host::Tcp(text) };
    let mut address = PostgresAddress {
        config: Config::new(),
        host: host(match url.host_str() {
            None | Some("") => local_server(url.port().unwrap_or(DEFAULT_PORT)),
            // An address of IPv6 stands in brackets.
            Some(name) => decoded(name, "the host")?.trim_matches(['[', ']']).to_owned(),
        }),
        port: url.port().unwrap_or(DEFAULT_PORT),
        tls: TlsMode::Prefer,
        authorities: None,
        identity: None,
    };
    let mut certificate = None;
    let mut key = None;
    let mut options = Vec::new();
    if !url.username().is_empty() {
        address.config.user(decoded(url.username(), "the user")?);
    }
    if let Some(password) = url.password() {
        address.config.password(decoded(password, "the password")?);
    }
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() {
        address.config.dbname(decoded(database, "the database")?);
    }
    for (name, value) in url.query_pairs() {
        let value = value.into_owned();
        match name.as_ref() {
            "sslmode" | "ssl-mode" => {
                address.tls = TlsMode::parse(&value).ok_or_else(|| {
                    SqlError::Setting(format!(
                        "{name} may be disable, allow, prefer, require, verify-ca or verify-full, not {value:?}"
                    ))
                })?;
            }
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => address.authorities = Some(value),
            "sslcert" | "ssl-cert" => certificate = Some(value),
            "sslkey" | "ssl-key" => key = Some(value),
            "host" | "hostaddr" => address.host = host(value),
            "port" => address.port = port(&value)?,
            "dbname" => drop(address.config.dbname(value)),
            "user" => drop(address.config.user(value)),
            "password" => drop(address.config.password(value)),
            "application_name" => drop(address.config.application_name(value)),
            "options" => options.push(value),
            name => {
                if let Some(setting) = name.strip_prefix("options[").and_then(|name| name.strip_suffix(']')) {
                    options.push(format!("-c {}={}", escaped(setting), escaped(&value)));
                }
            }
        }
    }
    if !options.is_empty() {
        address.config.options(options.join(" "));
    }
    address.identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(SqlError::Setting("sslcert and sslkey are given together".to_owned())),
    };
    address.config.ssl_mode(match address.tls {
        TlsMode::Off => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyAuthority | TlsMode::VerifyFull => SslMode::Require,
    });
    Ok(address)
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
        assert_eq!(Dialect::settings(other.schema()).last().expect("settings"), "search_path = \"a\"\"b\"");
        assert!(other != address && address == address.clone().named("DATABASE_URL"));
        let options = "postgres://h/d?options[search_path]=a,%20b&sslcert=/dev/null";
        assert!(DatabaseAddress::parse("USHER_STORE", options).is_err(), "a certificate without its key");
        let options =
            Url::parse("postgres://h/d?options[search_path]=a,%20b&SSLMODE=x&sslmode=Require").expect("a URL");
        let read = postgres_address(&options).expect("an address");
        assert_eq!((read.config.get_options(), read.tls), (Some("-c search_path=a,\\ b"), TlsMode::Require));
        for bad in ["", "pg_x", &"x".repeat(64)] {
            assert!(address.clone().in_schema("USHER_STORE_SCHEMA", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_has_no_schemas_and_a_certificate_that_is_not_there_is_said() {
        let file = DatabaseAddress::parse("USHER_STORE", "sqlite:/tmp/x.db").expect("an address");
        assert!(file.in_schema("USHER_STORE_SCHEMA", "usher").is_err());
        assert!(DatabaseAddress::parse("USHER_STORE", "sqlite:/tmp/x.db?mode=ro").is_err());
        let error = DatabaseAddress::parse("USHER_STORE", "postgres://h/d?sslrootcert=/nowhere/ca.pem");
        assert!(error.expect_err("no file").to_string().contains("/nowhere/ca.pem"));
    }

    #[test]
    fn a_complaint_names_setting_place_cause_and_remedy_and_no_password() {
        let address = DatabaseAddress::parse("USHER_STORE", "postgres://u:hunter2@h/d").expect("an address");
        let refused = SqlError::Io(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let text = address.complaint(&refused).to_string();
        assert_eq!(text, "USHER_STORE: no connection to h:5432/d: connection refused");
    }
}
