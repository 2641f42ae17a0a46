//! A database, Postgres or SQLite, behind one set of statements.
//!
//! Both support `$1`, `ON CONFLICT`, `RETURNING` and row values. The differences are few: the conversion of a JSON text
//! into rows, row locks, and the single writer of a SQLite file.

mod address;
pub mod fault;
mod outage;

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

pub use address::DatabaseAddress;
use address::quoted;
use fault::DatabaseFault;
pub use outage::Outage;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::{Mutex, OwnedMutexGuard};
use usher_proto::Timestamp;
use usher_service::file_identity::FileIdentity;

/// Maximum number of connections of one process to Postgres. Each flow uses one to write and a few to read.
const POSTGRES_CONNECTIONS: u32 = 16;
/// Maximum number of connections to a SQLite file: one writes, the others read.
const SQLITE_CONNECTIONS: u32 = 6;
/// Time to wait for a connection before an error is returned.
const ACQUIRE_DEADLINE: Duration = Duration::from_secs(5);

/// A set of tables, with the migrations that create them. Each set has a migration history of its own, so that the
/// users' tables can be in a database that belongs to another application.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// Returns the migrations for Postgres.
    pub postgres: fn() -> Migrator,
    /// Returns the migrations for SQLite.
    pub sqlite: fn() -> Migrator,
    /// Name of the table that holds the history of the migrations.
    pub history: &'static str,
}

impl Tables {
    fn migrator(&self, dialect: Dialect) -> Migrator {
        let mut migrator = match dialect {
            Dialect::Postgres => (self.postgres)(),
            Dialect::Sqlite => (self.sqlite)(),
        };
        migrator.dangerous_set_table_name(self.history);
        migrator
    }
}

/// The SQL dialect of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Postgres.
    Postgres,
    /// SQLite.
    Sqlite,
}

impl Dialect {
    /// Returns SQL that turns the JSON array in parameter `$1` into rows named `r`. Each column is a name and a type,
    /// `bigint` or `text`.
    pub fn rows(self, columns: &[(&str, &str)]) -> String {
        match self {
            Self::Postgres => {
                let list: Vec<String> = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
                format!("json_to_recordset($1::json) AS r({})", list.join(", "))
            }
            Self::Sqlite => {
                let list: Vec<String> =
                    columns.iter().map(|(name, _)| format!("value ->> '{name}' AS {name}")).collect();
                format!("(SELECT {} FROM json_each($1)) AS r", list.join(", "))
            }
        }
    }

    /// Returns SQL that selects the strings of the JSON array in parameter `$2`.
    pub const fn texts(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT json_array_elements_text($2::json)",
            Self::Sqlite => "SELECT value FROM json_each($2)",
        }
    }

    /// Returns the clause that protects the selected rows from changes until the transaction ends.
    pub const fn for_share(self) -> &'static str {
        match self {
            Self::Postgres => " FOR SHARE",
            // The transaction already locks the whole file.
            Self::Sqlite => "",
        }
    }

    /// Returns SQL that selects the current time, in ms since 1970.
    pub const fn now(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
            Self::Sqlite => "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        }
    }

    /// Returns the suffix that casts a text parameter to JSON.
    pub const fn as_json(self) -> &'static str {
        match self {
            Self::Postgres => "::json",
            Self::Sqlite => "",
        }
    }
}

/// An open database.
#[derive(Clone)]
pub struct Database {
    /// The connections.
    pub pool: AnyPool,
    /// The dialect of the database.
    pub dialect: Dialect,
    address: Arc<DatabaseAddress>,
    /// Serialises the writers of a SQLite file, in the order of their arrival, instead of polling the file's own lock.
    /// `None` for Postgres.
    gate: Option<Arc<Mutex<()>>>,
    /// Options for connections after the tables were created. They do not create a SQLite file that has disappeared.
    existing: AnyConnectOptions,
    /// The path of a SQLite file and its identity when it was first opened.
    file: Option<Arc<(PathBuf, OnceLock<FileIdentity>)>>,
    /// True if something was written since the last checkpoint.
    written: Arc<AtomicBool>,
}

impl Database {
    /// Prepares a pool, which connects when a connection is needed. If a database file is accessible to users other
    /// than its owner, their access is removed.
    ///
    /// # Errors
    ///
    /// The address cannot be parsed, or the permissions of the file cannot be changed.
    pub fn open(address: &DatabaseAddress) -> Result<Self, sqlx::Error> {
        if let Some(path) = address.own_file() {
            usher_service::files::tighten_database(path)?;
        }
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let sqlite = address.dialect == Dialect::Sqlite;
        let file = address.file().map(|path| Arc::new((path, OnceLock::new())));
        let opened = file.clone();
        let address = Arc::new(address.clone());
        let setting_up = address.clone();
        let pool = AnyPoolOptions::new()
            .max_connections(if sqlite { SQLITE_CONNECTIONS } else { POSTGRES_CONNECTIONS })
            .acquire_timeout(ACQUIRE_DEADLINE)
            .after_connect(move |connection, _| {
                let address = setting_up.clone();
                let file = opened.clone();
                Box::pin(async move {
                    match set_up(connection, &address).await {
                        // If an error were returned here, the pool would retry and finally report only a timeout. The
                        // first statement fails for the same reason and reports it.
                        Err(error) if DatabaseFault::of(&error) != DatabaseFault::Transient => Ok(()),
                        Err(error) => Err(error),
                        Ok(()) => file.as_deref().map_or(Ok(()), still_there),
                    }
                })
            })
            .connect_lazy_with(options(&address)?);
        let gate = sqlite.then(Arc::default);
        let existing = options(&address.existing())?;
        Ok(Self { pool, dialect: address.dialect, address, gate, existing, file, written: Arc::default() })
    }

    /// Returns the address of the database.
    pub fn address(&self) -> &DatabaseAddress {
        &self.address
    }

    /// Connects once, outside of the pool, and runs a statement, to find out why the database cannot be reached.
    ///
    /// # Errors
    ///
    /// The database cannot be reached; the error is the cause.
    pub async fn reach(&self) -> Result<(), sqlx::Error> {
        let reached = async {
            // A file that existed and has disappeared is not created again.
            let was_there = self.file.as_deref().is_some_and(|(_, identity)| identity.get().is_some());
            let how = if was_there { self.existing.clone() } else { options(&self.address)? };
            let mut connection = how.connect().await?;
            set_up(&mut connection, &self.address).await?;
            // Reads the file's first page, which shows whether the file is complete.
            if self.dialect == Dialect::Sqlite {
                connection.execute("SELECT count(*) FROM sqlite_master").await?;
            }
            connection.close().await
        };
        tokio::time::timeout(ACQUIRE_DEADLINE, reached).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", ACQUIRE_DEADLINE.as_secs());
            Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, why)))
        })
    }

    /// Creates the tables or migrates them to this version. Creates the schema first, if one is named.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, the user lacks the privilege, or existing tables are not as Usher created them.
    pub async fn migrate(&self, tables: &Tables) -> Result<(), sqlx::migrate::MigrateError> {
        if let Some(schema) = &self.address.schema {
            self.make_schema(schema).await?;
        }
        tables.migrator(self.dialect).run(&self.pool).await?;
        self.pool.set_connect_options(self.existing.clone());
        Ok(())
    }

    async fn make_schema(&self, schema: &str) -> Result<(), sqlx::Error> {
        // `CREATE SCHEMA IF NOT EXISTS` requires the privilege to create even if the schema exists.
        if self.has_schema(schema).await? {
            return Ok(());
        }
        let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
        match self.pool.execute(AssertSqlSafe(sql)).await {
            Ok(_) => Ok(()),
            // If two processes create the schema at the same time, one of them may receive an error that it exists.
            Err(error) => {
                if self.has_schema(schema).await? {
                    Ok(())
                } else {
                    Err(error)
                }
            }
        }
    }

    async fn has_schema(&self, schema: &str) -> Result<bool, sqlx::Error> {
        let found = sqlx::query("SELECT 1::bigint FROM pg_namespace WHERE nspname = $1").bind(schema);
        Ok(found.fetch_optional(&self.pool).await?.is_some())
    }

    /// Begins a transaction that writes. Without a commit its changes are undone.
    ///
    /// # Errors
    ///
    /// There is no connection, the database does not begin one, or a file is no longer at its path.
    pub async fn write(&self) -> Result<Writing, sqlx::Error> {
        let turn = match &self.gate {
            Some(gate) => Some(gate.clone().lock_owned().await),
            None => None,
        };
        let mut writing = Writing { connection: self.pool.acquire().await?, committed: false, _turn: turn };
        self.written.store(true, Ordering::SeqCst);
        let begin = match self.dialect {
            Dialect::Postgres => "BEGIN",
            // Takes the file's lock now. Otherwise the transaction could fail midway because another
            // process wrote first.
            Dialect::Sqlite => "BEGIN IMMEDIATE",
        };
        writing.connection.execute(begin).await?;
        self.file.as_deref().map_or(Ok(()), still_there)?;
        Ok(writing)
    }

    /// Moves writes from SQLite's write-ahead log into the file and empties the log, which until then still contains
    /// data that has been deleted. Does nothing if nothing was written, or for Postgres, which removes dead rows
    /// itself. If a reader blocks the checkpoint for more than 200 ms, it is left to the next call.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written.
    pub async fn checkpoint(&self) -> Result<(), sqlx::Error> {
        let Some(gate) = self.gate.as_ref().filter(|_| self.written.load(Ordering::SeqCst)) else { return Ok(()) };
        let _turn = gate.lock().await;
        let mut connection = self.pool.acquire().await?;
        // With the longer timeout of the other statements the checkpoint would delay writers.
        connection.execute("PRAGMA busy_timeout = 200").await?;
        let done: Result<(i64, i64, i64), _> =
            sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await;
        // The connection has a different `busy_timeout` now, so it must not return to the pool.
        connection.close().await?;
        let (busy, ..) = done?;
        self.written.store(busy != 0, Ordering::SeqCst);
        Ok(())
    }

    /// Returns the time of the database's clock. For a SQLite file this is the clock of this machine.
    ///
    /// # Errors
    ///
    /// The database does not answer, or a file is no longer at its path.
    pub async fn now(&self) -> Result<Timestamp, sqlx::Error> {
        self.file.as_deref().map_or(Ok(()), still_there)?;
        let (millis,): (i64,) = sqlx::query_as(self.dialect.now()).fetch_one(&self.pool).await?;
        Ok(Timestamp::from_millis(millis))
    }
}

/// Returns an error if the path of a SQLite file no longer leads to the file that was opened. Data written to the
/// opened file would then never be read.
fn still_there((path, opened): &(PathBuf, OnceLock<FileIdentity>)) -> Result<(), sqlx::Error> {
    let identity = match opened.get() {
        Some(identity) => identity,
        None => {
            let found = FileIdentity::of(path)?;
            opened.get_or_init(|| found)
        }
    };
    identity.check().map_err(|moved| sqlx::Error::Io(std::io::Error::other(moved)))
}

fn options(address: &DatabaseAddress) -> Result<AnyConnectOptions, sqlx::Error> {
    Ok(AnyConnectOptions::from_str(address.url.expose())?.disable_statement_logging())
}

async fn set_up(connection: &mut AnyConnection, address: &DatabaseAddress) -> Result<(), sqlx::Error> {
    let settings = match address.dialect {
        Dialect::Sqlite => {
            // `secure_delete` overwrites deleted data, such as a one-time code, instead of only unlinking it.
            "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;"
                .to_owned()
        }
        // The timeouts: a machine that disappears in the middle of a transaction must not block its successor for
        // hours. Notices ("already exists, skipping") are meant for interactive users. The schema is set for the
        // session, so a connection pooler in between must preserve sessions.
        Dialect::Postgres => format!(
            "SET statement_timeout = '30s'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '15s'; \
             SET client_min_messages = warning; {}",
            address.search_path()
        ),
    };
    connection.execute(AssertSqlSafe(settings)).await.map(drop)
}

/// A transaction that writes. If it is not committed, it is undone by closing its connection: after a failed commit
/// (for example on a full disk) the state of the connection is unknown, also to sqlx.
pub struct Writing {
    connection: PoolConnection<Any>,
    committed: bool,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Writing {
    /// Returns the connection of the transaction.
    pub fn connection(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }

    /// Commits the transaction.
    ///
    /// # Errors
    ///
    /// The database does not commit, or its answer is lost.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.connection.execute("COMMIT").await?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}
