//! The story of a run: each attempt once, within a bound, and no message longer than the content it belongs to.

use usher_engine::{DestinationAnswer, StoryEntry};
use usher_store::AttemptRecord;

use super::*;

/// Returns an attempt that failed, of which the destination said this.
pub(super) fn attempt(number: u32, message: &str) -> StoryEntry {
    StoryEntry {
        pass: 0,
        step: 0,
        name: "welcome".into(),
        number,
        at: Timestamp::from_seconds(i64::from(number)),
        took: TOOK,
        outcome: "unavailable",
        answer: Some(DestinationAnswer::new(Some(503), Some("application_error"), Some(message))),
        next_at: Some(Timestamp::from_seconds(i64::from(number) + 2)),
        sent: Some(b"exact".to_vec()),
    }
}

impl TestStore {
    async fn tell(&self, epoch: Epoch, event: &str, kind: ChangeKind, story: Vec<StoryEntry>) -> Changed {
        let change = Change {
            event: reference(event),
            key: id("a"),
            partition: ZERO,
            epoch,
            kind,
            story: story.into_boxed_slice(),
        };
        self.store.change(FLOW, &[change]).await.unwrap()[0]
    }

    async fn story(&self, event: &str) -> Vec<AttemptRecord> {
        let filter = RunFilter { event: Some(event.into()), ..RunFilter::default() };
        self.store.runs(&filter, 10).await.unwrap().remove(0).story
    }

    /// Returns the number of each attempt, with its message.
    async fn messages(&self, event: &str) -> Vec<(i64, Option<String>)> {
        let said = self.content(event).await.messages;
        let of = |attempt: &AttemptRecord| {
            said.iter().find(|message| (message.at, message.step) == (attempt.at, attempt.step))
        };
        let story = self.story(event).await;
        story.iter().map(|attempt| (attempt.attempt, of(attempt).map(|message| message.message.clone()))).collect()
    }
}

pub(super) fn retry(number: u32) -> ChangeKind {
    let tries = AttemptState { attempts: number, ..AttemptState::default() };
    ChangeKind::Retry { at: Timestamp::from_seconds(9), tries, request: None }
}

/// Returns an attempt of this number and its message, if it has one.
fn said(number: i64, message: &str) -> (i64, Option<String>) {
    (number, (!message.is_empty()).then(|| message.to_owned()))
}

pub(super) async fn each_attempt_is_in_the_story_once_and_its_message_goes_with_the_body(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    subject.tell(epoch, "e0", retry(1), vec![attempt(1, "first")]).await;
    // The answer to this one was lost, so it is written again.
    for _ in 0..2 {
        assert_eq!(subject.tell(epoch, "e0", retry(2), vec![attempt(2, "a\nsecond")]).await, Changed::Written);
    }
    let story = subject.story("e0").await;
    assert_eq!(subject.messages("e0").await, [said(1, "first"), said(2, "a\\u{a}second")]);
    let AttemptRecord { step, name, at, ms, outcome, status, error, next_at, .. } = &story[1];
    assert_eq!((*step, name.as_str(), *at, *ms), (0, "welcome", Timestamp::from_seconds(2), 12));
    assert_eq!((outcome.as_str(), *status, error.as_deref()), ("unavailable", Some(503), Some("application_error")));
    assert_eq!(*next_at, Some(Timestamp::from_seconds(4)));
    assert_eq!(subject.state("e0").await, "running", "it stays with its process");
    assert_eq!(subject.content("e0").await.request.as_deref(), Some(&b"exact"[..]));

    let last =
        ChangeKind::End { state: RunState::Done, effect: effect("m1"), note: None, verdict: None, in_doubt: false };
    subject.tell(epoch, "e0", last, vec![]).await;
    let story = subject.story("e0").await;
    let AttemptRecord { step, name, ms, outcome, .. } = &story[2];
    assert_eq!((*step, name.as_str(), *ms, outcome.as_str()), (0, "first", 12, "done"), "its effect tells of it");
    assert_eq!(subject.messages("e0").await, [said(1, ""), said(2, ""), said(3, "")], "content goes with the body");
    assert_eq!(story[0].error.as_deref(), Some("application_error"));
    assert_eq!(subject.content("e0").await.request, None);
}

pub(super) async fn a_dead_run_keeps_its_messages_until_its_life_is_over(subject: TestStore) {
    let epoch = subject.own().await;
    let past = Some(Timestamp::from_millis(usher_service::clock::now().millis() - 1));
    let batch = vec![arrival(0, "e0", "a"), Arrival { expires_at: past, ..arrival(1, "e1", "a") }];
    subject.admit(epoch, batch).await;
    for event in ["e0", "e1"] {
        subject.tell(epoch, event, dead(false), vec![attempt(1, "no such mailbox")]).await;
        assert_eq!(subject.messages(event).await, [said(1, "no such mailbox")]);
        assert_eq!(subject.content(event).await.request.as_deref(), Some(&b"exact"[..]), "it can be looked at");
    }
    subject.store.drop_spent(FLOW, usher_service::clock::now(), 10).await.unwrap();
    assert_eq!(subject.messages("e1").await, [said(1, "")]);
    assert_eq!((subject.content("e1").await.request, subject.content("e0").await.request.is_some()), (None, true));

    let redrive = order(2, "o1", "a", "e0", CommandKind::Redrive { deaths: 1 });
    let run = subject.admit(epoch, vec![redrive]).await.woken.remove(0);
    assert_eq!(run.request, None, "what is shown is not what is sent again");
    subject.tell(epoch, "e0", park(9, AttemptState::default(), None), vec![attempt(2, "again")]).await;
    assert_eq!(subject.messages("e0").await, [said(1, "no such mailbox"), said(2, "again")]);
}

pub(super) async fn a_story_keeps_its_newest_part_within_a_bound(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    let long = "\"}{,".repeat(1_000);
    for number in 1..=200 {
        subject.tell(epoch, "e0", retry(number), vec![attempt(number, &long)]).await;
    }
    let story = subject.story("e0").await;
    let numbers: Vec<i64> = story.iter().map(|attempt| attempt.attempt).collect();
    assert!(numbers.len() >= 15 && numbers.len() <= 80, "{numbers:?}");
    assert!(numbers.is_sorted() && numbers.last() == Some(&200), "{numbers:?}");
    let said = subject.content("e0").await.messages;
    assert!((2..20).contains(&said.len()), "{}", said.len());
    assert_eq!(said.last().map(|message| message.at), story.last().map(|attempt| attempt.at));
}
