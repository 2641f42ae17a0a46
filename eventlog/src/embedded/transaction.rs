//! A transaction that takes the file's single write lock when it begins. An uncommitted transaction is rolled back by
//! closing its connection: after a failed commit (because of a full disk, for example) the state of the connection is
//! unknown to sqlx and to this code.

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
