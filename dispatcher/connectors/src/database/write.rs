//! Writes rows: a newer state replaces an older one, and nothing replaces a deletion.

use std::collections::HashSet;
use std::sync::Arc;

use usher_sql::{Database, Dialect, Rows, SqlError, SqlQuery, query};

use super::batches::LockWait;
use super::request::TableRow;
use super::table::{Table, TableKind};

/// Wait of a batch for a lock. A lock is held for the time of one transaction, unless another program holds it.
const SHORT_LOCK_WAIT: &str = "SET LOCAL lock_timeout = '1s'";

/// Returns the statement that inserts or updates rows of one table, and returns the ids of those that it wrote.
fn upsert_rows(table: &'static Table, rows: &[&TableRow], dialect: Dialect) -> SqlQuery {
    let mut columns = Rows::of(rows);
    let mut names = Vec::new();
    for (name, _) in table.texts {
        columns = columns.text(name, |row| row.text(name));
        names.push(*name);
    }
    for name in table.times.iter().copied().chain(["created_at"]) {
        columns = columns.int(name, |row| row.time(name));
        names.push(name);
    }
    for name in ["updated_at", "event_at"] {
        columns = columns.int(name, |row| row.time(name).unwrap_or_default());
        names.push(name);
    }
    let columns = columns.text("extra", |row| row.text("extra").unwrap_or("{}"));
    columns.query(dialect, Vec::new(), |rows| upsert_statement(table, &names, rows, dialect))
}

/// `columns` are all but `extra`, the id first; `rows` is an item of `FROM` with the name `r`.
fn upsert_statement(table: &Table, columns: &[&str], rows: &str, dialect: Dialect) -> String {
    let name = table.name;
    let values: Vec<String> = columns.iter().map(|column| format!("r.{column}")).collect();
    let set = columns.iter().copied().skip(1).chain(["extra"]).map(|column| format!("{column} = excluded.{column}"));
    let only_before = if table.may_return { " AND d.deleted_at >= COALESCE(r.created_at, 0)" } else { "" };
    let mut alive = format!("NOT EXISTS (SELECT 1 FROM {name}_deleted AS d WHERE d.id = r.id{only_before})");
    for (column, kind) in table.belongs_to {
        let owner = kind.table().name;
        alive += &format!(" AND NOT EXISTS (SELECT 1 FROM {owner}_deleted AS d WHERE d.id = r.{column})");
    }
    format!(
        "INSERT INTO {name} ({}, extra) SELECT {}, r.extra{} FROM {rows} WHERE {alive} ON CONFLICT (id) DO UPDATE SET {} \
         WHERE ({name}.updated_at, {name}.event_at) <= (excluded.updated_at, excluded.event_at) RETURNING CAST(id AS TEXT)",
        columns.join(", "),
        values.join(", "),
        dialect.as_json(),
        set.collect::<Vec<_>>().join(", "),
    )
}

/// Inserts or updates rows in one transaction. Returns for each, in order, true if it was written, and false if a newer
/// state or a deletion took precedence. No two rows are of the same object.
pub(super) async fn upsert(database: &Database, rows: &[Arc<TableRow>], wait: LockWait) -> Result<Vec<bool>, SqlError> {
    let owners =
        |row| TableRow::table(row).belongs_to.iter().filter_map(move |(column, _)| TableRow::text(row, column));
    let ids = rows.iter().flat_map(|row| [row.id()].into_iter().chain(owners(&**row))).collect();
    let mut queries = locks(database.dialect, ids, wait);
    let first = queries.len();
    let mut kinds = Vec::new();
    for kind in TableKind::ALL {
        let mut of_kind: Vec<&TableRow> = rows.iter().map(|row| &**row).filter(|row| row.kind == kind).collect();
        if !of_kind.is_empty() {
            // Rows are locked in the order of the statement, and two transactions must lock them in the same one.
            of_kind.sort_unstable_by_key(|row| row.id());
            queries.push(upsert_rows(kind.table(), &of_kind, database.dialect));
            kinds.push(kind);
        }
    }
    let answers = database.transact(queries).await?;
    let mut written = HashSet::new();
    for (kind, answer) in kinds.into_iter().zip(answers.iter().skip(first)) {
        for row in &answer.rows {
            written.insert((kind, row.get::<String>(0)?));
        }
    }
    Ok(rows.iter().map(|row| written.contains(&(row.kind, row.id().to_owned()))).collect())
}

/// Deletes a row together with the rows that belong to it, and writes a tombstone. A deletion always wins.
pub(super) async fn delete(database: &Database, kind: TableKind, id: &str, at: i64) -> Result<(), SqlError> {
    let name = kind.table().name;
    let mut queries = locks(database.dialect, vec![id], LockWait::Long);
    // If an object was deleted, returned and was deleted again, the later deletion counts.
    let tombstone = format!(
        "INSERT INTO {name}_deleted (id, deleted_at) VALUES ($1, $2) \
         ON CONFLICT (id) DO UPDATE SET deleted_at = excluded.deleted_at \
         WHERE {name}_deleted.deleted_at < excluded.deleted_at"
    );
    queries.push(query(tombstone).bind(id).bind(at).prepared());
    // An object created after the deletion is a different one, if the table allows that.
    let until = if kind.table().may_return { at } else { i64::MAX };
    let gone = format!("DELETE FROM {name} WHERE id = $1 AND COALESCE(created_at, 0) <= $2");
    queries.push(query(gone).bind(id).bind(until).prepared());
    for other in TableKind::ALL {
        for (column, _) in other.table().belongs_to.iter().filter(|(_, owner)| *owner == kind) {
            let theirs = format!("DELETE FROM {} WHERE {column} = $1", other.table().name);
            queries.push(query(theirs).bind(id).prepared());
        }
    }
    database.transact(queries).await?;
    Ok(())
}

/// Returns the statements that serialize upserts and deletions of the same object or of its owners. Neither sees the
/// other's uncommitted changes, so together they could leave a deleted object in the table. The ids are sorted, because
/// locks taken in different orders would deadlock.
fn locks(dialect: Dialect, mut ids: Vec<&str>, wait: LockWait) -> Vec<SqlQuery> {
    if dialect == Dialect::Sqlite {
        // The transaction already locks the whole file.
        return Vec::new();
    }
    ids.sort_unstable();
    ids.dedup();
    let lock = Rows::of(&ids).text("id", |id| *id).query(dialect, Vec::new(), |rows| {
        format!("SELECT count(pg_advisory_xact_lock(hashtextextended(r.id, 0))) FROM {rows}")
    });
    match wait {
        LockWait::Short => vec![query(SHORT_LOCK_WAIT).prepared(), lock],
        LockWait::Long => vec![lock],
    }
}
