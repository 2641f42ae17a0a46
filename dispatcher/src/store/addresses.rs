//! The addresses of living users. Two users may have the same one, and what belongs to the address, a newsletter's
//! member say, is taken away only when nobody has it any more.
//!
//! Written with the subject's state, in the transaction that admits the event. So whoever asks after having taken
//! something away learns of everybody whose own effects may have come before, and can put it back.

use std::fmt;

use sqlx::AnyConnection;
use usher_proto::{AddressDigest, SubjectId};

use super::StoreError;
use crate::sql::Database;
use crate::subject;

/// Rows of an earlier version that are brought up to date in one transaction.
const AT_ONCE: i64 = 500;

/// An address among the users of one of a source's instances, as a row has it.
struct Place<'a>(&'a SubjectId, AddressDigest);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.0.source(), self.0.instance(), self.1)
    }
}

/// The address in the row of a subject in this state, empty where it has no primary one. None once it is deleted.
pub(super) fn of(subject: &SubjectId, snapshot: Option<&str>) -> Option<String> {
    let address = subject::primary_address(snapshot?);
    Some(address.map_or_else(String::new, |address| Place(subject, AddressDigest::of(&address)).to_string()))
}

/// True if a living user of the same source and instance as `subject` has this primary address.
pub(super) async fn is_used(
    database: &Database,
    subject: &SubjectId,
    address: AddressDigest,
) -> Result<bool, StoreError> {
    while bring_up_to_date(database).await? {}
    let sql = "SELECT 1 FROM usher_subject WHERE address = $1 AND deleted_at IS NULL LIMIT 1";
    let place = Place(subject, address).to_string();
    let found: Option<(i32,)> = sqlx::query_as(sql).bind(place).fetch_optional(&database.pool).await?;
    Ok(found.is_some())
}

/// Reads the address out of rows that an earlier version has written. Returns whether there were any.
async fn bring_up_to_date(database: &Database) -> Result<bool, StoreError> {
    // In the order in which admissions write them, so that nobody waits in a circle.
    let sql = "SELECT subject, snapshot FROM usher_subject WHERE address IS NULL AND deleted_at IS NULL \
               ORDER BY subject LIMIT $1";
    let rows: Vec<(String, Option<String>)> = sqlx::query_as(sql).bind(AT_ONCE).fetch_all(&database.pool).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let mut writing = database.write().await?;
    for (subject, snapshot) in rows {
        let subject: SubjectId = subject.parse().map_err(|_| StoreError::Unreadable("subject".into()))?;
        write(writing.connection(), &subject, snapshot.as_deref().unwrap_or_default()).await?;
    }
    writing.commit().await?;
    Ok(true)
}

async fn write(connection: &mut AnyConnection, subject: &SubjectId, snapshot: &str) -> Result<(), StoreError> {
    // One that has been written since says it by itself.
    sqlx::query("UPDATE usher_subject SET address = $1 WHERE subject = $2 AND address IS NULL AND deleted_at IS NULL")
        .bind(of(subject, Some(snapshot)).unwrap_or_default())
        .bind(subject.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
