//! The rows that a statement is run for. Postgres receives each column as an array and runs the statement once; SQLite runs
//! it once for each row. So there is one text for both, and the number of round trips does not depend on the number of rows.

use bytes::Bytes;

use crate::query::{SqlParam, SqlQuery};
use crate::{Dialect, query};

/// Rows, column by column, made of `items`.
pub struct Rows<'a, T> {
    items: &'a [T],
    columns: Vec<(&'static str, SqlParam)>,
}

impl<'a, T> Rows<'a, T> {
    /// Returns rows without columns, one for each item.
    pub const fn of(items: &'a [T]) -> Self {
        Self { items, columns: Vec::new() }
    }

    /// Adds a column of numbers.
    #[must_use]
    pub fn int<V: Into<Option<i64>>>(mut self, name: &'static str, value: impl Fn(&'a T) -> V) -> Self {
        let values = self.items.iter().map(|item| value(item).into()).collect();
        self.columns.push((name, SqlParam::Ints(values)));
        self
    }

    /// Adds a column of texts.
    #[must_use]
    pub fn text<V: IntoText>(mut self, name: &'static str, value: impl Fn(&'a T) -> V) -> Self {
        let values = self.items.iter().map(|item| value(item).into_text()).collect();
        self.columns.push((name, SqlParam::Texts(values)));
        self
    }

    /// Adds a column of bytes.
    #[must_use]
    pub fn bytes(mut self, name: &'static str, value: impl Fn(&'a T) -> Option<Bytes>) -> Self {
        self.columns.push((name, SqlParam::Blobs(self.items.iter().map(value).collect())));
        self
    }

    /// Returns the statement that `sql` writes for the rows, which it finds in the item `r` of its `FROM`. The parameters
    /// that all rows share come first: `$1` is the first of `shared`. The statement is prepared once for each connection.
    pub fn query(self, dialect: Dialect, shared: Vec<SqlParam>, sql: impl FnOnce(&str) -> String) -> SqlQuery {
        let first = shared.len() + 1;
        let column = |(at, (name, values)): (usize, &(&'static str, SqlParam))| match dialect {
            Dialect::Sqlite => format!("${} AS {name}", first + at),
            Dialect::Postgres => {
                let kind = match values {
                    SqlParam::Texts(_) | SqlParam::Text(_) => "text",
                    SqlParam::Blobs(_) | SqlParam::Bytes(_) => "bytea",
                    SqlParam::Ints(_) | SqlParam::Int(_) => "bigint",
                };
                format!("${}::{kind}[]", first + at)
            }
        };
        let columns: Vec<String> = self.columns.iter().enumerate().map(column).collect();
        let columns = columns.join(", ");
        let rows = match dialect {
            Dialect::Sqlite => format!("(SELECT {columns}) AS r"),
            Dialect::Postgres => {
                let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
                format!("unnest({columns}) AS r({})", names.join(", "))
            }
        };
        let mut query = query(sql(&rows)).prepared();
        query.params = shared;
        query.params.extend(self.columns.into_iter().map(|(_, values)| values));
        query
    }
}

/// A value of a column of texts.
pub trait IntoText {
    /// Returns the text; `None` for no value.
    fn into_text(self) -> Option<String>;
}

impl IntoText for String {
    fn into_text(self) -> Option<String> {
        Some(self)
    }
}

impl IntoText for &str {
    fn into_text(self) -> Option<String> {
        Some(self.to_owned())
    }
}

impl<T: IntoText> IntoText for Option<T> {
    fn into_text(self) -> Option<String> {
        self.and_then(IntoText::into_text)
    }
}
