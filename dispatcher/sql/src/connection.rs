//! Connections of either database, and their pool.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, Timeouts};
use usher_service::file_identity::FileIdentity;

use crate::postgres::{PostgresAddress, PostgresConnection};
use crate::query::{Answer, SqlQuery};
use crate::sqlite::SqliteConnection;
use crate::{Dialect, SqlError};

/// Maximum number of connections of one process to Postgres. Each flow uses one to write and a few to read.
const POSTGRES_CONNECTIONS: usize = 16;
/// Maximum number of connections to a SQLite file: one writes, the others read.
const SQLITE_CONNECTIONS: usize = 6;
/// Time to wait for a connection before an error is returned.
pub(crate) const ACQUIRE_DEADLINE: Duration = Duration::from_secs(5);
/// Time without use after which a connection is replaced: a machine between may have forgotten it.
const UNUSED: Duration = Duration::from_secs(60);
/// Age at which a connection is replaced, so that a server that was moved or resized is found.
const OLDEST: Duration = Duration::from_secs(30 * 60);

/// The database that the connections lead to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Postgres { address: Box<PostgresAddress>, settings: Arc<[String]> },
    Sqlite { path: PathBuf, create: bool },
}

/// One connection.
pub struct Connection(Driver);

enum Driver {
    Postgres(Box<PostgresConnection>),
    Sqlite(SqliteConnection),
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self, SqlError> {
        Ok(Self(match target {
            Target::Postgres { address, settings } => {
                Driver::Postgres(Box::new(PostgresConnection::open(address, settings).await?))
            }
            Target::Sqlite { path, create } => Driver::Sqlite(SqliteConnection::open(path.clone(), *create).await?),
        }))
    }

    pub(crate) async fn run(&mut self, query: SqlQuery) -> Result<Answer, SqlError> {
        match &mut self.0 {
            Driver::Postgres(connection) => connection.run(query).await,
            Driver::Sqlite(connection) => connection.run(query).await,
        }
    }

    pub(crate) async fn run_alone(&mut self, query: SqlQuery) -> Result<Answer, SqlError> {
        match &mut self.0 {
            Driver::Postgres(connection) => connection.run_alone(query).await,
            Driver::Sqlite(connection) => connection.run(query).await,
        }
    }

    pub(crate) async fn transact(&mut self, queries: Vec<SqlQuery>) -> Result<Vec<Answer>, SqlError> {
        match &mut self.0 {
            Driver::Postgres(connection) => connection.transact(&queries).await,
            Driver::Sqlite(connection) => connection.transact(queries).await,
        }
    }

    /// Runs the statements within a transaction, in Postgres in one round trip. Returns their answers.
    ///
    /// # Errors
    ///
    /// The database does not answer or refuses a statement.
    pub async fn run_all(&mut self, queries: Vec<SqlQuery>) -> Result<Vec<Answer>, SqlError> {
        match &mut self.0 {
            Driver::Postgres(connection) => connection.run_all(&queries).await,
            Driver::Sqlite(connection) => connection.run_all(queries).await,
        }
    }

    pub(crate) async fn read(&mut self, queries: Vec<SqlQuery>) -> Result<Vec<Answer>, SqlError> {
        match &mut self.0 {
            Driver::Postgres(connection) => connection.transact(&queries).await,
            Driver::Sqlite(connection) => connection.run_all(queries).await,
        }
    }

    /// Begins a transaction. In a SQLite file it takes the lock now; otherwise the transaction could fail midway because
    /// another process wrote first.
    pub(crate) async fn begin(&mut self) -> Result<(), SqlError> {
        match &mut self.0 {
            Driver::Postgres(connection) => connection.begin().await,
            Driver::Sqlite(connection) => connection.batch("BEGIN IMMEDIATE".to_owned()).await,
        }
    }

    /// Runs statements without parameters, separated by semicolons.
    ///
    /// # Errors
    ///
    /// The database does not answer or refuses a statement.
    pub async fn batch(&mut self, sql: impl Into<String>) -> Result<(), SqlError> {
        match &mut self.0 {
            Driver::Postgres(connection) => connection.batch(&sql.into()).await,
            Driver::Sqlite(connection) => connection.batch(sql.into()).await,
        }
    }
}

/// The pool of a database's connections. A connection is made when one is needed.
#[derive(Clone)]
pub(crate) struct Connections(Pool<Maker>);

pub(crate) type Pooled = Object<Maker>;

impl Connections {
    pub(crate) fn new(target: Target, file: Option<OpenedFile>) -> Result<Self, SqlError> {
        let size = match &target {
            Target::Postgres { .. } => POSTGRES_CONNECTIONS,
            Target::Sqlite { .. } => SQLITE_CONNECTIONS,
        };
        let target = std::sync::Mutex::new(target);
        let pool = Pool::builder(Maker { target, file }).max_size(size).build();
        pool.map(Self).map_err(|error| SqlError::Setting(error.to_string()))
    }

    pub(crate) async fn get(&self) -> Result<Pooled, SqlError> {
        let timeouts = Timeouts::new();
        let got = tokio::time::timeout(ACQUIRE_DEADLINE, self.0.timeout_get(&timeouts)).await;
        match got {
            Err(_) => Err(SqlError::NoConnection),
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(_)) => Err(SqlError::NoConnection),
        }
    }

    /// From now on a SQLite file that has disappeared is not created again.
    pub(crate) fn never_create(&self) {
        if let Target::Sqlite { create, .. } = &mut *self.0.manager().locked() {
            *create = false;
        }
    }

    pub(crate) fn target(&self) -> Target {
        self.0.manager().locked().clone()
    }
}

/// The path of a SQLite file, and its identity when it was first opened.
pub(crate) type OpenedFile = Arc<(PathBuf, OnceLock<FileIdentity>)>;

pub(crate) struct Maker {
    target: std::sync::Mutex<Target>,
    file: Option<OpenedFile>,
}

impl Maker {
    fn locked(&self) -> std::sync::MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Manager for Maker {
    type Type = Connection;
    type Error = SqlError;

    async fn create(&self) -> Result<Connection, SqlError> {
        let target = self.locked().clone();
        let connection = Connection::open(&target).await?;
        self.file.as_deref().map_or(Ok(()), still_there)?;
        Ok(connection)
    }

    async fn recycle(&self, connection: &mut Connection, metrics: &Metrics) -> RecycleResult<SqlError> {
        let over = match &connection.0 {
            Driver::Postgres(connection) => {
                connection.is_closed() || metrics.last_used() > UNUSED || metrics.age() > OLDEST
            }
            Driver::Sqlite(connection) => connection.is_closed(),
        };
        if over { Err(RecycleError::message("closed or old")) } else { Ok(()) }
    }
}

/// Returns an error if the path of a SQLite file no longer leads to the file that was opened. Data written to the
/// opened file would then never be read.
pub(crate) fn still_there((path, opened): &(PathBuf, OnceLock<FileIdentity>)) -> Result<(), SqlError> {
    let identity = match opened.get() {
        Some(identity) => identity,
        None => {
            let found = FileIdentity::of(path)?;
            opened.get_or_init(|| found)
        }
    };
    identity.check().map_err(|moved| SqlError::Io(std::io::Error::other(moved)))
}

impl Dialect {
    /// Returns the settings that each session or transaction begins with, for `SET`. The timeouts: a machine that
    /// disappears in the middle of a transaction must not block its successor for hours. Notices ("already exists,
    /// skipping") are meant for interactive users.
    pub(crate) fn settings(schema: Option<&str>) -> Vec<String> {
        let mut settings: Vec<String> = [
            "statement_timeout = '30s'",
            "lock_timeout = '10s'",
            "idle_in_transaction_session_timeout = '15s'",
            "client_min_messages = warning",
        ]
        .map(str::to_owned)
        .into();
        settings.extend(schema.map(|schema| format!("search_path = {}", crate::address::quoted(schema))));
        settings
    }
}
