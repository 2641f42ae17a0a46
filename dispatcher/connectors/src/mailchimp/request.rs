//! Builds the change of a member. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::member::{MemberState, subscriber_hash};
use super::{DELETE_MEMBER, ERASE_MEMBER, PUT_MEMBER, TAG_MEMBER, UNSUBSCRIBE};
use crate::{PrepareError, StepInput};

pub(super) const NO_LIST_ID: &str = "is no id: it stands in the audience's settings";

/// A request as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MemberChange {
    pub(super) operation: String,
    pub(super) list: String,
    /// Id of the member.
    pub(super) hash: String,
    /// Exact body; absent for operations without one.
    pub(super) body: Option<String>,
    /// Id that the member had before the address changed; absent if it has not changed.
    #[serde(default)]
    pub(super) former: Option<String>,
    /// Body that adds tags to the member and removes tags; absent if there are none.
    #[serde(default)]
    pub(super) tags: Option<String>,
}

/// Builds the change for these inputs. `default_list` is used if the flow gives none.
pub(super) fn prepare(inputs: &StepInput<'_>, default_list: Option<&str>) -> Result<MemberChange, PrepareError> {
    let text = |name: &str| inputs.params.get(name).and_then(Value::as_str);
    inputs.required("email")?;
    let email = inputs.email()?.unwrap_or_default();
    let list = text("list").or(default_list);
    let list = list.ok_or_else(|| PrepareError("list is not given, and MAILCHIMP_LIST_ID is not set".into()))?;
    if !is_list_id(list) {
        return Err(PrepareError(format!("list {NO_LIST_ID}")));
    }
    let mut former = None;
    // Tags in the body of a PUT are applied to new members only.
    let tags = change_tags(inputs);
    let body = match inputs.operation {
        PUT_MEMBER => {
            let status = text("status_if_new").unwrap_or(MemberState::Subscribed.label());
            if !MemberState::SETTABLE.iter().any(|state| state.label() == status) {
                let states = MemberState::SETTABLE.map(MemberState::label);
                return Err(PrepareError(format!("status_if_new may be {}", states.join(", "))));
            }
            let mut member = Map::new();
            member.insert("email_address".into(), json!(email));
            member.insert("status_if_new".into(), json!(status));
            if let Some(fields) = inputs.params.get("merge_fields").and_then(Value::as_object) {
                // An omitted field keeps its value; an empty text clears it.
                let written = |value: &Value| if value.is_null() { json!("") } else { value.clone() };
                let fields = fields.iter().map(|(name, value)| (name.clone(), written(value))).collect();
                member.insert("merge_fields".into(), Value::Object(fields));
            }
            let before = inputs.mailboxes("former_email")?.pop().map(|mailbox| subscriber_hash(&mailbox.address));
            former = before.filter(|before| *before != subscriber_hash(&email));
            Some(Value::Object(member).to_string())
        }
        TAG_MEMBER if tags.is_none() => return Err(PrepareError("there are neither tags nor remove_tags".into())),
        UNSUBSCRIBE | DELETE_MEMBER | TAG_MEMBER | ERASE_MEMBER => None,
        other => return Err(PrepareError(format!("mailchimp cannot {other}"))),
    };
    let operation = inputs.operation.to_owned();
    let list = list.to_owned();
    Ok(MemberChange { operation, list, hash: subscriber_hash(&email), body, former, tags })
}

/// True if a text can be the id of an audience.
pub(super) fn is_list_id(list: &str) -> bool {
    !list.is_empty() && list.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Returns the body that adds a member's tags and removes others, or `None` if there are none. A tag that is in both
/// parameters is removed.
fn change_tags(inputs: &StepInput<'_>) -> Option<String> {
    let names = |param: &str| match inputs.params.get(param) {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(name)) => vec![name.as_str()],
        Some(_) | None => Vec::new(),
    };
    let removed = names("remove_tags");
    let added = names("tags").into_iter().filter(|name| !removed.contains(name));
    let tag = |(name, status)| json!({ "name": name, "status": status });
    let all: Vec<Value> =
        added.map(|name| (name, "active")).chain(removed.iter().map(|name| (*name, "inactive"))).map(tag).collect();
    (!all.is_empty()).then(|| json!({ "tags": all }).to_string())
}
