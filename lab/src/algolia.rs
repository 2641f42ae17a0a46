//! The double of Algolia: records in indexes, with partial updates and their conditional operations.
//!
//! Facts: algolia.com/doc (REST API, partial updates, built-in operations) and algoliasearch-client-python. Requests
//! take effect at once, while the real service queues them; the response names a task all the same. There are no
//! idempotency keys. The first write to an index creates it.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, StatusCode};
use rand::Rng as _;
use serde_json::{Map, Value, json};
use usher_proto::Timestamp;

use crate::answer::FakeResponse;
use crate::bounded::Bounded;
use crate::double::{Double, DoubleCall, DoubleRefusal, EffectSubject};
use crate::locked::Locked;
use crate::request::Request;

/// The key of a record: index and object id, as given in the path.
type RecordKey = (String, String);
type Records = Bounded<RecordKey, Map<String, Value>>;

/// The double of one Algolia application.
pub(crate) struct AlgoliaDouble {
    records: Arc<Locked<Records>>,
}

impl AlgoliaDouble {
    pub(crate) fn holding(most: usize) -> Self {
        Self { records: Arc::new(Locked::new(Bounded::new(most))) }
    }
}

enum Route {
    Get(RecordKey),
    Replace(RecordKey),
    Partial(RecordKey),
    Delete(RecordKey),
    Task,
}

impl Route {
    fn of(request: &Request) -> Option<Self> {
        let segments = request.segments();
        let ["1", "indexes", index, object, rest @ ..] = segments.as_slice() else { return None };
        if let (&Method::GET, "task", [_]) = (&request.method, *object, rest) {
            return Some(Self::Task);
        }
        let place = ((*index).to_owned(), (*object).to_owned());
        match (&request.method, rest) {
            (&Method::GET, []) => Some(Self::Get(place)),
            (&Method::PUT, []) => Some(Self::Replace(place)),
            (&Method::DELETE, []) => Some(Self::Delete(place)),
            (&Method::POST, ["partial"]) => Some(Self::Partial(place)),
            _ => None,
        }
    }
}

impl Double for AlgoliaDouble {
    fn name(&self) -> &'static str {
        "algolia"
    }

    fn describe(&self, request: &Request) -> EffectSubject {
        let Some(route) = Route::of(request) else { return EffectSubject::default() };
        let (operation, (index, object)) = match route {
            Route::Task => return EffectSubject { operation: Some("tasks.get"), ..EffectSubject::default() },
            Route::Get(place) => ("objects.get", place),
            Route::Replace(place) => ("objects.save", place),
            Route::Partial(place) => ("objects.partial", place),
            Route::Delete(place) => ("objects.delete", place),
        };
        EffectSubject { operation: Some(operation), user: Some(object), to: Some(index) }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), FakeResponse> {
        let filled = |name| headers.get(name).is_some_and(|value| !value.is_empty());
        if filled("x-algolia-application-id") && filled("x-algolia-api-key") {
            Ok(())
        } else {
            Err(error(StatusCode::FORBIDDEN, "Invalid Application-ID or API key"))
        }
    }

    fn read(&self, request: &Request, _: Timestamp) -> Result<DoubleCall, FakeResponse> {
        let route = Route::of(request).ok_or_else(|| error(StatusCode::NOT_FOUND, "Path not supported by the lab"))?;
        let writes = matches!(route, Route::Replace(_) | Route::Partial(_));
        // The content type is ignored: the official JavaScript client sends `text/plain`, which avoids a preflight
        // request in browsers (algoliasearch-client-javascript, `createXhrRequester` and its fetch counterpart).
        let body: Option<Map<String, Value>> = serde_json::from_slice(request.raw()).ok();
        if writes && body.is_none() {
            return Err(error(StatusCode::BAD_REQUEST, "Invalid JSON"));
        }
        let body = body.unwrap_or_default();
        let create = request.query()["createIfNotExists"] != "false";
        let records = self.records.clone();
        let changes = !matches!(route, Route::Get(_) | Route::Task);
        let run = move |now: Timestamp| records.with(|records| work(records, route, body, create, now));
        Ok(DoubleCall { key: None, changes, run: Box::new(run) })
    }

    fn refuse(&self, refusal: DoubleRefusal<'_>) -> FakeResponse {
        match refusal {
            DoubleRefusal::Limited(_) | DoubleRefusal::KeyReused(_) | DoubleRefusal::KeyInUse(_) => {
                error(StatusCode::TOO_MANY_REQUESTS, "Too many jobs")
            }
            DoubleRefusal::Fault { status, name, retry_after } => {
                let answer = error(status, name.unwrap_or("The lab answers this on purpose."));
                match retry_after {
                    Some(seconds) => answer.with("retry-after", seconds),
                    None => answer,
                }
            }
        }
    }
}

fn error(status: StatusCode, message: &str) -> FakeResponse {
    FakeResponse::refused(status, json!({ "message": message, "status": status.as_u16() }))
}

fn work(records: &mut Records, route: Route, body: Map<String, Value>, create: bool, now: Timestamp) -> FakeResponse {
    let task = rand::rng().random_range(1..1_000_000_000_u64);
    let at = now.to_string();
    match route {
        // Requests take effect at once, so every task is finished.
        Route::Task => FakeResponse::done(json!({ "status": "published", "pendingTask": false })),
        Route::Get(place) => records.get(&place).map_or_else(
            || error(StatusCode::NOT_FOUND, "ObjectID does not exist"),
            |record| FakeResponse::done(Value::Object(record.clone())),
        ),
        Route::Delete(place) => {
            records.remove(&place);
            FakeResponse::done(json!({ "deletedAt": at, "taskID": task }))
        }
        Route::Replace(place) => {
            let answer = FakeResponse::done(json!({ "updatedAt": at, "taskID": task, "objectID": place.1 }));
            records.insert(place, body);
            answer
        }
        Route::Partial(place) => {
            let answer = FakeResponse::done(json!({ "updatedAt": at, "taskID": task, "objectID": place.1 }));
            let there = records.contains_key(&place);
            let mut record = records.get(&place).cloned().unwrap_or_default();
            if (there || create) && apply(&mut record, body) {
                record.insert("objectID".into(), json!(place.1));
                records.insert(place, record);
            }
            answer
        }
    }
}

/// Applies a partial update to a record and returns true, or returns false if a conditional operation rejects the whole
/// update. First-level attributes are replaced as a whole.
fn apply(record: &mut Map<String, Value>, update: Map<String, Value>) -> bool {
    let number = |value: Option<&Value>| value.and_then(Value::as_i64).unwrap_or_default();
    for (name, value) in update {
        let stored = number(record.get(&name));
        let given = number(value.get("value"));
        let next = match value.get("_operation").and_then(Value::as_str) {
            None => value,
            Some("IncrementSet") if given > stored => json!(given),
            Some("IncrementFrom") if given == stored => json!(stored + 1),
            // A failed condition discards the whole update, not only its own attribute.
            Some("IncrementSet" | "IncrementFrom") => return false,
            Some("Increment") => json!(stored + given),
            Some("Decrement") => json!(stored - given),
            Some(_) => continue,
        };
        record.insert(name, next);
    }
    true
}
