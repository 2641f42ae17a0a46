//! Suppression list: the guarantees of a store.

use std::collections::BTreeSet;

use usher_proto::AddressDigest;
use usher_proto::suppression::{ALL_LISTS, SuppressionChange, SuppressionEntry, SuppressionKind};
use usher_store::MailRecipients;

use super::*;

on_every_store!(
    the_newest_word_about_an_address_counts_whatever_the_order,
    a_list_is_ended_apart_from_all_other_mail,
    each_of_several_mails_has_its_own_answer,
    a_fenced_admission_says_nothing_of_addresses,
);

/// Returns a suppression change of an address at a time.
fn said(at: i64, kind: SuppressionKind, address: &str, scope: &str) -> Arrival {
    let change = SuppressionChange {
        kind,
        address: AddressDigest::of(address),
        scope: scope.into(),
        reason: "test".into(),
        by: "ann".into(),
        instance: None,
    };
    let event = change.clone().into_event(
        EventId::new(format!("{at}-{address}-{scope}")),
        SubjectId::new(Source::Usher, &Instance::default(), &Key::new("k")),
        Timestamp::from_seconds(at),
    );
    Arrival { starts: false, suppression: Some(change), event, ..arrival(at, "e", "k") }
}

impl TestStore {
    /// Returns the suppression entries of these addresses, as index and scope.
    async fn listed(&self, list: Option<&str>, addresses: &[&str]) -> Vec<(usize, String)> {
        let digests: Vec<AddressDigest> = addresses.iter().map(|address| AddressDigest::of(address)).collect();
        let mail = MailRecipients {
            instance: Instance::DEFAULT.to_owned(),
            list: list.map(str::to_owned),
            addresses: digests.clone(),
        };
        let listed = self.store.listed(&[mail]).await.unwrap().remove(0);
        let place = |digest| digests.iter().position(|known| *known == digest).unwrap();
        let mut listed: Vec<_> = listed.into_iter().map(|it| (place(it.address), it.scope)).collect();
        listed.sort();
        listed
    }
}

fn all(place: usize) -> (usize, String) {
    (place, ALL_LISTS.to_owned())
}

async fn the_newest_word_about_an_address_counts_whatever_the_order(subject: TestStore) {
    let epoch = subject.own().await;
    let suppressed = SuppressionKind::Suppressed;
    let restored = SuppressionKind::Restored;
    let told = |at, kind| said(at, kind, "a@b.test", ALL_LISTS);
    assert_eq!(subject.listed(None, &[]).await, []);
    subject.admit(epoch, vec![told(5, suppressed), said(5, suppressed, "c@d.test", ALL_LISTS)]).await;
    assert_eq!(subject.listed(None, &["x@y.test", "A@B.test", "c@d.test"]).await, [all(1), all(2)]);
    subject.admit(epoch, vec![told(5, suppressed), told(4, restored)]).await;
    assert_eq!(subject.listed(None, &["a@b.test"]).await, [all(0)], "an older word comes late");
    subject.admit(epoch, vec![told(9, restored), told(7, suppressed)]).await;
    assert_eq!(subject.listed(None, &["a@b.test"]).await, []);
    // Another flow reads the same and earlier changes later.
    let other = subject.store.acquire("other", &[ZERO], "me").await.unwrap()[0].epoch;
    let batch = batch(other, vec![told(5, suppressed), told(9, restored)]);
    subject.store.admit("other", &batch).await.unwrap();
    assert_eq!(subject.listed(None, &["a@b.test"]).await, []);

    let records = subject.store.suppressions(None).await.unwrap();
    assert_eq!(records.iter().map(|record| record.held).collect::<Vec<_>>(), [true, false], "the oldest first");
    let one = subject.store.suppressions(Some(AddressDigest::of("a@b.test"))).await.unwrap();
    assert_eq!((one.len(), one[0].who.as_str(), one[0].at), (1, "ann", Timestamp::from_seconds(9)));
    assert!(!serde_json::to_string(&records).unwrap().contains('@'), "no address is kept");
}

async fn a_list_is_ended_apart_from_all_other_mail(subject: TestStore) {
    let epoch = subject.own().await;
    let unsubscribed = said(5, SuppressionKind::Unsubscribed, "a@b.test", "news");
    subject.admit(epoch, vec![unsubscribed, said(5, SuppressionKind::Restored, "a@b.test", ALL_LISTS)]).await;
    assert_eq!(subject.listed(Some("news"), &["a@b.test"]).await, [(0, "news".to_owned())]);
    assert_eq!(subject.listed(Some("offers"), &["a@b.test"]).await, []);
    assert_eq!(subject.listed(None, &["a@b.test"]).await, []);
    subject.admit(epoch, vec![said(6, SuppressionKind::Suppressed, "a@b.test", ALL_LISTS)]).await;
    assert_eq!(subject.listed(Some("news"), &["a@b.test"]).await, [all(0), (0, "news".to_owned())]);
    subject.admit(epoch, vec![said(7, SuppressionKind::Restored, "a@b.test", ALL_LISTS)]).await;
    assert_eq!(
        subject.listed(Some("news"), &["a@b.test"]).await,
        [(0, "news".to_owned())],
        "what was said of it stays"
    );
}

async fn a_fenced_admission_says_nothing_of_addresses(subject: TestStore) {
    let epoch = subject.own().await;
    subject.own().await;
    let late = batch(epoch, vec![said(5, SuppressionKind::Suppressed, "a@b.test", ALL_LISTS)]);
    assert!(matches!(subject.store.admit(FLOW, &late).await, Err(StoreError::Fenced(_))));
    assert_eq!(subject.listed(None, &["a@b.test"]).await, []);
}

async fn each_of_several_mails_has_its_own_answer(subject: TestStore) {
    let epoch = subject.own().await;
    let staging = |mut arrival: Arrival| {
        arrival.suppression.as_mut().expect("one").instance = Some("staging".parse().expect("a name"));
        arrival
    };
    let suppressed = |at, address, scope| said(at, SuppressionKind::Suppressed, address, scope);
    let changes = [suppressed(5, "a@b.test", ALL_LISTS), suppressed(6, "c@d.test", "news")];
    subject.admit(epoch, changes.into_iter().chain([staging(suppressed(7, "s@t.test", ALL_LISTS))]).collect()).await;
    let everyone = ["a@b.test", "c@d.test", "s@t.test"].map(AddressDigest::of);
    let mail = |instance: &str, list: Option<&str>, addresses: &[AddressDigest]| MailRecipients {
        instance: instance.to_owned(),
        list: list.map(str::to_owned),
        addresses: addresses.to_vec(),
    };
    let mails = [
        mail("default", None, &everyone),
        mail("default", Some("news"), &everyone),
        mail("default", None, &[]),
        mail("staging", Some("offers"), &everyone),
        mail("default", None, &everyone[1..]),
    ];
    let listed = subject.store.listed(&mails).await.unwrap();
    let addresses =
        |entries: &Vec<SuppressionEntry>| entries.iter().map(|entry| entry.address).collect::<BTreeSet<_>>();
    let [a, c, s] = everyone;
    let expected = [vec![a], vec![a, c], vec![], vec![a, s], vec![]];
    assert_eq!(listed.iter().map(addresses).collect::<Vec<_>>(), expected.map(BTreeSet::from_iter));
    assert_eq!(subject.store.listed(&[]).await.unwrap(), Vec::<Vec<SuppressionEntry>>::new());
}
