//! Files that are moved away, unlocked or damaged while `usher up` runs.

use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

/// Starts an environment with a data directory that the test can access.
async fn env(folder: &std::path::Path) -> TestEnv {
    TestEnv::with(Backend::Embedded, Options { data: Some(folder.join("data")), ..Options::default() }).await
}

async fn until_not_ready(env: &TestEnv) {
    eventually("it is not ready", SOON, || async { (env.admin_page("/readyz").await.0 == 503).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_into_a_data_directory_that_was_moved_away() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let away = folder.path().join("away");
    let env = env(folder.path()).await;
    env.send(&User::new().created()).await;
    std::fs::rename(&data, &away).unwrap();
    for _ in 0..8 {
        assert_eq!(env.send_once(&User::new().created()).await, Some(503));
    }
    until_not_ready(&env).await;
    // An empty directory in its place is not accepted as the data directory.
    std::fs::create_dir(&data).unwrap();
    assert_eq!(env.send_once(&User::new().created()).await, Some(503));
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "nothing is begun there");
    std::fs::remove_dir(&data).unwrap();

    std::fs::rename(&away, &data).unwrap();
    env.send_until_kept(&User::new().created()).await;
    env.all_ended(6, SOON).await;
    env.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_has_one_process_also_when_its_lock_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut env = env(folder.path()).await;
    std::fs::remove_file(folder.path().join("data/lock")).unwrap();
    let mut second = env.start_delivering();
    assert_eq!(second.ended(SOON).await.code(), Some(64), "{}", second.output());
    assert!(second.output().contains("in use by another process"), "{}", second.output());
    env.ingest().assert_running();
    env.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_noticed_while_it_runs_and_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut env = env(folder.path()).await;
    env.send(&User::new().created()).await;
    env.all_ended(3, SOON).await;
    let log = folder.path().join("data/log.db");
    std::fs::write(&log, "no database").unwrap();
    until_not_ready(&env).await;
    assert_eq!(env.send_once(&User::new().created()).await, Some(503));
    env.kill_ingest().await;
    for damage in [vec![b'x'; 8192], b"SQLite format 3\0".to_vec()] {
        std::fs::write(&log, damage).unwrap();
        for beside in ["log.db-wal", "log.db-shm"] {
            // The file may have been removed at the exit of the process.
            let _ = std::fs::remove_file(folder.path().join("data").join(beside));
        }
        let mut starts = env.start_delivering();
        let ended = starts.ended(SOON).await;
        let output = starts.output();
        assert_eq!(ended.code(), Some(64), "{output}");
        assert!(output.contains("log.db cannot be used as the log") && output.contains("restore it"), "{output}");
    }
    env.end().await;
}
