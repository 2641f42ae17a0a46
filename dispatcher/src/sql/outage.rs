//! A database that does not do as asked: said once, then every ten seconds with how long it has lasted, and told to
//! whoever asks for readiness.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use usher_service::ConfigError;
use usher_service::Readiness;

use super::address::DatabaseAddress;
use super::fault::Fault;
use super::{Database, Tables};

/// Interval between log lines about one lasting outage.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The state of one database as its users see it. Clones share it.
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
    /// When it was said last: several flows share a database, and one of them may succeed in between.
    said: Option<Instant>,
    /// Whether this trouble was said, so that its end is, too.
    told: bool,
}

impl Outage {
    /// Of a database that readiness knows by the name `need`.
    pub fn of(database: &Database, need: impl Into<Cow<'static, str>>, readiness: Readiness) -> Self {
        let (state, damaged) = (Arc::default(), Arc::new(watch::Sender::new(None)));
        Self { database: database.clone(), need: need.into(), readiness, state, damaged }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The address.
    pub fn address(&self) -> &DatabaseAddress {
        self.database.address()
    }

    /// It does as asked.
    pub fn over(&self) {
        let since = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let told = std::mem::take(&mut state.told);
            state.since.take().filter(|_| told)
        };
        if let Some(since) = since {
            let lasted = since.elapsed().as_secs();
            tracing::info!(setting = self.address().variable(), lasted_s = lasted, "the database answers again");
        }
        self.readiness.met(self.need.clone());
    }

    /// It does not do as asked. `text` is the problem in words.
    pub async fn failed(&self, fault: Fault, text: &str) {
        self.readiness.lost(self.need.clone());
        let now = Instant::now();
        let (lasted, say) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let since = *state.since.get_or_insert(now);
            let say = state.said.is_none_or(|said| now - said >= SAY_EVERY);
            if say {
                (state.said, state.told) = (Some(now), true);
            }
            (now - since, say)
        };
        if say {
            // A pool that has no connection to give does not know why; one attempt to connect does.
            let cause =
                self.database.reach().await.err().map(|error| (Fault::of(&error), self.address().complaint(&error)));
            let (fault, line) = cause.unwrap_or_else(|| (fault, ConfigError::new(self.address().variable(), text)));
            let lasted = if lasted < SAY_EVERY { String::new() } else { format!(", for {} s now", lasted.as_secs()) };
            tracing::warn!("{line}; trying again{lasted}");
            self.damage(fault, line);
        } else if fault == Fault::Damaged {
            self.damage(fault, ConfigError::new(self.address().variable(), text));
        }
    }

    fn damage(&self, fault: Fault, line: ConfigError) {
        if fault == Fault::Damaged {
            self.damaged.send_if_modified(|known| known.is_none() && known.replace(line).is_none());
        }
    }

    /// Waits until it is known that the file is damaged, which nothing mends, and says how.
    pub async fn damaged(&self) -> ConfigError {
        let mut damaged = self.damaged.subscribe();
        match damaged.wait_for(Option::is_some).await.map(|known| known.clone()) {
            Ok(Some(line)) => line,
            // The sender lives as long as `self`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Asks whether it answers. For a database that nobody asks while nothing is to be done.
    pub async fn check(&self) {
        match self.database.now().await {
            Ok(_) => self.over(),
            Err(error) => self.failed(Fault::of(&error), &super::fault::describe(&error)).await,
        }
    }

    /// Connects and makes the tables, or brings them up to this version.
    ///
    /// # Errors
    /// Only a person mends it. What passes is said here, and asked for again by the caller.
    pub async fn prepare(&self, tables: Tables) -> Result<bool, ConfigError> {
        let (fault, line) = match self.database.reach().await {
            Err(error) => (Fault::of(&error), self.address().complaint(&error)),
            Ok(()) => match self.database.migrate(tables).await {
                Ok(()) => return Ok(true),
                Err(error) => (Fault::of_migration(&error), self.address().complaint_of_tables(&error)),
            },
        };
        match fault {
            Fault::Passing | Fault::Unclear => {
                self.failed(fault, &line.to_string()).await;
                Ok(false)
            }
            Fault::Refused | Fault::Setting | Fault::Damaged => Err(line),
        }
    }
}
