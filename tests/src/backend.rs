//! The two backends (log and store) on which every scenario runs. The embedded backend always runs. Kafka and Postgres
//! run if `USHER_TEST_KAFKA` (`host:port`) and `USHER_TEST_POSTGRES` (`postgres://...`) give their addresses; their tests
//! are ignored otherwise.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// Addresses of real services to test against.
#[derive(Debug, Clone)]
pub struct Services {
    /// Bootstrap server of Kafka.
    pub kafka: String,
    /// URL of a Postgres server on which databases can be created.
    pub postgres: String,
}

/// A log and a store.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Both as SQLite files, in one process.
    Embedded,
    /// Apache Kafka and Postgres; ingest and dispatcher run as separate services.
    Real(Services),
}

/// Writes `text` to standard error once per process, bypassing the test harness's output capture.
pub fn log_once(text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let new = SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned());
    if new {
        // The harness captures output of the print macros, but not direct writes to standard error.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// Returns a setting of the tests. Panics if the variable is missing or empty: a test that needs it says so with
/// [`needs`](crate::needs), and is ignored without it.
pub fn setting(name: &str) -> String {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.unwrap_or_else(|| panic!("{name} is not set: it names what this test needs (docs/testing.md)"))
}

impl Backend {
    /// Returns the backend of real services. Panics if their addresses are not set.
    pub fn real() -> Self {
        Self::Real(Services { kafka: setting("USHER_TEST_KAFKA"), postgres: setting("USHER_TEST_POSTGRES") })
    }

    /// Display name of the backend.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Real(_) => "Kafka and Postgres",
        }
    }
}

/// Generates a module per scenario with one test for each backend.
#[macro_export]
macro_rules! on_both_backends {
    ($($(#[$attribute:meta])* $scenario:ident),+ $(,)?) => {
        $(
            mod $scenario {
                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn embedded() {
                    super::$scenario($crate::backend::Backend::Embedded).await;
                }

                #[$crate::needs(kafka, postgres)]
                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn kafka_and_postgres() {
                    super::$scenario($crate::backend::Backend::real()).await;
                }
            }
        )+
    };
}
