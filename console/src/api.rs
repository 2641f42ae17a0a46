//! The HTTP API: the answers of [`crate::model`] and the actions of [`crate::actions`] as JSON. `openapi.json` describes it.
//!
//! Bodies are JSON. Who calls is told by `Authorization: Bearer`, or by the header of a proxy; in a browser's session a form's
//! token would be wanted, which JSON has no place for, so a program on loopback sends `X-Usher-Client` instead.

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use usher_proto::Timestamp;
use usher_service::clock;
use usher_store::DeadLetterCursor;

use crate::Console;
use crate::actions::{self, CameOf, FlowAction, RedriveChoice, RedriveOrder, RunCommand};
use crate::guard::Visit;
use crate::mask::Masking;
use crate::model::{
    self, CauseGroup, DeadFilter, DeadLetters, EventDetail, EventList, EventListQuery, FlowDetail, OverviewAnswer,
    PersonDetail, RedriveDetail,
};
use crate::problem::{ApiProblem, ConsoleError};

/// The description of the API.
pub(crate) const DESCRIPTION: &str = include_str!("../openapi.json");
/// Number of dead letters of an answer.
const MOST: usize = 1_000;

type ApiAnswer<T> = Result<Json<T>, ApiProblem>;
type Asked<T> = Result<Query<T>, QueryRejection>;

fn asked<T>(query: Asked<T>) -> Result<T, ConsoleError> {
    query.map(|Query(asked)| asked).map_err(|rejection| ConsoleError::BadRequest(rejection.body_text()))
}

fn body<T: DeserializeOwned>(body: &Bytes) -> Result<T, ConsoleError> {
    serde_json::from_slice(body).map_err(|error| ConsoleError::BadRequest(format!("the body: {error}")))
}

pub(crate) async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

pub(crate) async fn overview(State(console): State<Console>) -> ApiAnswer<OverviewAnswer> {
    Ok(Json(model::overview(&console, clock::now()).await?))
}

pub(crate) async fn events(State(console): State<Console>, query: Asked<EventListQuery>) -> ApiAnswer<EventList> {
    Ok(Json(model::event_list(&console, &asked(query)?, clock::now()).await?))
}

/// The event that is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct AskedEvent {
    #[serde(rename = "ref")]
    reference: String,
}

pub(crate) async fn event(State(console): State<Console>, query: Asked<AskedEvent>) -> ApiAnswer<EventDetail> {
    let AskedEvent { reference } = asked(query)?;
    Ok(Json(model::event_detail(&console, &reference, None, clock::now()).await?))
}

pub(crate) async fn show_event(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    given: Bytes,
) -> ApiAnswer<EventDetail> {
    let AskedEvent { reference } = body(&given)?;
    Ok(Json(model::event_detail(&console, &reference, Some(&visit.caller.name), clock::now()).await?))
}

/// The person who is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct AskedPerson {
    id: String,
    /// Only the runs that were admitted before this time.
    before: Option<Timestamp>,
}

pub(crate) async fn person(State(console): State<Console>, query: Asked<AskedPerson>) -> ApiAnswer<PersonDetail> {
    let AskedPerson { id, before } = asked(query)?;
    Ok(Json(model::person_detail(&console, &id, before, Masking::Masked, clock::now()).await?))
}

pub(crate) async fn show_person(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    given: Bytes,
) -> ApiAnswer<PersonDetail> {
    let AskedPerson { id, before } = body(&given)?;
    model::person_detail(&console, &id, before, Masking::Masked, clock::now()).await?;
    actions::record_shown(&console, &visit.caller, &id).await?;
    Ok(Json(model::person_detail(&console, &id, before, Masking::Shown, clock::now()).await?))
}

/// Selection of dead letters, in an address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AskedDead {
    flow: String,
    reason: String,
    cause: String,
    person: String,
    within: String,
    since: String,
    until: String,
    /// The place at which the page begins; only of the list.
    after: String,
}

impl AskedDead {
    fn filter(&self) -> DeadFilter {
        let Self { flow, reason, cause, person, within, since, until, after: _ } = self.clone();
        DeadFilter { flow, reason, cause, person, within, since, until, ..DeadFilter::default() }
    }
}

/// Order to redrive, with the selection of a dry run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AskedRedrive {
    flow: String,
    reason: String,
    cause: String,
    person: String,
    within: String,
    since: String,
    until: String,
    /// Number of runs that the dry run has told.
    runs: Option<usize>,
    /// Largest number of commands a second.
    rate: Option<u32>,
}

/// One dead letter.
#[derive(Debug, Serialize)]
struct DeadLetterAnswer {
    flow: String,
    event: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    step: i64,
    reason: String,
    error: String,
    deaths: i64,
    given_up_at: Timestamp,
}

pub(crate) async fn dead_letters(State(console): State<Console>, query: Asked<AskedDead>) -> ApiAnswer<Value> {
    let asked = asked(query)?;
    let after = (!asked.after.is_empty()).then(|| asked.after.parse::<DeadLetterCursor>()).transpose();
    let after = after.map_err(|error| ConsoleError::BadRequest(format!("after: {error}")))?;
    let now = clock::now();
    let selection = asked.filter().read(&console, now).await?;
    let page = DeadLetters::page(&console, &selection, after, MOST, now).await?;
    let answer = |row: &usher_store::DeadLetterRow| DeadLetterAnswer {
        flow: row.flow.clone(),
        event: row.reference.to_string(),
        kind: row.kind.clone(),
        subject: row.subject.as_str().to_owned(),
        step: row.step + 1,
        reason: row.reason.clone(),
        error: Masking::Masked.sentence(&row.error),
        deaths: row.deaths,
        given_up_at: row.ended_at,
    };
    let rows: Vec<DeadLetterAnswer> = page.rows.iter().map(answer).collect();
    let until = selection.until.unwrap_or(now);
    Ok(Json(json!({ "until": until, "dead_letters": rows, "next": page.next.map(|next| next.to_string()) })))
}

/// Dead letters by cause.
#[derive(Debug, Serialize)]
pub(crate) struct CausesAnswer {
    until: Timestamp,
    causes: Vec<CauseGroup>,
}

pub(crate) async fn causes(State(console): State<Console>, query: Asked<AskedDead>) -> ApiAnswer<CausesAnswer> {
    let now = clock::now();
    let letters = DeadLetters::read(&console, &asked(query)?.filter().read(&console, now).await?, now).await?;
    Ok(Json(CausesAnswer { until: letters.until, causes: letters.causes() }))
}

pub(crate) async fn plan_redrive(State(console): State<Console>, query: Asked<AskedDead>) -> ApiAnswer<Value> {
    let choice = actions::plan_redrive(&console, &asked(query)?.filter()).await?;
    let RedriveChoice { targets, matching, more, too_often, until } = choice;
    Ok(Json(
        json!({ "matching": matching, "runs": targets.len(), "too_often": too_often, "more": more, "until": until }),
    ))
}

pub(crate) async fn redrive(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    given: Bytes,
) -> Result<Response, ApiProblem> {
    let AskedRedrive { flow, reason, cause, person, within, since, until, runs, rate } = body(&given)?;
    let filter = DeadFilter { flow, reason, cause, person, within, since, until, ..DeadFilter::default() };
    let order = RedriveOrder { runs, typed: runs, rate };
    let id = actions::redrive(&console, &visit.caller, &filter, &order).await?;
    let detail = model::redrive_detail(&console, &id, clock::now()).await?;
    Ok((StatusCode::ACCEPTED, Json(detail)).into_response())
}

/// The page of redrives that is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct AskedRedrives {
    before: Option<Timestamp>,
}

pub(crate) async fn redrives(State(console): State<Console>, query: Asked<AskedRedrives>) -> ApiAnswer<Value> {
    let AskedRedrives { before } = asked(query)?;
    let before = before.unwrap_or(Timestamp::from_millis(i64::MAX));
    Ok(Json(json!({ "redrives": model::redrive_list(&console, before, clock::now()).await? })))
}

/// The redrive that is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct AskedOneRedrive {
    id: String,
}

pub(crate) async fn one_redrive(
    State(console): State<Console>,
    query: Asked<AskedOneRedrive>,
) -> ApiAnswer<RedriveDetail> {
    let AskedOneRedrive { id } = asked(query)?;
    Ok(Json(model::redrive_detail(&console, &id, clock::now()).await?))
}

pub(crate) async fn stop_redrive(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    given: Bytes,
) -> ApiAnswer<RedriveDetail> {
    let AskedOneRedrive { id } = body(&given)?;
    actions::stop_redrive(&console, &visit.caller, &id).await?;
    Ok(Json(model::redrive_detail(&console, &id, clock::now()).await?))
}

/// The flow that is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct AskedFlow {
    name: String,
    #[serde(default)]
    version: String,
}

pub(crate) async fn flow(State(console): State<Console>, query: Asked<AskedFlow>) -> ApiAnswer<FlowDetail> {
    let AskedFlow { name, version } = asked(query)?;
    Ok(Json(model::flow_detail(&console, &name, &version, clock::now()).await?))
}

pub(crate) async fn pause(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    given: Bytes,
) -> ApiAnswer<Value> {
    let asked: FlowAction = body(&given)?;
    let confirmed = actions::pause(&console, &visit.caller, &asked).await?;
    Ok(Json(json!({ "flow": asked.flow, "confirmed": confirmed })))
}

pub(crate) async fn resume(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    given: Bytes,
) -> ApiAnswer<Value> {
    let asked: FlowAction = body(&given)?;
    actions::resume(&console, &visit.caller, &asked).await?;
    Ok(Json(json!({ "flow": asked.flow })))
}

fn came(asked: &RunCommand, came: CameOf) -> Json<Value> {
    Json(json!({ "flow": asked.flow, "event": asked.event, "came": came.label() }))
}

pub(crate) async fn cancel(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    given: Bytes,
) -> ApiAnswer<Value> {
    let asked: RunCommand = body(&given)?;
    Ok(came(&asked, actions::cancel(&console, &visit.caller, &asked).await?))
}

pub(crate) async fn wake(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    given: Bytes,
) -> ApiAnswer<Value> {
    let asked: RunCommand = body(&given)?;
    Ok(came(&asked, actions::wake(&console, &visit.caller, &asked).await?))
}

pub(crate) async fn rerun(
    State(console): State<Console>,
    Extension(visit): Extension<Visit>,
    given: Bytes,
) -> ApiAnswer<Value> {
    let asked: RunCommand = body(&given)?;
    Ok(came(&asked, actions::rerun(&console, &visit.caller, &asked).await?))
}
