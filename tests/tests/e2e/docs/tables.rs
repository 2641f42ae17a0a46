//! `docs/database.md` names the columns that the migrations make.

use std::collections::BTreeSet;

use usher_tests::backend::Backend;
use usher_tests::test_env::TestEnv;

use super::root;

usher_tests::on_both_backends!(the_page_about_tables_names_their_columns);

/// A table of the page.
struct DescribedTable {
    name: String,
    columns: BTreeSet<String>,
    /// True if the page names all of its columns.
    is_whole: bool,
}

fn described() -> Vec<DescribedTable> {
    let page = std::fs::read_to_string(root().join("docs/database.md")).unwrap();
    let mut tables: Vec<DescribedTable> = Vec::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix('`')) {
            tables.push(DescribedTable { name: name.to_owned(), columns: BTreeSet::new(), is_whole: false });
        } else if line.starts_with("## ") {
            continue;
        } else if let Some(table) = tables.last_mut() {
            table.is_whole |= line.contains("all columns:");
            if let Some((column, _)) = line.strip_prefix("| `").and_then(|rest| rest.split_once('`')) {
                table.columns.insert(column.to_owned());
            }
        }
    }
    tables
}

async fn the_page_about_tables_names_their_columns(backend: Backend) {
    let is_embedded = matches!(backend, Backend::Embedded);
    let env = TestEnv::start(backend).await;
    let pool = env.pool().await;
    let tables = described();
    assert!(tables.len() >= 7, "the tables are found: {}", tables.len());
    for table in tables {
        let name = &table.name;
        let query = match is_embedded {
            true => format!("SELECT name FROM pragma_table_info('{name}')"),
            false => format!(
                "SELECT column_name::text FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND table_name = '{name}'"
            ),
        };
        let rows: Vec<(String,)> = sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(&pool).await.unwrap();
        let actual: BTreeSet<String> = rows.into_iter().map(|(column,)| column).collect();
        let unknown: Vec<&String> = table.columns.difference(&actual).collect();
        assert!(unknown.is_empty(), "{name} has no column {unknown:?}, only {actual:?}");
        if table.is_whole {
            let missing: Vec<&String> = actual.difference(&table.columns).collect();
            assert!(missing.is_empty(), "docs/database.md does not name {name}: {missing:?}");
        }
    }
    env.end().await;
}
