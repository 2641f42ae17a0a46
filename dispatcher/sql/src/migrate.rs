//! Migrations: the steps by which tables are created, each applied once and recorded in a table of its own.
//!
//! The record has the form that sqlx gives it, because earlier versions wrote it so. The steps of a set are applied in
//! one transaction, which works behind a connection pooler, too.

use sha2::{Digest as _, Sha384};

use crate::address::quoted;
use crate::{Connection, Database, Dialect, SqlError, SqlTransaction, query, query_as};

/// One step.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its number. Steps are applied in the order of their numbers.
    pub version: i64,
    /// Its name, for people.
    pub name: &'static str,
    /// Its statements.
    pub sql: &'static str,
}

/// Declares the steps of a set of tables: the folder of the SQL files, then number and name of each, as in the names of the
/// files.
#[macro_export]
macro_rules! migrations {
    ($folder:literal: $($file:literal),+ $(,)?) => {
        &[$($crate::Migration::of_file($file, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $folder, "/", $file, ".sql")))),+]
    };
}

impl Migration {
    /// Returns the step of a file that is called `NNNN_name.sql`.
    ///
    /// # Panics
    ///
    /// At compile time, if the name has another form.
    pub const fn of_file(file: &'static str, sql: &'static str) -> Self {
        let (number, name) = file.split_at(4);
        let mut version = 0;
        let mut at = 0;
        while at < 4 {
            let digit = number.as_bytes()[at];
            assert!(digit.is_ascii_digit(), "a file is called NNNN_name.sql");
            version = version * 10 + (digit - b'0') as i64;
            at += 1;
        }
        Self { version, name: name.split_at(1).1, sql }
    }

    fn checksum(&self) -> Vec<u8> {
        Sha384::digest(self.sql.as_bytes()).to_vec()
    }
}

/// A set of tables, with the migrations that create them. Each set has a history of its own, so that the users' tables can
/// be in a database that belongs to another application.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// The migrations for Postgres.
    pub postgres: &'static [Migration],
    /// The migrations for SQLite.
    pub sqlite: &'static [Migration],
    /// Name of the table that holds the history of the migrations.
    pub history: &'static str,
}

/// Failure to create tables or to migrate them.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The tables were migrated by a newer version of Usher, whose step this one does not know.
    #[error("its tables were made by a newer version of Usher (step {0}): start that one")]
    Newer(i64),
    /// A step was applied in another form than this version has.
    #[error("step {0} of its tables was made in another form than this version of Usher has")]
    Changed(i64),
    /// The database does not answer or refuses a statement. No data is written here, so its words hold none.
    #[error("{}", crate::fault::describe_with_words(.0))]
    Database(#[from] SqlError),
}

impl Tables {
    pub(crate) async fn apply(&self, database: &Database) -> Result<(), MigrationError> {
        let steps = match database.dialect {
            Dialect::Postgres => self.postgres,
            Dialect::Sqlite => self.sqlite,
        };
        // A look first: mostly there is nothing to do, and a user without the right to create is enough then.
        if let Ok(applied) = self.applied(database).await
            && self.missing(steps, &applied)?.is_empty()
        {
            return Ok(());
        }
        let mut transaction = database.write().await?;
        self.lock(&mut transaction, database.dialect).await?;
        transaction.connection().batch(self.create_history(database.dialect)).await?;
        let applied = self.applied(transaction.connection()).await?;
        for step in self.missing(steps, &applied)? {
            transaction.connection().batch(step.sql).await?;
            let sql = format!(
                "INSERT INTO {} (version, description, success, checksum, execution_time) VALUES ($1, $2, TRUE, $3, 0)",
                quoted(self.history)
            );
            let insert =
                query(sql).bind(step.version).bind(step.name.replace('_', " ")).bind(step.checksum().as_slice());
            insert.execute(transaction.connection()).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Makes processes that start at once migrate one after the other.
    async fn lock(&self, transaction: &mut SqlTransaction, dialect: Dialect) -> Result<(), SqlError> {
        if dialect == Dialect::Postgres {
            // A large table may take longer than a statement of every day, and so may another version's last transactions.
            transaction.connection().batch("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s'").await?;
            let lock = "SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock(hashtextextended($1, 0))) AS l";
            query(lock).bind(self.history).execute(transaction.connection()).await?;
        }
        Ok(())
    }

    fn create_history(&self, dialect: Dialect) -> String {
        let (time, bytes) = match dialect {
            Dialect::Postgres => ("TIMESTAMPTZ NOT NULL DEFAULT now()", "BYTEA"),
            Dialect::Sqlite => ("TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP", "BLOB"),
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {} (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on {time}, \
             success BOOLEAN NOT NULL, checksum {bytes} NOT NULL, execution_time BIGINT NOT NULL)",
            quoted(self.history)
        )
    }

    async fn applied(&self, executor: impl crate::Executor) -> Result<Vec<(i64, Vec<u8>)>, SqlError> {
        let sql = format!("SELECT version, checksum FROM {} ORDER BY version", quoted(self.history));
        query_as(sql).fetch_all(executor).await
    }

    /// Returns the steps that are still to be applied.
    fn missing<'a>(
        &self,
        steps: &'a [Migration],
        applied: &[(i64, Vec<u8>)],
    ) -> Result<Vec<&'a Migration>, MigrationError> {
        for (version, checksum) in applied {
            match steps.iter().find(|step| step.version == *version) {
                None => return Err(MigrationError::Newer(*version)),
                Some(step) if step.checksum() != *checksum => return Err(MigrationError::Changed(*version)),
                Some(_) => {}
            }
        }
        Ok(steps.iter().filter(|step| applied.iter().all(|(version, _)| *version != step.version)).collect())
    }
}

/// Creates the schema of the tables, if the address names one and there is none.
pub(crate) async fn make_schema(connection: &mut Connection, schema: &str) -> Result<(), SqlError> {
    // `CREATE SCHEMA IF NOT EXISTS` requires the privilege to create even if the schema exists.
    if has_schema(connection, schema).await? {
        return Ok(());
    }
    match connection.batch(format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema))).await {
        Ok(()) => Ok(()),
        // If two processes create the schema at the same time, one of them may receive an error that it exists.
        Err(error) => {
            if has_schema(connection, schema).await? {
                Ok(())
            } else {
                Err(error)
            }
        }
    }
}

async fn has_schema(connection: &mut Connection, schema: &str) -> Result<bool, SqlError> {
    let found = query("SELECT 1::bigint FROM pg_namespace WHERE nspname = $1").bind(schema);
    Ok(!connection.run_alone(found).await?.rows.is_empty())
}
