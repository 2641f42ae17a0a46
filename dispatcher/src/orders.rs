//! Operators' commands about runs, as events of source `usher`. Such an event carries the run's subject. It
//! therefore reaches the replica that owns the subject's partition, in order with the subject's other events, and
//! needs no other channel.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use usher_engine::arrival::{Command, CommandKind};
use usher_proto::{Event, EventId, EventRef, Instance, Source, SubjectId, Timestamp};

const REDRIVE: &str = "run.redrive";
const CANCEL: &str = "run.cancel";
const RERUN: &str = "run.rerun";

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
}

/// Returns the event that carries a command about the run of `flow` on the event `run`. It is ordered with the other
/// events of its subject. A redrive that is given twice results in the same event, with the same id.
pub fn event(flow: &str, run: &EventRef, subject: &SubjectId, by: &str, order: &CommandKind, now: Timestamp) -> Event {
    let (kind, deaths, body, distinct) = match order {
        CommandKind::Redrive { deaths } => (REDRIVE, Some(*deaths), None, deaths.to_string()),
        CommandKind::Cancel => (CANCEL, None, None, rand::random::<u64>().to_string()),
        CommandKind::Rerun { body } => (RERUN, None, Some(body.clone()), rand::random::<u64>().to_string()),
    };
    let digest = Sha256::digest(format!("{kind}\n{flow}\n{run}\n{distinct}"));
    let id = hex::encode(&digest[..12]);
    let data = Data { flow: flow.to_owned(), event: run.to_string(), by: by.to_owned(), deaths, body };
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

/// Returns the command that an event carries for this flow, if any.
pub(crate) fn read(event: &Event, flow: &str) -> Option<Command> {
    if event.source != Source::Usher {
        return None;
    }
    let Body { data } = serde_json::from_slice(&event.body).ok()?;
    let order = match event.kind.as_str() {
        REDRIVE => CommandKind::Redrive { deaths: data.deaths? },
        CANCEL => CommandKind::Cancel,
        RERUN => CommandKind::Rerun { body: data.body? },
        _ => return None,
    };
    let of_an_earlier_version = || EventRef::new(Source::Clerk, &Instance::default(), &EventId::new(&data.event));
    let run = data.event.parse().unwrap_or_else(|_| of_an_earlier_version());
    let command = Command { run, by: data.by, at: event.occurred_at, order };
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
        for order in
            [CommandKind::Redrive { deaths: 2 }, CommandKind::Cancel, CommandKind::Rerun { body: "{\"a\":1}".into() }]
        {
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
    fn the_same_redrive_is_the_same_event() {
        let (run, subject) = run();
        let given = |deaths| event("email", &run, &subject, "ann", &CommandKind::Redrive { deaths }, NOW).id;
        assert_eq!(given(1), given(1));
        assert_ne!(given(1), given(2));
    }
}
