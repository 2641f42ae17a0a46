//! A database for one test on a shared Postgres server.

use sqlx::{Connection as _, Executor as _};

use crate::unique;

/// A database that belongs to one test.
pub struct OwnDatabase {
    server: String,
    name: String,
}

impl OwnDatabase {
    /// Creates a database on the server at this URL.
    pub async fn make(server: &str) -> Self {
        let made = Self { server: server.to_owned(), name: unique("usher_test_") };
        made.execute(&format!("CREATE DATABASE {}", made.name)).await;
        made
    }

    /// URL of the database.
    pub fn url(&self) -> String {
        self.url_through(&self.server)
    }

    /// URL of the database by way of a pooler, given the URL of any database behind it.
    pub fn url_through(&self, pooler: &str) -> String {
        let base = pooler.rsplit_once('/').expect("a database in the address").0;
        format!("{base}/{}", self.name)
    }

    /// Copies the database and returns the name of the copy. Terminates its connections first: Postgres does not copy a
    /// database in use.
    pub async fn copy(&self) -> String {
        let name = &self.name;
        self.execute(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
        let copy = unique("usher_copy_");
        self.execute(&format!("CREATE DATABASE {copy} TEMPLATE {name}")).await;
        copy
    }

    /// Replaces the database by a copy.
    pub async fn restore(&self, copy: &str) {
        self.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        self.execute(&format!("ALTER DATABASE {copy} RENAME TO {}", self.name)).await;
    }

    /// Replaces the database by an empty one.
    pub async fn empty(&self) {
        self.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        self.execute(&format!("CREATE DATABASE {}", self.name)).await;
    }

    /// Returns the number of transactions in it so far, as the server has counted them. A statement outside of a transaction is
    /// one; so are those of one batch.
    pub async fn transactions(&self) -> i64 {
        let mut connection = sqlx::PgConnection::connect(&self.server).await.expect("Postgres answers");
        let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1";
        sqlx::query_scalar(sql).bind(&self.name).fetch_one(&mut connection).await.expect("Postgres counts")
    }

    /// Returns the number of rows that its indexes and tables have returned so far, as the server has counted them.
    pub async fn rows_read(&self) -> i64 {
        let mut connection = sqlx::PgConnection::connect(&self.server).await.expect("Postgres answers");
        let sql = "SELECT tup_returned FROM pg_stat_database WHERE datname = $1";
        sqlx::query_scalar(sql).bind(&self.name).fetch_one(&mut connection).await.expect("Postgres counts")
    }

    /// Drops the database and terminates connections that still use it.
    pub async fn remove(self) {
        self.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }

    async fn execute(&self, sql: &str) {
        let mut connection = sqlx::PgConnection::connect(&self.server).await.expect("Postgres answers");
        connection.execute(sqlx::AssertSqlSafe(sql)).await.expect("Postgres does as told");
    }
}
