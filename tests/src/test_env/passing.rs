//! Days that pass in a test without being waited for, while no program runs.

use std::time::Duration;

use super::TestEnv;
use crate::fake_clock::FakeClock;

impl TestEnv {
    /// Sets the clock of programs that start from now on. Webhooks are signed at its time.
    pub fn set_clock(&mut self, clock: FakeClock) {
        self.ahead = clock.ahead;
        clock.variables().iter().for_each(|(name, value)| self.set(name, value));
    }

    /// Makes everything in the store older: each time in it is moved back. Panics if the store is a file.
    pub async fn age_store(&self, passed: Duration) {
        assert!(self.database.is_some(), "the store is a server");
        let ms = passed.as_millis();
        // A column that holds a time is named for it. 0 stands for none.
        let sql = format!(
            "DO $$ DECLARE aged record; BEGIN \
               FOR aged IN SELECT c.table_name, string_agg(format( \
                   '%1$I = CASE WHEN %1$I > {ms} THEN %1$I - {ms} ELSE %1$I END', c.column_name), ', ') AS changes \
                 FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name) \
                 WHERE t.table_type = 'BASE TABLE' AND table_schema = current_schema() AND table_name LIKE 'usher_%' \
                   AND c.data_type = 'bigint' AND c.is_generated = 'NEVER' AND c.column_name ~ '(^|_)(at|until)$' \
                 GROUP BY c.table_name \
               LOOP EXECUTE format('UPDATE %I SET %s', aged.table_name, aged.changes); END LOOP; END $$"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&self.pool().await).await.expect("the store becomes older");
    }
}
