//! A database, Postgres or SQLite, behind one set of statements.
//!
//! Both support `$1`, `ON CONFLICT`, `RETURNING` and row values. The differences are few: the rows that a statement is run
//! for, row locks, and the single writer of a SQLite file. Each has its own driver, because neither the pipelining of
//! Postgres nor the prepared statements of SQLite are within reach of a common one.

mod address;
mod connection;
mod error;
pub mod fault;
mod migrate;
mod outage;
mod postgres;
mod query;
mod row;
mod rows;
mod sqlite;
mod tls;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

pub use address::DatabaseAddress;
pub use connection::Connection;
use connection::{ACQUIRE_DEADLINE, Connections, OpenedFile, Pooled, Target, still_there};
pub use error::{Code, DatabaseAnswer, SqlError};
pub use migrate::{Migration, MigrationError, Tables};
pub use outage::Outage;
pub use query::{Answer, QueryAs, SqlParam, SqlQuery, query, query_as};
pub use row::{ColumnIndex, ColumnValue, FromColumn, FromRow, Row};
pub use rows::{IntoText, Rows};
use tokio::sync::{Mutex, OwnedMutexGuard};
use usher_proto::Timestamp;

/// The SQL dialect of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Postgres.
    Postgres,
    /// SQLite.
    Sqlite,
}

impl Dialect {
    /// Returns SQL that selects the strings of the JSON array in parameter `$2`.
    pub const fn texts(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT json_array_elements_text($2::json)",
            Self::Sqlite => "SELECT value FROM json_each($2)",
        }
    }

    /// Returns the function of two texts that finds the second one's place in the first, from 1; 0 if it is not there.
    pub const fn position(self) -> &'static str {
        match self {
            Self::Postgres => "strpos",
            Self::Sqlite => "instr",
        }
    }

    /// Returns the clause that protects the selected rows of a table from changes until the transaction ends.
    pub fn for_share_of(self, table: &str) -> String {
        match self {
            Self::Postgres => format!(" FOR SHARE OF {table}"),
            // The transaction already locks the whole file.
            Self::Sqlite => String::new(),
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
    /// The dialect of the database.
    pub dialect: Dialect,
    connections: Connections,
    address: Arc<DatabaseAddress>,
    /// Serialises the writers of a SQLite file, in the order of their arrival, instead of polling the file's own lock.
    /// `None` for Postgres.
    gate: Option<Arc<Mutex<()>>>,
    /// The path of a SQLite file and its identity when it was first opened.
    file: Option<OpenedFile>,
    /// True if something was written since the last checkpoint.
    written: Arc<AtomicBool>,
}

impl Database {
    /// Prepares a pool, which connects when a connection is needed. If a database file is accessible to users other
    /// than its owner, their access is removed.
    ///
    /// # Errors
    ///
    /// The address has a setting that cannot be used, or the permissions of the file cannot be changed.
    pub fn open(address: &DatabaseAddress) -> Result<Self, SqlError> {
        if let Some(path) = address.own_file() {
            usher_service::files::tighten_database(path)?;
        }
        let target = address.target()?;
        let file = match &target {
            Target::Sqlite { path, .. } => Some(Arc::new((path.clone(), OnceLock::new()))),
            Target::Postgres { .. } => None,
        };
        let gate = file.is_some().then(Arc::default);
        let connections = Connections::new(target, file.clone())?;
        let dialect = address.dialect;
        let address = Arc::new(address.clone());
        Ok(Self { dialect, connections, address, gate, file, written: Arc::default() })
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
    pub async fn reach(&self) -> Result<(), SqlError> {
        let reached = async {
            let mut target = self.connections.target();
            // A file that existed and has disappeared is not created again.
            if let Target::Sqlite { create, .. } = &mut target {
                *create &= self.file.as_deref().is_none_or(|(_, identity)| identity.get().is_none());
            }
            let mut connection = Connection::open(&target).await?;
            // Reads the file's first page, which shows whether the file is complete.
            if self.dialect == Dialect::Sqlite {
                connection.run_alone(query("SELECT count(*) FROM sqlite_master")).await?;
            }
            Ok(())
        };
        tokio::time::timeout(ACQUIRE_DEADLINE, reached).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", ACQUIRE_DEADLINE.as_secs());
            Err(SqlError::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, why)))
        })
    }

    /// Creates the tables or migrates them to this version. Creates the schema first, if one is named.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, the user lacks the privilege, or existing tables are not as Usher created them.
    pub async fn migrate(&self, tables: &Tables) -> Result<(), MigrationError> {
        if let Some(schema) = self.address.schema() {
            migrate::make_schema(&mut *self.connections.get().await?, schema).await?;
        }
        tables.apply(self).await?;
        self.connections.never_create();
        Ok(())
    }

    /// Begins a transaction that writes. Without a commit its changes are undone.
    ///
    /// # Errors
    ///
    /// There is no connection, the database does not begin one, or a file is no longer at its path.
    pub async fn write(&self) -> Result<SqlTransaction, SqlError> {
        let turn = self.turn().await;
        let connection = Some(self.connections.get().await?);
        let mut transaction = SqlTransaction { connection, committed: false, _turn: turn };
        self.written.store(true, Ordering::SeqCst);
        transaction.connection().begin().await?;
        self.file.as_deref().map_or(Ok(()), still_there)?;
        Ok(transaction)
    }

    /// Runs the statements in one transaction, in Postgres in one round trip. Returns their answers.
    ///
    /// # Errors
    ///
    /// There is no connection, the database does not answer or refuses a statement, or a file is no longer at its path.
    /// The changes are undone then, unless the answer to the commit was lost.
    pub async fn transact(&self, queries: Vec<SqlQuery>) -> Result<Vec<Answer>, SqlError> {
        let turn = self.turn().await;
        self.file.as_deref().map_or(Ok(()), still_there)?;
        let connection = Some(self.connections.get().await?);
        let mut transaction = SqlTransaction { connection, committed: false, _turn: turn };
        self.written.store(true, Ordering::SeqCst);
        let answers = transaction.connection().transact(queries).await?;
        transaction.committed = true;
        Ok(answers)
    }

    /// Runs statements that only read, in Postgres in one round trip. Returns their answers.
    ///
    /// # Errors
    ///
    /// There is no connection, or the database does not answer or refuses a statement.
    pub async fn read(&self, queries: Vec<SqlQuery>) -> Result<Vec<Answer>, SqlError> {
        self.connections.get().await?.read(queries).await
    }

    async fn turn(&self) -> Option<OwnedMutexGuard<()>> {
        match &self.gate {
            Some(gate) => Some(gate.clone().lock_owned().await),
            None => None,
        }
    }

    /// Moves writes from SQLite's write-ahead log into the file and empties the log, which until then still contains
    /// data that has been deleted. Does nothing if nothing was written, or for Postgres, which removes dead rows
    /// itself. If a reader blocks the checkpoint for more than 200 ms, it is left to the next call.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written.
    pub async fn checkpoint(&self) -> Result<(), SqlError> {
        if self.dialect == Dialect::Postgres || !self.written.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _turn = self.turn().await;
        // The connection gets another `busy_timeout`, so it must not return to the pool: with the longer timeout of the
        // other statements the checkpoint would delay writers.
        let mut connection = Pooled::take(self.connections.get().await?);
        connection.batch("PRAGMA busy_timeout = 200").await?;
        let done = query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut connection).await;
        let (busy, _, _): (i64, i64, i64) = done?;
        self.written.store(busy != 0, Ordering::SeqCst);
        Ok(())
    }

    /// Makes the space of deleted rows of a table available to new ones. Does nothing for SQLite, which reuses it at once, if
    /// another session is at it, or if the table belongs to another role: autovacuum does it then.
    ///
    /// # Errors
    ///
    /// The database does not answer or refuses the statement.
    pub async fn vacuum(&self, table: &'static str) -> Result<(), SqlError> {
        if self.dialect == Dialect::Sqlite {
            return Ok(());
        }
        // The end of the table is left to autovacuum, because to cut it off locks the table.
        self.connections.get().await?.batch(&format!("VACUUM (SKIP_LOCKED, TRUNCATE FALSE) {table}")).await
    }

    /// Returns the time of the database's clock. For a SQLite file this is the clock of this machine.
    ///
    /// # Errors
    ///
    /// The database does not answer, or a file is no longer at its path.
    pub async fn now(&self) -> Result<Timestamp, SqlError> {
        self.file.as_deref().map_or(Ok(()), still_there)?;
        let (millis,): (i64,) = query_as(self.dialect.now()).fetch_one(self).await?;
        Ok(Timestamp::from_millis(millis))
    }
}

/// Runs statements: a database on any of its connections and outside of a transaction, or one connection.
pub trait Executor {
    /// Runs the statement. Fails if the database does not answer or refuses it.
    fn run(self, query: SqlQuery) -> impl Future<Output = Result<Answer, SqlError>> + Send;
}

impl Executor for &Database {
    async fn run(self, query: SqlQuery) -> Result<Answer, SqlError> {
        self.connections.get().await?.run_alone(query).await
    }
}

impl Executor for &mut Connection {
    fn run(self, query: SqlQuery) -> impl Future<Output = Result<Answer, SqlError>> + Send {
        Connection::run(self, query)
    }
}

/// A transaction that writes. If it is not committed, it is undone by closing its connection: after a failed commit
/// (for example on a full disk) the state of the connection is unknown.
pub struct SqlTransaction {
    /// Absent only while it is dropped.
    connection: Option<Pooled>,
    committed: bool,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl SqlTransaction {
    /// Returns the connection of the transaction.
    #[expect(clippy::missing_panics_doc, reason = "the connection is there until the transaction is dropped")]
    pub fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a connection until it is dropped")
    }

    /// Commits the transaction.
    ///
    /// # Errors
    ///
    /// The database does not commit, or its answer is lost.
    pub async fn commit(mut self) -> Result<(), SqlError> {
        self.connection().batch("COMMIT").await?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for SqlTransaction {
    fn drop(&mut self) {
        if !self.committed {
            drop(self.connection.take().map(Pooled::take));
        }
    }
}
