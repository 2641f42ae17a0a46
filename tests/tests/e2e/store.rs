//! Requirements for every store: one suite, run against SQLite and against Postgres.

mod kept;
#[macro_use]
mod support;

use std::time::Duration;

use bytes::Bytes;
use figures::runs_are_counted_by_state;
use first_claim::{
    a_request_is_made_from_the_subject_as_it_is_after_the_batch, a_run_that_is_alone_is_admitted_with_its_claim,
    changes_that_are_written_before_its_turn_go_before_an_admission,
};
use kept::{
    a_dead_run_keeps_nothing_when_its_life_is_over, an_address_is_used_while_some_living_user_of_the_instance_has_it,
    what_an_event_changes_is_compared_once_and_kept_with_its_run, what_is_forgotten_is_never_taken_for_new,
};
use pauses::{a_flow_is_paused_and_goes_on, every_replica_that_owns_something_confirms_a_pause};
use redrives::{
    a_redrive_is_carried_out_by_one_process_until_it_is_silent, what_came_of_each_run_of_a_redrive_is_told_apart,
};
use refused::{
    a_change_that_is_refused_is_told_and_all_others_are_written,
    a_poison_in_a_batch_is_given_up_and_all_others_are_admitted,
};
use schedules::{
    living_users_come_in_pages_and_the_deleted_do_not, the_progress_of_a_schedule_is_written_by_its_owner_only,
};
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use story::{
    a_dead_run_keeps_its_messages_until_its_life_is_over, a_story_keeps_its_newest_part_within_a_bound,
    each_attempt_is_in_the_story_once_and_its_message_goes_with_the_body,
};
use support::*;
use tempfile::TempDir;
use together::{
    batches_of_several_partitions_are_admitted_together_each_with_its_own_result,
    of_batches_that_are_admitted_together_only_ours_are, what_two_partitions_have_in_common_is_admitted_in_order,
};
use told::{
    a_position_that_an_operator_sets_forgets_how_far_the_news_are_told,
    news_are_told_before_the_events_are_admitted_and_wake_who_waits_for_them,
};
use usher_engine::arrival::{Admission, Arrival, Batch, Command, CommandKind};
use usher_engine::{AttemptState, Change, ChangeKind, Changed, Effect, Run, RunState, StepEffect};
use usher_proto::{
    AddressDigest, Epoch, Event, EventId, EventRef, Instance, Key, Offset, Partition, Reason, Snapshot, Source,
    SubjectId, Timestamp,
};
use usher_sql::{Database, DatabaseAddress};
use usher_store::{
    FlowStore as _, HeadsQuery, LaneQuery, LaneRuns, QuotaStore as _, RetentionStore as _, RunContent, RunFilter,
    RunStore as _, SqlStore, StoreClock as _, StoreError, SubjectStore as _,
};
use usher_tests::backend::setting;
use usher_tests::unique;
use views::{
    a_subject_is_found_by_its_key_and_by_an_address, events_are_listed_newest_first_in_pages_and_filtered,
    flows_are_counted_and_dead_letters_listed,
};

mod earlier;
mod figures;
mod first_claim;

mod identity;
mod pauses;
mod plans;
mod pooler;
mod redrives;
mod rename;
mod schedules;
mod story;
mod together;
mod told;
mod views;
mod wake;

mod refused;

mod suppression;
mod take_over;

on_every_store!(
    the_progress_of_a_schedule_is_written_by_its_owner_only,
    living_users_come_in_pages_and_the_deleted_do_not,
    what_came_of_each_run_of_a_redrive_is_told_apart,
    a_redrive_is_carried_out_by_one_process_until_it_is_silent,
    events_are_listed_newest_first_in_pages_and_filtered,
    flows_are_counted_and_dead_letters_listed,
    a_subject_is_found_by_its_key_and_by_an_address,
    an_event_is_admitted_once_however_often_it_comes,
    an_admitted_run_is_found_again_whole,
    a_predecessor_that_wakes_up_late_changes_nothing,
    a_batch_is_admitted_whole_or_not_at_all,
    batches_of_several_partitions_are_admitted_together_each_with_its_own_result,
    of_batches_that_are_admitted_together_only_ours_are,
    what_two_partitions_have_in_common_is_admitted_in_order,
    the_frontier_is_kept_with_the_runs,
    news_are_told_before_the_events_are_admitted_and_wake_who_waits_for_them,
    a_position_that_an_operator_sets_forgets_how_far_the_news_are_told,
    a_claim_keeps_the_exact_request,
    a_run_that_is_alone_is_admitted_with_its_claim,
    changes_that_are_written_before_its_turn_go_before_an_admission,
    a_request_is_made_from_the_subject_as_it_is_after_the_batch,
    an_advance_can_be_written_twice,
    an_end_keeps_the_effect_and_drops_the_body,
    a_dead_run_keeps_its_body_and_its_reason,
    newer_snapshots_win_and_a_deletion_is_final,
    news_end_a_wait_and_are_not_missed,
    a_wait_ends_when_it_is_due,
    the_next_end_of_a_wait_or_a_pause_is_known,
    a_cancellation_ends_what_came_before_and_is_not_under_way,
    a_lane_is_read_in_order,
    only_what_nothing_of_its_key_goes_before_is_a_head,
    heads_that_ask_certain_destinations_can_be_left_out,
    a_parked_run_holds_its_lane_wherever_it_is,
    a_redriven_run_joins_its_lanes_tail_once,
    a_redriven_run_in_doubt_repeats_its_request_under_its_key,
    a_run_is_run_again_with_effects_of_its_own,
    an_operator_cancels_what_is_not_under_way_and_what_is_after_its_attempt,
    what_is_forgotten_is_never_taken_for_new,
    a_flow_is_paused_and_goes_on,
    every_replica_that_owns_something_confirms_a_pause,
    runs_are_counted_by_state,
    another_number_of_partitions_is_refused_by_the_store,
    a_version_of_a_flow_is_kept,
    what_an_event_changes_is_compared_once_and_kept_with_its_run,
    a_dead_run_keeps_nothing_when_its_life_is_over,
    each_attempt_is_in_the_story_once_and_its_message_goes_with_the_body,
    a_dead_run_keeps_its_messages_until_its_life_is_over,
    a_story_keeps_its_newest_part_within_a_bound,
    an_address_is_used_while_some_living_user_of_the_instance_has_it,
    a_poison_in_a_batch_is_given_up_and_all_others_are_admitted,
    a_change_that_is_refused_is_told_and_all_others_are_written,
);

async fn an_event_is_admitted_once_however_often_it_comes(subject: TestStore) {
    let epoch = subject.own().await;
    let first = subject.admit(epoch, vec![arrival(0, "e1", "a"), arrival(1, "e2", "b"), arrival(2, "e1", "a")]).await;
    assert_eq!(first.heads.iter().map(|run| run.position).collect::<Vec<_>>(), [0, 1]);
    let again = subject.admit(epoch, vec![arrival(3, "e1", "a"), arrival(4, "e3", "c")]).await;
    assert_eq!((names(&again.heads), again.repeated), (vec!["e3".to_owned()], 1));
    subject.change(epoch, "e1", end(RunState::Done)).await;
    let ended = subject.admit(epoch, vec![arrival(5, "e1", "a")]).await;
    assert_eq!((ended.heads.len(), ended.repeated), (0, 1), "what has ended does not begin again");
}

async fn an_admitted_run_is_found_again_whole(subject: TestStore) {
    let epoch = subject.own().await;
    let dead = Arrival { verdict: Some((Reason::Malformed, "why".into())), ..arrival(8, "e2", "") };
    let admitted = subject.admit(epoch, vec![arrival(7, "e1", "a"), dead]).await.heads;
    assert_eq!(subject.heads(None, &[]).await, admitted);
    assert_eq!(subject.heads(Some((7, reference("e1"))), &[]).await, admitted[1..]);
}

async fn only_what_nothing_of_its_key_goes_before_is_a_head(subject: TestStore) {
    let epoch = subject.own().await;
    let first = subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "a"), arrival(2, "f", "b")]).await;
    assert_eq!(
        (names(&first.heads), names(&first.followers)),
        (vec!["e0".to_owned(), "f".to_owned()], vec!["e1".to_owned()])
    );
    assert_eq!(subject.head_names().await, ["e0", "f"]);
    subject.change(epoch, "e0", end(RunState::Done)).await;
    assert_eq!(subject.head_names().await, ["e1", "f"]);
    // A waiting run blocks nothing. A started run is the head, even before a run of an earlier position that returns.
    subject.change(epoch, "e1", wait(10, None)).await;
    let second = subject.admit(epoch, vec![arrival(3, "e3", "a")]).await;
    assert_eq!(names(&second.heads), ["e3"]);
    subject.change(epoch, "e3", claim(1, 0, b"x")).await;
    assert_eq!(subject.due(epoch, 10).await, (vec![], vec!["a".to_owned()]), "it comes back behind");
    assert_eq!(subject.head_names().await, ["f", "e3"]);
    let (lane, more) = subject.lane("a", 1).await;
    assert_eq!((names(&lane), more), (vec!["e3".to_owned()], true));
}

async fn heads_that_ask_certain_destinations_can_be_left_out(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "b")]).await;
    let to = |destination: Option<&str>| ChangeKind::Advance {
        to: 1,
        destination: destination.map(str::to_owned),
        effect: None,
        results: Default::default(),
    };
    subject.change(epoch, "e0", to(Some("stripe"))).await;
    assert_eq!(names(&subject.heads(None, &["resend"]).await), ["e0"]);
    assert_eq!(names(&subject.heads(None, &["stripe", "resend"]).await), Vec::<String>::new());
    subject.change(epoch, "e0", to(None)).await;
    assert_eq!(names(&subject.heads(None, &["stripe", "resend"]).await), ["e0"], "a wait asks nobody");
}

async fn a_parked_run_holds_its_lane_wherever_it_is(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "a")]).await;
    subject.change(epoch, "e0", claim(1, 0, b"x")).await;
    let tries = AttemptState {
        attempts: 4,
        counted: 2,
        generation: 3,
        first_at: Some(Timestamp::from_millis(5)),
        first_sent_at: Some(Timestamp::from_millis(6)),
        failed_at: Some(Timestamp::from_millis(7)),
        ..AttemptState::default()
    };
    assert_eq!(subject.change(epoch, "e0", park(10, tries, Some(b"exact"))).await, Changed::Written);
    assert_eq!(subject.head_names().await, Vec::<String>::new());
    assert_eq!(subject.lane("a", 9).await, (vec![], false));
    let more = subject.admit(epoch, vec![arrival(2, "e2", "a")]).await;
    assert_eq!((names(&more.heads), names(&more.followers)), (vec![], vec!["e2".to_owned()]));
    // Another owner takes over; the parked run stays parked.
    let epoch = subject.own().await;
    assert_eq!(subject.due(epoch, 9).await.0, Vec::<String>::new());
    let due = subject.store.due(FLOW, &[(ZERO, epoch)], Timestamp::from_seconds(10)).await.unwrap().heads.remove(0);
    assert_eq!((due.event.id.as_str(), due.begun, due.tries), ("e0", true, tries));
    assert_eq!(due.request.as_deref(), Some(&b"exact"[..]));
    assert_eq!(subject.head_names().await, ["e0"], "it is found again after a crash");
}

async fn a_predecessor_that_wakes_up_late_changes_nothing(subject: TestStore) {
    let old = subject.own().await;
    subject.admit(old, vec![arrival(0, "e1", "a")]).await;
    let new = subject.own().await;
    assert!(new > old);
    assert_eq!(subject.change(old, "e1", claim(1, 0, b"x")).await, Changed::Fenced);
    assert_eq!(subject.change(old, "e1", end(RunState::Done)).await, Changed::Fenced);
    let late = subject.store.admit(FLOW, &batch(old, vec![arrival(1, "e2", "a")])).await;
    assert!(matches!(late, Err(StoreError::Fenced(ZERO))), "{late:?}");
    subject.change(new, "e1", wait(0, None)).await;
    let due = subject.store.due(FLOW, &[(ZERO, old)], Timestamp::from_seconds(1)).await.unwrap();
    assert_eq!((due.heads, due.fenced), (vec![], vec![(ZERO, old)]), "and is told so");
    assert_eq!((subject.state("e1").await.as_str(), subject.head_names().await.len()), ("waiting", 0));
}

async fn a_batch_is_admitted_whole_or_not_at_all(subject: TestStore) {
    let epoch = subject.own().await;
    subject.own().await;
    let late = batch(epoch, vec![news(0, "n1", "a", 5, true), arrival(1, "e1", "a")]);
    assert!(subject.store.admit(FLOW, &late).await.is_err());
    assert!(subject.head_names().await.is_empty());
    assert_eq!(subject.store.subject(&id("a")).await.unwrap(), None);
}

async fn the_frontier_is_kept_with_the_runs(subject: TestStore) {
    let owned = subject.store.acquire(FLOW, &[ZERO, Partition(3)], "me").await.unwrap();
    assert_eq!(
        owned.iter().map(|o| (o.partition, o.frontier)).collect::<Vec<_>>(),
        [(ZERO, None), (Partition(3), None)]
    );
    subject.admit(owned[0].epoch, vec![arrival(41, "e1", "a")]).await;
    let owned = subject.store.acquire(FLOW, &[ZERO, Partition(3)], "you").await.unwrap();
    assert_eq!(owned.iter().map(|o| o.frontier).collect::<Vec<_>>(), [Some(Offset(42)), None]);
}

async fn a_claim_keeps_the_exact_request(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a")]).await;
    subject.change(epoch, "e1", claim(2, 1, b"\x00\xffexact")).await;
    let run = subject.heads(None, &[]).await.remove(0);
    assert_eq!((run.tries.attempts, run.tries.generation, run.tries.unanswered, run.begun), (2, 1, 1, true));
    assert_eq!(run.request, Some(b"\x00\xffexact".to_vec()));
    assert_eq!(subject.state("e1").await, "running");
}

async fn an_advance_can_be_written_twice(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a")]).await;
    subject.change(epoch, "e1", claim(3, 2, b"x")).await;
    for _ in 0..2 {
        let results = [(0, json!({"id": "m1"}))].into();
        let destination = Some("stripe".to_owned());
        subject.change(epoch, "e1", ChangeKind::Advance { to: 1, destination, effect: effect("m1"), results }).await;
    }
    let run = subject.heads(None, &[]).await.remove(0);
    assert_eq!((run.step, run.destination.as_deref(), run.tries), (1, Some("stripe"), AttemptState::default()));
    assert_eq!(run.request, None);
    assert_eq!(run.results[&0], json!({"id": "m1"}));
    let shown = subject.store.runs(&RunFilter::default(), 10).await.unwrap().remove(0);
    assert_eq!(shown.effects.len(), 1, "one effect");
}

async fn an_end_keeps_the_effect_and_drops_the_body(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "user_a")]).await;
    assert!(subject.content("e1").await.body.is_some());
    let note = Some("nothing_to_do");
    let done = ChangeKind::End { state: RunState::Done, effect: effect("m1"), note, verdict: None, in_doubt: false };
    subject.change(epoch, "e1", done).await;
    assert_eq!(subject.content("e1").await.body, None);
    // A change after the end has no effect.
    subject.change(epoch, "e1", end(RunState::Dead)).await;
    let run = subject.store.runs(&RunFilter::default(), 10).await.unwrap().remove(0);
    assert_eq!((run.state.as_str(), run.note.as_deref(), run.user.as_deref()), ("done", note, Some("user_a")));
    let effect = &run.effects[0];
    assert_eq!((effect.connector.as_str(), effect.step.as_str(), effect.id.as_str()), ("resend", "first", "m1"));
}

async fn a_dead_run_keeps_its_body_and_its_reason(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a"), arrival(1, "e2", "a")]).await;
    subject.change(epoch, "e1", dead(false)).await;
    assert!(subject.content("e1").await.body.is_some());
    let filter =
        RunFilter { reason: Some(Reason::InvalidRequest), states: vec![RunState::Dead], ..RunFilter::default() };
    let dead = subject.store.runs(&filter, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].error.as_deref()), (1, Some("422 validation_error")));
}

async fn newer_snapshots_win_and_a_deletion_is_final(subject: TestStore) {
    let epoch = subject.own().await;
    let known = async || {
        let found = subject.store.subject(&id("a")).await.unwrap().unwrap();
        (found.snapshot, found.deleted)
    };
    let version = |v: i64| (Some(format!("{{\"v\":{v}}}")), false);
    subject.admit(epoch, vec![news(0, "n1", "a", 5, true), news(1, "n2", "a", 3, true)]).await;
    assert_eq!(known().await, version(5), "within a batch");
    subject.admit(epoch, vec![news(2, "n3", "a", 4, true)]).await;
    assert_eq!(known().await, version(5), "and across batches");
    subject.admit(epoch, vec![news(3, "n4", "a", 6, true)]).await;
    assert_eq!(known().await, version(6));
    let revision = subject.store.subject(&id("a")).await.unwrap().unwrap().revision;
    subject.admit(epoch, vec![news(4, "n4", "a", 6, true)]).await;
    let again = subject.store.subject(&id("a")).await.unwrap().unwrap().revision;
    assert_eq!(again, revision, "the same event again is no news");
    subject.admit(epoch, vec![news(5, "n5", "a", 1, false)]).await;
    assert_eq!(known().await, (None, true));
    subject.admit(epoch, vec![news(6, "n6", "a", 9, true)]).await;
    assert_eq!(known().await, (None, true), "a deleted user never comes back");
}

async fn news_end_a_wait_and_are_not_missed(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a"), arrival(1, "e2", "b")]).await;
    assert_eq!(subject.change(epoch, "e1", wait(1_000, Some(0))).await, Changed::Written);
    assert_eq!(subject.change(epoch, "e2", wait(1_000, None)).await, Changed::Written);
    let woken = subject.admit(epoch, vec![news(2, "n1", "a", 5, true), news(3, "n2", "b", 5, true)]).await.woken;
    assert_eq!(names(&woken), ["e1"], "the other waits for the time");
    assert_eq!(woken[0].wait_until, Some(Timestamp::from_seconds(1_000)), "the bound stays");
    // News that arrived between the lookup and the wait.
    assert_eq!(subject.change(epoch, "e1", wait(1_000, Some(0))).await, Changed::Awake);
    assert_eq!(subject.change(epoch, "e1", wait(1_000, Some(1))).await, Changed::Written);
}

async fn a_wait_ends_when_it_is_due(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e1", "a")]).await;
    subject.change(epoch, "e1", wait(10, None)).await;
    assert!(subject.due(epoch, 9).await.0.is_empty());
    assert_eq!(subject.due(epoch, 10).await.0, ["e1"]);
    assert!(subject.due(epoch, 11).await.0.is_empty(), "once");
    assert_eq!(subject.head_names().await, ["e1"], "it is found again after a crash");
}

async fn the_next_end_of_a_wait_or_a_pause_is_known(subject: TestStore) {
    let epoch = subject.own().await;
    let next = async |seconds| {
        let due = subject.store.due(FLOW, &[(ZERO, epoch)], Timestamp::from_seconds(seconds)).await.unwrap();
        (names(&due.heads), due.next)
    };
    let at = |seconds| Some(Timestamp::from_seconds(seconds));
    assert_eq!(next(5).await, (vec![], None));
    subject.admit(epoch, vec![arrival(0, "e1", "a"), arrival(1, "e2", "b"), arrival(2, "e3", "c")]).await;
    subject.change(epoch, "e1", wait(20, None)).await;
    subject.change(epoch, "e2", wait(10, None)).await;
    subject.change(epoch, "e3", wait(30, None)).await;
    assert_eq!(next(5).await, (vec![], at(10)));
    assert_eq!(next(10).await, (vec!["e2".to_owned()], at(20)), "in the same answer as what is over");
    assert_eq!(next(30).await.1, None);
}

async fn a_cancellation_ends_what_came_before_and_is_not_under_way(subject: TestStore) {
    let epoch = subject.own().await;
    let keys = ["a", "a", "a", "a"];
    subject.admit(epoch, keys.iter().zip(0..).map(|(key, n)| arrival(n, &format!("e{n}"), key)).collect()).await;
    subject.admit(epoch, vec![arrival(4, "other", "b")]).await;
    subject.change(epoch, "e1", wait(10, None)).await;
    subject.change(epoch, "e2", park(10, AttemptState::default(), Some(b"x"))).await;
    subject.change(epoch, "e0", claim(1, 0, b"x")).await;
    let cancel = Arrival { starts: false, cancels: true, ..arrival(5, "c", "a") };
    let same_batch = arrival(6, "e6", "a");
    let admission = subject.admit(epoch, vec![cancel, same_batch]).await;
    let mut cancelled: Vec<String> = admission.cancelled.iter().map(|(_, event)| event.id().to_owned()).collect();
    cancelled.sort();
    assert_eq!(cancelled, ["e1", "e2", "e3"]);
    assert_eq!(subject.head_names().await, ["e0", "other"]);
    assert_eq!(subject.change(epoch, "e2", claim(1, 0, b"x")).await, Changed::Ended, "it is not attempted any more");
    // The run in flight ends with its attempt, whatever steps would follow.
    let to = ChangeKind::Advance { to: 1, destination: None, effect: effect("m1"), results: Default::default() };
    assert_eq!(subject.change(epoch, "e0", to).await, Changed::Ended);
    assert_eq!((subject.state("e0").await.as_str(), subject.state("e2").await.as_str()), ("cancelled", "cancelled"));
    let shown = subject.store.runs(&RunFilter { event: Some("e0".into()), ..RunFilter::default() }, 1).await.unwrap();
    assert_eq!(shown[0].effects.len(), 1, "what it did is kept");
    assert_eq!(subject.head_names().await, ["other", "e6"], "later ones begin");

    // News and a cancellation in one batch: runs woken by the news are cancelled, not started.
    subject.change(epoch, "other", wait(10, Some(0))).await;
    let gone = Arrival { cancels: true, ..news(8, "c2", "b", 5, false) };
    let admission = subject.admit(epoch, vec![news(7, "n1", "b", 4, true), gone]).await;
    assert_eq!((admission.woken.len(), admission.cancelled.len()), (0, 1));
}

async fn a_lane_is_read_in_order(subject: TestStore) {
    let epoch = subject.own().await;
    let arrivals = [(3, "e3", "a"), (1, "e1", "a"), (2, "e2", "b")].map(|(o, e, k)| arrival(o, e, k)).to_vec();
    subject.admit(epoch, arrivals).await;
    let (lane, more) = subject.lane("a", 10).await;
    assert_eq!((lane.iter().map(|run| run.position).collect::<Vec<_>>(), more), (vec![1, 3], false));
}

async fn a_redriven_run_joins_its_lanes_tail_once(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "a")]).await;
    subject.change(epoch, "e0", claim(1, 0, b"x")).await;
    subject.change(epoch, "e0", dead(false)).await;
    let redrive = |offset, id: &str, deaths| order(offset, id, "a", "e0", CommandKind::Redrive { deaths });
    let stale = subject.admit(epoch, vec![redrive(2, "o1", 7)]).await;
    assert_eq!((stale.woken.len(), subject.state("e0").await.as_str()), (0, "dead"), "of another death");
    let redriven = subject.admit(epoch, vec![redrive(3, "o2", 1), redrive(4, "o2", 1)]).await;
    assert_eq!((names(&redriven.woken), redriven.behind), (vec![], vec![id("a")]), "behind e1");
    subject.change(epoch, "e1", end(RunState::Done)).await;
    let run = subject.heads(None, &[]).await.remove(0);
    assert_eq!((run.event.id.as_str(), run.position, run.tries.attempts), ("e0", 3, 0));
    assert_eq!((run.tries.generation, &run.request), (1, &None), "a new request under a new key");
    subject.change(epoch, "e0", end(RunState::Done)).await;
    let again = subject.admit(epoch, vec![redrive(5, "o3", 1)]).await;
    assert_eq!((again.woken.len(), subject.state("e0").await.as_str()), (0, "done"), "what is done stays done");
    let came: Vec<(String, String)> = subject
        .store
        .actions(FLOW, &reference("e0"))
        .await
        .unwrap()
        .into_iter()
        .map(|action| (format!("{} {}", action.who, action.what), action.came))
        .collect();
    assert_eq!(came.iter().map(|(_, came)| came.as_str()).collect::<Vec<_>>(), ["nothing", "queued", "nothing"]);
    assert!(came.iter().all(|(what, _)| what == "ann redrive"));
}

async fn a_redriven_run_in_doubt_repeats_its_request_under_its_key(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    subject.change(epoch, "e0", claim(1, 2, b"exact")).await;
    subject.change(epoch, "e0", dead(true)).await;
    let redriven = subject.admit(epoch, vec![order(1, "o1", "a", "e0", CommandKind::Redrive { deaths: 1 })]).await;
    let run = &redriven.woken[0];
    assert_eq!((run.tries.generation, run.request.as_deref()), (2, Some(&b"exact"[..])));
}

async fn a_run_is_run_again_with_effects_of_its_own(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    let rerun = |offset, id: &str| order(offset, id, "a", "e0", CommandKind::Rerun { body: "{\"again\":1}".into() });
    assert_eq!(subject.admit(epoch, vec![rerun(1, "o1")]).await.woken.len(), 0, "not while it is under way");
    let done = |id: &str| ChangeKind::End {
        state: RunState::Done,
        effect: effect(id),
        note: None,
        verdict: None,
        in_doubt: false,
    };
    subject.change(epoch, "e0", done("m1")).await;
    let again = subject.admit(epoch, vec![rerun(2, "o2")]).await.woken.remove(0);
    assert_eq!((again.rerun, again.step, &again.event.body[..]), (1, 0, &b"{\"again\":1}"[..]));
    assert_eq!(subject.admit(epoch, vec![rerun(3, "o2")]).await.woken.len(), 0, "the same order");
    subject.change(epoch, "e0", done("m2")).await;
    let shown = subject.store.runs(&RunFilter::default(), 1).await.unwrap().remove(0);
    assert_eq!(shown.effects.iter().map(|effect| effect.id.as_str()).collect::<Vec<_>>(), ["m1", "m2"]);
}

async fn an_operator_cancels_what_is_not_under_way_and_what_is_after_its_attempt(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "b")]).await;
    subject.change(epoch, "e1", claim(1, 0, b"x")).await;
    let cancel = |offset, id: &str, key: &str, of: &str| order(offset, id, key, of, CommandKind::Cancel);
    let admission = subject.admit(epoch, vec![cancel(2, "o1", "a", "e0"), cancel(3, "o2", "b", "e1")]).await;
    assert_eq!(admission.cancelled, [(id("a"), reference("e0"))]);
    assert_eq!(subject.state("e1").await, "running");
    assert_eq!(subject.change(epoch, "e1", park(9, AttemptState::default(), None)).await, Changed::Ended);
    assert_eq!(subject.state("e1").await, "cancelled");
}

async fn another_number_of_partitions_is_refused_by_the_store(subject: TestStore) {
    let again = SqlStore::open(Database::open(&subject.address).unwrap(), PARTITIONS + 1).await;
    let Err(StoreError::PartitionCount { found, wanted }) = again else { panic!("it is refused") };
    assert_eq!((found.as_str(), wanted), ("4", 5));
    SqlStore::open(Database::open(&subject.address).unwrap(), PARTITIONS).await.expect("the same number is fine");
}

async fn a_version_of_a_flow_is_kept(subject: TestStore) {
    for _ in 0..2 {
        subject.store.keep_flow(FLOW, "v1", "on = []").await.unwrap();
    }
    assert_eq!(subject.store.flow(FLOW, "v1").await.unwrap().as_deref(), Some("on = []"));
    assert_eq!(subject.store.flow(FLOW, "v2").await.unwrap(), None);
}
