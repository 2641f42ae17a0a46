//! The span of an execution: every line that is written inside names the run, and no person.

use std::io::Write;

use tracing_subscriber::filter::LevelFilter;

use super::*;

/// Text that a subscriber writes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while it is held").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the lines of at least this level that one execution writes.
async fn lines(level: LevelFilter, lookup: Lookup, does: fn() -> Outcome) -> String {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(level);
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    let scene = scene(FLOW, Idempotency::None, lookup, does).await.in_doubt_since(Duration::from_secs(1));
    // With a single subscriber, a test in another thread that has none could switch a span off for the whole process. An
    // error means that there is already a second one.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let guard = tracing::subscriber::set_default(subscriber);
    drop(scene.outcome().await);
    drop(guard);
    let bytes = written.0.lock().expect("no panic while it is held").clone();
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn every_line_of_an_execution_names_its_run_whatever_the_filter() {
    let run = "run{flow=\"test\" event=msg_1 attempt=0 step=\"mail\"}";
    let text = lines(LevelFilter::INFO, Lookup::Absent, || Outcome::retry(Cause::Throttled)).await;
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| line.contains(run)), "{text}");
    assert!(text.contains("attempt with unknown outcome") && text.contains("attempt finished"), "{text}");
    assert!(!text.contains("user_1") && !text.contains('@'), "{text}");
    let text = lines(LevelFilter::WARN, Lookup::Absent, done).await;
    assert!(text.lines().count() == 1 && text.contains(run), "{text}");
}
