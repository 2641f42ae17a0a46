//! Classification of database errors. The class decides between retrying, giving up one record, and reporting the
//! problem to an operator.
//!
//! Facts: SQLSTATE classes from PostgreSQL's documentation, appendix A; SQLite's result codes from
//! sqlite.org/rescode.html. The lower eight bits of an extended code are the primary code.

use std::io;

use super::{Code, DatabaseAnswer, MigrationError, SqlError};

/// The class of a database error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatabaseFault {
    /// No connection, a lock, a full disk. Retried for as long as it lasts.
    Transient,
    /// The database will never accept this data. A retry cannot succeed, but other data is still accepted.
    Refused,
    /// An operator must correct it: a password, a privilege, tables that are not as Usher created them.
    NeedsOperator,
    /// The file is damaged or is not a database. This cannot be corrected while the process runs.
    Damaged,
    /// The code does not determine the class. Treated as transient, until one record is refused again after the store
    /// has accepted a write without records.
    Unclear,
}

impl DatabaseFault {
    /// Returns the class of an error.
    pub fn of(error: &SqlError) -> Self {
        match error {
            SqlError::Answer(DatabaseAnswer { code: Code::Sqlstate(code), .. }) => Self::of_sqlstate(code),
            SqlError::Answer(DatabaseAnswer { code: Code::Sqlite(code), .. }) => Self::of_sqlite(*code),
            // An unverifiable certificate is reported as invalid data of the stream.
            SqlError::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::NeedsOperator,
            SqlError::Io(_) | SqlError::NoConnection => Self::Transient,
            SqlError::Tls(_) | SqlError::Setting(_) => Self::NeedsOperator,
            // Raised because of the values, before anything is sent.
            SqlError::Parameter(_) => Self::Refused,
            SqlError::Column(_) | SqlError::NoRow | SqlError::Driver(_) => Self::Unclear,
        }
    }

    /// Returns the class of an error during a migration. No data is written then, so errors that would otherwise be
    /// refused or unclear are a matter of the setting.
    pub fn of_migration(error: &MigrationError) -> Self {
        match error {
            MigrationError::Database(inner) => match Self::of(inner) {
                fault @ (Self::Transient | Self::Damaged) => fault,
                Self::Refused | Self::NeedsOperator | Self::Unclear => Self::NeedsOperator,
            },
            MigrationError::Newer(_) | MigrationError::Changed(_) => Self::NeedsOperator,
        }
    }

    /// Returns the class of an SQLSTATE.
    pub fn of_sqlstate(code: &str) -> Self {
        match (code.get(..2).unwrap_or_default(), code) {
            // `25006`, a read-only transaction: the server is currently a standby. `25P02`, a failed transaction: the
            // first error counts.
            (_, "25006" | "25P02") => Self::Transient,
            // Connection; prepared statements that a pooler has lost; rollback; resources; object not in the required
            // state; intervention of an operator; system error; snapshot too old; transaction state.
            ("08" | "26" | "40" | "53" | "55" | "57" | "58" | "72" | "25", _) => Self::Transient,
            // Cardinality; data; constraint; check option of a view; program limits, such as the size of an index row.
            ("21" | "22" | "23" | "44" | "54", _) => Self::Refused,
            // Invalid authorisation; no such role, database or schema; access rules and names;
            // the server's configuration.
            ("0P" | "28" | "3D" | "3F" | "42" | "F0", _) => Self::NeedsOperator,
            // Features ("cached plan must not change result type" has the code 0A000 and is transient),
            // triggers of other applications (P0), internal errors (XX: both bugs and data that is too large),
            // and all unknown codes.
            _ => Self::Unclear,
        }
    }

    /// Returns the class of SQLite's result code, primary or extended.
    pub const fn of_sqlite(code: i32) -> Self {
        const IOERR_CORRUPTFS: i32 = 10 | (33 << 8);
        if code == IOERR_CORRUPTFS {
            return Self::Damaged;
        }
        match code & 0xff {
            // ABORT, BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, PROTOCOL (of locks), SCHEMA
            4..=7 | 9 | 10 | 13 | 15 | 17 => Self::Transient,
            // TOOBIG, CONSTRAINT, MISMATCH
            18..=20 => Self::Refused,
            // PERM, READONLY, CANTOPEN, NOLFS, AUTH
            3 | 8 | 14 | 22 | 23 => Self::NeedsOperator,
            // CORRUPT, NOTADB
            11 | 26 => Self::Damaged,
            // ERROR, INTERNAL, NOTFOUND, EMPTY, MISUSE, FORMAT, RANGE, NOTICE, WARNING, ROW, DONE and all unknown codes
            _ => Self::Unclear,
        }
    }
}

/// Describes an answer in words, without any value that was to be written. Servers repeat such values in their messages,
/// so for errors about data only the code and the name of the constraint or table are given.
pub(super) fn describe_answer(answer: &DatabaseAnswer) -> String {
    let DatabaseAnswer { code, message, at } = answer;
    match fault_of(code) {
        DatabaseFault::Transient if is_full(code) => {
            format!("{message} ({code}), perhaps because the disk is full")
        }
        DatabaseFault::Transient | DatabaseFault::NeedsOperator | DatabaseFault::Damaged => with_words(answer),
        // For program limits the message contains the index and the size, never the value.
        DatabaseFault::Refused if matches!(code, Code::Sqlstate(code) if code.starts_with("54")) => with_words(answer),
        DatabaseFault::Refused | DatabaseFault::Unclear => match at {
            Some(name) => format!("database error {code} at {name}"),
            None => format!("database error {code}"),
        },
    }
}

fn fault_of(code: &Code) -> DatabaseFault {
    match code {
        Code::Sqlstate(code) => DatabaseFault::of_sqlstate(code),
        Code::Sqlite(code) => DatabaseFault::of_sqlite(*code),
    }
}

fn with_words(DatabaseAnswer { code, message, .. }: &DatabaseAnswer) -> String {
    format!("{message} ({code})")
}

/// Returns true for SQLite's result codes for a full disk besides `FULL`: `IOERR_WRITE`, `IOERR_SHMOPEN` and
/// `IOERR_SHMSIZE` (sqlite.org/rescode.html).
fn is_full(code: &Code) -> bool {
    matches!(code, Code::Sqlite(778 | 4618 | 4874))
}

/// Describes an error in words, with the message of the database. Only for statements that write no data.
pub(super) fn describe_with_words(error: &SqlError) -> String {
    match error {
        SqlError::Answer(answer) => with_words(answer),
        other => other.to_string(),
    }
}

pub(super) fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

/// Describes a file that is damaged or is not a database: the problem and its remedy.
pub fn damaged(problem: &str) -> String {
    format!(
        "the file is damaged or no SQLite database: {problem}; restore it from a backup, or move it away to start with an empty one"
    )
}

#[cfg(test)]
mod tests {
    use super::DatabaseFault::{Damaged, NeedsOperator, Refused, Transient, Unclear};
    use super::*;

    #[test]
    fn every_sqlstate_class_has_its_kind() {
        let table: [(&str, DatabaseFault); 50] = [
            ("00000", Unclear),
            ("01000", Unclear),
            ("02000", Unclear),
            ("03000", Unclear),
            ("08000", Transient),
            ("08006", Transient),
            ("08P01", Transient),
            ("09000", Unclear),
            ("0A000", Unclear),
            ("0B000", Unclear),
            ("0F000", Unclear),
            ("0L000", Unclear),
            ("0P000", NeedsOperator),
            ("0Z000", Unclear),
            ("10608", Unclear),
            ("20000", Unclear),
            ("21000", Refused),
            ("22021", Refused),
            ("22P05", Refused),
            ("23505", Refused),
            ("24000", Unclear),
            ("25000", Transient),
            ("25006", Transient),
            ("25P02", Transient),
            ("26000", Transient),
            ("27000", Unclear),
            ("28000", NeedsOperator),
            ("28P01", NeedsOperator),
            ("2BP01", Unclear),
            ("2D000", Unclear),
            ("2F000", Unclear),
            ("34000", Unclear),
            ("38000", Unclear),
            ("39000", Unclear),
            ("3B000", Unclear),
            ("3D000", NeedsOperator),
            ("3F000", NeedsOperator),
            ("40P01", Transient),
            ("42501", NeedsOperator),
            ("42P01", NeedsOperator),
            ("44000", Refused),
            ("53100", Transient),
            ("54000", Refused),
            ("55P03", Transient),
            ("57P01", Transient),
            ("58030", Transient),
            ("72000", Transient),
            ("F0000", NeedsOperator),
            ("P0001", Unclear),
            ("XX000", Unclear),
        ];
        for (code, kind) in table {
            assert_eq!(DatabaseFault::of_sqlstate(code), kind, "{code}");
        }
        for strange in ["", "2", "é0", "HV000", "99999"] {
            assert_eq!(DatabaseFault::of_sqlstate(strange), Unclear, "{strange}");
        }
    }

    #[test]
    fn every_result_code_of_sqlite_has_its_kind() {
        let kinds = [
            Unclear,
            Unclear,
            Unclear,
            NeedsOperator,
            Transient,
            Transient,
            Transient,
            Transient,
            NeedsOperator,
            Transient,
            Transient,
            Damaged,
            Unclear,
            Transient,
            NeedsOperator,
            Transient,
            Unclear,
            Transient,
            Refused,
            Refused,
            Refused,
            Unclear,
            NeedsOperator,
            NeedsOperator,
            Unclear,
            Unclear,
            Damaged,
            Unclear,
            Unclear,
        ];
        for (code, kind) in (0..).zip(kinds) {
            assert_eq!(DatabaseFault::of_sqlite(code), kind, "{code}");
            // An extended code has the class of its primary code.
            assert_eq!(DatabaseFault::of_sqlite(code | (2 << 8)), kind, "{code}, extended");
        }
        for (code, kind) in [(100, Unclear), (101, Unclear), (2067, Refused), (8458, Damaged), (-1, Unclear)] {
            assert_eq!(DatabaseFault::of_sqlite(code), kind, "{code}");
        }
    }

    #[test]
    fn what_comes_from_the_driver_has_a_kind_of_its_own() {
        let io = |kind: io::ErrorKind| SqlError::Io(io::Error::from(kind));
        for (error, kind) in [
            (io(io::ErrorKind::ConnectionRefused), Transient),
            (io(io::ErrorKind::InvalidData), NeedsOperator),
            (SqlError::NoConnection, Transient),
            (SqlError::Tls("no TLS".into()), NeedsOperator),
            (SqlError::Parameter(1), Refused),
            (SqlError::Driver("?".into()), Unclear),
            (SqlError::NoRow, Unclear),
        ] {
            assert_eq!(DatabaseFault::of(&error), kind, "{error}");
        }
        assert_eq!(DatabaseFault::of_migration(&MigrationError::Database(SqlError::NoConnection)), Transient);
        assert_eq!(DatabaseFault::of_migration(&MigrationError::Changed(1)), NeedsOperator);
    }

    #[test]
    fn a_message_that_may_repeat_a_value_is_not_shown() {
        let answer =
            |code: Code| DatabaseAnswer { code, message: "dana@work.test".into(), at: Some("users_pkey".into()) };
        for (code, shown) in [
            (Code::Sqlstate("23505".into()), "database error 23505 at users_pkey"),
            (Code::Sqlite(2067), "database error 2067 at users_pkey"),
            (Code::Sqlstate("53100".into()), "dana@work.test (53100)"),
            (Code::Sqlite(778), "dana@work.test (778), perhaps because the disk is full"),
        ] {
            assert_eq!(SqlError::Answer(answer(code)).to_string(), shown);
        }
    }
}
