//! Interpretation of the log's records for a flow.

use usher_engine::arrival::{Arrival, Command, RefusedRecord};
use usher_flows::Flow;
use usher_proto::{Event, Offset, Reason, Record, headers};

use crate::orders;

/// Meaning of a record to a flow.
#[derive(Debug)]
pub(super) enum Meaning {
    /// No effect: the record is of another type, or of an instance that the flow does not serve.
    Nothing,
    /// The record starts a run or has another effect.
    Arrival(Box<Arrival>),
    /// The record is not an event, so it means nothing to any flow.
    Refused(RefusedRecord),
}

/// Returns the meaning of a record to the flow. A flow takes nothing from an event of an instance that it does not
/// serve, whatever the event contains. A suppression change counts by the instance that it names; without one it holds
/// for every flow.
pub(super) fn meaning(flow: &Flow, offset: Offset, record: Record) -> Meaning {
    match orders::replay_in(&record) {
        None => meaning_of(flow, offset, record),
        Some(replay) if replay.flow != flow.name => Meaning::Nothing,
        Some(replay) => match meaning_of(flow, offset, replay.record) {
            // It only starts runs. What is newer than the event must not be cancelled by it, and what the event tells of
            // its subject counts by its own time.
            Meaning::Arrival(arrival) if arrival.starts => {
                Meaning::Arrival(Box::new(Arrival { cancels: false, command: None, suppression: None, ..*arrival }))
            }
            Meaning::Arrival(_) | Meaning::Refused(_) | Meaning::Nothing => Meaning::Nothing,
        },
    }
}

fn meaning_of(flow: &Flow, offset: Offset, record: Record) -> Meaning {
    let event = match read(&record) {
        Ok(event) => event,
        Err(error) => return Meaning::Refused(refused(offset, record, error)),
    };
    let serves = flow.instances.contains(event.instance());
    let suppression = usher_suppression::suppression_change(&event)
        .filter(|change| change.instance.as_ref().is_none_or(|instance| flow.instances.contains(instance)));
    let snapshot = usher_clerk::snapshot(&event).filter(|_| serves);
    let arrival = Arrival {
        offset,
        starts: flow.starts(&event),
        cancels: serves && flow.cancels_on(&event),
        remember: snapshot.as_ref().and_then(|snapshot| flow.remembers(snapshot)),
        snapshot,
        expires_at: flow.expires_at(&event),
        command: command(flow, &event),
        suppression,
        event,
        verdict: None,
    };
    let told = arrival.snapshot.is_some() || arrival.command.is_some() || arrival.suppression.is_some();
    let means_something = arrival.starts || arrival.cancels || told;
    if means_something { Meaning::Arrival(Box::new(arrival)) } else { Meaning::Nothing }
}

/// Returns the command that an event carries for this flow, by its present name or the one that it had when the command was given.
fn command(flow: &Flow, event: &Event) -> Option<Command> {
    let command = orders::read(event, &flow.name).or_else(|| orders::read(event, flow.was.as_deref()?))?;
    Some(orders::match_steps(command, flow))
}

/// Reads the event from a record. The error is the reason why the record holds no event that a store could take.
fn read(record: &Record) -> Result<Event, String> {
    let event = Event::from_record(record).map_err(|error| error.to_string())?;
    // JSON text never contains a NUL byte, and Postgres accepts none in a text.
    let in_headers = record.headers.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'));
    if in_headers || event.body.contains(&0) {
        return Err("it holds a NUL byte".to_owned());
    }
    if std::str::from_utf8(&event.body).is_err() {
        return Err("the body is not UTF-8".to_owned());
    }
    Ok(event)
}

fn refused(offset: Offset, record: Record, error: String) -> RefusedRecord {
    let event = record.header(headers::EVENT_ID).unwrap_or_default().to_owned();
    RefusedRecord { offset, reason: Reason::Malformed, error, event, key: record.key, body: record.body }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use usher_flows::builtin;
    use usher_proto::{EventId, Instance, Key, Source, SubjectId};
    use usher_service::clock;

    use super::*;

    fn of(kind: &str, source: Source, instance: &str) -> Event {
        let instance: Instance = instance.parse().expect("a name");
        Event {
            id: EventId::new("e"),
            kind: kind.into(),
            source,
            subject: SubjectId::new(Source::Clerk, &instance, &Key::new("user_1")),
            occurred_at: clock::now(),
            received_at: clock::now(),
            provenance: Vec::new(),
            body: Bytes::from_static(b"{\"data\":{\"id\":\"user_1\"}}"),
        }
    }

    fn flow() -> Flow {
        let mut source = builtin().remove(0);
        source.toml = source.toml.replace("cancel_on", "instances = [\"staging\"]\ncancel_on");
        Flow::check(source).expect("a good flow")
    }

    #[test]
    fn a_record_that_is_no_event_is_refused_with_what_it_held() {
        let good = of("user.created", Source::Clerk, "staging").into_record();
        assert!(matches!(meaning(&flow(), Offset(7), good.clone()), Meaning::Arrival(arrival) if arrival.starts));
        let foreign = Record { headers: Vec::new(), ..good.clone() };
        let nul = Record { body: Bytes::from_static(b"{\0}"), ..good.clone() };
        let not_utf8 = Record { body: Bytes::from_static(b"{\xff}"), ..good.clone() };
        let mut in_a_header = good;
        in_a_header.headers.push(("x".into(), "a\0".into()));
        for bad in [foreign, nul, not_utf8, in_a_header] {
            let Meaning::Refused(refused) = meaning(&flow(), Offset(7), bad.clone()) else { panic!("{bad:?}") };
            assert_eq!((refused.offset, refused.reason, &refused.body), (Offset(7), Reason::Malformed, &bad.body));
        }
    }

    #[test]
    fn a_replayed_event_starts_a_run_of_its_flow_and_has_no_other_effect() {
        let flow = flow();
        let replayed = |name: &str, kind: &str| {
            let event = of(kind, Source::Clerk, "staging");
            let carrier = orders::replay(name, &event, &event.clone().into_record(), "ann", clock::now());
            meaning(&flow, Offset(9), carrier.expect("a text").into_record())
        };
        let Meaning::Arrival(arrival) = replayed(&flow.name, "user.created") else { panic!("it starts a run") };
        assert!(arrival.starts && !arrival.cancels && arrival.command.is_none());
        assert_eq!((arrival.offset, arrival.event.kind.as_str()), (Offset(9), "user.created"));
        assert!(flow.cancels_on(&of("user.deleted", Source::Clerk, "staging")));
        assert!(matches!(replayed(&flow.name, "user.deleted"), Meaning::Nothing), "it would only cancel");
        assert!(matches!(replayed("other", "user.created"), Meaning::Nothing));
    }

    #[test]
    fn a_flow_takes_nothing_of_an_instance_that_it_does_not_serve() {
        for kind in ["user.created", "user.updated", "user.deleted"] {
            assert!(matches!(
                meaning(&flow(), Offset(0), of(kind, Source::Clerk, "default").into_record()),
                Meaning::Nothing
            ));
            let own = meaning(&flow(), Offset(0), of(kind, Source::Clerk, "staging").into_record());
            let Meaning::Arrival(arrival) = own else { panic!("{kind}") };
            assert!(arrival.snapshot.is_some(), "{kind}");
        }
    }

    #[test]
    fn an_operators_word_about_an_address_holds_at_every_instance_and_a_senders_at_its_own() {
        use usher_proto::AddressDigest;
        use usher_proto::suppression::{ALL_LISTS, SuppressionChange, SuppressionKind};
        for (scoped_to, taken) in [(None, true), (Some("staging"), true), (Some("default"), false)] {
            let instance = scoped_to.map(|name| name.parse::<Instance>().expect("a name"));
            let subject = SubjectId::new(Source::Usher, &instance.clone().unwrap_or_default(), &Key::new("address:1"));
            let change = SuppressionChange {
                kind: SuppressionKind::Suppressed,
                address: AddressDigest::of("dana@work.test"),
                scope: ALL_LISTS.into(),
                reason: "test".into(),
                by: String::new(),
                instance,
            };
            let event = change.into_event(EventId::new("e"), subject, clock::now());
            let found = meaning(&flow(), Offset(0), event.into_record());
            assert_eq!(matches!(found, Meaning::Arrival(_)), taken, "{scoped_to:?}");
        }
    }
}
