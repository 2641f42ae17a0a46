//! The list of events, and one event with its runs.

use serde::Serialize;
use serde_json::Value;
use usher_dispatcher::operator::RunCircumstances;
use usher_engine::RunState;
use usher_proto::{EventRef, Timestamp};
use usher_store::{EventCursor, EventQuery, EventRow, RunFilter};

use super::Moment;
use super::runs::{RunAction, RunDetail};
use crate::Console;
use crate::mask::Masking;
use crate::problem::ConsoleError;

/// Number of events of a page.
const PAGE: usize = 50;
/// Largest number of runs of one event, and of people who have seen it, that are shown.
const MOST: i64 = 100;

/// Filters of the list, as in the address.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct EventListQuery {
    pub(crate) flow: String,
    pub(crate) state: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) instance: String,
    pub(crate) account: String,
    pub(crate) since: String,
    pub(crate) after: String,
}

impl EventListQuery {
    /// Reads the filters. An empty one does not restrict the list.
    fn read(&self) -> Result<EventQuery, ConsoleError> {
        fn given<T: std::str::FromStr<Err: std::fmt::Display>>(
            name: &str,
            text: &str,
        ) -> Result<Option<T>, ConsoleError> {
            if text.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|error| ConsoleError::BadRequest(format!("{name}: {error}")))
        }
        Ok(EventQuery {
            flow: given("flow", &self.flow)?,
            state: given::<RunState>("state", &self.state)?,
            kind: given("type", &self.kind)?,
            instance: given("instance", &self.instance)?,
            account: given("account", &self.account)?,
            since: given::<Timestamp>("since, a time such as 2026-01-31T12:00:00Z", &self.since)?,
            after: given::<EventCursor>("after", &self.after)?,
        })
    }

    /// Returns the filters that restrict the list, as they stand in an address.
    pub(crate) fn parts(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("flow", &self.flow),
            ("state", &self.state),
            ("type", &self.kind),
            ("instance", &self.instance),
            ("account", &self.account),
            ("since", &self.since),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.as_str())).collect()
    }
}

/// One event of the list.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EventLine {
    pub(crate) received: Moment,
    pub(crate) key: String,
    /// Identity of the subject.
    pub(crate) subject: String,
    #[serde(flatten)]
    pub(crate) event: EventRow,
}

impl EventLine {
    fn new(event: EventRow, now: Timestamp) -> Self {
        Self {
            received: Moment::new(event.received_at, now),
            key: Masking::Masked.sentence(event.subject.key()),
            subject: event.subject.as_str().to_owned(),
            event,
        }
    }
}

/// A page of the list.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EventList {
    pub(crate) events: Vec<EventLine>,
    /// The place at which the next page begins.
    pub(crate) next: Option<String>,
}

/// Returns a page of the list.
pub(crate) async fn event_list(
    console: &Console,
    query: &EventListQuery,
    now: Timestamp,
) -> Result<EventList, ConsoleError> {
    let page = console.store().events(&query.read()?, PAGE).await?;
    let events = page.events.into_iter().map(|event| EventLine::new(event, now)).collect();
    Ok(EventList { events, next: page.next.map(|next| next.to_string()) })
}

/// One event.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EventDetail {
    pub(crate) event: EventLine,
    /// The delay between the event and its receipt, in ms.
    pub(crate) delay_ms: u64,
    pub(crate) partition: i64,
    pub(crate) offset: i64,
    pub(crate) runs: Vec<RunDetail>,
    /// The event's body, as far as the store keeps it: it is deleted when the last run has ended well.
    pub(crate) body: Option<Value>,
    /// The operators who have seen the body unmasked, newest first.
    pub(crate) shown: Vec<RunAction>,
}

/// Returns one event with its runs: unmasked, and with the requests and the words of destinations, for the operator to whom it is
/// shown, which is recorded.
pub(crate) async fn event_detail(
    console: &Console,
    reference: &str,
    shown_to: Option<&str>,
    now: Timestamp,
) -> Result<EventDetail, ConsoleError> {
    let gone = || {
        let why = format!(
            "no run of {reference} is stored: none of its flows began one, or it is older than the retention of ended runs"
        );
        ConsoleError::NotFound(why)
    };
    let reference: EventRef = reference.parse().map_err(|_| gone())?;
    let store = console.store();
    let event = store.event(&reference).await?.ok_or_else(gone)?;
    let filter = RunFilter { event: Some(reference.as_str().to_owned()), ..RunFilter::default() };
    let mut records = store.runs(&filter, MOST).await?;
    records.sort_by(|a, b| a.flow.cmp(&b.flow));
    let mut circumstances = RunCircumstances::read(store, now).await?;
    circumstances.read_steps(store, &records).await?;
    let first = records.first();
    let (partition, offset) = first.map_or((0, 0), |run| (run.partition, run.offset.0));
    let masking = if shown_to.is_some() { Masking::Shown } else { Masking::Masked };
    let mut runs = Vec::with_capacity(records.len());
    for run in records {
        let content = match shown_to {
            Some(who) => Some(store.show_content(&run.flow, &reference, who, now).await?),
            None => None,
        };
        let version =
            event.runs.iter().find(|cell| cell.flow == run.flow).map_or("", |cell| cell.flow_version.as_str());
        runs.push(RunDetail::read(store, run, version, &circumstances, content.as_ref(), now).await?);
    }
    let body = store.event_body(&reference).await?;
    let body = body.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
    let mut shown = store.shown(reference.as_str(), MOST).await?;
    // One look at an event is recorded for each of its runs.
    shown.dedup_by(|a, b| a.who == b.who && a.at == b.at);
    let delay = event.received_at.since(event.occurred_at);
    Ok(EventDetail {
        event: EventLine::new(event, now),
        delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        partition,
        offset,
        runs,
        body: body.map(|body| masking.json(body)),
        shown: shown.into_iter().map(|action| RunAction::new(action, now)).collect(),
    })
}
