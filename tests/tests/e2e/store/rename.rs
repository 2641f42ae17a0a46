//! Flows that go on under another name.

use std::collections::BTreeSet;

use usher_store::RenameResult;

use super::*;

on_every_store!(
    a_renamed_flow_goes_on_where_it_was,
    who_works_under_a_former_name_is_fenced_and_takes_nothing_over,
    a_name_that_another_flow_has_is_not_taken,
    a_flow_may_have_its_former_name_again,
    a_redriven_run_in_doubt_keeps_the_version_whose_name_its_key_has,
    every_table_that_names_flows_is_renamed_or_said_to_be_not,
);

const NEW: &str = "renamed";

async fn rename(subject: &TestStore, was: &str, flow: &str) -> RenameResult {
    subject.store.rename_flow(was, flow, Timestamp::from_seconds(9)).await.unwrap()
}

async fn a_renamed_flow_goes_on_where_it_was(subject: TestStore) {
    let store = &subject.store;
    let epoch = subject.own().await;
    store.keep_flow(FLOW, "v1", "on = []").await.unwrap();
    let arrivals = (0..4).map(|n| arrival(n, &format!("e{n}"), &format!("key{n}"))).collect();
    subject.admit(epoch, arrivals).await;
    subject.admit(epoch, vec![news(4, "e4", "key4", 1, true)]).await;
    let far = Timestamp::from_millis(i64::MAX / 2);
    subject.change(epoch, "e0", ChangeKind::Wait { until: far, news_after: None }).await;
    subject.change(epoch, "e1", claim(1, 0, b"exact")).await;
    subject.change(epoch, "e2", end(RunState::Done)).await;
    subject.change(epoch, "e3", dead(false)).await;
    store.set_paused(FLOW, true, "ann", Some("why"), Timestamp::from_seconds(8)).await.unwrap();

    assert_eq!(rename(&subject, FLOW, NEW).await, RenameResult::Renamed { open_runs: 2 });
    assert_eq!(rename(&subject, FLOW, NEW).await, RenameResult::Already, "once");
    let runs = store.runs(&RunFilter::default(), 10).await.unwrap();
    let mut states: Vec<(&str, &str)> = runs.iter().map(|run| (run.flow.as_str(), run.state.as_str())).collect();
    states.sort_unstable();
    assert_eq!(states, [(NEW, "dead"), (NEW, "done"), (NEW, "running"), (NEW, "waiting")]);
    assert_eq!(store.flow(NEW, "v1").await.unwrap().as_deref(), Some("on = []"));
    assert!(store.pauses().await.unwrap().keys().eq([NEW]));
    assert_eq!(store.flow_names().await.unwrap(), [NEW]);

    let owned = store.acquire(NEW, &[ZERO], "new").await.unwrap().remove(0);
    assert_eq!(owned.frontier, Some(Offset(5)), "at its place");
    assert!(owned.epoch > epoch);
    let again = (0..5).map(|n| arrival(n + 5, &format!("e{n}"), &format!("key{n}"))).collect();
    let admission = store.admit(NEW, &batch(owned.epoch, again)).await.unwrap();
    assert_eq!((admission.repeated, admission.heads.len()), (5, 0), "what it has admitted it knows");
    let heads = HeadsQuery { partition: ZERO, after: None, without: Vec::new(), limit: 10 };
    let claimed = store.heads(NEW, &heads).await.unwrap().remove(0);
    assert_eq!(claimed.request.as_deref(), Some(&b"exact"[..]), "the request that may have been sent");
}

async fn who_works_under_a_former_name_is_fenced_and_takes_nothing_over(subject: TestStore) {
    let store = &subject.store;
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "a")]).await;
    rename(&subject, FLOW, NEW).await;
    assert_eq!(subject.change(epoch, "e0", claim(1, 0, b"x")).await, Changed::Fenced);
    let admitted = store.admit(FLOW, &batch(epoch, vec![arrival(2, "e2", "b")])).await;
    assert!(matches!(admitted, Err(StoreError::Fenced(ZERO))), "{admitted:?}");
    let due = store.due(FLOW, &[(ZERO, epoch)], Timestamp::from_seconds(1)).await.unwrap();
    assert_eq!(due.fenced, [(ZERO, epoch)], "and hears of it");
    for partition in [ZERO, Partition(1)] {
        let Err(StoreError::Renamed { was, now }) = store.acquire(FLOW, &[partition], "old").await else {
            panic!("it is refused")
        };
        assert_eq!((was.as_str(), now.as_str()), (FLOW, NEW));
    }
    let former = store.former_names().await.unwrap().remove(0);
    assert_eq!((former.was.as_str(), former.flow.as_str()), (FLOW, NEW));

    store.free_name(FLOW).await.unwrap();
    assert!(store.former_names().await.unwrap().is_empty());
    let fresh = store.acquire(FLOW, &[ZERO], "another").await.unwrap().remove(0);
    assert_eq!((fresh.epoch, fresh.frontier), (Epoch(1), None), "another flow, from its own beginning");
}

async fn a_name_that_another_flow_has_is_not_taken(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    subject.store.acquire(NEW, &[ZERO], "new").await.unwrap();
    assert_eq!(rename(&subject, FLOW, NEW).await, RenameResult::Taken);
    assert_eq!(subject.change(epoch, "e0", claim(1, 0, b"x")).await, Changed::Written, "nothing is changed");
    assert!(subject.store.former_names().await.unwrap().is_empty());
    // A name that no flow has had is given up all the same: files of before may have it.
    assert_eq!(rename(&subject, "none", "other").await, RenameResult::Unknown);
    assert!(matches!(subject.store.acquire("none", &[ZERO], "x").await, Err(StoreError::Renamed { .. })));
}

async fn a_flow_may_have_its_former_name_again(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a")]).await;
    rename(&subject, FLOW, NEW).await;
    assert_eq!(rename(&subject, NEW, FLOW).await, RenameResult::Renamed { open_runs: 1 });
    let back = subject.store.acquire(FLOW, &[ZERO], "me").await.unwrap().remove(0);
    assert_eq!((back.frontier, back.epoch > epoch), (Some(Offset(1)), true));
    assert!(matches!(subject.store.acquire(NEW, &[ZERO], "me").await, Err(StoreError::Renamed { .. })));
}

async fn a_redriven_run_in_doubt_keeps_the_version_whose_name_its_key_has(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, vec![arrival(0, "e0", "a"), arrival(1, "e1", "b")]).await;
    subject.change(epoch, "e0", claim(1, 0, b"exact")).await;
    subject.change(epoch, "e0", dead(true)).await;
    subject.change(epoch, "e1", dead(false)).await;
    rename(&subject, FLOW, NEW).await;
    let epoch = subject.store.acquire(NEW, &[ZERO], "new").await.unwrap()[0].epoch;
    let redrive = |offset, key: &str, of: &str| {
        order(offset, &format!("redrive-{of}"), key, of, CommandKind::Redrive { deaths: 1 })
    };
    let redrives = vec![redrive(2, "a", "e0"), redrive(3, "b", "e1")];
    let batch = Batch { flow_version: "v2".into(), ..batch(epoch, redrives) };
    let mut woken = subject.store.admit(NEW, &batch).await.unwrap().woken;
    woken.sort_by_key(|run| run.event.id.to_string());
    let of = |run: &Run| (run.flow_version.clone(), run.request.is_some());
    assert_eq!([of(&woken[0]), of(&woken[1])], [("v1".to_owned(), true), ("v2".to_owned(), false)]);
}

/// Tables in which a renaming leaves the former name, with the reason in `store/src/rename.rs`: a redrive goes on with commands to the
/// former name, and the former names themselves.
const LEFT: [&str; 2] = ["usher_redrive_run", "usher_renamed"];
/// Tables in which it writes the new name, or deletes the rows.
const RENAMED: [&str; 11] = [
    "usher_action",
    "usher_ended_run",
    "usher_event",
    "usher_flow",
    "usher_open_run",
    "usher_ownership",
    "usher_pause",
    "usher_pause_seen",
    "usher_pruned",
    "usher_remembered",
    "usher_schedule",
];

async fn every_table_that_names_flows_is_renamed_or_said_to_be_not(subject: TestStore) {
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(&subject.url).await.unwrap();
    let sql = if subject.postgres {
        "SELECT CAST(c.table_name AS TEXT) FROM information_schema.columns c JOIN information_schema.tables t \
           ON t.table_schema = c.table_schema AND t.table_name = c.table_name \
         WHERE c.column_name = 'flow' AND c.table_schema = 'public' AND t.table_type = 'BASE TABLE'"
    } else {
        "SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'flow'"
    };
    let found: Vec<(String,)> = sqlx::query_as(sql).fetch_all(&pool).await.unwrap();
    pool.close().await;
    let found: BTreeSet<&str> = found.iter().map(|(name,)| name.as_str()).collect();
    let known: BTreeSet<&str> = LEFT.into_iter().chain(RENAMED).collect();
    assert_eq!(found, known, "say in store/src/rename.rs what becomes of the rows of a flow that is renamed, and here");
}
