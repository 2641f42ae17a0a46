//! Outages of a database. An outage is logged at once and then every ten seconds with its duration, and it is reported
//! to the readiness check.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use usher_service::ConfigError;
use usher_service::Readiness;

use super::address::DatabaseAddress;
use super::fault::DatabaseFault;
use super::{Database, Tables};

/// Interval between log lines about one lasting outage.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The outage state of one database, as its users observe it. Clones share the state.
#[derive(Clone)]
pub struct Outage {
    database: Database,
    need: Cow<'static, str>,
    readiness: Readiness,
    state: Arc<Mutex<State>>,
    damaged: Arc<watch::Sender<Option<ConfigError>>>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    /// Time of the last log line. It outlasts an outage, because several flows share a database and one of them may
    /// succeed between the failures of the others.
    said: Option<Instant>,
    /// True if the current outage was logged. Only then is its end logged, too.
    told: bool,
}

impl Outage {
    /// Creates the state of a database that the readiness check lists under the name `need`.
    pub fn of(database: &Database, need: impl Into<Cow<'static, str>>, readiness: Readiness) -> Self {
        let state = Arc::default();
        let damaged = Arc::new(watch::Sender::new(None));
        Self { database: database.clone(), need: need.into(), readiness, state, damaged }
    }

    /// Returns the database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Returns the address of the database.
    pub fn address(&self) -> &DatabaseAddress {
        self.database.address()
    }

    /// Records a success. Ends the outage, if there is one.
    pub fn record_success(&self) {
        let since = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let told = std::mem::take(&mut state.told);
            state.since.take().filter(|_| told)
        };
        if let Some(since) = since {
            let lasted = since.elapsed().as_secs();
            tracing::info!(setting = self.address().variable(), lasted_s = lasted, "database available");
        }
        self.readiness.met(self.need.clone());
    }

    /// Records a failure. `text` describes the problem.
    pub async fn record_failure(&self, fault: DatabaseFault, text: &str) {
        self.readiness.lost(self.need.clone());
        let now = Instant::now();
        let (lasted, say) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let since = *state.since.get_or_insert(now);
            let say = state.said.is_none_or(|said| now - said >= SAY_EVERY);
            if say {
                state.said = Some(now);
                state.told = true;
            }
            (now - since, say)
        };
        if say {
            // A pool without a free connection does not report the cause; one attempt to connect does.
            let cause = self
                .database
                .reach()
                .await
                .err()
                .map(|error| (DatabaseFault::of(&error), self.address().complaint(&error)));
            let (fault, line) = cause.unwrap_or_else(|| (fault, ConfigError::new(self.address().variable(), text)));
            let lasted = if lasted < SAY_EVERY { String::new() } else { format!(", for {} s now", lasted.as_secs()) };
            tracing::warn!("{line}; trying again{lasted}");
            self.damage(fault, line);
        } else if fault == DatabaseFault::Damaged {
            self.damage(fault, ConfigError::new(self.address().variable(), text));
        }
    }

    fn damage(&self, fault: DatabaseFault, line: ConfigError) {
        if fault == DatabaseFault::Damaged {
            self.damaged.send_if_modified(|known| known.is_none() && known.replace(line).is_none());
        }
    }

    /// Waits until the file is found to be damaged, which cannot be repaired while the process runs. Returns the error.
    pub async fn damaged(&self) -> ConfigError {
        let mut damaged = self.damaged.subscribe();
        match damaged.wait_for(Option::is_some).await.map(|known| known.clone()) {
            Ok(Some(line)) => line,
            // The sender lives as long as `self`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Queries the database and records the result. Used for a database that is not queried while there is no work.
    pub async fn check(&self) {
        match self.database.now().await {
            Ok(_) => self.record_success(),
            Err(error) => self.record_failure(DatabaseFault::of(&error), &error.to_string()).await,
        }
    }

    /// Connects, and creates the tables or migrates them to this version. Returns false if the failure may pass: it is
    /// logged here, and the caller retries.
    ///
    /// # Errors
    ///
    /// The failure can only be corrected by an operator.
    pub async fn prepare(&self, tables: &Tables) -> Result<bool, ConfigError> {
        let (fault, line) = match self.database.reach().await {
            Err(error) => (DatabaseFault::of(&error), self.address().complaint(&error)),
            Ok(()) => match self.database.migrate(tables).await {
                Ok(()) => return Ok(true),
                Err(error) => (DatabaseFault::of_migration(&error), self.address().complaint_of_tables(&error)),
            },
        };
        match fault {
            DatabaseFault::Transient | DatabaseFault::Unclear => {
                self.record_failure(fault, &line.to_string()).await;
                Ok(false)
            }
            DatabaseFault::Refused | DatabaseFault::NeedsOperator | DatabaseFault::Damaged => Err(line),
        }
    }
}
