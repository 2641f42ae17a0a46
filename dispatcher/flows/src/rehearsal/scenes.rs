//! The sample events of a rehearsal, each complete and without the values that it may lack.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use usher_clerk::samples;
use usher_engine::field_diff::{Fields, PreviousFields};
use usher_engine::{AttemptState, Run};
use usher_proto::Subject;
use usher_proto::{Event, EventId, Instance, Json, Key, Partition, Source, SubjectId, Timestamp};

use super::super::{Context, Flow, Pattern, Schedule, firing_event};
use super::answers::answer;

/// The time of all samples.
pub(super) const AT: Timestamp = Timestamp::from_seconds(1_775_037_600);

/// Fields of a user that Clerk sometimes omits, or sends to some applications only.
const OPTIONAL: [&str; 11] = [
    "locale",
    "image_url",
    "profile_image_url",
    "private_metadata",
    "unsafe_metadata",
    "password_last_updated_at",
    "organization_memberships",
    "deprovisioned",
    "create_organizations_limit",
    "bypass_client_trust",
    "scim",
];

/// One event and the context in which it is processed.
pub(super) struct Scene {
    /// The event's type.
    pub(super) kind: String,
    pub(super) event: Event,
    pub(super) context: Context,
    /// The newest known state of the event's subject, as JSON; `None` if none is known.
    pub(super) known: Option<String>,
    /// Description of the absent values; empty for a complete sample.
    lacks: &'static str,
}

/// An event that a write causes.
pub(super) struct Echo<'a> {
    /// The subject before the write.
    pub(super) before: &'a Value,
    /// The subject as the event describes it.
    pub(super) after: &'a Value,
    /// The number of writes before it.
    pub(super) round: u32,
    /// The indices of the steps that have a result.
    pub(super) done: &'a [usize],
    /// True if these steps have new results in each round, as if they had created another object.
    pub(super) is_fresh: bool,
}

impl Scene {
    /// True if the sample is complete.
    pub(super) fn is_whole(&self) -> bool {
        self.lacks.is_empty()
    }

    /// Returns the event's type and what it lacks.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.kind, self.lacks).trim_end().to_owned()
    }

    /// Describes the scene in words, for messages.
    pub(super) fn describe(&self) -> String {
        format!("with {}", self.words())
    }
}

/// The sources of whose events there are samples.
const SOURCES: [Source; 4] = [Source::Clerk, Source::Stripe, Source::Nylas, Source::Resend];

/// Returns all scenes of a flow: those of every known event type that starts it, or those of its schedule.
pub(super) fn of(flow: &Flow) -> Vec<Scene> {
    if let Some(schedule) = &flow.schedule {
        return of_schedule(flow, schedule);
    }
    of_patterns(flow, &flow.on)
}

/// Returns the scenes of every known event type that one of the patterns matches.
pub(super) fn of_patterns(flow: &Flow, patterns: &[Pattern]) -> Vec<Scene> {
    let of_source = |source: Source| {
        let matches =
            move |kind: &&&str| patterns.iter().any(|pattern| pattern.source() == source && pattern.takes(kind));
        let types = usher_senders::event_types(source).unwrap_or_default().iter().filter(matches);
        types.flat_map(move |kind| of_type(flow, source, kind))
    };
    SOURCES.into_iter().flat_map(of_source).collect()
}

/// True if a pattern matches events of which there is no sample, so that their fields are not known.
pub(super) fn are_incomplete(patterns: &[Pattern]) -> bool {
    patterns.iter().any(|pattern| {
        let source = pattern.source();
        let mut types =
            usher_senders::event_types(source).unwrap_or_default().iter().filter(|kind| pattern.takes(kind));
        !types.any(|kind| has_sample(source, kind))
    })
}

/// Returns the scenes of a scheduled flow: one for each form of a user, or one for the flow itself.
fn of_schedule(flow: &Flow, schedule: &Schedule) -> Vec<Scene> {
    let firing = |subject: &SubjectId| run(&firing_event(flow, schedule, AT, subject, AT));
    // Every step has a result, as if it had created an object.
    let results = || (0..flow.steps.len()).map(|step| (step, answer(flow, step))).collect();
    if schedule.subjects.is_none() {
        let run = Run { results: results(), ..firing(&flow.own_subject(&Instance::default())) };
        return staged(flow, run, "", None, None).into_iter().collect();
    }
    let kind = "user.created";
    let users = samples::of_type(kind).into_iter().flat_map(|sample| forms(kind, sample));
    let of_user = |(lacks, sample, _): (&'static str, Value, _)| {
        let user = Some(sample["data"].to_string());
        staged(flow, Run { results: results(), ..firing(&rehearsal_user()) }, lacks, user.clone(), user)
    };
    users.filter_map(of_user).collect()
}

fn has_sample(source: Source, kind: &str) -> bool {
    match source {
        Source::Clerk => !samples::of_type(kind).is_empty(),
        _ => usher_senders::samples::of_type(source, kind).is_some(),
    }
}

/// Returns the subject of the events that concern a user.
fn rehearsal_user() -> SubjectId {
    SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_rehearsal"))
}

fn of_type(flow: &Flow, source: Source, kind: &str) -> Vec<Scene> {
    if source != Source::Clerk {
        let own = SubjectId::new(source, &Instance::default(), &Key::new("rehearsal"));
        let Some(sample) = usher_senders::samples::of_type(source, kind) else { return Vec::new() };
        let user = known_user();
        return [
            ("", rehearsal_user(), user.as_ref()),
            ("of a user that is not known", rehearsal_user(), None),
            ("of no user", own, None),
        ]
        .into_iter()
        .filter_map(|(lacks, subject, user)| scene(flow, source, subject, kind, lacks, &sample, user))
        .collect();
    }
    let mut scenes = Vec::new();
    for sample in samples::of_type(kind) {
        for (lacks, sample, user) in forms(kind, sample) {
            scenes.extend(scene(flow, source, rehearsal_user(), kind, lacks, &sample, user.as_ref()));
        }
    }
    scenes
}

/// Returns the last known state of the user of the samples.
pub(super) fn known_user() -> Option<Value> {
    samples::of_type("user.created").into_iter().next().map(|user| whole_user(user["data"].clone()))
}

/// Returns a sample in complete form and without the values that may be absent. Each form is a description, the event,
/// and the known state of the user whom it concerns, if that is not in the event itself.
fn forms(kind: &str, sample: Value) -> Vec<(&'static str, Value, Option<Value>)> {
    if kind == "user.deleted" {
        return vec![("", sample, None)];
    }
    if !kind.starts_with("user.") {
        let concerns_user = ["user_id", "public_user_data", "payer", "user"]
            .iter()
            .any(|field| !sample["data"][*field].is_null() && sample["data"].get(*field).is_some());
        return match known_user().filter(|_| concerns_user) {
            Some(user) => vec![("", sample.clone(), Some(user)), ("of a user that is not known", sample, None)],
            None => vec![("", sample, None)],
        };
    }
    let user = whole_user(sample["data"].clone());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut other = user.clone();
        change(&mut other);
        json!({ "type": sample["type"], "timestamp": sample["timestamp"], "data": other })
    };
    let nobody = |fields: &'static [&'static str]| {
        with(&|user| {
            for field in fields {
                user[*field] = Value::Null;
            }
        })
    };
    vec![
        ("", with(&|_| {}), None),
        ("of somebody without a name", nobody(&["first_name", "last_name", "username"]), None),
        ("of somebody without an address", nobody(&["primary_email_address_id"]), None),
        ("of somebody without a phone", nobody(&["primary_phone_number_id"]), None),
        ("of somebody without metadata", nobody(&["private_metadata", "unsafe_metadata"]), None),
    ]
}

/// Returns a user in whom every field is present, and username and phone number are set.
fn whole_user(mut user: Value) -> Value {
    for field in OPTIONAL {
        if user.get(field).is_none() {
            user[field] = Value::Null;
        }
    }
    user["username"] = json!("nell");
    user["primary_phone_number_id"] = json!("idn_phone");
    user["phone_numbers"] = json!([{ "id": "idn_phone", "object": "phone_number", "phone_number": "+4930901820" }]);
    user
}

fn scene(
    flow: &Flow,
    source: Source,
    subject: SubjectId,
    kind: &str,
    lacks: &'static str,
    sample: &Value,
    user: Option<&Value>,
) -> Option<Scene> {
    let event = event(source, subject, kind, "msg_rehearsal", AT, sample);
    // Every step has a result, as if it had created an object.
    let results = (0..flow.steps.len()).map(|step| (step, answer(flow, step))).collect();
    let run = Run { results, before: (!flow.remember.is_empty()).then(|| before(flow)), ..run(&event) };
    let own = &sample["data"];
    let is_described = source == Source::Clerk && own["id"].is_string();
    let known = user.or_else(|| is_described.then_some(own)).map(Value::to_string);
    staged(flow, run, lacks, user.map(Value::to_string), known)
}

/// Returns the scene of an event that a write of the flow has caused. It differs from the sample in everything in which every
/// event differs, and in what was written.
pub(super) fn echo(flow: &Flow, kind: &str, echo: &Echo<'_>) -> Option<Scene> {
    let at = AT.plus(Duration::from_secs(3600 * u64::from(echo.round)));
    let mut after = echo.after.clone();
    after["updated_at"] = json!(at.millis());
    let sample = json!({ "type": kind, "timestamp": at.millis(), "data": after });
    let id = format!("msg_rehearsal_{}", echo.round);
    let event = event(Source::Clerk, rehearsal_user(), kind, &id, at, &sample);
    let made = if echo.is_fresh { echo.round + 1 } else { 1 };
    let results = echo.done.iter().map(|step| (*step, json!({ "id": format!("made_{made}") }))).collect();
    let run = Run { results, before: (!flow.remember.is_empty()).then(|| difference(flow, echo)), ..run(&event) };
    let after = after.to_string();
    staged(flow, run, "", Some(after.clone()), Some(after))
}

fn event(source: Source, subject: SubjectId, kind: &str, id: &str, at: Timestamp, body: &Value) -> Event {
    Event {
        id: EventId::new(id),
        kind: kind.to_owned(),
        source,
        subject,
        occurred_at: at,
        received_at: at,
        provenance: Vec::new(),
        body: Bytes::from(body.to_string()),
    }
}

/// Returns a run of the event that has executed no step.
pub(crate) fn run(event: &Event) -> Run {
    Run {
        event: event.clone(),
        partition: Partition(0),
        position: 0,
        flow_version: String::new(),
        step: 0,
        destination: None,
        begun: false,
        rerun: 0,
        tries: AttemptState::default(),
        request: None,
        results: BTreeMap::new(),
        wait_until: None,
        expires_at: None,
        before: None,
        verdict: None,
        quarantined: false,
        untold: Vec::new(),
        claimed: None,
    }
}

fn staged(
    flow: &Flow,
    run: Run,
    lacks: &'static str,
    snapshot: Option<String>,
    known: Option<String>,
) -> Option<Scene> {
    let subject = snapshot.map(|snapshot| Subject { snapshot: Some(snapshot), deleted: false, revision: 1 });
    let mut context = Context::new(flow, &run, subject.as_ref()).ok()?;
    context.set_settings(flow.settings.placeholders());
    Some(Scene { kind: run.event.kind.clone(), event: run.event, context, known, lacks })
}

/// Returns the previous fields of a subject before a write, with those that the write has changed.
fn difference(flow: &Flow, echo: &Echo<'_>) -> PreviousFields {
    let read = |object: &Value| {
        let text = object.to_string();
        Json::read(&text).map(|object| usher_clerk::fields(object, &flow.remember)).unwrap_or_default()
    };
    let (fields, after) = (read(echo.before), read(echo.after));
    let changed = flow.remember.iter().filter(|name| fields.get(*name) != after.get(*name)).cloned().collect();
    PreviousFields { fields, changed }
}

/// Returns previous fields in which every field that the flow stores has changed, so that every step that depends on a
/// change is due.
pub(super) fn before(flow: &Flow) -> PreviousFields {
    let user = Value::Object(known_fields().unwrap_or_default()).to_string();
    let known = Json::read(&user).map(|user| usher_clerk::fields(user, &flow.remember));
    PreviousFields { fields: known.unwrap_or_default(), changed: flow.remember.clone() }
}

/// Returns the fields of a user that a flow can store: Clerk's fields, and those derived from them.
pub(super) fn known_fields() -> Option<Fields> {
    let sample = samples::of_type("user.created").into_iter().next()?;
    let Value::Object(mut user) = whole_user(sample["data"].clone()) else { return None };
    let derived = ["email", "phone", "name"].map(str::to_owned);
    let text = Value::Object(user.clone()).to_string();
    user.extend(Json::read(&text).map(|user| usher_clerk::fields(user, &derived)).unwrap_or_default());
    Some(user)
}
