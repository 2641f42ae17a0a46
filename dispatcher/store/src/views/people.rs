//! People: the subjects that an id or an address stands for.

use usher_proto::unsubscribe::address_key;
use usher_proto::{AddressDigest, SubjectId, Timestamp};
use usher_sql::{query, query_as};

use super::bound;
use crate::rows::Named;
use crate::{SqlStore, StoreError};

/// The last known state of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectRow {
    /// The snapshot as JSON; `None` if the subject is deleted.
    pub snapshot: Option<String>,
    /// Time of the event that the state comes from.
    pub occurred_at: Timestamp,
    /// Time of the deletion.
    pub deleted_at: Option<Timestamp>,
    /// Number of the state.
    pub revision: i64,
}

/// Largest number of subjects that one word stands for.
const MOST: usize = 50;

impl SqlStore {
    /// Returns the subjects that a text stands for: a whole identity, a user's id or any other key, or an address. Of an
    /// address these are the living users who have it as their primary one, and the key of a person known only by it.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or a row cannot be read.
    pub async fn find_subjects(&self, text: &str) -> Result<Vec<SubjectId>, StoreError> {
        let senders: Vec<(String, String)> =
            query_as("SELECT source, instance FROM usher_sender ORDER BY source, instance")
                .fetch_all(&self.database)
                .await?;
        let mut candidates: Vec<String> =
            text.parse::<SubjectId>().map(|whole| whole.as_str().to_owned()).into_iter().collect();
        let of_any_sender = |id: &str| -> Vec<String> {
            senders.iter().map(|(source, instance)| format!("{source}/{instance}/{id}")).collect()
        };
        if text.contains('@') {
            let digest = AddressDigest::of(text);
            candidates.extend(of_any_sender(address_key(digest).as_str()));
            for place in of_any_sender(&digest.to_string()) {
                let sql = "SELECT subject FROM usher_subject WHERE address = $1 AND deleted_at IS NULL ORDER BY subject LIMIT $2";
                let rows: Vec<(String,)> =
                    query_as(sql).bind(place).bind(bound(MOST)).fetch_all(&self.database).await?;
                candidates.extend(rows.into_iter().map(|(subject,)| subject));
            }
        } else {
            candidates.extend(of_any_sender(text));
        }
        let mut found: Vec<SubjectId> = Vec::new();
        for subject in candidates.iter().filter_map(|text| text.parse::<SubjectId>().ok()) {
            if !found.contains(&subject) && found.len() < MOST && self.is_known(&subject).await? {
                found.push(subject);
            }
        }
        Ok(found)
    }

    /// Returns true if the store has a state or a run of the subject.
    async fn is_known(&self, subject: &SubjectId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM usher_subject WHERE subject = $1) \
                     OR EXISTS (SELECT 1 FROM usher_open_run WHERE subject = $1) \
                     OR EXISTS (SELECT 1 FROM usher_ended_run WHERE subject = $1)";
        let row: Option<(i32,)> = query_as(sql).bind(subject.as_str()).fetch_optional(&self.database).await?;
        Ok(row.is_some())
    }

    /// Returns the last known state of a subject; `None` if the store has none.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or the row cannot be read.
    pub async fn subject_row(&self, subject: &SubjectId) -> Result<Option<SubjectRow>, StoreError> {
        let sql = "SELECT snapshot, occurred_at, deleted_at, revision FROM usher_subject WHERE subject = $1";
        let row = query(sql).bind(subject.as_str()).fetch_optional(&self.database).await?;
        let read = |row| {
            let row = Named(row);
            Ok(SubjectRow {
                snapshot: row.get("snapshot")?,
                occurred_at: Timestamp::from_millis(row.get("occurred_at")?),
                deleted_at: row.time("deleted_at")?,
                revision: row.get("revision")?,
            })
        };
        row.as_ref().map(read).transpose()
    }

    /// Returns the references that an event's id stands for: one for each sender that has sent such an id.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn find_events(&self, text: &str) -> Result<Vec<usher_proto::EventRef>, StoreError> {
        let senders: Vec<(String, String)> =
            query_as("SELECT source, instance FROM usher_sender ORDER BY source, instance")
                .fetch_all(&self.database)
                .await?;
        let of_sender = |(source, instance): (String, String)| format!("{source}/{instance}/{text}").parse().ok();
        let candidates: Vec<usher_proto::EventRef> =
            text.parse().ok().into_iter().chain(senders.into_iter().filter_map(of_sender)).collect();
        let mut found = Vec::new();
        for reference in candidates {
            if self.event(&reference).await?.is_some() && !found.contains(&reference) {
                found.push(reference);
            }
        }
        Ok(found)
    }
}
