//! The contacts of a Resend account, with their segments and topics, and the effect of each request.
//!
//! Sources: Resend's OpenAPI document (contacts), and the recorded answers in resend-node
//! (`src/contacts/__recordings__`): a contact is named by its id or its address; POST of a contact that exists answers
//! 201 with its id; an absent one is a 404 `not_found` to GET, and a 200 to DELETE. That such a POST resets each field
//! that it omits, and so subscribes who has unsubscribed: akhileshrangani4/teachanything#392. An id that is no UUID is a
//! 422: the error's text is public in many reports. The real service knows the account's segments and topics; here every
//! UUID is one of them except the nil UUID, which names nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use super::error::ResendError;
use super::mail::address;
use crate::answer::FakeResponse;
use crate::bounded::Bounded;
use crate::double::{DoubleCall, USER};
use crate::form;
use crate::ids;
use crate::locked::Locked;
use crate::request::{BodyFormat, Request};

/// Contacts by address in lower case.
pub(super) type Contacts = Bounded<String, ContactEntry>;

/// The UUID that names nothing.
const NIL: &str = "00000000-0000-0000-0000-000000000000";
const LONGEST_KEY: usize = 50;
const SUBSCRIPTIONS: [&str; 2] = ["opt_in", "opt_out"];

/// A contact as the account has it.
#[derive(Debug, Clone, Default)]
pub(super) struct ContactEntry {
    id: String,
    created_at: String,
    email: String,
    names: BTreeMap<&'static str, Value>,
    unsubscribed: bool,
    properties: Map<String, Value>,
    segments: Vec<String>,
    topics: BTreeMap<String, String>,
}

/// A request about contacts.
pub(super) enum ContactRoute {
    Create,
    Get(String),
    Update(String),
    Remove(String),
    Segments(String),
    AddSegment(String, String),
    RemoveSegment(String, String),
    Topics(String),
    UpdateTopics(String),
}

impl ContactRoute {
    /// Finds the route. `None` if the path is not one of contacts.
    pub(super) fn of(request: &Request) -> Option<Result<Self, ResendError>> {
        let segments = request.segments();
        let ["contacts", rest @ ..] = segments.as_slice() else { return None };
        let rest: Vec<String> = rest.iter().map(|segment| form::decoded(segment)).collect();
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let own = |text: &str| text.to_owned();
        Some(match (&request.method, rest.as_slice()) {
            (&Method::POST, []) => Ok(Self::Create),
            (&Method::GET, [id]) => Ok(Self::Get(own(id))),
            (&Method::PATCH, [id]) => Ok(Self::Update(own(id))),
            (&Method::DELETE, [id]) => Ok(Self::Remove(own(id))),
            (&Method::GET, [id, "segments"]) => Ok(Self::Segments(own(id))),
            (&Method::POST, [id, "segments", segment]) => Ok(Self::AddSegment(own(id), own(segment))),
            (&Method::DELETE, [id, "segments", segment]) => Ok(Self::RemoveSegment(own(id), own(segment))),
            (&Method::GET, [id, "topics"]) => Ok(Self::Topics(own(id))),
            (&Method::PATCH, [id, "topics"]) => Ok(Self::UpdateTopics(own(id))),
            (_, [] | [_] | [_, "segments" | "topics"] | [_, "segments", _]) => Err(ResendError::METHOD_NOT_ALLOWED),
            _ => Err(ResendError::NOT_FOUND),
        })
    }

    pub(super) const fn operation(&self) -> &'static str {
        match self {
            Self::Create => "contacts.create",
            Self::Get(_) => "contacts.get",
            Self::Update(_) => "contacts.update",
            Self::Remove(_) => "contacts.remove",
            Self::Segments(_) => "contacts.segments.list",
            Self::AddSegment(..) => "contacts.segments.add",
            Self::RemoveSegment(..) => "contacts.segments.remove",
            Self::Topics(_) => "contacts.topics.list",
            Self::UpdateTopics(_) => "contacts.topics.update",
        }
    }

    fn id(&self) -> Option<&str> {
        match self {
            Self::Create => None,
            Self::Get(id)
            | Self::Update(id)
            | Self::Remove(id)
            | Self::Segments(id)
            | Self::AddSegment(id, _)
            | Self::RemoveSegment(id, _)
            | Self::Topics(id)
            | Self::UpdateTopics(id) => Some(id),
        }
    }

    /// Returns the Clerk user and the address of the contact that the request concerns.
    pub(super) fn whom(&self, body: &Value, contacts: &Locked<Contacts>) -> (Option<String>, Option<String>) {
        let stored = self.id().and_then(|id| contacts.with(|contacts| find(contacts, id).cloned()));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let user = text(&body["properties"][USER]);
        let user = user.or_else(|| text(stored.as_ref()?.properties.get(USER)?));
        let named = self.id().filter(|id| id.contains('@')).map(str::to_owned);
        (user, text(&body["email"]).or(named).or_else(|| Some(stored?.email)))
    }

    /// Checks the request, and returns what it does.
    pub(super) fn call(self, request: &Request, contacts: Arc<Locked<Contacts>>) -> Result<DoubleCall, ResendError> {
        let writes = matches!(self, Self::Create | Self::Update(_) | Self::UpdateTopics(_));
        let is_list = matches!(self, Self::UpdateTopics(_)) && request.body.is_array();
        if writes && (request.written != BodyFormat::Json || !(is_list || request.body.is_object())) {
            return Err(ResendError::NOT_JSON);
        }
        if let Some(id) = self.id() {
            named("id", id)?;
        }
        if let Self::AddSegment(_, segment) | Self::RemoveSegment(_, segment) = &self {
            uuid("segment_id", segment)?;
        }
        match &self {
            Self::Create => check(&request.body, true)?,
            Self::Update(_) => check(&request.body, false)?,
            Self::UpdateTopics(_) => {
                topics(topics_of(&request.body).ok_or_else(|| ResendError::missing("`topics`"))?)?;
            }
            Self::Get(_)
            | Self::Remove(_)
            | Self::Segments(_)
            | Self::AddSegment(..)
            | Self::RemoveSegment(..)
            | Self::Topics(_) => {}
        }
        let changes = !matches!(self, Self::Get(_) | Self::Segments(_) | Self::Topics(_));
        let body = request.body.clone();
        let run = move |now: Timestamp| {
            contacts.with(|contacts| self.run(contacts, &body, now)).unwrap_or_else(FakeResponse::from)
        };
        Ok(DoubleCall { key: None, changes, run: Box::new(run) })
    }

    fn run(&self, contacts: &mut Contacts, body: &Value, now: Timestamp) -> Result<FakeResponse, ResendError> {
        let done = |body: Value| Ok(FakeResponse::done(body));
        match self {
            Self::Create => {
                let id = create(contacts, body, now);
                Ok(FakeResponse::done(json!({ "object": "contact", "id": id })).status(StatusCode::CREATED))
            }
            Self::Get(id) => done(find(contacts, id).ok_or(ResendError::NO_CONTACT)?.shown()),
            Self::Update(id) => {
                let contact = find_mut(contacts, id).ok_or(ResendError::NO_CONTACT)?;
                contact.set(body);
                done(json!({ "object": "contact", "id": contact.id }))
            }
            Self::Remove(id) => {
                let key = find(contacts, id).map(|contact| contact.email.to_lowercase());
                key.and_then(|key| contacts.remove(&key));
                done(json!({ "object": "contact", "contact": id, "deleted": true }))
            }
            Self::Segments(id) => {
                let contact = find(contacts, id).ok_or(ResendError::NO_CONTACT)?;
                let list = contact
                    .segments
                    .iter()
                    .map(|id| json!({ "id": id, "name": "lab", "created_at": contact.created_at }));
                done(json!({ "object": "list", "has_more": false, "data": list.collect::<Vec<_>>() }))
            }
            Self::AddSegment(id, segment) => {
                let contact = find_mut(contacts, id).ok_or(ResendError::NO_CONTACT)?;
                if segment == NIL {
                    return Err(ResendError::absent("Segment not found"));
                }
                contact.join(segment);
                done(json!({ "id": segment }))
            }
            Self::RemoveSegment(id, segment) => {
                let contact = find_mut(contacts, id).ok_or(ResendError::NO_CONTACT)?;
                contact.segments.retain(|known| known != segment);
                done(json!({ "id": segment, "deleted": true }))
            }
            Self::Topics(id) => {
                let contact = find(contacts, id).ok_or(ResendError::NO_CONTACT)?;
                let topic = |(id, subscription): (&String, &String)| json!({ "id": id, "name": "lab", "description": null, "subscription": subscription });
                let list: Vec<Value> = contact.topics.iter().map(topic).collect();
                done(json!({ "object": "list", "has_more": false, "data": list }))
            }
            Self::UpdateTopics(id) => {
                let contact = find_mut(contacts, id).ok_or(ResendError::NO_CONTACT)?;
                contact.subscribe(topics_of(body).unwrap_or(&Value::Null));
                done(json!({ "id": contact.id }))
            }
        }
    }
}

impl ContactEntry {
    /// Changes the fields that a request names.
    fn set(&mut self, body: &Value) {
        for name in ["first_name", "last_name"] {
            if let Some(value) = body.get(name) {
                self.names.insert(name, value.clone());
            }
        }
        if let Some(unsubscribed) = body["unsubscribed"].as_bool() {
            self.unsubscribed = unsubscribed;
        }
        for (name, value) in body["properties"].as_object().into_iter().flatten() {
            if value.is_null() {
                self.properties.remove(name);
            } else {
                self.properties.insert(name.clone(), value.clone());
            }
        }
    }

    fn join(&mut self, segment: &str) {
        if !self.segments.iter().any(|known| known == segment) {
            self.segments.push(segment.to_owned());
        }
    }

    fn subscribe(&mut self, topics: &Value) {
        for topic in topics.as_array().into_iter().flatten() {
            if let (Some(id), Some(wanted)) = (topic["id"].as_str(), topic["subscription"].as_str()) {
                self.topics.insert(id.to_owned(), wanted.to_owned());
            }
        }
    }

    fn shown(&self) -> Value {
        let name = |name: &str| self.names.get(name).cloned().unwrap_or_default();
        json!({
            "object": "contact", "id": self.id, "email": self.email, "first_name": name("first_name"),
            "last_name": name("last_name"), "created_at": self.created_at, "unsubscribed": self.unsubscribed,
            "properties": self.properties,
        })
    }
}

/// Creates a contact, or resets the fields of the one at this address. Returns its id.
fn create(contacts: &mut Contacts, body: &Value, now: Timestamp) -> String {
    let email = body["email"].as_str().and_then(address).unwrap_or_default().to_owned();
    let key = email.to_lowercase();
    let before = contacts.remove(&key);
    let (id, created_at) =
        before.as_ref().map_or_else(|| (ids::uuid(), now.to_string()), |it| (it.id.clone(), it.created_at.clone()));
    let (segments, topics) = before.map(|it| (it.segments, it.topics)).unwrap_or_default();
    let mut contact = ContactEntry { id: id.clone(), created_at, email, segments, topics, ..ContactEntry::default() };
    contact.set(body);
    for segment in body["segments"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        contact.join(segment);
    }
    contact.subscribe(&body["topics"]);
    contacts.insert(key, contact);
    id
}

fn key(contacts: &Contacts, id: &str) -> Option<String> {
    if id.contains('@') {
        return Some(id.to_lowercase());
    }
    contacts.newest_first().find(|contact| contact.id == id).map(|contact| contact.email.to_lowercase())
}

fn find<'a>(contacts: &'a Contacts, id: &str) -> Option<&'a ContactEntry> {
    contacts.get(&key(contacts, id)?)
}

fn find_mut<'a>(contacts: &'a mut Contacts, id: &str) -> Option<&'a mut ContactEntry> {
    let key = key(contacts, id)?;
    contacts.get_mut(&key)
}

/// Checks the body of a contact, before any state is read.
fn check(body: &Value, creates: bool) -> Result<(), ResendError> {
    if creates {
        let email =
            body.get("email").filter(|email| !email.is_null()).ok_or_else(|| ResendError::missing("`email`"))?;
        if email.as_str().and_then(address).is_none() {
            return Err(ResendError::invalid("email", "It must be an email address."));
        }
    }
    for name in ["first_name", "last_name"] {
        if body.get(name).is_some_and(|value| !value.is_string() && !value.is_null()) {
            return Err(ResendError::invalid(name, "It must be a string."));
        }
    }
    if body.get("unsubscribed").is_some_and(|value| !value.is_boolean()) {
        return Err(ResendError::invalid("unsubscribed", "It must be a boolean."));
    }
    if let Some(properties) = body.get("properties") {
        let properties =
            properties.as_object().ok_or_else(|| ResendError::invalid("properties", "It must be an object."))?;
        for (key, value) in properties {
            let is_word = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if key.is_empty() || key.len() > LONGEST_KEY || !is_word {
                return Err(ResendError::invalid("properties", "A key is alphanumeric with underscores."));
            }
            if !(value.is_string() || value.is_number() || (value.is_null() && !creates)) {
                return Err(ResendError::invalid("properties", "A value is a string or a number."));
            }
        }
    }
    if let Some(segments) = body.get("segments") {
        let segments = segments.as_array().ok_or_else(|| ResendError::invalid("segments", "It must be a list."))?;
        for segment in segments {
            uuid("segments", segment.as_str().unwrap_or_default())?;
        }
    }
    body.get("topics").map_or(Ok(()), topics)
}

/// Returns the list of topics in a request. Resend's OpenAPI document has it in `topics`; resend-node sends the list
/// alone, so the real service reads both.
fn topics_of(body: &Value) -> Option<&Value> {
    if body.is_array() { Some(body) } else { body.get("topics") }
}

fn topics(list: &Value) -> Result<(), ResendError> {
    let list = list.as_array().ok_or_else(|| ResendError::invalid("topics", "It must be a list."))?;
    for topic in list {
        uuid("topics", topic["id"].as_str().unwrap_or_default())?;
        if !SUBSCRIPTIONS.iter().any(|known| topic["subscription"] == *known) {
            return Err(ResendError::invalid("topics", "A subscription is `opt_in` or `opt_out`."));
        }
    }
    Ok(())
}

/// Checks that a text names a contact: by its address, or by its id.
fn named(field: &str, text: &str) -> Result<(), ResendError> {
    if text.contains('@') { Ok(()) } else { uuid(field, text) }
}

fn uuid(field: &str, text: &str) -> Result<(), ResendError> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let is_hex = text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    if is_hex && lengths == [8, 4, 4, 4, 12] { Ok(()) } else { Err(ResendError::no_uuid(field)) }
}
