//! The file of an embedded log: opened once, looked at for damage, and given to whoever reads or writes only while its
//! path still leads to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Mutex;
use usher_service::ConfigError;
use usher_service::file_identity::FileIdentity;

use crate::LogError;

/// Readers' connections. Each flow reads a page at a time.
const READERS: u32 = 4;
/// A file up to this size is looked through when it is opened. Damage in a larger one is met when that part is read.
const LOOKED_THROUGH: u64 = 64 << 20;

/// SQLite's primary result codes for a damaged file, and for one that never was a database.
const DAMAGED: [i32; 2] = [11, 26];

/// The open file.
#[derive(Clone)]
pub(super) struct File(Arc<Inner>);

struct Inner {
    path: PathBuf,
    options: SqliteConnectOptions,
    pool: SqlitePool,
    /// The database and its write-ahead log.
    identities: [FileIdentity; 2],
    /// The database's length when it was last looked at. SQLite never shortens a file that is not vacuumed.
    length: AtomicU64,
    /// Set when damage has been met, and kept: SQLite may read past it for as long as it has the rest in memory.
    damage: OnceLock<String>,
    /// Stays open as long as the log does. SQLite removes the write-ahead log with the last connection, and the next one
    /// would make another.
    _first: Mutex<SqliteConnection>,
}

impl File {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// It is damaged or no database, which [lasts](LogError::is_lasting), or it cannot be opened now.
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
        sqlx::raw_sql(include_str!("schema.sql")).execute(&mut first).await.map_err(failed)?;
        super::schema::bring_up_to_date(&mut first).await.map_err(failed)?;
        look_through(&mut first, path).await.map_err(failed)?.map_err(LogError::Setting)?;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let identity = |path: &Path| FileIdentity::of(path).map_err(|error| unavailable(&error));
        let identities = [identity(path)?, identity(Path::new(&log))?];
        let length = std::fs::metadata(path).map_err(|error| unavailable(&error))?.len();
        // Never made again: a connection that finds no file must not begin an empty one.
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

    /// Connections to the file.
    ///
    /// # Errors
    /// Its path leads elsewhere, or it is damaged.
    pub(super) fn pool(&self) -> Result<&SqlitePool, LogError> {
        self.check()?;
        Ok(&self.0.pool)
    }

    /// Looks whether what was written goes where others will read it.
    ///
    /// # Errors
    /// Its path leads elsewhere, or it is damaged.
    pub(super) fn check(&self) -> Result<(), LogError> {
        if let Some(damage) = self.0.damage.get() {
            return Err(LogError::Unavailable(damaged(&self.0.path, damage).to_string()));
        }
        let moved = self.0.identities.iter().find_map(|identity| identity.check().err());
        moved.map_or(Ok(()), |moved| Err(LogError::Unavailable(moved.to_string())))
    }

    /// Reads the file with a connection that has nothing of it in memory.
    ///
    /// # Errors
    /// Its path leads elsewhere, it is damaged, or it does not answer.
    pub(super) async fn check_thoroughly(&self) -> Result<(), LogError> {
        self.check()?;
        if let Err(error) = self.read_anew().await {
            self.note(&error);
            self.check()?;
            return Err(error.into());
        }
        self.check()
    }

    async fn read_anew(&self) -> Result<(), sqlx::Error> {
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

    /// Takes note of damage, if that is why something failed.
    pub(super) fn note(&self, error: &sqlx::Error) {
        if let Some(damage) = damage(error) {
            self.set_damage(damage);
        }
    }

    fn set_damage(&self, damage: String) {
        // The first word stays.
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

/// Looks for damage in the pages of a small file.
async fn look_through(connection: &mut SqliteConnection, path: &Path) -> Result<Result<(), ConfigError>, sqlx::Error> {
    if std::fs::metadata(path)?.len() > LOOKED_THROUGH {
        return Ok(Ok(()));
    }
    let (found,): (String,) = sqlx::query_as("PRAGMA quick_check(1)").fetch_one(connection).await?;
    Ok(if found == "ok" { Ok(()) } else { Err(damaged(path, &found)) })
}
