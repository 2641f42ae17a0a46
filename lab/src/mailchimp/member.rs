//! The members of audiences, and the effect of each operation in each state. `docs/destinations.md` has the same
//! as a table.
//!
//! Sources: mailchimp.com/developer/marketing (list members, member tags, errors), and for each refusal a report of a
//! user who met it:
//! - DELETE of a pending, cleaned or archived member is a 405: amro/gibbon#320, hitobito/hitobito#1072;
//! - `status_if_new` leaves an archived member archived: mailchimp/mc-woocommerce#951; a `status` restores
//!   the member: stackoverflow.com/questions/63584277;
//! - only the address of a subscribed member can be changed: ibericode/mailchimp-user-sync#96; and not to an address
//!   that has a member already, even an archived one: brandonseydel/MailChimp.Net#201;
//! - `tags` of a PUT have no effect on an existing member:
//!   ibericode/mailchimp-for-wordpress#674, VingtCinq/python-mailchimp#203;
//! - an unsubscribed member cannot be set to subscribed, only to `pending`, which asks the person:
//!   ibericode/mailchimp-for-wordpress#798, forem/forem#6256. It is unconfirmed that this also holds if an API call has
//!   unsubscribed the member; here it does.

use axum::http::StatusCode;
use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};

use super::{invalid, not_found, problem};
use crate::answer::FakeResponse;
use crate::bounded::Bounded;

/// Valid values of `status` and `status_if_new`. A member may also be `archived`, which no request can set
/// by these fields.
const STATUSES: [&str; 5] = ["subscribed", "unsubscribed", "cleaned", "pending", "transactional"];
const ARCHIVED: &str = "archived";

/// The key of a member: list id and member id.
pub(super) type MemberKey = (String, String);

/// Present and former members of all audiences, by key.
pub(super) type AudienceMembers = Bounded<MemberKey, MemberEntry>;

/// An audience's record of an address.
#[derive(Debug, Clone)]
pub(super) enum MemberEntry {
    /// A member in any state.
    Member(Map<String, Value>),
    /// Permanently erased. Only the person can undo that.
    Erased,
}

/// Returns the member's id, which is the MD5 of the address in lower case. `text` is the id or the address, because a
/// path may contain either.
pub(super) fn id_of(text: &str) -> String {
    if !text.contains('@') {
        return text.to_lowercase();
    }
    hex::encode(Md5::digest(text.to_lowercase().as_bytes()))
}

/// Returns the member, if there is one. An erased member is none.
pub(super) fn find<'a>(members: &'a AudienceMembers, place: &MemberKey) -> Option<&'a Map<String, Value>> {
    match members.get(place) {
        Some(MemberEntry::Member(member)) => Some(member),
        Some(MemberEntry::Erased) | None => None,
    }
}

fn status(member: &Map<String, Value>) -> &str {
    member.get("status").and_then(Value::as_str).unwrap_or_default()
}

/// Validates a request that writes a member, before any state is read. `needs_email` is false for a PATCH, which leaves
/// the address unchanged if it has none.
pub(super) fn check(body: &Value, needs_email: bool) -> Result<(), FakeResponse> {
    let known = |field: &str| body.get(field).is_none_or(|status| STATUSES.iter().any(|known| status == known));
    for field in ["status", "status_if_new"] {
        if !known(field) {
            return Err(invalid(field, "Value is not a known member status."));
        }
    }
    let email = match body.get("email_address") {
        None if !needs_email => return Ok(()),
        email => email.and_then(Value::as_str).filter(|email| email.contains('@')),
    };
    match email.and_then(|email| email.split('@').next()) {
        None => Err(invalid("email_address", "This value should be a valid email.")),
        Some("fake") => Err(invalid("email_address", "This address looks fake or invalid.")),
        Some("compliance") => Err(in_compliance_state()),
        Some("forgotten") => Err(forgotten()),
        Some(_) => Ok(()),
    }
}

fn in_compliance_state() -> FakeResponse {
    problem(
        StatusCode::BAD_REQUEST,
        "Member In Compliance State",
        "The address is in a compliance state due to unsubscribe, bounce, or compliance review and cannot be subscribed.",
    )
}

fn forgotten() -> FakeResponse {
    problem(
        StatusCode::BAD_REQUEST,
        "Forgotten Email Not Subscribed",
        "The address was permanently deleted and cannot be re-imported. The contact must re-subscribe to get back on the list.",
    )
}

/// Adds a member, or updates the one of this key. An existing member keeps its status unless `status` is given.
pub(super) fn put(members: &mut AudienceMembers, place: &MemberKey, body: &Value) -> FakeResponse {
    if find(members, place).is_some() {
        return update(members, place, body);
    }
    // There is no member of that key, so the address in the body determines the member.
    let list = &place.0;
    let email = body["email_address"].as_str().unwrap_or_default();
    let place = (list.clone(), id_of(email));
    match members.get(&place) {
        Some(MemberEntry::Erased) => return forgotten(),
        Some(MemberEntry::Member(_)) => return update(members, &place, body),
        None => {}
    }
    let status = [&body["status"], &body["status_if_new"]].into_iter().find(|status| status.is_string());
    let Some(status) = status else { return invalid("status_if_new", "This value should not be blank.") };
    let member = json!({
        "id": place.1, "list_id": list, "contact_id": place.1, "unique_email_id": place.1, "email_address": email,
        "status": status, "merge_fields": {}, "tags": [], "tags_count": 0, "vip": false, "language": "",
    });
    let mut member = member.as_object().cloned().unwrap_or_default();
    for name in body["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        set_tag(&mut member, name, true);
    }
    members.insert(place.clone(), MemberEntry::Member(member));
    update(members, &place, body)
}

/// Updates the member of this key. A new address moves the member to another key.
pub(super) fn update(members: &mut AudienceMembers, place: &MemberKey, body: &Value) -> FakeResponse {
    let Some(mut member) = find(members, place).cloned() else { return not_found() };
    let now = status(&member).to_owned();
    let wanted = body["status"].as_str();
    match (now.as_str(), wanted) {
        ("unsubscribed" | "cleaned", Some("subscribed")) | ("cleaned", Some("pending")) => {
            return in_compliance_state();
        }
        _ => {}
    }
    let id = body["email_address"].as_str().map_or_else(|| place.1.clone(), id_of);
    let new = (place.0.clone(), id);
    if new != *place {
        if now != "subscribed" {
            let why = format!(
                "This member's status is \"{now}.\" You can only update email addresses for members with a status of \
                 \"subscribed.\""
            );
            return invalid("email_address", &why);
        }
        match members.get(&new) {
            Some(MemberEntry::Erased) => return forgotten(),
            Some(MemberEntry::Member(there)) => {
                let why = format!("The address is already in this list with a status of \"{}\".", status(there));
                return invalid("email_address", &why);
            }
            None => {}
        }
        members.remove(place);
        member.insert("id".into(), json!(new.1));
    }
    for field in ["email_address", "status", "language", "vip"] {
        if let Some(value) = body.get(field) {
            member.insert(field.into(), value.clone());
        }
    }
    if let (Some(given), Some(fields)) = (body["merge_fields"].as_object(), member.get_mut("merge_fields")) {
        for (name, value) in given {
            fields[name] = value.clone();
        }
    }
    members.insert(new, MemberEntry::Member(member.clone()));
    FakeResponse::done(Value::Object(member))
}

/// Archives the member. Refuses a member that is pending, cleaned or already archived.
pub(super) fn archive(members: &mut AudienceMembers, place: &MemberKey) -> FakeResponse {
    let Some(MemberEntry::Member(member)) = members.get_mut(place) else { return not_found() };
    if ["pending", "cleaned", ARCHIVED].contains(&status(member)) {
        let why = "This list member cannot be removed. Can not archive a contact that is bounced, pending or archived";
        return problem(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", why);
    }
    member.insert("status".into(), json!(ARCHIVED));
    FakeResponse::done(Value::Null).status(StatusCode::NO_CONTENT)
}

/// Erases the member permanently, in any state.
pub(super) fn erase(members: &mut AudienceMembers, place: &MemberKey) -> FakeResponse {
    if find(members, place).is_none() {
        return not_found();
    }
    members.insert(place.clone(), MemberEntry::Erased);
    FakeResponse::done(Value::Null).status(StatusCode::NO_CONTENT)
}

/// Reads the tags of a request. The flag is true for a tag to add, false for a tag to remove.
pub(super) fn tags(body: &Value) -> Result<Vec<(String, bool)>, FakeResponse> {
    let read = |tag: &Value| {
        let active = match tag["status"].as_str()? {
            "active" => true,
            "inactive" => false,
            _ => return None,
        };
        Some((tag["name"].as_str()?.to_owned(), active))
    };
    let tags = body["tags"].as_array().and_then(|tags| tags.iter().map(read).collect());
    tags.ok_or_else(|| invalid("tags", "Each tag has a name, and the status active or inactive."))
}

/// Adds tags to the member, or removes them.
pub(super) fn tag(members: &mut AudienceMembers, place: &MemberKey, tags: &[(String, bool)]) -> FakeResponse {
    let Some(MemberEntry::Member(member)) = members.get_mut(place) else { return not_found() };
    for (name, active) in tags {
        set_tag(member, name, *active);
    }
    FakeResponse::done(Value::Null).status(StatusCode::NO_CONTENT)
}

fn set_tag(member: &mut Map<String, Value>, name: &str, active: bool) {
    let mut tags = member.get("tags").and_then(Value::as_array).cloned().unwrap_or_default();
    let known = tags.iter().position(|tag| tag["name"] == name);
    match (known, active) {
        (None, true) => tags.push(json!({ "id": tags.len() + 1, "name": name })),
        (Some(at), false) => {
            tags.remove(at);
        }
        (Some(_), true) | (None, false) => {}
    }
    member.insert("tags_count".into(), json!(tags.len()));
    member.insert("tags".into(), Value::Array(tags));
}
