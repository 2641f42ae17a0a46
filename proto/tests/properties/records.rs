//! Events, identities, partitions, snapshots and changes of the suppression list.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use usher_proto::suppression::{ALL_LISTS, SuppressionChange, SuppressionKind};
use usher_proto::{
    AddressDigest, Event, EventId, EventRef, Instance, Key, Partition, Snapshot, Source, SubjectId, Timestamp, visible,
};

use crate::cases;

fn instance() -> impl Strategy<Value = Instance> {
    "[a-z0-9-]{1,64}".prop_map(|name| name.parse().expect("a name"))
}

/// Every source with code of its own, and senders of any name.
pub(crate) fn source() -> impl Strategy<Value = Source> {
    let sender =
        "[a-z0-9-]{1,32}".prop_filter_map("a name that is taken", |name| name.parse().ok().map(Source::Sender));
    prop_oneof![prop::sample::select(&Source::BUILT_IN[..]), sender]
}

fn subject() -> impl Strategy<Value = SubjectId> {
    (source(), instance(), any::<String>())
        .prop_map(|(source, instance, key)| SubjectId::new(source, &instance, &Key::new(key)))
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0_i64..253_402_128_000_000).prop_map(Timestamp::from_millis)
}

fn event() -> impl Strategy<Value = Event> {
    let names = prop::sample::select(&["svix-id", "svix-timestamp", "svix-signature", "traceparent"][..]);
    let provenance = vec((names.prop_map(str::to_owned), any::<String>()), 0..5);
    let id = "[^\\x00-\\x1f\\x7f-\\x9f]{1,60}".prop_map(EventId::new);
    let body = vec(any::<u8>(), 0..100).prop_map(Bytes::from);
    (id, any::<String>(), source(), subject(), time(), time(), provenance, body).prop_map(
        |(id, kind, source, subject, occurred_at, received_at, provenance, body)| Event {
            id,
            kind,
            source,
            subject,
            occurred_at,
            received_at,
            provenance,
            body,
        },
    )
}

/// A text with control characters of every kind.
fn shown() -> impl Strategy<Value = String> {
    let odd = prop_oneof![prop::char::range('\0', '\u{a0}'), prop::char::range('\u{200b}', '\u{2070}')];
    vec(prop_oneof![any::<char>(), odd], 0..12).prop_map(|text| text.into_iter().collect())
}

/// Snapshots of few times, so that equal ones occur.
fn snapshot() -> impl Strategy<Value = Snapshot> {
    (0..4_i64, 0..3_i64, any::<bool>()).prop_map(|(updated_at, occurred_at, alive)| Snapshot {
        updated_at,
        occurred_at,
        data: alive.then(|| format!("{{\"t\":{updated_at}{occurred_at}}}")),
    })
}

/// Returns the snapshot that is left when all are applied in this order.
fn last_known(snapshots: &[Snapshot]) -> Option<Snapshot> {
    snapshots.iter().cloned().reduce(|known, next| if next.replaces(&known) { next } else { known })
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn an_event_becomes_a_record_and_the_same_event_again(event in event()) {
        let record = event.clone().into_record();
        prop_assert!(record.size() >= record.body.len() + record.key.as_str().len());
        prop_assert_eq!(Event::from_record(&record), Ok(event));
    }

    #[test]
    fn an_identity_reads_back_and_keeps_its_parts(source in source(), instance in instance(), text in shown()) {
        let key = Key::new(text.clone());
        let subject = SubjectId::new(source, &instance, &key);
        prop_assert_eq!((subject.source(), subject.instance(), subject.key()), (source.label(), instance.as_str(), key.as_str()));
        prop_assert_eq!(subject.as_str().parse(), Ok(subject.clone()));
        let event = EventRef::new(source, &instance, &EventId::new(text.clone()));
        prop_assert_eq!((event.id(), event.instance()), (text.as_str(), instance.as_str()));
        prop_assert_eq!(event.as_str().parse(), Ok(event.clone()));
        prop_assert!(!key.as_str().is_empty() && !key.as_str().contains(char::is_control));
        prop_assert_eq!(Key::new(key.as_str()), key);
    }

    /// All counts see the same hash, so a count that divides another one divides its partitions.
    #[test]
    fn a_partition_is_within_every_count_and_follows_from_the_key(key: String, count in 1..5_000, times in 1..100) {
        let key = Key::new(key);
        let partition = Partition::of(&key, count).0;
        prop_assert!((0..count).contains(&partition));
        prop_assert_eq!(Partition::of(&key, count * times).0 % count, partition);
        prop_assert_eq!(Partition::of(&Key::new(key.as_str()), count).0, partition);
    }

    #[test]
    fn of_two_snapshots_one_replaces_the_other_and_the_relation_carries_over(
        a in snapshot(), b in snapshot(), c in snapshot(),
    ) {
        if a.data.is_some() && b.data.is_some() {
            prop_assert!(a.replaces(&b) || b.replaces(&a));
        } else {
            prop_assert_eq!(a.replaces(&b), b.data.is_some());
        }
        prop_assert!(!(a.replaces(&b) && b.replaces(&c)) || a.replaces(&c));
    }

    #[test]
    fn the_last_known_state_does_not_depend_on_the_order(
        (snapshots, shuffled) in vec(snapshot(), 1..8).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        let known = last_known(&snapshots).expect("there is one");
        let other = last_known(&shuffled).expect("there is one");
        prop_assert_eq!(&known.data, &other.data);
        let deleted = snapshots.iter().any(|snapshot| snapshot.data.is_none());
        prop_assert_eq!(known.data.is_none(), deleted, "a deletion is final");
        let newest = snapshots.iter().map(|snapshot| (snapshot.updated_at, snapshot.occurred_at)).max();
        prop_assert!(deleted || newest == Some((known.updated_at, known.occurred_at)));
    }

    #[test]
    fn a_suppression_change_reads_back(
        subject in subject(), kind in prop::sample::select(&SuppressionKind::ALL[..]), digest: [u8; 32], reason: String, by: String,
        one_instance: bool, now in time(),
    ) {
        let instance = one_instance.then(|| subject.instance().parse().expect("a name"));
        let address = AddressDigest::from_bytes(digest);
        let change = SuppressionChange { kind, address, scope: ALL_LISTS.to_owned(), reason, by, instance };
        let event = change.clone().into_event(EventId::new("e"), subject, now);
        prop_assert_eq!(SuppressionChange::of(&event), Some(change));
    }

    #[test]
    fn what_is_shown_has_no_control_characters_and_json_keeps_its_meaning(text in shown()) {
        let line = visible::line(&text);
        prop_assert!(!line.contains(char::is_control) && !line.contains(visible::is_control));
        prop_assert_eq!(visible::line(&line), line.as_ref());
        let json = serde_json::to_string(&text).expect("a text");
        let shown = visible::json(&json);
        prop_assert!(!shown.contains(char::is_control) && !shown.contains(visible::is_control));
        prop_assert_eq!(serde_json::from_str::<String>(&shown).expect("a text"), text);
    }
}
