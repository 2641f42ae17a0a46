//! Redrives of many dead letters: who holds one, and what came of its runs.

use usher_store::{NewRedrive, RedriveCame, RedriveCounts, RedriveRow};

use super::*;

const AT: Timestamp = Timestamp::from_seconds(2_000_000_000);

fn redrive(id: &str) -> NewRedrive {
    let selection = "flow=test".to_owned();
    NewRedrive { id: id.to_owned(), at: AT, who: "ann".into(), until: AT, selection, skipped: 2, rate: 50 }
}

/// Returns the row of a run that died once, with the id of its command.
fn row(number: i64) -> RedriveRow {
    RedriveRow {
        number,
        flow: FLOW.to_owned(),
        reference: reference(&format!("e{number}")),
        subject: id(&format!("key{number}")),
        partition: 0,
        offset: Offset(number),
        step: 0,
        deaths: 1,
        command: format!("o{number}"),
        came: RedriveCame::Left,
    }
}

pub(super) async fn what_came_of_each_run_of_a_redrive_is_told_apart(subject: TestStore) {
    let epoch = subject.own().await;
    let all = 0..6;
    subject.admit(epoch, all.clone().map(|n| arrival(n, &format!("e{n}"), &format!("key{n}"))).collect()).await;
    for n in all.clone() {
        subject.change(epoch, &format!("e{n}"), dead(false)).await;
    }
    let rows: Vec<RedriveRow> = all.map(row).collect();
    let store = &subject.store;
    assert!(store.begin_redrive(&redrive("r"), &rows).await.unwrap());
    assert!(!store.begin_redrive(&redrive("r"), &rows).await.unwrap(), "the same order begins once");
    let left = store.redrive_runs("r", RedriveCame::Left, -1, 2).await.unwrap();
    assert_eq!(left, rows[..2]);
    assert_eq!(store.redrive_runs("r", RedriveCame::Left, 3, 10).await.unwrap(), rows[4..]);

    // One is done, one dies again, one was taken up by somebody else, one is at work, one is not executed, one is left.
    store.redrive_asked("r", 0, 4).await.unwrap();
    let order = |offset, id: &str, n: i64| {
        order(offset, id, &format!("key{n}"), &format!("e{n}"), CommandKind::Redrive { deaths: 1 })
    };
    let orders =
        vec![order(10, "o0", 0), order(11, "o1", 1), order(12, "x", 2), order(13, "o2", 2), order(14, "o3", 3)];
    subject.admit(epoch, orders).await;
    subject.change(epoch, "e0", end(RunState::Done)).await;
    subject.change(epoch, "e1", dead(false)).await;
    let counts = store.settle_redrive("r", AT).await.unwrap();
    assert_eq!(counts, RedriveCounts { left: 1, asked: 2, done: 1, failed: 1, nothing: 1, ended: 0 });
    assert_eq!(store.redrive_failed("r").await.unwrap(), [(FLOW.to_owned(), reference("e1").as_str().to_owned())]);
    assert_eq!(store.redrive("r").await.unwrap().expect("stored").ended_at, None);

    // A stop leaves the last one as it is; the redrive ends with what was asked for.
    assert!(store.stop_redrive("r", "bob", AT).await.unwrap());
    assert!(!store.stop_redrive("r", "bob", AT).await.unwrap());
    subject.change(epoch, "e3", wait(9_000_000_000, None)).await;
    subject.admit(epoch, vec![order(15, "o4", 4)]).await;
    subject.admit(epoch, vec![super::order(16, "c", "key4", "e4", CommandKind::Cancel)]).await;
    let counts = store.settle_redrive("r", AT).await.unwrap();
    assert_eq!(counts, RedriveCounts { left: 1, asked: 0, done: 2, failed: 1, nothing: 1, ended: 1 });
    let record = store.redrive("r").await.unwrap().expect("stored");
    assert_eq!((record.ended_at, record.stopped_by.as_deref(), record.skipped), (Some(AT), Some("bob"), 2));
    assert!(store.open_redrives().await.unwrap().is_empty());
    assert_eq!(store.redrives(Timestamp::from_millis(i64::MAX), 10).await.unwrap(), [record]);

    // A month later it is forgotten, when another one begins.
    let later = NewRedrive { at: AT.plus(Duration::from_secs(31 * 86_400)), ..redrive("s") };
    assert!(store.begin_redrive(&later, &rows).await.unwrap());
    assert_eq!(store.redrive("r").await.unwrap(), None);
    assert_eq!(store.redrive_counts("r").await.unwrap(), RedriveCounts::default());
}

pub(super) async fn a_redrive_is_carried_out_by_one_process_until_it_is_silent(subject: TestStore) {
    let store = &subject.store;
    store.begin_redrive(&redrive("r"), &[row(0)]).await.unwrap();
    let later = AT.plus(Duration::from_secs(15));
    assert!(store.hold_redrive("r", "a", AT, later).await.unwrap());
    assert!(!store.hold_redrive("r", "b", AT, later).await.unwrap(), "another one holds it");
    assert!(store.hold_redrive("r", "a", AT, later).await.unwrap(), "and goes on");
    assert!(
        store.hold_redrive("r", "b", later, later.plus(Duration::from_secs(15))).await.unwrap(),
        "until it is silent"
    );
    assert!(!store.hold_redrive("r", "a", later, later).await.unwrap());
    store.redrive_trouble("r", Some("the log is away")).await.unwrap();
    assert_eq!(store.redrive("r").await.unwrap().expect("stored").trouble.as_deref(), Some("the log is away"));
}
