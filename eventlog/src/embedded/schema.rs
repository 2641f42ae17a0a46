//! Migration of files that an earlier version created.

use sqlx::SqliteConnection;

/// Adds the column `erases` to the table `record`, if it is missing.
pub(super) async fn bring_up_to_date(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let sql = "SELECT count(*) FROM pragma_table_info('record') WHERE name = 'erases'";
    let (has_tombstones,): (i64,) = sqlx::query_as(sql).fetch_one(&mut *connection).await?;
    if has_tombstones == 0 {
        let sql = "ALTER TABLE record ADD COLUMN erases INTEGER NOT NULL DEFAULT 0";
        sqlx::query(sql).execute(connection).await?;
    }
    Ok(())
}
