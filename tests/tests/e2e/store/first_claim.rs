//! Runs that are admitted with their first claims.

use std::sync::Mutex;

use async_trait::async_trait;
use usher_engine::arrival::FirstClaim;
use usher_proto::Subject;
use usher_store::FirstClaims;

use super::*;

/// Claims everything, and notes for what.
#[derive(Default)]
struct Claims(Mutex<Vec<(String, Option<Subject>)>>);

impl Claims {
    fn asked(&self) -> Vec<(String, Option<Subject>)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[async_trait]
impl FirstClaims for Claims {
    async fn first_claim(&self, run: &Run, subject: Option<&Subject>) -> Option<FirstClaim> {
        self.0.lock().unwrap().push((run.event.id.to_string(), subject.cloned()));
        let request = format!("of {}", run.event.id).into_bytes();
        Some(FirstClaim { request, at: Timestamp::from_seconds(7), until: None, since_boot: Duration::from_secs(9) })
    }
}

impl TestStore {
    /// Admits a batch in which all runs may begin.
    async fn admit_claiming(&self, epoch: Epoch, arrivals: Vec<Arrival>, claims: &Claims) -> Admission {
        let begins = arrivals.iter().map(|arrival| arrival.offset).collect();
        let batch = Batch { begins, ..batch(epoch, arrivals) };
        self.store.admit_claiming(FLOW, &[batch], claims).await.unwrap().remove(0).unwrap()
    }
}

pub(super) async fn a_run_that_is_alone_is_admitted_with_its_claim(subject: TestStore) {
    let epoch = subject.own().await;
    let claims = Claims::default();
    subject.admit(epoch, vec![arrival(0, "before", "b"), arrival(1, "waits", "c")]).await;
    let wait = Change { key: id("c"), ..change_of(epoch, "waits", wait(1_000, None)) };
    subject.store.change(FLOW, &[wait]).await.unwrap();

    let arrivals = vec![arrival(2, "e2", "a"), arrival(3, "e3", "b"), arrival(4, "e4", "c")];
    let admission = subject.admit_claiming(epoch, arrivals.clone(), &claims).await;
    let asked: Vec<String> = claims.asked().into_iter().map(|(event, _)| event).collect();
    assert_eq!(asked, ["e2"], "the others have runs of their keys beside them");
    assert_eq!(
        (names(&admission.heads), names(&admission.followers)),
        (vec!["e2".into(), "e4".into()], vec!["e3".into()])
    );
    let run = &admission.heads[0];
    let at = Some(Timestamp::from_seconds(7));
    let tries = AttemptState { attempts: 1, unanswered: 1, first_at: at, first_sent_at: at, ..AttemptState::default() };
    assert_eq!((run.claimed, run.begun, run.tries), (Some(Duration::from_secs(9)), true, tries));
    assert_eq!(admission.heads[1].claimed, None);

    // Whoever finds it repeats the request.
    let found = subject.heads(None, &[]).await.into_iter().find(|run| run.event.id.as_str() == "e2").unwrap();
    assert_eq!((found.begun, found.tries, found.claimed), (true, tries, None));
    assert_eq!(found.request.as_deref(), Some(&b"of e2"[..]));
    assert_eq!(subject.state("e2").await, "running");

    // A repetition claims nothing, and a cancellation waits for the attempt.
    let again = subject.admit_claiming(epoch, arrivals, &claims).await;
    assert_eq!((again.repeated, again.heads.len(), claims.asked().len()), (3, 0, 0));
    let cancel = Arrival { starts: false, cancels: true, ..arrival(5, "gone", "a") };
    assert_eq!(subject.admit(epoch, vec![cancel]).await.cancelled, []);
    assert_eq!(
        subject.change(epoch, "e2", ChangeKind::Wait { until: Timestamp::from_seconds(1), news_after: None }).await,
        Changed::Ended
    );
    assert_eq!(subject.state("e2").await, "cancelled");
}

fn change_of(epoch: Epoch, event: &str, kind: ChangeKind) -> Change {
    Change { event: reference(event), key: id("a"), partition: ZERO, epoch, kind, story: Box::default() }
}

pub(super) async fn a_request_is_made_from_the_subject_as_it_is_after_the_batch(subject: TestStore) {
    let epoch = subject.own().await;
    let claims = Claims::default();
    // What is known before, and what the batch tells: in each pair the time, and whether the subject lives.
    let states = [None, Some((5, true)), Some((3, true)), Some((7, true)), Some((1, false))];
    let mut offset = 0;
    let mut next = || {
        offset += 1;
        offset
    };
    for (known, told) in states.iter().flat_map(|known| states.iter().map(move |told| (known, told))) {
        let key = format!("{known:?}{told:?}");
        if let Some((at, alive)) = known {
            let n = next();
            subject.admit(epoch, vec![news(n, &format!("n{n}"), &key, *at, *alive)]).await;
        }
        let n = next();
        let start = arrival(n, &format!("e{n}"), &key);
        let snapshot = told.and_then(|(at, alive)| news(n, "", &key, at, alive).snapshot);
        let admitted = subject.admit_claiming(epoch, vec![Arrival { snapshot, ..start }], &claims).await;
        assert!(admitted.heads[0].claimed.is_some());
        let (_, asked) = claims.asked().remove(0);
        assert_eq!(asked, subject.store.subject(&id(&key)).await.unwrap(), "{key}");
    }
}

/// Ends a run before the turn of the admission comes.
struct EndsBefore<'a> {
    subject: &'a TestStore,
    epoch: Epoch,
    ended: &'static str,
}

#[async_trait]
impl FirstClaims for EndsBefore<'_> {
    async fn turn(&self) {
        let end = ChangeKind::End { state: RunState::Done, effect: None, note: None, verdict: None, in_doubt: false };
        assert_eq!(self.subject.change(self.epoch, self.ended, end).await, Changed::Written);
    }

    async fn first_claim(&self, run: &Run, _: Option<&Subject>) -> Option<FirstClaim> {
        panic!("{} is behind another run when this is decided", run.event.id)
    }
}

pub(super) async fn changes_that_are_written_before_its_turn_go_before_an_admission(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "earlier", "a")]).await;
    let arrivals = vec![arrival(1, "e1", "a")];
    let batch = Batch { begins: [Offset(1)].into(), ..batch(epoch, arrivals) };
    let claims = EndsBefore { subject: &subject, epoch, ended: "earlier" };
    let admission = subject.store.admit_claiming(FLOW, &[batch], &claims).await.unwrap().remove(0).unwrap();
    assert_eq!((names(&admission.heads), admission.heads[0].claimed), (vec!["e1".into()], None));
}
