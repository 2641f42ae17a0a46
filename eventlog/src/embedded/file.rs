//! The file of an embedded log. It is opened once and checked for damage. Readers and writers get connections only
//! while its path still leads to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Mutex;
use usher_service::ConfigError;
use usher_service::file_identity::FileIdentity;

use super::schema;
use crate::LogError;

/// Number of connections for readers. Each flow reads a page at a time.
const READERS: u32 = 4;
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
    options: SqliteConnectOptions,
    pool: SqlitePool,
    /// Identities of the database file and of its write-ahead log.
    identities: [FileIdentity; 2],
    /// Length of the database at the last check, in bytes. SQLite never shortens a file that is not vacuumed.
    length: AtomicU64,
    /// Description of the damage, once damage has been found. It is never cleared: SQLite may read past the damage
    /// while it has the rest in memory.
    damage: OnceLock<String>,
    /// Stays open as long as the log. SQLite removes the write-ahead log with the last connection, and the next
    /// connection would create another file.
    _first: Mutex<SqliteConnection>,
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
        let failed = |error: sqlx::Error| match damage(&error) {
            Some(damage) => LogError::Setting(damaged(path, &damage)),
            None => unavailable(&error),
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let mut first = options.connect().await.map_err(failed)?;
        schema::migrate(&mut first).await.map_err(|error| match schema::cause(error) {
            Ok(error) => failed(error),
            Err(history) => LogError::Setting(unknown_tables(path, &history)),
        })?;
        look_through(&mut first, path).await.map_err(failed)?.map_err(LogError::Setting)?;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let identity = |path: &Path| FileIdentity::of(path).map_err(|error| unavailable(&error));
        let identities = [identity(path)?, identity(Path::new(&log))?];
        let length = std::fs::metadata(path).map_err(|error| unavailable(&error))?.len();
        // Never created again: a connection that finds no file must not start an empty one.
        let options = options.create_if_missing(false);
        let pool = SqlitePoolOptions::new().max_connections(READERS + 2).connect_lazy_with(options.clone());
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            options,
            pool,
            identities,
            length: AtomicU64::new(length),
            damage: OnceLock::new(),
            _first: Mutex::new(first),
        })))
    }

    /// Returns the pool of connections to the file.
    ///
    /// # Errors
    ///
    /// The path leads to another file, or the file is damaged.
    pub(super) fn pool(&self) -> Result<&SqlitePool, LogError> {
        self.check()?;
        Ok(&self.0.pool)
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
        if let Err(error) = self.read_over_new_connection().await {
            self.note(&error);
            self.check()?;
            return Err(error.into());
        }
        self.check()
    }

    async fn read_over_new_connection(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.0.options.connect().await?;
        sqlx::query("SELECT count(*) FROM partition").execute(&mut connection).await?;
        connection.close().await?;
        let length = std::fs::metadata(&self.0.path)?.len();
        let before = self.0.length.fetch_max(length, Ordering::SeqCst);
        if length < before {
            self.set_damage(format!("it had {before} bytes and has {length}"));
        }
        Ok(())
    }

    /// Records damage, if damage is the cause of `error`.
    pub(super) fn note(&self, error: &sqlx::Error) {
        if let Some(damage) = damage(error) {
            self.set_damage(damage);
        }
    }

    fn set_damage(&self, damage: String) {
        // The first description is kept.
        let _ = self.0.damage.set(damage);
    }
}

fn damage(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let code = error.code()?.parse::<i32>().ok()?;
    DAMAGED.contains(&(code & 0xff)).then(|| error.message().to_owned())
}

fn damaged(path: &Path, damage: &str) -> ConfigError {
    let why = format!(
        "{} cannot be used as the log ({damage}): restore it from a copy, or move it away with its -wal and -shm to begin an \
         empty one, which gives up the events in it",
        path.display()
    );
    ConfigError::new("USHER_LOG", why)
}

fn unknown_tables(path: &Path, error: &MigrateError) -> ConfigError {
    let problem = match error {
        MigrateError::VersionMissing(version) => {
            format!("its tables were made by a newer version of Usher (step {version}): start that one")
        }
        other => other.to_string(),
    };
    ConfigError::new("USHER_LOG", format!("{}: {problem}", path.display()))
}

/// Checks the pages of a file for damage, if the file is no larger than [`LOOKED_THROUGH`].
async fn look_through(connection: &mut SqliteConnection, path: &Path) -> Result<Result<(), ConfigError>, sqlx::Error> {
    if std::fs::metadata(path)?.len() > LOOKED_THROUGH {
        return Ok(Ok(()));
    }
    let (found,): (String,) = sqlx::query_as("PRAGMA quick_check(1)").fetch_one(connection).await?;
    Ok(if found == "ok" { Ok(()) } else { Err(damaged(path, &found)) })
}
