//! Rows of an answer, and the conversion of their columns.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::Value;
use tokio_postgres::types::Type;

use crate::SqlError;

/// One row. Its columns are read by name or by position, counted from 0.
#[derive(Debug)]
pub struct Row(pub(crate) Repr);

#[derive(Debug)]
pub(crate) enum Repr {
    Postgres(tokio_postgres::Row),
    Sqlite(Arc<[String]>, Vec<Value>),
}

/// The value of one column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ColumnValue<'a> {
    /// No value.
    Null,
    /// A number.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// The place of a column: its name or its position.
pub trait ColumnIndex: std::fmt::Display + Copy {
    /// Returns the position of the column among those with these names.
    fn find<'a>(self, names: impl Iterator<Item = &'a str>) -> Option<usize>;
}

impl ColumnIndex for usize {
    fn find<'a>(self, names: impl Iterator<Item = &'a str>) -> Option<usize> {
        (self < names.count()).then_some(self)
    }
}

impl ColumnIndex for &str {
    fn find<'a>(self, mut names: impl Iterator<Item = &'a str>) -> Option<usize> {
        names.position(|name| name == self)
    }
}

impl Row {
    /// Returns the value of a column.
    ///
    /// # Errors
    ///
    /// There is no such column, or its value is not of the type asked for.
    pub fn get<'a, T: FromColumn<'a>>(&'a self, column: impl ColumnIndex) -> Result<T, SqlError> {
        self.value(column).and_then(T::from_column).ok_or_else(|| SqlError::Column(column.to_string()))
    }

    /// Returns the value of a column; `None` if there is no such column, or its type is none that Usher uses.
    pub fn value(&self, column: impl ColumnIndex) -> Option<ColumnValue<'_>> {
        match &self.0 {
            Repr::Sqlite(names, values) => {
                let at = column.find(names.iter().map(String::as_str))?;
                Some(match values.get(at)? {
                    Value::Null => ColumnValue::Null,
                    Value::Integer(number) => ColumnValue::Int(*number),
                    Value::Text(text) => ColumnValue::Text(text),
                    Value::Blob(bytes) => ColumnValue::Bytes(bytes),
                    Value::Real(_) => return None,
                })
            }
            Repr::Postgres(row) => {
                let at = column.find(row.columns().iter().map(tokio_postgres::Column::name))?;
                postgres(row, at)
            }
        }
    }
}

fn postgres(row: &tokio_postgres::Row, at: usize) -> Option<ColumnValue<'_>> {
    let kind = row.columns().get(at)?.type_();
    let number = |value: Option<i64>| value.map_or(ColumnValue::Null, ColumnValue::Int);
    Some(match *kind {
        Type::INT8 => number(row.try_get(at).ok()?),
        Type::INT4 => number(row.try_get::<_, Option<i32>>(at).ok()?.map(i64::from)),
        Type::INT2 => number(row.try_get::<_, Option<i16>>(at).ok()?.map(i64::from)),
        Type::BOOL => number(row.try_get::<_, Option<bool>>(at).ok()?.map(i64::from)),
        Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR | Type::UNKNOWN => {
            row.try_get::<_, Option<&str>>(at).ok()?.map_or(ColumnValue::Null, ColumnValue::Text)
        }
        Type::BYTEA => row.try_get::<_, Option<&[u8]>>(at).ok()?.map_or(ColumnValue::Null, ColumnValue::Bytes),
        _ => return None,
    })
}

/// A type that a column can be read as.
pub trait FromColumn<'a>: Sized {
    /// Converts the value; `None` if it is of another type.
    fn from_column(value: ColumnValue<'a>) -> Option<Self>;
}

impl FromColumn<'_> for i64 {
    fn from_column(value: ColumnValue<'_>) -> Option<Self> {
        match value {
            ColumnValue::Int(number) => Some(number),
            _ => None,
        }
    }
}

impl FromColumn<'_> for i32 {
    fn from_column(value: ColumnValue<'_>) -> Option<Self> {
        i64::from_column(value)?.try_into().ok()
    }
}

impl FromColumn<'_> for bool {
    fn from_column(value: ColumnValue<'_>) -> Option<Self> {
        i64::from_column(value).map(|number| number != 0)
    }
}

impl<'a> FromColumn<'a> for &'a str {
    fn from_column(value: ColumnValue<'a>) -> Option<Self> {
        match value {
            ColumnValue::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl FromColumn<'_> for String {
    fn from_column(value: ColumnValue<'_>) -> Option<Self> {
        <&str>::from_column(value).map(str::to_owned)
    }
}

impl<'a> FromColumn<'a> for &'a [u8] {
    fn from_column(value: ColumnValue<'a>) -> Option<Self> {
        match value {
            ColumnValue::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

impl FromColumn<'_> for Vec<u8> {
    fn from_column(value: ColumnValue<'_>) -> Option<Self> {
        <&[u8]>::from_column(value).map(<[u8]>::to_vec)
    }
}

impl FromColumn<'_> for Bytes {
    fn from_column(value: ColumnValue<'_>) -> Option<Self> {
        <&[u8]>::from_column(value).map(Self::copy_from_slice)
    }
}

impl<'a, T: FromColumn<'a>> FromColumn<'a> for Option<T> {
    fn from_column(value: ColumnValue<'a>) -> Option<Self> {
        match value {
            ColumnValue::Null => Some(None),
            value => T::from_column(value).map(Some),
        }
    }
}

/// A tuple that a row can be read as, by position.
pub trait FromRow: Sized {
    /// Converts the row.
    ///
    /// # Errors
    ///
    /// A column is missing, or its value is not of the type asked for.
    fn from_row(row: &Row) -> Result<Self, SqlError>;
}

macro_rules! tuples {
    ($($($name:ident $at:tt),+;)*) => {
        $(impl<$($name: for<'a> FromColumn<'a>),+> FromRow for ($($name,)+) {
            fn from_row(row: &Row) -> Result<Self, SqlError> {
                Ok(($(row.get::<$name>($at)?,)+))
            }
        })*
    };
}

tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8;
}
