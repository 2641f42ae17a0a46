//! The suppression list in the store: the newest entry for each address and list, of each instance, and of an operator
//! for every instance.
//!
//! Every flow applies every suppression event, at its own pace and possibly in another order. The newer entry wins, so
//! all flows come to the same result.

use std::collections::BTreeMap;

use serde::Serialize;
use usher_proto::suppression::SuppressionEntry;
use usher_proto::suppression::{ALL_LISTS, SuppressionKind};
use usher_proto::{AddressDigest, Instance, Timestamp};
use usher_sql::{Database, Dialect, Rows, SqlQuery, query_as};

use super::admit::fenced;
use super::change::FENCE;
use super::known::Identified;
use super::rows::Named;
use super::{SqlStore, StoreError};

/// Placeholder for every instance; no instance has this name.
const EVERY_INSTANCE: &str = "*";

/// The newest suppression entry of an address, as shown to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuppressionRecord {
    /// The SHA-256 of the address in lower case.
    pub address: String,
    /// The instance whose mail it concerns, or `*` for every instance.
    pub instance: String,
    /// The list, or `all`.
    pub scope: String,
    /// True if the address is suppressed; false if mail to it is allowed again.
    pub held: bool,
    /// Reason, as a label.
    pub reason: String,
    /// Author of the entry; empty if it has none.
    pub who: String,
    /// Time of the entry.
    pub at: Timestamp,
}

/// Returns the statement that applies the suppression changes of events; `None` if they have none.
pub(super) fn apply(dialect: Dialect, flow: &str, events: &[Identified<'_>]) -> Option<SqlQuery> {
    // In one order everywhere, because the rows are locked; of several for one list the newest, because a statement changes
    // a row once.
    let mut changes = BTreeMap::new();
    for Identified { arrival, event, batch, .. } in events {
        if let Some(change) = &arrival.suppression {
            let instance = change.instance.as_ref().map_or(EVERY_INSTANCE, Instance::as_str);
            let known = changes.entry((change.address, instance, change.scope.as_str()));
            let news = (arrival.event.occurred_at, event, change, *batch);
            let entry = known.or_insert(news);
            if (entry.0, entry.1) < (news.0, news.1) {
                *entry = news;
            }
        }
    }
    if changes.is_empty() {
        return None;
    }
    let changes: Vec<_> = changes.into_iter().collect();
    let rows = fenced(&changes, |(_, (.., batch))| batch)
        .text("address", |((address, ..), _)| address.to_string())
        .text("instance", |((_, instance, _), _)| *instance)
        .text("scope", |((.., scope), _)| *scope)
        .int("held", |(_, (_, _, change, _))| match change.kind {
            SuppressionKind::Suppressed | SuppressionKind::Unsubscribed => 1,
            SuppressionKind::Restored => 0,
        })
        .text("reason", |(_, (_, _, change, _))| change.reason.as_str())
        .text("who", |(_, (_, _, change, _))| change.by.as_str())
        .int("at", |(_, (at, ..))| at.millis())
        .text("event", |(_, (_, event, ..))| event.as_str());
    Some(rows.query(dialect, vec![flow.into()], |rows| {
        format!(
            "INSERT INTO usher_reach (address, instance, scope, held, reason, who, at, event) \
             SELECT r.address, r.instance, r.scope, r.held, r.reason, r.who, r.at, r.event FROM {rows} WHERE {FENCE} \
             ON CONFLICT (address, instance, scope) DO UPDATE SET held = excluded.held, reason = excluded.reason, \
               who = excluded.who, at = excluded.at, event = excluded.event \
             WHERE (usher_reach.at, usher_reach.event) < (excluded.at, excluded.event)"
        )
    }))
}

/// The recipients of one mail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailRecipients {
    /// The instance that writes to them.
    pub instance: String,
    /// The mailing list that the mail belongs to, if it does.
    pub list: Option<String>,
    /// The digests of their addresses.
    pub addresses: Vec<AddressDigest>,
}

/// Returns the entries that suppress recipients of each of these mails: for all mail, or for mail of its list. Entries for the
/// instance and entries for every instance are one history, in which the newest counts.
pub(super) async fn listed(
    database: &Database,
    mails: &[MailRecipients],
) -> Result<Vec<Vec<SuppressionEntry>>, StoreError> {
    let mut recipients = Vec::new();
    for (mail, number) in mails.iter().zip(0_i64..) {
        recipients.extend(mail.addresses.iter().map(|address| (number, mail, address.to_string())));
    }
    let mut listed = vec![Vec::new(); mails.len()];
    if recipients.is_empty() {
        return Ok(listed);
    }
    let rows = Rows::of(&recipients)
        .int("mail", |(number, ..)| *number)
        .text("instance", |(_, mail, _)| mail.instance.as_str())
        .text("scope", |(_, mail, _)| mail.list.as_deref().unwrap_or(ALL_LISTS))
        .text("address", |(.., address)| address.as_str());
    let of_recipient =
        |table: &str| format!("{table}.address = r.address AND {table}.instance IN ('{EVERY_INSTANCE}', r.instance)");
    let query = rows.query(database.dialect, Vec::new(), |rows| {
        format!(
            "SELECT r.mail, l.address, l.scope FROM {rows} \
             JOIN usher_reach l ON {} AND l.scope IN ('{ALL_LISTS}', r.scope) \
             WHERE l.held = 1 AND NOT EXISTS ( \
               SELECT 1 FROM usher_reach o WHERE {} AND o.scope = l.scope AND (o.at, o.event) > (l.at, l.event))",
            of_recipient("l"),
            of_recipient("o")
        )
    });
    for row in database.read(vec![query]).await?.iter().flat_map(|answer| &answer.rows) {
        let row = Named(row);
        let number = usize::try_from(row.get::<i64>("mail")?).ok();
        let of_mail = number.and_then(|number| listed.get_mut(number)).ok_or(StoreError::Unreadable("mail".into()))?;
        of_mail.push(SuppressionEntry { address: row.parsed("address")?, scope: row.get("scope")? });
    }
    Ok(listed)
}

impl SqlStore {
    /// Returns the newest entries for this address, or for every address, oldest first.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn suppressions(&self, address: Option<AddressDigest>) -> Result<Vec<SuppressionRecord>, StoreError> {
        let sql = "SELECT address, instance, scope, held, reason, who, at FROM usher_reach \
                   WHERE $1 = '' OR address = $1 ORDER BY at, address, instance, scope";
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let rows: Vec<(String, String, String, i64, String, String, i64)> =
            query_as(sql).bind(address).fetch_all(&self.database).await?;
        let record = |(address, instance, scope, held, reason, who, at)| SuppressionRecord {
            address,
            instance,
            scope,
            held: held == 1,
            reason,
            who,
            at: Timestamp::from_millis(at),
        };
        Ok(rows.into_iter().map(record).collect())
    }
}
