//! The two backends (log and store) on which every scenario runs. The embedded backend always runs. Kafka and Postgres
//! run if `USHER_TEST_KAFKA` (`host:port`) and `USHER_TEST_POSTGRES` (`postgres://...`) give their addresses; their tests
//! are ignored otherwise.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use crate::database::OwnDatabase;

/// Addresses of real services to test against.
#[derive(Debug, Clone)]
pub struct Services {
    /// Bootstrap server of Kafka.
    pub kafka: String,
    /// URL of a Postgres server on which databases can be created.
    pub postgres: String,
    /// URL of the same server behind a connection pooler in transaction mode, if the programs use it.
    pub pooler: Option<String>,
}

impl Services {
    /// Returns the URL of a database by which the programs reach it.
    pub fn store(&self, database: &OwnDatabase) -> String {
        self.pooler.as_ref().map_or_else(|| database.url(), |pooler| database.url_through(pooler))
    }
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
        let postgres = setting("USHER_TEST_POSTGRES");
        Self::Real(Services { kafka: setting("USHER_TEST_KAFKA"), postgres, pooler: None })
    }

    /// Returns the backend of real services whose store is behind PgBouncer. Panics if their addresses are not set.
    pub fn pooled() -> Self {
        let postgres = setting("USHER_TEST_POSTGRES");
        let pooler = Some(setting("USHER_TEST_PGBOUNCER"));
        Self::Real(Services { kafka: setting("USHER_TEST_KAFKA"), postgres, pooler })
    }

    /// Display name of the backend.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Real(Services { pooler: None, .. }) => "Kafka and Postgres",
            Self::Real(Services { pooler: Some(_), .. }) => "Kafka and Postgres behind PgBouncer",
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

/// Generates a module with one more test for each scenario: on Kafka and Postgres, with the store behind PgBouncer.
#[macro_export]
macro_rules! behind_a_pooler {
    ($($scenario:ident),+ $(,)?) => {
        mod behind_a_pooler {
            $(
                #[$crate::needs(kafka, postgres, pgbouncer)]
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    super::$scenario($crate::backend::Backend::pooled()).await;
                }
            )+
        }
    };
}
