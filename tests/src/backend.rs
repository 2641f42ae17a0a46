//! The two pairs of log and store that every scenario runs on: the embedded one always, Kafka and Postgres where
//! `USHER_TEST_KAFKA` (`host:port`) and `USHER_TEST_POSTGRES` (`postgres://...`) log_once where. With `CI` set, a missing one
//! is a failure.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// Real services to test against.
#[derive(Debug, Clone)]
pub struct Services {
    /// Kafka's bootstrap server.
    pub kafka: String,
    /// A Postgres in which databases can be made.
    pub postgres: String,
}

/// A log and a store.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Both SQLite files, in one process.
    Embedded,
    /// Apache Kafka and Postgres, ingest and dispatcher as services.
    Real(Services),
}

/// Says something once, where the test harness does not swallow it.
pub fn log_once(text: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let new = SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned());
    if new {
        // The harness swallows what the macros print, not what is written.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// A setting of the tests. None, said so, where it is missing; with `CI` that is a failure.
pub fn setting(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI is set, so {name} must say where the real service is");
        log_once(&format!("not run here: {name} is not set"));
    }
    value
}

impl Backend {
    /// The backend of real services, if there is one.
    pub fn real() -> Option<Self> {
        let (kafka, postgres) = (setting("USHER_TEST_KAFKA")?, setting("USHER_TEST_POSTGRES")?);
        log_once(&format!("backend: Kafka at {kafka} and Postgres"));
        Some(Self::Real(Services { kafka, postgres }))
    }

    /// What to call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Real(_) => "Kafka and Postgres",
        }
    }

    /// The backend that needs nothing.
    pub fn embedded() -> Option<Self> {
        log_once("backend: embedded log and store");
        Some(Self::Embedded)
    }
}

/// Makes a test of `scenario` for each backend.
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
