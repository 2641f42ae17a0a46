//! Operators' commands about runs, as events of source `usher`. Such an event carries the run's subject. It
//! therefore reaches the replica that owns the subject's partition, in order with the subject's other events, and
//! needs no other channel.
//!
//! A replay carries a whole record of an earlier event to one flow, to which it is as if the record came now.

mod moves;

use bytes::Bytes;
use moves::MovedRun;
pub(crate) use moves::match_steps;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use usher_engine::arrival::{Command, CommandKind};
use usher_proto::{Event, EventId, EventRef, Instance, Record, Source, SubjectId, Timestamp, headers};

const REDRIVE: &str = "run.redrive";
const CANCEL: &str = "run.cancel";
const WAKE: &str = "run.wake";
const MOVE: &str = "run.move";
const RERUN: &str = "run.rerun";
const REPLAY: &str = "run.replay";

#[derive(Serialize, Deserialize)]
struct Body {
    data: Data,
}

#[derive(Serialize, Deserialize)]
struct Data {
    flow: String,
    /// The run's event: source, instance and id. Earlier versions wrote only the id of an event of
    /// Clerk's default instance.
    event: String,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deaths: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<ReplayedRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<MovedRun>,
}

impl Data {
    fn new(flow: &str, event: String, by: &str) -> Self {
        Self { flow: flow.to_owned(), event, by: by.to_owned(), deaths: None, body: None, record: None, from: None }
    }
}

/// A record that is replayed. Its key is that of the command.
#[derive(Serialize, Deserialize)]
struct ReplayedRecord {
    headers: Vec<(String, String)>,
    body: String,
}

/// Returns the event that carries a command about the run of `flow` on the event `run`. It is ordered with the other
/// events of its subject. A redrive that is given twice results in the same event, with the same id.
pub fn event(flow: &str, run: &EventRef, subject: &SubjectId, by: &str, order: &CommandKind, now: Timestamp) -> Event {
    let (kind, deaths, body, distinct) = match order {
        CommandKind::Redrive { deaths } => (REDRIVE, Some(*deaths), None, deaths.to_string()),
        CommandKind::Cancel => (CANCEL, None, None, rand::random::<u64>().to_string()),
        CommandKind::Wake => (WAKE, None, None, rand::random::<u64>().to_string()),
        CommandKind::TakeOver(_) => (MOVE, None, None, rand::random::<u64>().to_string()),
        CommandKind::Rerun { body } => (RERUN, None, Some(body.clone()), rand::random::<u64>().to_string()),
    };
    let from = match order {
        CommandKind::TakeOver(order) => Some(MovedRun::of(order)),
        CommandKind::Redrive { .. } | CommandKind::Cancel | CommandKind::Wake | CommandKind::Rerun { .. } => None,
    };
    let data = Data { deaths, body, from, ..Data::new(flow, run.to_string(), by) };
    carrier(kind, data, &distinct, subject, now)
}

/// Returns the event that carries an earlier event, which is in `record`, to `flow`. The same replay given twice results in the
/// same event. `None` if the record's body is not text.
pub fn replay(flow: &str, event: &Event, record: &Record, by: &str, now: Timestamp) -> Option<Event> {
    let body = std::str::from_utf8(&record.body).ok()?.to_owned();
    let record = Some(ReplayedRecord { headers: record.headers.clone(), body });
    let run = event.reference().to_string();
    let data = Data { record, ..Data::new(flow, run, by) };
    Some(carrier(REPLAY, data, "", &event.subject, now))
}

fn carrier(kind: &str, data: Data, distinct: &str, subject: &SubjectId, now: Timestamp) -> Event {
    let digest = Sha256::digest(format!("{kind}\n{}\n{}\n{distinct}", data.flow, data.event));
    let id = hex::encode(&digest[..12]);
    // A structure of strings and numbers always serialises.
    let body = serde_json::to_vec(&Body { data }).unwrap_or_default();
    Event {
        id: EventId::new(format!("order_{id}")),
        kind: kind.to_owned(),
        source: Source::Usher,
        subject: subject.clone(),
        occurred_at: now,
        received_at: now,
        provenance: Vec::new(),
        body: Bytes::from(body),
    }
}

/// A record that carries an earlier event to one flow.
pub(crate) struct Replay {
    /// The flow.
    pub(crate) flow: String,
    /// The record of the event.
    pub(crate) record: Record,
}

/// Returns the replay that a record carries; `None` if it is of another kind.
pub(crate) fn replay_in(record: &Record) -> Option<Replay> {
    let is = |name, value| record.header(name) == Some(value);
    if !is(headers::TYPE, REPLAY) || !is(headers::SOURCE, Source::Usher.label()) {
        return None;
    }
    let Body { data } = serde_json::from_slice(&record.body).ok()?;
    let ReplayedRecord { headers, body } = data.record?;
    Some(Replay { flow: data.flow, record: Record { key: record.key.clone(), headers, body: Bytes::from(body) } })
}

/// Returns the record that a record replays; `None` if it replays none.
pub fn replayed(record: &Record) -> Option<Record> {
    replay_in(record).map(|replay| replay.record)
}

/// An operator's command about a run, as it is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedCommand {
    /// The flow.
    pub flow: String,
    /// The run's event.
    pub run: EventRef,
    /// The operator.
    pub by: String,
    /// The action: redrive, cancel, wake, move, rerun or replay.
    pub what: &'static str,
}

/// Returns the command that an event carries, for any flow; `None` if it carries none.
pub fn command_in(event: &Event) -> Option<LoggedCommand> {
    if event.source != Source::Usher {
        return None;
    }
    let what = match event.kind.as_str() {
        REDRIVE => "redrive",
        CANCEL => "cancel",
        WAKE => "wake",
        MOVE => "move",
        RERUN => "rerun",
        REPLAY => "replay",
        _ => return None,
    };
    let Body { data } = serde_json::from_slice(&event.body).ok()?;
    Some(LoggedCommand { run: run_of(&data.event), flow: data.flow, by: data.by, what })
}

/// Returns the event of a run. Earlier versions wrote only the id of an event of Clerk's default instance.
fn run_of(text: &str) -> EventRef {
    text.parse().unwrap_or_else(|_| EventRef::new(Source::Clerk, &Instance::default(), &EventId::new(text)))
}

/// Returns the command that an event carries for this flow, if any.
pub(crate) fn read(event: &Event, flow: &str) -> Option<Command> {
    if event.source != Source::Usher {
        return None;
    }
    let Body { data } = serde_json::from_slice(&event.body).ok()?;
    let order = match event.kind.as_str() {
        REDRIVE => CommandKind::Redrive { deaths: data.deaths? },
        CANCEL => CommandKind::Cancel,
        WAKE => CommandKind::Wake,
        MOVE => data.from?.order(),
        RERUN => CommandKind::Rerun { body: data.body? },
        _ => return None,
    };
    let command = Command { run: run_of(&data.event), by: data.by, at: event.occurred_at, order };
    (data.flow == flow).then_some(command)
}

#[cfg(test)]
mod tests {
    use usher_proto::Key;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn run() -> (EventRef, SubjectId) {
        let staging: Instance = "staging".parse().expect("a name");
        let run = EventRef::new(Source::Clerk, &staging, &EventId::new("msg_1"));
        (run, SubjectId::new(Source::Clerk, &staging, &Key::new("user_1")))
    }

    #[test]
    fn an_order_is_read_back_by_its_flow_and_by_no_other() {
        let taken_over = CommandKind::TakeOver(Box::new(usher_engine::arrival::TakeOver {
            from: "old".into(),
            version: "v1".into(),
            at: 1,
            steps: vec!["now".into(), "later".into()],
            to: None,
        }));
        let rerun = CommandKind::Rerun { body: "{\"a\":1}".into() };
        for order in [CommandKind::Redrive { deaths: 2 }, CommandKind::Cancel, CommandKind::Wake, taken_over, rerun] {
            let (run, subject) = run();
            let given = event("email", &run, &subject, "ann", &order, NOW);
            let read_back = read(&given, "email").expect("an order");
            assert_eq!((&read_back.run, read_back.by.as_str()), (&run, "ann"));
            assert_eq!(given.subject, subject);
            assert_eq!(read_back.order, order);
            assert_eq!(read(&given, "trial"), None);
            assert_eq!(read(&Event { source: Source::Clerk, ..given }, "email"), None, "not from outside");
        }
    }

    #[test]
    fn a_replayed_record_comes_out_as_it_went_in() {
        let (_, subject) = run();
        let original = Event {
            id: EventId::new("msg_1"),
            kind: "user.created".into(),
            source: Source::Clerk,
            subject: subject.clone(),
            occurred_at: NOW,
            received_at: NOW,
            provenance: vec![("svix-id".into(), "msg_1".into())],
            body: Bytes::from_static("{ \"name\":\"Zo\u{eb}\\n\" }".as_bytes()),
        };
        let record = original.clone().into_record();
        let carrier = replay("email", &original, &record, "ann", Timestamp::from_seconds(2_000)).expect("a text");
        assert_eq!(carrier.subject, subject, "it goes to the partition of its subject");
        let logged = command_in(&carrier).expect("a command");
        assert_eq!((logged.what, logged.by.as_str(), &logged.run), ("replay", "ann", &original.reference()));
        assert_eq!(read(&carrier, "email"), None, "it is about no run");
        let carried = carrier.into_record();
        assert_eq!(replayed(&carried), Some(record.clone()));
        assert_eq!(Event::from_record(&replayed(&carried).expect("a replay")), Ok(original.clone()));
        assert_eq!(replayed(&record), None);
        let foreign = Event { source: Source::Clerk, ..Event::from_record(&carried).expect("an event") };
        assert_eq!(replayed(&foreign.into_record()), None, "not from outside");
    }

    #[test]
    fn the_same_redrive_is_the_same_event() {
        let (run, subject) = run();
        let given = |deaths| event("email", &run, &subject, "ann", &CommandKind::Redrive { deaths }, NOW).id;
        assert_eq!(given(1), given(1));
        assert_ne!(given(1), given(2));
    }
}
