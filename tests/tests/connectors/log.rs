//! Captures the log output of all code in this process at every level and searches it for private data.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use usher_engine::Outcome;

use super::subject::PRIVATE;

static LOG: Mutex<String> = Mutex::new(String::new());
/// Number of captured lines by source: libraries, and the line that a test writes.
static OF_LIBRARIES: AtomicUsize = AtomicUsize::new(0);
static OF_TEST: AtomicUsize = AtomicUsize::new(0);

/// Line that a test writes to verify that the log is captured.
const CANARY: &str = "the canary sings";

struct Log;

impl Write for Log {
    /// Called once per log event.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        for (count, mark) in [(&OF_LIBRARIES, "reqwest"), (&OF_LIBRARIES, "hyper"), (&OF_TEST, CANARY)] {
            count.fetch_add(usize::from(line.contains(mark)), Ordering::SeqCst);
        }
        LOG.lock().unwrap().push_str(&line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        Self
    }
}

/// Starts capturing.
pub(crate) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        tracing_subscriber::fmt().with_ansi(false).with_max_level(LevelFilter::TRACE).with_writer(Log).init();
    });
}

fn leak(text: &str) -> Option<&str> {
    text.lines().find(|line| PRIVATE.iter().any(|private| line.contains(private)))
}

/// Asserts that neither the outcome nor the log since the last call contains private data.
pub(crate) fn assert_discreet(outcome: &Outcome, case: &str) {
    let log = std::mem::take(&mut *LOG.lock().unwrap());
    assert_eq!(leak(&log), None, "{case}, or what ran beside it: the log gives something away");
    match outcome {
        // Stored with the run and not logged.
        Outcome::Done(_) => {}
        other => assert_eq!(leak(&format!("{other:?}")), None, "{case}: the outcome gives something away"),
    }
}

#[tokio::test]
async fn what_is_logged_is_heard_and_a_leak_would_be_seen() {
    listen();
    tracing::trace!("{CANARY}");
    assert_eq!(OF_TEST.load(Ordering::SeqCst), 1);
    let outcome = super::subject::subject("stripe").attempt("http://127.0.0.1:9").await;
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    assert!(OF_LIBRARIES.load(Ordering::SeqCst) > 0, "what libraries log is heard as well");
    for private in PRIVATE {
        assert!(leak(&format!("a line\nwith {private} in it\n")).is_some());
    }
}
