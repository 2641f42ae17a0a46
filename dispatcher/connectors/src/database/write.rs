//! Writes rows: a newer state replaces an older one, and nothing replaces a deletion.

use usher_sql::{Database, Dialect, SqlError, SqlTransaction, query};

use super::request::TableRow;
use super::table::{Table, TableKind};

/// Returns the columns of a table in the order in which they are bound: texts, times, and those of every table.
fn columns(table: &Table) -> Vec<&'static str> {
    let texts = table.texts.iter().map(|(name, _)| *name);
    texts.chain(table.times.iter().copied()).chain(["created_at", "updated_at", "event_at", "extra"]).collect()
}

fn upsert_statement(table: &Table, dialect: Dialect) -> String {
    let name = table.name;
    let columns = columns(table);
    let place = |column: &str| columns.iter().position(|known| *known == column).map_or(0, |index| index + 1);
    let places: Vec<String> = (1..=columns.len()).map(|place| format!("${place}")).collect();
    let set: Vec<String> = columns[1..].iter().map(|column| format!("{column} = excluded.{column}")).collect();
    let only_before = if table.may_return {
        format!(" AND deleted_at >= COALESCE(CAST(${} AS BIGINT), 0)", place("created_at"))
    } else {
        String::new()
    };
    let mut alive = format!("NOT EXISTS (SELECT 1 FROM {name}_deleted WHERE id = $1{only_before})");
    for (column, kind) in table.belongs_to {
        let owner = kind.table().name;
        alive += &format!(" AND NOT EXISTS (SELECT 1 FROM {owner}_deleted WHERE id = ${})", place(column));
    }
    format!(
        "INSERT INTO {name} ({}) SELECT {}{} WHERE {alive} ON CONFLICT (id) DO UPDATE SET {} \
         WHERE ({name}.updated_at, {name}.event_at) <= (excluded.updated_at, excluded.event_at)",
        columns.join(", "),
        places.join(", "),
        dialect.as_json(),
        set.join(", "),
    )
}

/// Inserts or updates a row. Returns true if the row was written, false if a newer state or a deletion took precedence.
pub(super) async fn upsert(database: &Database, row: &TableRow) -> Result<bool, SqlError> {
    let table = row.kind.table();
    let mut writing = database.write().await?;
    let owners = table.belongs_to.iter().filter_map(|(column, _)| row.text(column));
    lock(database, &mut writing, [row.id()].into_iter().chain(owners).collect()).await?;
    let mut query = query(upsert_statement(table, database.dialect));
    for (name, _) in table.texts {
        query = query.bind(row.text(name).map(str::to_owned));
    }
    for name in table.times.iter().copied().chain(["created_at"]) {
        query = query.bind(row.time(name));
    }
    for name in ["updated_at", "event_at"] {
        query = query.bind(row.time(name).unwrap_or_default());
    }
    let extra = row.text("extra").unwrap_or("{}").to_owned();
    let written = query.bind(extra).execute(writing.connection()).await?;
    writing.commit().await?;
    Ok(written > 0)
}

/// Deletes a row together with the rows that belong to it, and writes a tombstone. A deletion always wins.
pub(super) async fn delete(database: &Database, kind: TableKind, id: &str, at: i64) -> Result<bool, SqlError> {
    let name = kind.table().name;
    let mut writing = database.write().await?;
    lock(database, &mut writing, vec![id]).await?;
    // If an object was deleted, returned and was deleted again, the later deletion counts.
    let tombstone = format!(
        "INSERT INTO {name}_deleted (id, deleted_at) VALUES ($1, $2) \
         ON CONFLICT (id) DO UPDATE SET deleted_at = excluded.deleted_at \
         WHERE {name}_deleted.deleted_at < excluded.deleted_at"
    );
    query(tombstone).bind(id).bind(at).execute(writing.connection()).await?;
    // An object created after the deletion is a different one, if the table allows that.
    let until = if kind.table().may_return { at } else { i64::MAX };
    let gone = format!("DELETE FROM {name} WHERE id = $1 AND COALESCE(created_at, 0) <= $2");
    query(gone).bind(id).bind(until).execute(writing.connection()).await?;
    for other in TableKind::ALL {
        for (column, _) in other.table().belongs_to.iter().filter(|(_, owner)| *owner == kind) {
            let theirs = format!("DELETE FROM {} WHERE {column} = $1", other.table().name);
            query(theirs).bind(id).execute(writing.connection()).await?;
        }
    }
    writing.commit().await?;
    Ok(true)
}

/// Serializes upserts and deletions of the same object or of its owners. Neither sees the other's uncommitted changes,
/// so together they could leave a deleted object in the table. The ids are sorted, because locks taken in different
/// orders would deadlock.
async fn lock(database: &Database, writing: &mut SqlTransaction, mut ids: Vec<&str>) -> Result<(), SqlError> {
    if database.dialect == Dialect::Postgres {
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let row = query("SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock(hashtextextended($1, 0))) AS l")
                .bind(id)
                .fetch_one(writing.connection())
                .await?;
            let _: i64 = row.get(0)?;
        }
    }
    Ok(())
}
