//! A connection to a SQLite file. It lives on a thread of its own, because SQLite's calls block.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, OpenFlags};
use tokio::sync::oneshot;

use crate::SqlError;
use crate::query::{Answer, SqlParam, SqlQuery};
use crate::row::{Repr, Row};

/// Time for which a statement waits for another writer of the file, also of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of statements that a connection keeps prepared.
const PREPARED: usize = 128;

/// `secure_delete` overwrites deleted data, such as a one-time code, instead of only unlinking it.
const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; \
                        PRAGMA foreign_keys = ON;";

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Handle of a connection. When it is dropped, the connection is closed and its transaction undone.
pub(crate) struct SqliteConnection {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

impl SqliteConnection {
    /// Opens the file; creates it if `create` is set and there is none.
    pub(crate) async fn open(path: PathBuf, create: bool) -> Result<Self, SqlError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (opened, is_open) = oneshot::channel();
        let run = move || match open(&path, create) {
            Err(error) => drop(opened.send(Err(error))),
            Ok(mut connection) => {
                if opened.send(Ok(())).is_ok() {
                    queue.into_iter().for_each(|job| job(&mut connection));
                }
            }
        };
        let thread = std::thread::Builder::new().name("sqlite".to_owned()).spawn(run)?;
        is_open.await.map_err(|_| ended())??;
        Ok(Self { jobs, thread })
    }

    /// Returns true if the thread has ended, by a panic.
    pub(crate) fn is_closed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Runs `work` on the connection's thread.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, SqlError> {
        let (answer, answered) = oneshot::channel();
        // A receiver that is gone no longer needs the answer.
        let job: Job = Box::new(move |connection| drop(answer.send(work(connection))));
        self.jobs.send(job).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    pub(crate) async fn run(&self, query: SqlQuery) -> Result<Answer, SqlError> {
        self.call(move |connection| run(connection, &query)).await
    }

    pub(crate) async fn batch(&self, sql: String) -> Result<(), SqlError> {
        self.call(move |connection| Ok(connection.execute_batch(&sql)?)).await
    }

    /// Runs the statements within a transaction.
    pub(crate) async fn run_all(&self, queries: Vec<SqlQuery>) -> Result<Vec<Answer>, SqlError> {
        self.call(move |connection| queries.iter().map(|query| run(connection, query)).collect()).await
    }

    /// Runs the statements in one transaction, which takes the file's lock when it begins.
    pub(crate) async fn transact(&self, queries: Vec<SqlQuery>) -> Result<Vec<Answer>, SqlError> {
        let work = move |connection: &mut Connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let answers = queries.iter().map(|query| run(connection, query)).collect::<Result<Vec<_>, _>>();
            // After an error the caller drops the connection, which undoes the transaction.
            let answers = answers?;
            connection.execute_batch("COMMIT")?;
            Ok(answers)
        };
        self.call(work).await
    }
}

fn ended() -> SqlError {
    SqlError::Io(io::Error::new(io::ErrorKind::ConnectionAborted, "the thread of the connection has ended"))
}

fn open(path: &PathBuf, create: bool) -> Result<Connection, SqlError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.execute_batch(SETTINGS)?;
    Ok(connection)
}

/// Runs a statement: once, or once for each row of its columns.
fn run(connection: &Connection, query: &SqlQuery) -> Result<Answer, SqlError> {
    let mut statement = connection.prepare_cached(&query.sql)?;
    let places = places(&statement, query.params.len())?;
    let names: Arc<[String]> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut answer = Answer::default();
    for row in 0..query.rows().unwrap_or(1) {
        for (index, place) in places.iter().enumerate() {
            let value =
                query.params.get(*place).and_then(|param| value(param, row)).ok_or(SqlError::Parameter(*place + 1))?;
            statement.raw_bind_parameter(index + 1, value)?;
        }
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let values = (0..names.len()).map(|at| row.get::<_, Value>(at)).collect::<Result<_, _>>()?;
            answer.rows.push(Row(Repr::Sqlite(names.clone(), values)));
        }
        drop(rows);
        if !statement.readonly() {
            answer.changed += connection.changes();
        }
    }
    Ok(answer)
}

/// Returns the number of the parameter, from 0, that belongs at each place of the statement. SQLite counts places in the
/// order in which the names first stand in the text, and `$7` is a name to it.
fn places(statement: &CachedStatement<'_>, params: usize) -> Result<Vec<usize>, SqlError> {
    let place = |at: usize| {
        let number = statement.parameter_name(at).and_then(|name| name.get(1..)?.parse::<usize>().ok());
        number.filter(|number| (1..=params).contains(number)).map(|number| number - 1).ok_or(SqlError::Parameter(at))
    };
    (1..=statement.parameter_count()).map(place).collect()
}

fn value(param: &SqlParam, row: usize) -> Option<ToSqlOutput<'_>> {
    let int = |value: Option<i64>| value.map_or(ValueRef::Null, ValueRef::Integer);
    fn text(value: &Option<String>) -> ValueRef<'_> {
        value.as_ref().map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes()))
    }
    fn blob(value: &Option<bytes::Bytes>) -> ValueRef<'_> {
        value.as_ref().map_or(ValueRef::Null, |bytes| ValueRef::Blob(bytes))
    }
    Some(ToSqlOutput::Borrowed(match param {
        SqlParam::Int(value) => int(*value),
        SqlParam::Text(value) => text(value),
        SqlParam::Bytes(value) => blob(value),
        SqlParam::Ints(values) => int(*values.get(row)?),
        SqlParam::Texts(values) => text(values.get(row)?),
        SqlParam::Blobs(values) => blob(values.get(row)?),
    }))
}
