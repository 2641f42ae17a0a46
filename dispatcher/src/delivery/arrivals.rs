//! What records of the log mean to a flow.

use bytes::Bytes;
use usher_proto::{Event, EventId, Key, Partition, Reason, Record, Source};
use usher_service::clock;

use crate::engine::arrival::Arrival;
use crate::flows::Flow;
use crate::orders;
use crate::reach;
use crate::subject::Snapshot;

/// What a record means to the flow; none if nothing. A record that is no event becomes a run that is given up at once,
/// so that it is seen.
pub(super) fn arrival(flow: &Flow, partition: Partition, offset: i64, record: &Record) -> Option<Arrival> {
    let event = match Event::from_record(record) {
        Ok(_) if holds_nul(record) => return Some(unreadable(partition, offset, record, "it holds a NUL byte")),
        Ok(event) if std::str::from_utf8(&event.body).is_ok() => event,
        Ok(_) => return Some(unreadable(partition, offset, record, "the body is not UTF-8")),
        Err(error) => return Some(unreadable(partition, offset, record, &error.to_string())),
    };
    let snapshot = Snapshot::of(&event);
    let arrival = Arrival {
        offset,
        starts: flow.starts(&event),
        cancels: flow.cancels_on(&event),
        remember: snapshot.as_ref().and_then(|snapshot| flow.remembers(snapshot)),
        snapshot,
        expires_at: flow.expires_at(&event),
        command: orders::read(&event, &flow.name),
        reach: reach::said(&event),
        event,
        verdict: None,
    };
    let told = arrival.snapshot.is_some() || arrival.command.is_some() || arrival.reach.is_some();
    let means_something = arrival.starts || arrival.cancels || told;
    means_something.then_some(arrival)
}

/// No JSON text holds one, and Postgres takes none in a text.
fn holds_nul(record: &Record) -> bool {
    let in_headers = record.headers.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'));
    in_headers || record.key.as_str().contains('\0') || record.body.contains(&0)
}

/// A run that is given up at once. What cannot be stored as it is, is replaced; the log still holds the original.
fn unreadable(partition: Partition, offset: i64, record: &Record, why: &str) -> Arrival {
    let now = clock::now();
    let event = Event {
        // Where it stands is all that identifies it.
        id: EventId::new(format!("unreadable-{partition}-{offset}")),
        kind: "unreadable".to_owned(),
        source: Source::Usher,
        instance: usher_proto::event::DEFAULT_INSTANCE.to_owned(),
        key: Key::new(record.key.as_str().replace('\0', "\u{fffd}")),
        occurred_at: now,
        received_at: now,
        provenance: Vec::new(),
        body: Bytes::from(String::from_utf8_lossy(&record.body).replace('\0', "\u{fffd}")),
    };
    Arrival { verdict: Some((Reason::Malformed, why.to_owned())), ..Arrival::starting(offset, event) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::builtin;

    #[test]
    fn a_record_that_is_no_event_becomes_a_run_that_every_store_takes() {
        let flow = Flow::check(builtin().remove(0)).expect("a good flow");
        let good = Event {
            id: EventId::new("e"),
            kind: "user.created".into(),
            source: Source::Clerk,
            instance: "default".into(),
            key: Key::new("user_1"),
            occurred_at: clock::now(),
            received_at: clock::now(),
            provenance: Vec::new(),
            body: Bytes::from_static(b"{}"),
        };
        let record = good.into_record();
        let verdict = |record: &Record| {
            let arrival = arrival(&flow, Partition(1), 7, record).expect("it means something");
            let texts =
                [arrival.event.id.as_str(), arrival.event.key.as_str(), &String::from_utf8_lossy(&arrival.event.body)];
            assert!(texts.iter().all(|text| !text.contains('\0')));
            arrival.verdict.map(|(reason, _)| reason)
        };
        assert_eq!(verdict(&record), None);
        let foreign = Record { headers: Vec::new(), ..record.clone() };
        let binary_key = Record { key: Key::new("a\0b"), ..record.clone() };
        let nul = Record { body: Bytes::from_static(b"{\0}"), ..record.clone() };
        let not_utf8 = Record { body: Bytes::from_static(b"{\xff}"), ..record };
        for bad in [foreign, binary_key, nul, not_utf8] {
            assert_eq!(verdict(&bad), Some(Reason::Malformed));
        }
    }
}
