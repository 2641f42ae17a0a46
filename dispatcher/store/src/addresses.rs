//! Primary addresses of living users. Two users may have the same address. Something that belongs to an address, such
//! as the member of a newsletter, is removed only when no user has the address any more.
//!
//! The address is written with the subject's state, in the transaction that admits the event. So a caller that has
//! removed something and then queries here finds every user whose own effects may have come before, and can put it
//! back.

use std::collections::HashMap;
use std::fmt;

use usher_proto::unsubscribe::address_of_key;
use usher_proto::{AddressDigest, Source, Subject, SubjectId};
use usher_sql::{Connection, Database, Dialect, Rows, query, query_as};

use super::StoreError;
use super::rows::Named;

/// Number of rows of an earlier version that are updated in one transaction.
const AT_ONCE: i64 = 500;

/// An address within one instance of a source, in the form that a row holds.
struct Place<'a>(&'a SubjectId, AddressDigest);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.0.source(), self.0.instance(), self.1)
    }
}

/// Returns the address for the row of a subject in this state; empty if it has no primary one. `None` if it is deleted.
pub(super) fn of(subject: &SubjectId, snapshot: Option<&str>) -> Option<String> {
    let address = usher_clerk::primary_address(snapshot?);
    Some(address.map_or_else(String::new, |address| Place(subject, AddressDigest::of(&address)).to_string()))
}

/// Returns the living users of Clerk with the addresses of which these subjects are made, each under the subject that
/// asks. A subject whose address no user has, or several, is absent: nobody could say which one is meant.
///
/// No change of a subject's own row makes such a user newer, so each has the revision of an unknown subject.
pub(super) async fn owners(
    database: &Database,
    subjects: &[SubjectId],
) -> Result<HashMap<SubjectId, Subject>, StoreError> {
    let mut asked: HashMap<String, Vec<&SubjectId>> = HashMap::new();
    for subject in subjects {
        if let Some(address) = address_of_key(subject.key()) {
            let place = format!("{}/{}/{address}", Source::Clerk, subject.instance());
            asked.entry(place).or_default().push(subject);
        }
    }
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    while bring_up_to_date(database).await? {}
    let places: Vec<&String> = asked.keys().collect();
    let rows = Rows::of(&places).text("of", |place| place.as_str());
    // One row is enough to know the user, and two are enough to know that there are several.
    let query = rows.query(database.dialect, Vec::new(), |rows| {
        let living = "SELECT s.address, s.snapshot FROM usher_subject s WHERE s.deleted_at IS NULL AND s.address =";
        match database.dialect {
            Dialect::Postgres => format!("SELECT k.address, k.snapshot FROM {rows}, LATERAL ({living} r.of LIMIT 2) AS k"),
            Dialect::Sqlite => format!("SELECT s.address, s.snapshot FROM {rows} JOIN usher_subject s ON s.address = r.of AND s.deleted_at IS NULL LIMIT 2"),
        }
    });
    let mut found: HashMap<String, Vec<Option<String>>> = HashMap::new();
    for row in database.read(vec![query]).await?.iter().flat_map(|answer| &answer.rows) {
        let row = Named(row);
        found.entry(row.get("address")?).or_default().push(row.get("snapshot")?);
    }
    let mut owners = HashMap::new();
    for (place, subjects) in asked {
        if let Some([Some(snapshot)]) = found.get(&place).map(Vec::as_slice) {
            let owner = Subject { snapshot: Some(snapshot.clone()), deleted: false, revision: 0 };
            owners.extend(subjects.into_iter().map(|subject| (subject.clone(), owner.clone())));
        }
    }
    Ok(owners)
}

/// Returns true if a living user of the same source and instance as `subject` has this primary address.
pub(super) async fn is_used(
    database: &Database,
    subject: &SubjectId,
    address: AddressDigest,
) -> Result<bool, StoreError> {
    while bring_up_to_date(database).await? {}
    let sql = "SELECT 1 FROM usher_subject WHERE address = $1 AND deleted_at IS NULL LIMIT 1";
    let place = Place(subject, address).to_string();
    let found: Option<(i32,)> = query_as(sql).bind(place).fetch_optional(database).await?;
    Ok(found.is_some())
}

/// Fills in the address of rows that an earlier version has written. Returns true if there were any.
async fn bring_up_to_date(database: &Database) -> Result<bool, StoreError> {
    // In the order in which admissions write the rows, so that transactions do not deadlock.
    let sql = "SELECT subject, snapshot FROM usher_subject WHERE address IS NULL AND deleted_at IS NULL \
               ORDER BY subject LIMIT $1";
    let rows: Vec<(String, Option<String>)> = query_as(sql).bind(AT_ONCE).fetch_all(database).await?;
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

async fn write(connection: &mut Connection, subject: &SubjectId, snapshot: &str) -> Result<(), StoreError> {
    // A row that has been written since has its address already.
    query("UPDATE usher_subject SET address = $1 WHERE subject = $2 AND address IS NULL AND deleted_at IS NULL")
        .bind(of(subject, Some(snapshot)).unwrap_or_default())
        .bind(subject.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
