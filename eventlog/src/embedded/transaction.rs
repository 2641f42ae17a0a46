//! A transaction that takes the file's single write lock when it begins. After an error the caller closes the
//! connection, which undoes the transaction: after a failed commit (because of a full disk, for example) the state of the
//! connection is unknown.

use rusqlite::Connection;

/// Runs `work` in a transaction and commits it.
pub(super) fn in_transaction<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let result = work(connection)?;
    connection.execute_batch("COMMIT")?;
    Ok(result)
}
