//! The two backends (log and store) on which every scenario runs. The embedded backend always runs. Kafka and Postgres
//! run if `USHER_TEST_KAFKA` (`host:port`) and `USHER_TEST_POSTGRES` (`postgres://...`) give their addresses. With `CI`
//! set, a missing variable is a failure.

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

/// Returns a setting of the tests. Returns `None` and logs it if the variable is missing or empty; panics instead if
/// `CI` is set.
pub fn setting(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI is set, so {name} must say where the real service is");
        log_once(&format!("not run here: {name} is not set"));
    }
    value
}

impl Backend {
    /// Returns the backend of real services, or `None` if their addresses are not set.
    pub fn real() -> Option<Self> {
        let kafka = setting("USHER_TEST_KAFKA")?;
        let postgres = setting("USHER_TEST_POSTGRES")?;
        log_once(&format!("backend: Kafka at {kafka} and Postgres"));
        Some(Self::Real(Services { kafka, postgres }))
    }

    /// Display name of the backend.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Real(_) => "Kafka and Postgres",
        }
    }

    /// Returns the embedded backend, which needs no external services. Always `Some`.
    pub fn embedded() -> Option<Self> {
        log_once("backend: embedded log and store");
        Some(Self::Embedded)
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
                    if let Some(backend) = $crate::backend::Backend::embedded() {
                        super::$scenario(backend).await;
                    }
                }

                $(#[$attribute])*
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn kafka_and_postgres() {
                    if let Some(backend) = $crate::backend::Backend::real() {
                        super::$scenario(backend).await;
                    }
                }
            }
        )+
    };
}
