//! The file of an embedded log. It is opened once and checked for damage. Readers and writers get connections only
//! while its path still leads to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rusqlite::Connection;
use usher_service::ConfigError;
use usher_service::file_identity::FileIdentity;

use super::connections::{FileConnections, blocking, connect};
use super::schema::{self, SchemaError};
use crate::LogError;

/// Size up to which a file is checked completely when it is opened, in bytes. Damage in a larger file is found when
/// that part is read.
const LOOKED_THROUGH: u64 = 64 << 20;

/// SQLite's primary result codes for a damaged file (11) and for a file that is no database (26).
const DAMAGED: [i32; 2] = [11, 26];

/// The open file of an embedded log.
#[derive(Clone)]
pub(super) struct File(Arc<Inner>);

struct Inner {
    path: PathBuf,
    connections: FileConnections,
    /// Identities of the database file and of its write-ahead log.
    identities: [FileIdentity; 2],
    /// Length of the database at the last check, in bytes. SQLite never shortens a file that is not vacuumed.
    length: AtomicU64,
    /// Description of the damage, once damage has been found. It is never cleared: SQLite may read past the damage
    /// while it has the rest in memory.
    damage: OnceLock<String>,
    /// Stays open as long as the log. SQLite removes the write-ahead log with the last connection, and the next
    /// connection would create another file.
    first: Mutex<Connection>,
}

impl File {
    /// Opens the file, or creates it if missing.
    ///
    /// # Errors
    ///
    /// The file is damaged or is no database, which is a [lasting](LogError::is_lasting) error, or it cannot
    /// be opened now.
    pub(super) async fn open(path: &Path) -> Result<Self, LogError> {
        let unavailable = |error: &dyn std::fmt::Display| LogError::Unavailable(format!("{}: {error}", path.display()));
        let failed = |error: rusqlite::Error| match damage(&error) {
            Some(damage) => LogError::Setting(damaged(path, &damage)),
            None => unavailable(&error),
        };
        let new = path.to_owned();
        let first = blocking(move || connect(&new, true)).await?.map_err(failed)?;
        schema::migrate(path).await.map_err(|error| match error {
            SchemaError::Database(code, message) if is_damage(code) => LogError::Setting(damaged(path, &message)),
            SchemaError::Database(_, message) => unavailable(&message),
            SchemaError::Newer(_) | SchemaError::History(_) => LogError::Setting(unknown_tables(path, &error)),
        })?;
        let whole = path.to_owned();
        let (first, found) = blocking(move || look_through(first, &whole)).await?.map_err(failed)?;
        found.map_err(LogError::Setting)?;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let identity = |path: &Path| FileIdentity::of(path).map_err(|error| unavailable(&error));
        let identities = [identity(path)?, identity(Path::new(&log))?];
        let length = std::fs::metadata(path).map_err(|error| unavailable(&error))?.len();
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            connections: FileConnections::new(path),
            identities,
            length: AtomicU64::new(length),
            damage: OnceLock::new(),
            first: Mutex::new(first),
        })))
    }

    /// Runs `work` with a connection to the file.
    ///
    /// # Errors
    ///
    /// The path leads to another file, the file is damaged, or the work has failed.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        self.check()?;
        let result = self.0.connections.call(work).await?;
        result.inspect_err(|error| self.note(error)).map_err(LogError::from)
    }

    /// Returns a connection of the caller's own. It blocks.
    ///
    /// # Errors
    ///
    /// There is no file, or SQLite refuses it.
    pub(super) fn connect(&self) -> rusqlite::Result<Connection> {
        connect(&self.0.path, false)
    }

    /// Returns a number that changes with each commit of any process to this file.
    ///
    /// # Errors
    ///
    /// The path leads to another file, or SQLite cannot read it.
    pub(super) async fn version(&self) -> Result<i64, LogError> {
        self.check()?;
        let file = self.clone();
        // SQLite compares on one connection: a number of another one says nothing.
        let read = move || {
            let first = file.0.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.query_row("PRAGMA data_version", (), |row| row.get(0))
        };
        blocking(read).await?.inspect_err(|error| self.note(error)).map_err(LogError::from)
    }

    /// Checks that the path still leads to the open file, so that others read what is written here.
    ///
    /// # Errors
    ///
    /// The path leads to another file, or the file is damaged.
    pub(super) fn check(&self) -> Result<(), LogError> {
        if let Some(damage) = self.0.damage.get() {
            return Err(LogError::Unavailable(damaged(&self.0.path, damage).to_string()));
        }
        let moved = self.0.identities.iter().find_map(|identity| identity.check().err());
        moved.map_or(Ok(()), |moved| Err(LogError::Unavailable(moved.to_string())))
    }

    /// Reads the file over a new connection, which has no part of it in memory.
    ///
    /// # Errors
    ///
    /// The path leads to another file, or the file is damaged or does not answer.
    pub(super) async fn check_thoroughly(&self) -> Result<(), LogError> {
        self.check()?;
        let file = self.clone();
        if let Err(error) = blocking(move || file.read_over_new_connection()).await? {
            self.check()?;
            return Err(error);
        }
        self.check()
    }

    fn read_over_new_connection(&self) -> Result<(), LogError> {
        let count = |connection: Connection| -> rusqlite::Result<i64> {
            connection.query_row("SELECT count(*) FROM partition", (), |row| row.get(0))
        };
        self.connect().and_then(count).inspect_err(|error| self.note(error))?;
        let length = std::fs::metadata(&self.0.path).map_err(|error| LogError::Unavailable(error.to_string()))?.len();
        let before = self.0.length.fetch_max(length, Ordering::SeqCst);
        if length < before {
            self.set_damage(format!("it had {before} bytes and has {length}"));
        }
        Ok(())
    }

    /// Records damage, if damage is the cause of `error`.
    pub(super) fn note(&self, error: &rusqlite::Error) {
        if let Some(damage) = damage(error) {
            self.set_damage(damage);
        }
    }

    fn set_damage(&self, damage: String) {
        // The first description is kept.
        let _ = self.0.damage.set(damage);
    }
}

/// Returns SQLite's primary result code, if SQLite is the cause.
pub(super) fn primary_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|cause| cause.extended_code & 0xff)
}

fn is_damage(primary_code: i32) -> bool {
    DAMAGED.contains(&primary_code)
}

fn damage(error: &rusqlite::Error) -> Option<String> {
    primary_code(error).filter(|code| is_damage(*code)).map(|_| error.to_string())
}

fn damaged(path: &Path, damage: &str) -> ConfigError {
    let why = format!(
        "{} cannot be used as the log ({damage}): restore it from a copy, or move it away with its -wal and -shm to begin an \
         empty one, which gives up the events in it",
        path.display()
    );
    ConfigError::new("USHER_LOG", why)
}

fn unknown_tables(path: &Path, problem: &SchemaError) -> ConfigError {
    ConfigError::new("USHER_LOG", format!("{}: {problem}", path.display()))
}

/// Checks the pages of a file for damage, if the file is no larger than [`LOOKED_THROUGH`].
fn look_through(connection: Connection, path: &Path) -> rusqlite::Result<(Connection, Result<(), ConfigError>)> {
    let is_small = std::fs::metadata(path).is_ok_and(|found| found.len() <= LOOKED_THROUGH);
    if !is_small {
        return Ok((connection, Ok(())));
    }
    let found: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
    let intact = if found == "ok" { Ok(()) } else { Err(damaged(path, &found)) };
    Ok((connection, intact))
}
