//! The tables of the file, and their migrations.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

/// Name of the table that holds the history of the migrations.
const HISTORY: &str = "usher_log_migrations";
/// Version of the migration that adds the column `erases` to the table `record`.
const TOMBSTONES: i64 = 2;
/// Time for which a statement waits for another process that has the file open.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The tables could not be created or migrated.
#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    /// SQLite refuses the file: its primary result code, 0 if there is none, and its message.
    #[error("{1}")]
    Database(i32, String),
    /// A newer version of Usher has made the tables.
    #[error("its tables were made by a newer version of Usher (step {0}): start that one")]
    Newer(i64),
    /// The history of the tables is not one of this program.
    #[error("{0}")]
    History(String),
}

/// Creates the tables, or migrates those of an earlier version.
pub(super) async fn migrate(path: &Path) -> Result<(), SchemaError> {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.dangerous_set_table_name(HISTORY);
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT);
    let mut connection = options.connect().await.map_err(database)?;
    run(&migrator, &mut connection).await.map_err(cause)?;
    connection.close().await.map_err(database)
}

async fn run(migrator: &Migrator, connection: &mut SqliteConnection) -> Result<(), MigrateError> {
    migrator.run_to(TOMBSTONES - 1, &mut *connection).await?;
    let sql = "SELECT count(*) FROM pragma_table_info('record') WHERE name = 'erases'";
    let (has_tombstones,): (i64,) = sqlx::query_as(sql).fetch_one(&mut *connection).await?;
    if has_tombstones > 0 {
        // SQLite has no `ADD COLUMN IF NOT EXISTS`, and a file without a history may have the column.
        migrator.skip(&mut *connection, Some(TOMBSTONES)).await?;
    }
    migrator.run(connection).await
}

/// Finds the error of the database below the wrappers of migrations, if that is the cause.
fn cause(error: MigrateError) -> SchemaError {
    match error {
        MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _) => match inner {
            sqlx::Error::Migrate(deeper) => cause(*deeper),
            other => database(other),
        },
        MigrateError::VersionMissing(version) => SchemaError::Newer(version),
        other => SchemaError::History(other.to_string()),
    }
}

fn database(error: sqlx::Error) -> SchemaError {
    let answer = error.as_database_error();
    let code = answer.and_then(|answer| answer.code()?.parse::<i32>().ok()).unwrap_or_default();
    SchemaError::Database(code & 0xff, answer.map_or_else(|| error.to_string(), |answer| answer.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::SqliteConnectOptions;
    use usher_proto::{Key, Offset, Partition, Record};

    use crate::{Creation, EmbeddedLog, Log as _, LogEvent, LogRetention, Retention, TopicSpec};

    /// The statements by which files were created before there was a history.
    const BEFORE_HISTORY: &str = r#"
        CREATE TABLE IF NOT EXISTS partition (
            topic     TEXT    NOT NULL,
            partition INTEGER NOT NULL,
            low       INTEGER NOT NULL,
            next      INTEGER NOT NULL,
            PRIMARY KEY (topic, partition)
        ) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS record (
            topic       TEXT    NOT NULL,
            partition   INTEGER NOT NULL,
            "offset"    INTEGER NOT NULL,
            key         TEXT    NOT NULL,
            headers     TEXT    NOT NULL,
            body        BLOB    NOT NULL,
            appended_at INTEGER NOT NULL,
            UNIQUE (topic, partition, "offset")
        );
        CREATE INDEX IF NOT EXISTS record_age ON record (appended_at);
        CREATE TABLE IF NOT EXISTS cursor (
            "group"   TEXT    NOT NULL,
            topic     TEXT    NOT NULL,
            partition INTEGER NOT NULL,
            committed INTEGER,
            PRIMARY KEY ("group", topic, partition)
        ) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS compacted (
            topic     TEXT    NOT NULL PRIMARY KEY,
            keeps_for INTEGER NOT NULL
        ) WITHOUT ROWID;
    "#;
    const TOMBSTONES_BEFORE_HISTORY: &str = "ALTER TABLE record ADD COLUMN erases INTEGER NOT NULL DEFAULT 0";
    const CONTENT: &str = r#"
        INSERT INTO partition VALUES ('t', 0, 5, 7);
        INSERT INTO record (topic, partition, "offset", key, headers, body, appended_at)
            VALUES ('t', 0, 5, 'a', '[["h","v"]]', x'01', 4102444800000), ('t', 0, 6, 'b', '[]', x'02', 4102444800000);
        INSERT INTO cursor VALUES ('g', 't', 0, 6);
    "#;

    fn topic() -> TopicSpec {
        TopicSpec { name: "t".into(), partitions: 1, retention: Retention::Time, creation: Creation::Always }
    }

    async fn made_by(path: &Path, statements: &[&'static str]) {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut connection = options.connect().await.expect("a file");
        for sql in statements {
            sqlx::raw_sql(*sql).execute(&mut connection).await.expect("made as before");
        }
        sqlx::Connection::close(connection).await.expect("closed");
    }

    async fn schema_of(path: &Path) -> Vec<(String, String)> {
        let options = SqliteConnectOptions::new().filename(path);
        let mut connection = options.connect().await.expect("a file");
        let sql = "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c ORDER BY 1, 2";
        sqlx::query_as(sql).fetch_all(&mut connection).await.expect("rows")
    }

    async fn history_of(path: &Path) -> Vec<(i64, bool)> {
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await.expect("a file");
        let sql = "SELECT version, success FROM usher_log_migrations ORDER BY version";
        sqlx::query_as(sql).fetch_all(&mut connection).await.expect("rows")
    }

    #[tokio::test]
    async fn a_file_made_before_there_was_a_history_is_opened_without_loss() {
        let folder = tempfile::tempdir().expect("a folder");
        let new = folder.path().join("new.db");
        drop(EmbeddedLog::open(&new, LogRetention::default()).await.expect("it opens"));
        let tombstone = "INSERT INTO record VALUES ('t', 0, 7, 'a', '[]', x'', 4102444800000, 1); \
                         UPDATE partition SET next = 8; INSERT INTO compacted VALUES ('u', 1000)";
        // The table was added later, and then the column.
        let earliest = BEFORE_HISTORY.split("CREATE TABLE IF NOT EXISTS compacted").next().expect("the first tables");
        for (name, statements, next) in [
            ("earliest", vec![earliest, CONTENT], 7),
            ("earlier", vec![BEFORE_HISTORY, CONTENT], 7),
            ("latest", vec![BEFORE_HISTORY, TOMBSTONES_BEFORE_HISTORY, CONTENT, tombstone], 8),
        ] {
            let path = folder.path().join(format!("{name}.db"));
            made_by(&path, &statements).await;
            for reopened in 0..2 {
                let log = EmbeddedLog::open(&path, LogRetention::default()).await.expect(name);
                log.ensure(&[topic()]).await.expect(name);
                let first = log.read("t", Partition(0), Offset(5)).await.expect(name).expect("it is there");
                let whole = (first.key.as_str(), first.headers.as_slice(), first.body.as_ref());
                assert_eq!(whole, ("a", [("h".to_owned(), "v".to_owned())].as_slice(), [1].as_slice()), "{name}");
                assert_eq!(log.committed("g", "t").await.expect(name)[&Partition(0)], Offset(6), "{name}");
                assert_eq!(log.watermarks("t").await.expect(name)[&Partition(0)].low, Offset(5), "{name}");
                let record = Record { key: Key::new("c"), headers: Vec::new(), body: vec![3].into() };
                let position = log.append(&topic(), record).await.expect("appended");
                assert_eq!(position.offset, Offset(next + reopened), "{name}");
                let mut subscription = log.subscribe("g", "t").await.expect("subscribed");
                let Some(LogEvent::Assigned { assignment, partitions }) = subscription.events.recv().await else {
                    panic!("an assignment comes first")
                };
                subscription
                    .control
                    .start(assignment, vec![(Partition(0), partitions[0].committed.expect("committed"))]);
                let batch = tokio::time::timeout(Duration::from_secs(10), subscription.events.recv()).await;
                assert!(matches!(batch, Ok(Some(LogEvent::Records { .. }))), "{name}: {batch:?}");
                subscription.control.close().await;
                log.flush().await;
            }
            assert_eq!(history_of(&path).await, [(1, true), (2, true)], "{name}");
            assert_eq!(schema_of(&path).await, schema_of(&new).await, "{name}");
            if name == "latest" {
                let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.expect("a file");
                let sql = "SELECT \"offset\", (SELECT keeps_for FROM compacted) FROM record WHERE erases";
                let rows: Vec<(i64, i64)> = sqlx::query_as(sql).fetch_all(&mut connection).await.expect("rows");
                assert_eq!(rows, [(7, 1000)], "tombstones are still tombstones");
            }
        }
    }

    #[tokio::test]
    async fn a_file_of_a_newer_version_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.db");
        drop(EmbeddedLog::open(&path, LogRetention::default()).await.expect("it opens"));
        let newer = "INSERT INTO usher_log_migrations VALUES (9, 'newer', '2030-01-01', 1, x'00', 0)";
        made_by(&path, &[newer]).await;
        let Err(error) = EmbeddedLog::open(&path, LogRetention::default()).await else { panic!("it is newer") };
        assert!(error.is_lasting() && error.to_string().contains("newer version"), "{error}");
    }
}
