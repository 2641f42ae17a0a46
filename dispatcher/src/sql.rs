//! A database, Postgres or SQLite, behind one set of statements.
//!
//! Both understand `$1`, `ON CONFLICT`, `RETURNING` and row values, so what differs is small: how a JSON text becomes
//! rows, how a row is locked, and that a SQLite file has one writer at a time.

mod address;
pub mod fault;
mod outage;

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::{Mutex, OwnedMutexGuard};
use usher_proto::Timestamp;
use usher_service::file_identity::FileIdentity;

pub use address::DatabaseAddress;
pub use outage::Outage;

use address::quoted;
use fault::Fault;

/// Connections of one process to Postgres. Each flow uses one to write and a few to read.
const POSTGRES_CONNECTIONS: u32 = 16;
/// Connections to a SQLite file: one writes, the others read.
const SQLITE_CONNECTIONS: u32 = 6;
/// How long to wait for a connection before saying that there is none.
const ACQUIRE_DEADLINE: Duration = Duration::from_secs(5);

/// What a database is used for: each use has tables and a history of its own, so that the users can live in a database
/// that belongs to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// The store's.
    Store,
    /// The users'.
    Users,
}

impl Tables {
    fn migrator(self, dialect: Dialect) -> Migrator {
        let (mut migrator, history) = match (self, dialect) {
            (Self::Store, Dialect::Postgres) => (sqlx::migrate!("migrations/postgres/store"), "usher_store_migrations"),
            (Self::Store, Dialect::Sqlite) => (sqlx::migrate!("migrations/sqlite/store"), "usher_store_migrations"),
            (Self::Users, Dialect::Postgres) => (sqlx::migrate!("migrations/postgres/users"), "usher_users_migrations"),
            (Self::Users, Dialect::Sqlite) => (sqlx::migrate!("migrations/sqlite/users"), "usher_users_migrations"),
        };
        migrator.dangerous_set_table_name(history);
        migrator
    }
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// Rows from the JSON array in parameter `$1`, with these columns; `bigint` or `text`.
    pub(crate) fn rows(self, columns: &[(&str, &str)]) -> String {
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

    /// A list from the JSON array of texts in parameter `$2`.
    pub(crate) const fn texts(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT json_array_elements_text($2::json)",
            Self::Sqlite => "SELECT value FROM json_each($2)",
        }
    }

    /// Keeps a row that is read from changing until the transaction ends.
    pub(crate) const fn for_share(self) -> &'static str {
        match self {
            Self::Postgres => " FOR SHARE",
            // The transaction holds the whole file already.
            Self::Sqlite => "",
        }
    }

    /// Asks for the time, in milliseconds since 1970.
    pub(crate) const fn now(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
            Self::Sqlite => "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        }
    }

    /// Makes a text parameter JSON.
    pub(crate) const fn as_json(self) -> &'static str {
        match self {
            Self::Postgres => "::json",
            Self::Sqlite => "",
        }
    }
}

/// An open database.
#[derive(Clone)]
pub struct Database {
    pub(crate) pool: AnyPool,
    pub(crate) dialect: Dialect,
    address: Arc<DatabaseAddress>,
    /// Whoever writes to a SQLite file waits here, in turn, instead of trying again and again at the file's own lock.
    gate: Option<Arc<Mutex<()>>>,
    /// How to connect once the file is there: one that is gone is not made again.
    existing: AnyConnectOptions,
    /// A SQLite file, and what it was when it was first opened.
    file: Option<Arc<(PathBuf, OnceLock<FileIdentity>)>>,
    /// Whether something was written since the last checkpoint.
    written: Arc<AtomicBool>,
}

impl Database {
    /// Prepares connections, made when they are needed. A file that is open to others than its owner is closed to them.
    ///
    /// # Errors
    /// The address cannot be read.
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
                let (address, file) = (setting_up.clone(), opened.clone());
                Box::pin(async move {
                    match set_up(connection, &address).await {
                        // The pool would try again and again, and then say that it has timed out. The first statement fails
                        // for the same reason, and says it.
                        Err(error) if Fault::of(&error) != Fault::Passing => Ok(()),
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

    /// Where it is.
    pub fn address(&self) -> &DatabaseAddress {
        &self.address
    }

    /// Connects once, beside the pool, and asks for something: to know why it cannot be reached.
    ///
    /// # Errors
    /// It cannot be reached, and this is why.
    pub async fn reach(&self) -> Result<(), sqlx::Error> {
        let reached = async {
            // A file that was there and is gone is not made again.
            let was_there = self.file.as_deref().is_some_and(|(_, identity)| identity.get().is_some());
            let how = if was_there { self.existing.clone() } else { options(&self.address)? };
            let mut connection = how.connect().await?;
            set_up(&mut connection, &self.address).await?;
            // Reads the file's first page, and with it whether the rest is there.
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

    /// Makes the tables, or brings them up to this version; first the schema, where one is named.
    ///
    /// # Errors
    /// There is no right to, or tables are there that are not as Usher made them.
    pub async fn migrate(&self, tables: Tables) -> Result<(), sqlx::migrate::MigrateError> {
        if let Some(schema) = &self.address.schema {
            self.make_schema(schema).await?;
        }
        tables.migrator(self.dialect).run(&self.pool).await?;
        self.pool.set_connect_options(self.existing.clone());
        Ok(())
    }

    async fn make_schema(&self, schema: &str) -> Result<(), sqlx::Error> {
        // CREATE SCHEMA IF NOT EXISTS asks for the right to create even where there is nothing to create.
        if self.has_schema(schema).await? {
            return Ok(());
        }
        let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
        match self.pool.execute(AssertSqlSafe(sql)).await {
            Ok(_) => Ok(()),
            // Two that make it at once: one of them may be told that it is there.
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

    /// Begins to write. What is not committed is undone.
    pub(crate) async fn write(&self) -> Result<Writing, sqlx::Error> {
        let turn = match &self.gate {
            Some(gate) => Some(gate.clone().lock_owned().await),
            None => None,
        };
        let mut writing = Writing { connection: self.pool.acquire().await?, committed: false, _turn: turn };
        self.written.store(true, Ordering::SeqCst);
        let begin = match self.dialect {
            Dialect::Postgres => "BEGIN",
            // Takes the file's lock now, instead of failing in the middle because somebody else wrote meanwhile.
            Dialect::Sqlite => "BEGIN IMMEDIATE",
        };
        writing.connection.execute(begin).await?;
        self.file.as_deref().map_or(Ok(()), still_there)?;
        Ok(writing)
    }

    /// Moves what was written from SQLite's write-ahead log into the file, and empties the log: until then it holds what
    /// has been deleted since. Does nothing where nothing was written, or where the database is Postgres, whose dead rows
    /// are its own to clear away. A reader that is in the way for longer than a moment leaves it to the next time.
    pub(crate) async fn checkpoint(&self) -> Result<(), sqlx::Error> {
        let Some(gate) = self.gate.as_ref().filter(|_| self.written.load(Ordering::SeqCst)) else { return Ok(()) };
        let _turn = gate.lock().await;
        let mut connection = self.pool.acquire().await?;
        // With the patience of other statements it would hold up whoever writes.
        connection.execute("PRAGMA busy_timeout = 200").await?;
        let done: Result<(i64, i64, i64), _> =
            sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await;
        // Its patience is another one now.
        connection.close().await?;
        let (busy, ..) = done?;
        self.written.store(busy != 0, Ordering::SeqCst);
        Ok(())
    }

    /// What time it is by the database's clock; a file has none but ours.
    pub(crate) async fn now(&self) -> Result<Timestamp, sqlx::Error> {
        self.file.as_deref().map_or(Ok(()), still_there)?;
        let (millis,): (i64,) = sqlx::query_as(self.dialect.now()).fetch_one(&self.pool).await?;
        Ok(Timestamp::from_millis(millis))
    }
}

/// An error where the path of a SQLite file no longer leads to what was opened: what is written there nobody reads.
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
            // What is deleted, a one-time code say, is overwritten, not only forgotten.
            "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;"
                .to_owned()
        }
        // A machine that vanishes in the middle of a transaction must not keep its successor waiting for hours. Notices
        // ("already exists, skipping") are for people at a prompt. The schema is set for the session, so a pooler in
        // between has to keep sessions.
        Dialect::Postgres => format!(
            "SET statement_timeout = '30s'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '15s'; \
             SET client_min_messages = warning; {}",
            address.search_path()
        ),
    };
    connection.execute(AssertSqlSafe(settings)).await.map(drop)
}

/// A transaction that writes. What is not committed is undone by closing its connection: after a failed commit (a full
/// disk, say) neither sqlx nor we know in which state the connection is.
pub(crate) struct Writing {
    connection: PoolConnection<Any>,
    committed: bool,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Writing {
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }

    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
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
