//! Connections to the file of an embedded log, and the threads that use them. SQLite's calls block, so none is made on a
//! thread that serves tasks: readers use the runtime's blocking threads, the writer has a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use crate::LogError;

/// Maximum number of connections of readers. Each flow reads a page at a time.
const READERS: usize = 6;
/// Time for which a statement waits for another writer of the file, also of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Records are durable once committed.
const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;";

/// Opens the file; creates it if `create` is set and there is none.
pub(super) fn connect(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(SETTINGS)?;
    Ok(connection)
}

/// Connections that are made when needed and kept for the next use.
pub(super) struct FileConnections {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl FileConnections {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Arc::default(), permits: Arc::new(Semaphore::new(READERS)) }
    }

    /// Runs `work` with a connection. After an error the connection is closed, which undoes its transaction: its state
    /// is unknown then.
    ///
    /// # Errors
    ///
    /// The runtime ends. The inner error is the database's.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<rusqlite::Result<T>, LogError> {
        let permit = self.permits.clone().acquire_owned().await;
        let path = self.path.clone();
        let idle = self.idle.clone();
        blocking(move || {
            let _permit = permit;
            let kept = locked(&idle).pop();
            // Never created: a connection that finds no file must not start an empty one.
            let mut connection = kept.map_or_else(|| connect(&path, false), Ok)?;
            let result = work(&mut connection)?;
            locked(&idle).push(connection);
            Ok(result)
        })
        .await
    }
}

/// Runs `work` on a thread where it may block.
///
/// # Errors
///
/// The runtime ends, or the work has panicked.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.map_err(|ended| LogError::Unavailable(ended.to_string()))
}

fn locked(idle: &Mutex<Vec<Connection>>) -> MutexGuard<'_, Vec<Connection>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
