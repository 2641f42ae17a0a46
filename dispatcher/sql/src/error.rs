//! The errors of both databases in one type. Their texts hold no value that was to be written: see
//! [`fault`](crate::fault).

use std::error::Error as _;
use std::io;

use crate::fault;

/// A failure of a database or of the connection to it.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The database refuses the statement.
    #[error("{}", fault::describe_answer(.0))]
    Answer(DatabaseAnswer),
    /// The connection failed, or there is none.
    #[error("{}", fault::describe_io(.0))]
    Io(#[source] io::Error),
    /// No connection became free in time.
    #[error("no connection became free in time")]
    NoConnection,
    /// The connection cannot be secured.
    #[error("{0}")]
    Tls(String),
    /// The address has a setting that cannot be used.
    #[error("{0}")]
    Setting(String),
    /// A value cannot be sent as the parameter of this number.
    #[error("parameter {0} cannot be sent")]
    Parameter(usize),
    /// A column is missing or of another type.
    #[error("column {0} is missing or of another type")]
    Column(String),
    /// There is no row where one was expected.
    #[error("no row where one was expected")]
    NoRow,
    /// The driver or the server breaks the protocol.
    #[error("{0}")]
    Driver(String),
}

/// The answer of a database that refuses a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseAnswer {
    /// Its code.
    pub code: Code,
    /// Its words, which may repeat a value that was to be written.
    pub message: String,
    /// The constraint or the table that it concerns, if it names one.
    pub at: Option<String>,
}

/// The code of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// An SQLSTATE of Postgres.
    Sqlstate(String),
    /// An extended result code of SQLite.
    Sqlite(i32),
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlstate(code) => f.write_str(code),
            Self::Sqlite(code) => code.fmt(f),
        }
    }
}

impl From<tokio_postgres::Error> for SqlError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(answer) = error.as_db_error() {
            let at = answer.constraint().or(answer.table()).map(str::to_owned);
            let code = Code::Sqlstate(answer.code().code().to_owned());
            return Self::Answer(DatabaseAnswer { code, message: answer.message().to_owned(), at });
        }
        if error.is_closed() {
            return Self::Io(io::ErrorKind::ConnectionAborted.into());
        }
        // The kind of an error is only in its text.
        let text = error.to_string();
        let cause = error.source().map_or_else(String::new, |source| format!(": {source}"));
        if let Some(number) = text.strip_prefix("error serializing parameter ") {
            let number = number.split(':').next().and_then(|number| number.trim().parse::<usize>().ok());
            return Self::Parameter(number.map_or(0, |number| number + 1));
        }
        if text.starts_with("invalid configuration") || text.starts_with("authentication error") {
            return Self::Setting(format!("{text}{cause}"));
        }
        let is_tls = text.starts_with("error performing TLS handshake");
        match error.into_source().map(|source| source.downcast::<io::Error>()) {
            Some(Ok(io)) => Self::Io(*io),
            Some(Err(other)) if is_tls => Self::Tls(other.to_string()),
            Some(Err(_)) | None => Self::Driver(text),
        }
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        let answer = |code: i32, message: Option<String>| {
            let message = message.unwrap_or_else(|| rusqlite::ffi::code_to_str(code).to_owned());
            Self::Answer(DatabaseAnswer { code: Code::Sqlite(code), message, at: None })
        };
        match error {
            rusqlite::Error::SqliteFailure(failure, message) => answer(failure.extended_code, message),
            rusqlite::Error::SqlInputError { error, msg, .. } => answer(error.extended_code, Some(msg)),
            other => Self::Driver(other.to_string()),
        }
    }
}

impl From<io::Error> for SqlError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
