//! Records that other processes append to the file, such as an operator's commands. A file tells nobody of a commit, so
//! the number of its version is read at an interval, once for all readers of the log.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::file::File;

/// Interval between readings of the version after a commit: one seldom comes alone.
const EVERY: Duration = Duration::from_millis(250);
/// Number of readings at this interval after the last commit.
const READINGS: u32 = 20;
/// Interval between readings while nothing is written: the latest time at which a record of another process is found.
const REST: Duration = Duration::from_secs(1);

/// Wakes the readers after each commit to the file, until the log is closed. They are woken for commits of this process,
/// too, and find nothing then.
pub(super) async fn run(file: File, appended: watch::Sender<u64>, stop: CancellationToken) {
    let mut known = None;
    let mut readings = READINGS;
    let pause = |readings| if readings > 0 { EVERY } else { REST };
    while stop.run_until_cancelled(tokio::time::sleep(pause(readings))).await.is_some() {
        // An error is reported by the check of the log. Readers look for themselves then.
        let version = file.version().await.ok();
        let is_new = version.is_none() || version != known;
        if is_new {
            appended.send_modify(|count| *count += 1);
        }
        readings = if is_new { READINGS } else { readings.saturating_sub(1) };
        known = version;
    }
}

#[cfg(test)]
mod tests {
    use usher_proto::{Key, Record};

    use crate::{Creation, EmbeddedLog, Log as _, LogEvent, LogRetention, Retention, TopicSpec};

    #[tokio::test]
    async fn a_reader_that_waits_at_the_end_gets_what_another_process_appends() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.db");
        let log = EmbeddedLog::open(&path, LogRetention::default()).await.expect("it opens");
        let topic =
            TopicSpec { name: "t".into(), partitions: 1, retention: Retention::Time, creation: Creation::Always };
        log.ensure(std::slice::from_ref(&topic)).await.expect("a topic");
        let mut subscription = log.subscribe("g", "t").await.expect("subscribed");
        let Some(LogEvent::Assigned { assignment, partitions }) = subscription.events.recv().await else {
            panic!("an assignment comes first")
        };
        subscription.control.start(assignment, vec![(partitions[0].partition, partitions[0].low)]);
        let record = |key| Record { key: Key::new(key), headers: Vec::new(), body: vec![1].into() };
        let other = EmbeddedLog::open(&path, LogRetention::default()).await.expect("it opens again");
        for key in ["a", "b"] {
            other.append(&topic, record(key)).await.expect("appended");
            let batch = tokio::time::timeout(std::time::Duration::from_secs(10), subscription.events.recv()).await;
            let Ok(Some(LogEvent::Records { records, .. })) = batch else { panic!("{key}: {batch:?}") };
            assert_eq!(records[0].1.key.as_str(), key);
        }
    }
}
