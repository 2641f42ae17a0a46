//! A statement with its parameters, independent of the database that runs it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;

use crate::{Executor, FromRow, Row, SqlError};

/// The value of one parameter. Each has a fixed type in Postgres, so that a statement needs no description by the server.
#[derive(Clone, PartialEq)]
pub enum SqlParam {
    /// `bigint`.
    Int(Option<i64>),
    /// `text`.
    Text(Option<String>),
    /// `bytea`.
    Bytes(Option<Bytes>),
    /// A column of [`Rows`](crate::Rows): `bigint[]` in Postgres, one value a row in SQLite.
    Ints(Vec<Option<i64>>),
    /// A column of [`Rows`](crate::Rows): `text[]` in Postgres, one value a row in SQLite.
    Texts(Vec<Option<String>>),
    /// A column of [`Rows`](crate::Rows): `bytea[]` in Postgres, one value a row in SQLite.
    Blobs(Vec<Option<Bytes>>),
}

/// Shows no value: drivers write parameters to the log, and a value may be personal data.
impl fmt::Debug for SqlParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int(_) => "Int",
            Self::Text(_) => "Text",
            Self::Bytes(_) => "Bytes",
            Self::Ints(_) => "Ints",
            Self::Texts(_) => "Texts",
            Self::Blobs(_) => "Blobs",
        })
    }
}

impl SqlParam {
    /// Returns the number of rows of a column; `None` for a single value.
    fn rows(&self) -> Option<usize> {
        match self {
            Self::Int(_) | Self::Text(_) | Self::Bytes(_) => None,
            Self::Ints(values) => Some(values.len()),
            Self::Texts(values) => Some(values.len()),
            Self::Blobs(values) => Some(values.len()),
        }
    }
}

macro_rules! param {
    ($($from:ty => |$value:ident| $param:expr),* $(,)?) => {
        $(impl From<$from> for SqlParam {
            fn from($value: $from) -> Self {
                $param
            }
        })*
    };
}

param! {
    i64 => |value| Self::Int(Some(value)),
    i32 => |value| Self::Int(Some(i64::from(value))),
    Option<i64> => |value| Self::Int(value),
    &str => |value| Self::Text(Some(value.to_owned())),
    &String => |value| Self::Text(Some(value.clone())),
    String => |value| Self::Text(Some(value)),
    Option<&str> => |value| Self::Text(value.map(str::to_owned)),
    Option<String> => |value| Self::Text(value),
    &[u8] => |value| Self::Bytes(Some(Bytes::copy_from_slice(value))),
    Bytes => |value| Self::Bytes(Some(value)),
    Option<Bytes> => |value| Self::Bytes(value),
    Option<&[u8]> => |value| Self::Bytes(value.map(Bytes::copy_from_slice)),
}

/// A statement and its parameters. Parameters are numbered: `$1` is the first one bound, wherever it stands.
#[derive(Debug, Clone)]
pub struct SqlQuery {
    pub(crate) sql: Cow<'static, str>,
    pub(crate) params: Vec<SqlParam>,
    /// True if a connection keeps the statement prepared.
    pub(crate) is_prepared: bool,
}

/// Returns a statement without parameters.
pub fn query(sql: impl Into<Cow<'static, str>>) -> SqlQuery {
    SqlQuery { sql: sql.into(), params: Vec::new(), is_prepared: false }
}

impl SqlQuery {
    /// Adds the next parameter.
    #[must_use]
    pub fn bind(mut self, value: impl Into<SqlParam>) -> Self {
        self.params.push(value.into());
        self
    }

    /// Lets each connection keep the statement prepared. For a text that comes again and again.
    #[must_use]
    pub fn prepared(self) -> Self {
        Self { is_prepared: true, ..self }
    }

    /// Returns the number of rows of its columns; `None` if the statement has none and runs once in either database.
    pub(crate) fn rows(&self) -> Option<usize> {
        self.params.iter().find_map(SqlParam::rows)
    }

    /// Runs the statement and returns the number of rows that it changed.
    ///
    /// # Errors
    ///
    /// The database does not answer or refuses the statement.
    pub async fn execute(self, executor: impl Executor) -> Result<u64, SqlError> {
        Ok(executor.run(self).await?.changed)
    }

    /// Runs the statement and returns its rows.
    ///
    /// # Errors
    ///
    /// The database does not answer or refuses the statement.
    pub async fn fetch_all(self, executor: impl Executor) -> Result<Vec<Row>, SqlError> {
        Ok(executor.run(self).await?.rows)
    }

    /// Runs the statement and returns its first row; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The database does not answer or refuses the statement.
    pub async fn fetch_optional(self, executor: impl Executor) -> Result<Option<Row>, SqlError> {
        Ok(executor.run(self).await?.rows.into_iter().next())
    }

    /// Runs the statement and returns its first row.
    ///
    /// # Errors
    ///
    /// The database does not answer, refuses the statement, or finds no row.
    pub async fn fetch_one(self, executor: impl Executor) -> Result<Row, SqlError> {
        self.fetch_optional(executor).await?.ok_or(SqlError::NoRow)
    }
}

/// A statement whose rows are read as tuples.
#[derive(Debug, Clone)]
pub struct QueryAs<T> {
    query: SqlQuery,
    rows: PhantomData<fn() -> T>,
}

/// Returns a statement whose rows are read as tuples of `T`, by position.
pub fn query_as<T: FromRow>(sql: impl Into<Cow<'static, str>>) -> QueryAs<T> {
    QueryAs { query: query(sql), rows: PhantomData }
}

impl<T: FromRow> QueryAs<T> {
    /// Adds the next parameter.
    #[must_use]
    pub fn bind(self, value: impl Into<SqlParam>) -> Self {
        Self { query: self.query.bind(value), ..self }
    }

    /// Runs the statement and returns its rows.
    ///
    /// # Errors
    ///
    /// The database does not answer or refuses the statement, or a column is not of the type asked for.
    pub async fn fetch_all(self, executor: impl Executor) -> Result<Vec<T>, SqlError> {
        self.query.fetch_all(executor).await?.iter().map(T::from_row).collect()
    }

    /// Runs the statement and returns its first row; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The database does not answer or refuses the statement, or a column is not of the type asked for.
    pub async fn fetch_optional(self, executor: impl Executor) -> Result<Option<T>, SqlError> {
        self.query.fetch_optional(executor).await?.as_ref().map(T::from_row).transpose()
    }

    /// Runs the statement and returns its first row.
    ///
    /// # Errors
    ///
    /// The database does not answer, refuses the statement, or finds no row, or a column is not of the type asked for.
    pub async fn fetch_one(self, executor: impl Executor) -> Result<T, SqlError> {
        T::from_row(&self.query.fetch_one(executor).await?)
    }
}

/// The answer to a statement.
#[derive(Debug, Default)]
pub struct Answer {
    /// Its rows; none of a statement that returns nothing.
    pub rows: Vec<Row>,
    /// Number of rows that it changed.
    pub changed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_in_the_debug_form_of_a_statement() {
        let bound = query("SELECT $1, $2, $3").bind("dana@work.test").bind(b"secret".as_slice());
        let bound = bound.bind(SqlParam::Texts(vec![Some("dana@work.test".to_owned())]));
        let text = format!("{bound:?}");
        assert!(!text.contains("dana") && !text.contains("115") && text.contains("[Text, Bytes, Texts]"), "{text}");
    }
}
