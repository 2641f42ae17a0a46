//! The double of Mailchimp's Marketing API: the members of audiences.
//!
//! Facts: mailchimp.com/developer/marketing (list members, errors) and mailchimp-marketing-python. Errors are
//! `application/problem+json` with a `title`. There are no idempotency keys. Any list of letters and digits exists but
//! `missing`. Who may not be subscribed is told by the address: `forgotten@…` was erased, `compliance@…` unsubscribed
//! long ago, `fake@…` looks invented.
//!
//! A fault with status 403 and the name `bare` answers as the edge does under load: in no form of Mailchimp's. The real
//! one's ten simultaneous connections are the fault `{"status":429,"beyond":10}`.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use crate::answer::Answer;
use crate::bounded::Bounded;
use crate::double::{Call, Double, Refusal, Subject};
use crate::locked::Locked;
use crate::request::{Request, Written};

const STATUSES: [&str; 5] = ["subscribed", "unsubscribed", "cleaned", "pending", "transactional"];
/// The merge field in which Usher's flows put the Clerk user.
const USER_FIELD: &str = "CLERKID";

/// The members by list and id.
type Members = Bounded<(String, String), Map<String, Value>>;

/// One account.
pub(crate) struct Mailchimp {
    members: Arc<Locked<Members>>,
}

impl Mailchimp {
    pub(crate) fn holding(most: usize) -> Self {
        Self { members: Arc::new(Locked::new(Bounded::new(most))) }
    }
}

/// A member: list and id.
type Place = (String, String);

enum Route {
    List,
    Get(Place),
    Put(Place),
    Patch(Place),
    Delete(Place),
}

impl Route {
    fn of(request: &Request) -> Option<Self> {
        let segments = request.segments();
        let ["3.0", "lists", list, rest @ ..] = segments.as_slice() else { return None };
        if *list == "missing" || !list.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        match (&request.method, rest) {
            (&Method::GET, []) => Some(Self::List),
            (method, ["members", id]) => {
                let place = ((*list).to_owned(), id.to_lowercase());
                match *method {
                    Method::GET => Some(Self::Get(place)),
                    Method::PUT => Some(Self::Put(place)),
                    Method::PATCH => Some(Self::Patch(place)),
                    Method::DELETE => Some(Self::Delete(place)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn operation(&self) -> &'static str {
        match self {
            Self::List => "lists.get",
            Self::Get(_) => "members.get",
            Self::Put(_) => "members.put",
            Self::Patch(_) => "members.update",
            Self::Delete(_) => "members.archive",
        }
    }
}

impl Double for Mailchimp {
    fn name(&self) -> &'static str {
        "mailchimp"
    }

    fn describe(&self, request: &Request) -> Subject {
        let route = Route::of(request);
        let stored = match &route {
            Some(Route::Get(place) | Route::Put(place) | Route::Patch(place) | Route::Delete(place)) => {
                self.members.with(|members| members.get(place).cloned()).unwrap_or_default()
            }
            Some(Route::List) | None => Map::new(),
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let user = |fields: Option<&Value>| text(fields.and_then(|fields| fields.get(USER_FIELD)));
        Subject {
            operation: route.map(|route| route.operation()),
            user: user(request.body.get("merge_fields")).or_else(|| user(stored.get("merge_fields"))),
            to: text(request.body.get("email_address")).or_else(|| text(stored.get("email_address"))),
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, rest) = value.split_once(' ').unwrap_or_default();
        let key = if scheme.eq_ignore_ascii_case("basic") {
            let pair = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            pair.and_then(|pair| pair.split_once(':').map(|(_, key)| key.to_owned()))
        } else {
            scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim().to_owned())
        };
        let fits =
            |key: &str| key.rsplit_once('-').is_some_and(|(key, centre)| !key.is_empty() && centre.starts_with("us"));
        match key {
            Some(key) if fits(&key) => Ok(()),
            Some(_) | None => Err(problem(StatusCode::UNAUTHORIZED, "API Key Invalid")),
        }
    }

    fn read(&self, request: &Request, _: Timestamp) -> Result<Call, Answer> {
        let route = Route::of(request).ok_or_else(not_found)?;
        let writes = matches!(route, Route::Put(_) | Route::Patch(_));
        if writes && (request.written != Written::Json || !request.body.is_object()) {
            return Err(problem(StatusCode::BAD_REQUEST, "JSON Parse Error"));
        }
        let (members, body) = (self.members.clone(), request.body.clone());
        let changes = !matches!(route, Route::List | Route::Get(_));
        let run: Box<dyn FnOnce(Timestamp) -> Answer + Send> = match route {
            Route::List => Box::new(|_| Answer::done(json!({ "id": "list" }))),
            Route::Get(place) => Box::new(move |_| shown(members.with(|members| members.get(&place).cloned()))),
            Route::Put(place) => {
                check(&body)?;
                Box::new(move |_| members.with(|members| put(members, place, &body)))
            }
            Route::Patch(place) => Box::new(move |_| members.with(|members| patch(members, &place, &body))),
            Route::Delete(place) => Box::new(move |_| match members.with(|members| members.remove(&place)) {
                Some(_) => Answer::done(Value::Null).status(StatusCode::NO_CONTENT),
                None => not_found(),
            }),
        };
        Ok(Call { key: None, changes, run })
    }

    fn refuse(&self, refusal: Refusal<'_>) -> Answer {
        match refusal {
            Refusal::Fault { status, name: Some("bare"), .. } => Answer::refused(status, json!("Forbidden")),
            Refusal::Fault { status, name, retry_after } => {
                let answer = problem(status, name.unwrap_or_else(|| status.canonical_reason().unwrap_or("Error")));
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
            // It says neither when to come again nor how much is left.
            Refusal::Limited(_) | Refusal::KeyReused(_) | Refusal::KeyInUse(_) => {
                problem(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests")
            }
        }
    }
}

fn problem(status: StatusCode, title: &str) -> Answer {
    let detail = "The lab says so.";
    let body = json!({
        "type": "https://mailchimp.com/developer/marketing/docs/errors/",
        "title": title, "status": status.as_u16(), "detail": detail, "instance": "",
    });
    Answer::refused(status, body).with("content-type", "application/problem+json")
}

fn not_found() -> Answer {
    problem(StatusCode::NOT_FOUND, "Resource Not Found")
}

fn shown(member: Option<Map<String, Value>>) -> Answer {
    member.map_or_else(not_found, |member| Answer::done(Value::Object(member)))
}

/// What is wrong with a member before anything is looked at.
fn check(body: &Value) -> Result<(), Answer> {
    let invalid = || problem(StatusCode::BAD_REQUEST, "Invalid Resource");
    let email = body["email_address"].as_str().filter(|email| email.contains('@')).ok_or_else(invalid)?;
    let known = |field: &str| body.get(field).is_none_or(|status| STATUSES.iter().any(|known| status == known));
    if !known("status") || !known("status_if_new") {
        return Err(invalid());
    }
    match email.split('@').next() {
        Some("fake") => Err(invalid()),
        Some("compliance") => Err(problem(StatusCode::BAD_REQUEST, "Member In Compliance State")),
        Some("forgotten") => Err(problem(StatusCode::BAD_REQUEST, "Forgotten Email Not Subscribed")),
        Some(_) | None => Ok(()),
    }
}

/// A member who is there keeps the status, unless one is given.
fn put(members: &mut Members, place: Place, body: &Value) -> Answer {
    if !members.contains_key(&place) {
        let status = [&body["status"], &body["status_if_new"]].into_iter().find(|status| status.is_string());
        let Some(status) = status.cloned() else { return problem(StatusCode::BAD_REQUEST, "Invalid Resource") };
        let tags = body["tags"].as_array().cloned().unwrap_or_default();
        let (list, id) = place.clone();
        let member = json!({
            "id": id, "list_id": list, "contact_id": id, "status": status, "merge_fields": {}, "tags": tags,
        });
        members.insert(place.clone(), member.as_object().cloned().unwrap_or_default());
    }
    patch(members, &place, body)
}

fn patch(members: &mut Members, place: &Place, body: &Value) -> Answer {
    let Some(member) = members.get_mut(place) else { return not_found() };
    for field in ["email_address", "status", "language", "vip"] {
        if let Some(value) = body.get(field) {
            member.insert(field.into(), value.clone());
        }
    }
    if let (Some(new), Some(fields)) = (body["merge_fields"].as_object(), member.get_mut("merge_fields")) {
        for (name, value) in new {
            fields[name] = value.clone();
        }
    }
    shown(Some(member.clone()))
}
