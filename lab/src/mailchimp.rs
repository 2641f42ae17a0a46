//! The double of Mailchimp's Marketing API: the members of audiences.
//!
//! Facts: mailchimp.com/developer/marketing (list members, errors) and mailchimp-marketing-python. Errors are
//! `application/problem+json` with a `title`. There are no idempotency keys. Any list id of letters and digits exists
//! except `missing`. The address selects a refusal: `forgotten@…` was erased, `compliance@…` unsubscribed long ago,
//! `fake@…` looks invented. The states of members are implemented in [`member`].
//!
//! A fault with status 403 and the name `bare` answers as Mailchimp's edge does under load, without Mailchimp's error
//! format. The real limit of ten simultaneous connections is the fault `{"status":429,"beyond":10}`.

mod member;

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use self::member::{AudienceMembers, MemberKey};
use crate::answer::FakeResponse;
use crate::bounded::Bounded;
use crate::double::{Double, DoubleCall, DoubleRefusal, EffectSubject};
use crate::locked::Locked;
use crate::request::{BodyFormat, Request};

/// The merge field in which Usher's flows put the Clerk user.
const USER_FIELD: &str = "CLERKID";

/// The double of one Mailchimp account.
pub(crate) struct MailchimpDouble {
    members: Arc<Locked<AudienceMembers>>,
}

impl MailchimpDouble {
    pub(crate) fn holding(most: usize) -> Self {
        Self { members: Arc::new(Locked::new(Bounded::new(most))) }
    }
}

enum Route {
    List,
    Get(MemberKey),
    Put(MemberKey),
    Patch(MemberKey),
    Delete(MemberKey),
    Tags(MemberKey),
    Erase(MemberKey),
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
            (method, ["members", id, action @ ..]) => {
                let place = ((*list).to_owned(), member::id_of(id));
                match (method, action) {
                    (&Method::GET, []) => Some(Self::Get(place)),
                    (&Method::PUT, []) => Some(Self::Put(place)),
                    (&Method::PATCH, []) => Some(Self::Patch(place)),
                    (&Method::DELETE, []) => Some(Self::Delete(place)),
                    (&Method::POST, ["tags"]) => Some(Self::Tags(place)),
                    (&Method::POST, ["actions", "delete-permanent"]) => Some(Self::Erase(place)),
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
            Self::Tags(_) => "members.tag",
            Self::Erase(_) => "members.erase",
        }
    }

    /// Returns the key of the member that the request concerns.
    fn place(&self) -> Option<&MemberKey> {
        match self {
            Self::List => None,
            Self::Get(place)
            | Self::Put(place)
            | Self::Patch(place)
            | Self::Delete(place)
            | Self::Tags(place)
            | Self::Erase(place) => Some(place),
        }
    }
}

impl Double for MailchimpDouble {
    fn name(&self) -> &'static str {
        "mailchimp"
    }

    fn describe(&self, request: &Request) -> EffectSubject {
        let route = Route::of(request);
        let stored = route
            .as_ref()
            .and_then(Route::place)
            .and_then(|place| self.members.with(|members| member::find(members, place).cloned()));
        let stored: Map<String, Value> = stored.unwrap_or_default();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let user = |fields: Option<&Value>| text(fields.and_then(|fields| fields.get(USER_FIELD)));
        EffectSubject {
            operation: route.map(|route| route.operation()),
            user: user(request.body.get("merge_fields")).or_else(|| user(stored.get("merge_fields"))),
            to: text(request.body.get("email_address")).or_else(|| text(stored.get("email_address"))),
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), FakeResponse> {
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
            Some(_) | None => Err(problem(StatusCode::UNAUTHORIZED, "API Key Invalid", "Your API key may be invalid.")),
        }
    }

    fn read(&self, request: &Request, _: Timestamp) -> Result<DoubleCall, FakeResponse> {
        let route = Route::of(request).ok_or_else(not_found)?;
        let writes = matches!(route, Route::Put(_) | Route::Patch(_) | Route::Tags(_));
        if writes && (request.written != BodyFormat::Json || !request.body.is_object()) {
            return Err(problem(StatusCode::BAD_REQUEST, "JSON Parse Error", "The request body is no JSON object."));
        }
        let members = self.members.clone();
        let body = request.body.clone();
        let changes = !matches!(route, Route::List | Route::Get(_));
        let run: Box<dyn FnOnce(Timestamp) -> FakeResponse + Send> = match route {
            Route::List => Box::new(|_| FakeResponse::done(json!({ "id": "list" }))),
            Route::Get(place) => Box::new(move |_| {
                let member = members.with(|members| member::find(members, &place).cloned());
                member.map_or_else(not_found, |member| FakeResponse::done(Value::Object(member)))
            }),
            Route::Put(place) => {
                member::check(&body, true)?;
                Box::new(move |_| members.with(|members| member::put(members, &place, &body)))
            }
            Route::Patch(place) => {
                member::check(&body, false)?;
                Box::new(move |_| members.with(|members| member::update(members, &place, &body)))
            }
            Route::Delete(place) => Box::new(move |_| members.with(|members| member::archive(members, &place))),
            Route::Erase(place) => Box::new(move |_| members.with(|members| member::erase(members, &place))),
            Route::Tags(place) => {
                let tags = member::tags(&body)?;
                Box::new(move |_| members.with(|members| member::tag(members, &place, &tags)))
            }
        };
        Ok(DoubleCall { key: None, changes, run })
    }

    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse {
        match refusal {
            DoubleRefusal::Fault { status, name: Some("bare"), .. } => {
                FakeResponse::refused(status, json!("Forbidden"))
            }
            DoubleRefusal::Fault { status, name, retry_after } => {
                let title = name.unwrap_or_else(|| status.canonical_reason().unwrap_or("Error"));
                let answer = problem(status, title, "The lab says so.");
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
            // Mailchimp states neither a time to retry nor the remaining number of requests.
            DoubleRefusal::Limited(_) | DoubleRefusal::KeyReused(_) | DoubleRefusal::KeyInUse(_) => problem(
                StatusCode::TOO_MANY_REQUESTS,
                "Too Many Requests",
                "You have exceeded the limit of connections.",
            ),
        }
    }
}

/// Builds a refusal. `detail` never repeats content of the request.
fn problem(status: StatusCode, title: &str, detail: &str) -> FakeResponse {
    refused(status, title, detail, &json!([]))
}

/// Builds the refusal of an invalid field.
fn invalid(field: &str, message: &str) -> FakeResponse {
    let detail = "The resource submitted could not be validated. For field-specific details, see the 'errors' array.";
    refused(StatusCode::BAD_REQUEST, "Invalid Resource", detail, &json!([{ "field": field, "message": message }]))
}

fn refused(status: StatusCode, title: &str, detail: &str, errors: &Value) -> FakeResponse {
    let mut body = json!({
        "type": "https://mailchimp.com/developer/marketing/docs/errors/",
        "title": title, "status": status.as_u16(), "detail": detail, "instance": "",
    });
    if errors.as_array().is_some_and(|errors| !errors.is_empty()) {
        body["errors"] = errors.clone();
    }
    FakeResponse::refused(status, body).with("content-type", "application/problem+json")
}

fn not_found() -> FakeResponse {
    problem(StatusCode::NOT_FOUND, "Resource Not Found", "The requested resource could not be found.")
}
