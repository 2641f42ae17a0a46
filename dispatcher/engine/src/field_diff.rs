//! The fields of a subject as a flow knew them before an event, and the fields that the event changed.
//!
//! The subject state that all flows share cannot be used for this comparison, because the first flow that processes an
//! event has already written the new state. Each flow that needs the comparison therefore stores a few fields of each
//! subject for itself.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use usher_proto::AddressDigest;
use usher_proto::Snapshot;

/// The name of the field that holds an email address.
pub const EMAIL: &str = "email";

/// Some fields of a subject, by name. An absent field is unknown, which is different from null.
pub type Fields = Map<String, Value>;

/// The fields of a subject before an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousFields {
    /// The fields as they were. Empty for the first event of a subject.
    pub fields: Fields,
    /// Names of the fields that the event changed: known both before and after it, with different values. A late event
    /// changes nothing, and an address that differs only in case is unchanged.
    pub changed: Vec<String>,
}

/// The fields of a subject that a flow stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedFields {
    /// Time of the subject's last change by the source's clock, in ms since 1970.
    pub updated_at: i64,
    /// Time of the event that reported this state, in ms since 1970.
    pub occurred_at: i64,
    /// The fields. `None` after the subject was deleted.
    pub fields: Option<Fields>,
}

/// Compares an event's snapshot with the stored fields. Returns the fields before the event, and the fields to store
/// from now on; `None` if the stored ones stay unchanged.
pub fn diff(
    known: Option<&RememberedFields>,
    snapshot: &Snapshot,
    fields: &Fields,
) -> (PreviousFields, Option<RememberedFields>) {
    let remember = |fields| {
        let Snapshot { updated_at, occurred_at, .. } = *snapshot;
        Some(RememberedFields { updated_at, occurred_at, fields })
    };
    let deleted = snapshot.data.is_none();
    let Some(known) = known else {
        return (PreviousFields::default(), remember((!deleted).then(|| fields.clone())));
    };
    let late = (snapshot.updated_at, snapshot.occurred_at) < (known.updated_at, known.occurred_at);
    let Some(old) = known.fields.as_ref().filter(|_| deleted || !late) else {
        return (PreviousFields::default(), None);
    };
    if deleted {
        return (PreviousFields { fields: old.clone(), changed: Vec::new() }, remember(None));
    }
    let differs =
        |(name, value): &(&String, &Value)| old.get(*name).is_some_and(|before| !is_same(name, before, value));
    let changed = fields.iter().filter(differs).map(|(name, _)| name.clone()).collect();
    // A field that the event omits keeps its stored value.
    let mut now = old.clone();
    now.extend(fields.clone());
    (PreviousFields { fields: old.clone(), changed }, remember(Some(now)))
}

/// True if a field has the same value. Addresses that differ only in case are the same mailbox.
fn is_same(name: &str, before: &Value, now: &Value) -> bool {
    match (name, before.as_str(), now.as_str()) {
        (EMAIL, Some(before), Some(now)) => AddressDigest::of(before) == AddressDigest::of(now),
        _ => before == now,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        value.as_object().expect("an object").clone()
    }

    fn seen(updated_at: i64, value: Value) -> RememberedFields {
        RememberedFields { updated_at, occurred_at: updated_at, fields: Some(fields(value)) }
    }

    fn at(updated_at: i64, alive: bool) -> Snapshot {
        Snapshot { updated_at, occurred_at: updated_at, data: alive.then(|| "{}".to_owned()) }
    }

    #[test]
    fn the_first_sight_of_a_subject_changes_nothing() {
        let now = fields(json!({"email": "a@b.test"}));
        let (before, after) = diff(None, &at(5, true), &now);
        assert_eq!((before, after), (PreviousFields::default(), Some(seen(5, json!({"email": "a@b.test"})))));
    }

    #[test]
    fn what_is_different_has_changed_and_what_is_left_out_has_not() {
        let known = seen(5, json!({"email": "a@b.test", "totp_enabled": false}));
        let (before, after) = diff(Some(&known), &at(6, true), &fields(json!({"email": null, "phone": "+1"})));
        assert_eq!(before.changed, ["email"]);
        assert_eq!(before.fields, known.fields.expect("it is alive"));
        assert_eq!(after, Some(seen(6, json!({"email": null, "phone": "+1", "totp_enabled": false}))));
    }

    #[test]
    fn an_address_in_another_case_is_the_same_and_a_name_is_not() {
        let known = seen(5, json!({"email": "Dana@Work.test", "first_name": "dana"}));
        let now = fields(json!({"email": "dana@work.test", "first_name": "Dana"}));
        let (before, after) = diff(Some(&known), &at(6, true), &now);
        assert_eq!(before.changed, ["first_name"]);
        assert_eq!(after.and_then(|after| after.fields), Some(now), "as it is written now");
        let gone = fields(json!({"email": null}));
        assert_eq!(diff(Some(&known), &at(6, true), &gone).0.changed, ["email"]);
    }

    #[test]
    fn late_news_change_nothing_and_equal_is_not_late() {
        let known = seen(5, json!({"email": "a@b.test"}));
        let other = fields(json!({"email": "c@d.test"}));
        assert_eq!(diff(Some(&known), &at(4, true), &other), (PreviousFields::default(), None));
        assert_eq!(diff(Some(&known), &at(5, true), &other).0.changed, ["email"]);
    }

    #[test]
    fn a_deletion_says_what_was_known_last_and_is_final() {
        let known = seen(5, json!({"email": "a@b.test"}));
        let (before, after) = diff(Some(&known), &at(1, false), &Fields::new());
        assert_eq!((before.fields, before.changed), (known.fields.expect("alive"), vec![]));
        let gone = after.expect("it is remembered as deleted");
        assert_eq!(gone.fields, None);
        assert_eq!(diff(Some(&gone), &at(9, true), &fields(json!({"email": "x"}))), (PreviousFields::default(), None));
    }
}
