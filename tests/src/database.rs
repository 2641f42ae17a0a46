//! A database of a test's own on a Postgres server that others use, too.

use sqlx::{Connection as _, Executor as _};

use crate::unique;

/// A database.
pub struct OwnDatabase {
    server: String,
    name: String,
}

impl OwnDatabase {
    /// Makes one on the server that this address leads to.
    pub async fn make(server: &str) -> Self {
        let made = Self { server: server.to_owned(), name: unique("usher_test_") };
        made.execute(&format!("CREATE DATABASE {}", made.name)).await;
        made
    }

    /// Its address.
    pub fn url(&self) -> String {
        let base = self.server.rsplit_once('/').expect("a database in the address").0;
        format!("{base}/{}", self.name)
    }

    /// Makes a copy, whoever still uses it being thrown out, and returns its name.
    pub async fn copy(&self) -> String {
        let name = &self.name;
        self.execute(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")).await;
        let copy = unique("usher_copy_");
        self.execute(&format!("CREATE DATABASE {copy} TEMPLATE {name}")).await;
        copy
    }

    /// Puts a copy in its place.
    pub async fn restore(&self, copy: &str) {
        self.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        self.execute(&format!("ALTER DATABASE {copy} RENAME TO {}", self.name)).await;
    }

    /// Puts an empty one in its place.
    pub async fn empty(&self) {
        self.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
        self.execute(&format!("CREATE DATABASE {}", self.name)).await;
    }

    /// Removes it, whoever still uses it.
    pub async fn remove(self) {
        self.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }

    async fn execute(&self, sql: &str) {
        let mut connection = sqlx::PgConnection::connect(&self.server).await.expect("Postgres answers");
        connection.execute(sqlx::AssertSqlSafe(sql)).await.expect("Postgres does as told");
    }
}
