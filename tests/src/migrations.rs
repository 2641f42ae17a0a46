//! Every file of a folder of migrations is applied.

use std::path::Path;

use usher_sql::Migration;

/// Returns the names of the SQL files of a folder, without their ending, in order.
fn files(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dispatcher").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().strip_suffix(".sql").map(str::to_owned);
    let mut names: Vec<String> = entries.flatten().filter_map(name).collect();
    names.sort();
    names
}

#[test]
fn every_file_of_migrations_is_in_its_list() {
    let store = usher_store::TABLES;
    let users = usher_connectors::USERS_TABLES;
    for (folder, listed) in [
        ("store/migrations/postgres", store.postgres),
        ("store/migrations/sqlite", store.sqlite),
        ("connectors/migrations/postgres", users.postgres),
        ("connectors/migrations/sqlite", users.sqlite),
    ] {
        let name = |step: &Migration| format!("{:04}_{}", step.version, step.name);
        assert_eq!(listed.iter().map(name).collect::<Vec<_>>(), files(folder), "{folder}");
    }
}
