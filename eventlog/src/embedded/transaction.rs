//! A transaction that takes the file's one write lock at once. What is not committed is undone by closing its connection:
//! after a failed commit (a full disk, say) neither sqlx nor we know in which state the connection is.

use sqlx::Executor as _;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool};

pub(super) struct Transaction {
    connection: PoolConnection<Sqlite>,
    committed: bool,
}

impl Transaction {
    pub(super) async fn begin(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        let mut transaction = Self { connection: pool.acquire().await?, committed: false };
        transaction.connection.execute("BEGIN IMMEDIATE").await?;
        Ok(transaction)
    }

    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.connection.execute("COMMIT").await?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}
