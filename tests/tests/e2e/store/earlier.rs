//! A store created by an earlier version: all of its data is still there after the migrations, and works.
//!
//! `earlier/store.db` was created by the version with five migrations. It holds two flows, one with runs that wait for
//! 300 days at two instances and one whose runs are all dead; three users, one of them deleted since, and one of
//! `staging`; one suppressed address; dead letters that were redriven. For Postgres its rows are copied into the tables
//! of that version.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use sqlx::migrate::Migrator;
use sqlx::{Column as _, Row as _, SqlitePool, TypeInfo as _, ValueRef as _};
use usher_engine::RunState;
use usher_proto::{AddressDigest, Instance};
use usher_store::RunRecord;
use usher_tests::needs;

use super::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/store/earlier/store.db");
const MAIL: &str = "mail";
const MIGRATIONS_THEN: usize = 5;

#[tokio::test]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    std::fs::copy(FILE, &path).unwrap();
    nothing_is_lost(&format!("sqlite:{}", path.display())).await;
}

#[needs(postgres)]
#[tokio::test]
async fn postgres() {
    let server = setting("USHER_TEST_POSTGRES");
    let name = unique("usher_test_");
    let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let address = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    fill(&address).await;
    nothing_is_lost(&address).await;
}

/// Creates the tables of that version in Postgres, with the rows of the file.
async fn fill(address: &str) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dispatcher/store/migrations/postgres"));
    let mut migrator = Migrator::new(folder).await.unwrap();
    migrator.migrations.to_mut().truncate(MIGRATIONS_THEN);
    migrator.dangerous_set_table_name("usher_store_migrations");
    let there = sqlx::PgPool::connect(address).await.unwrap();
    migrator.run(&there).await.unwrap();

    let here = SqlitePool::connect(&format!("sqlite:{FILE}?mode=ro&immutable=1")).await.unwrap();
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'usher_store_migrations'";
    let tables: Vec<(String,)> = sqlx::query_as(sql).fetch_all(&here).await.unwrap();
    for (table,) in tables {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT * FROM {table}"))).fetch_all(&here).await.unwrap();
        for row in rows {
            let names: Vec<&str> = row.columns().iter().map(|column| column.name()).collect();
            let values: serde_json::Map<String, Value> =
                names.iter().map(|name| ((*name).to_owned(), value(&row, name))).collect();
            let sql = format!(
                "INSERT INTO {table} ({0}) SELECT {0} FROM json_populate_record(NULL::{table}, $1::json)",
                names.join(", ")
            );
            let values = Value::Object(values).to_string();
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(values).execute(&there).await.unwrap();
        }
    }
}

fn value(row: &sqlx::sqlite::SqliteRow, name: &str) -> Value {
    let raw = row.try_get_raw(name).unwrap();
    if raw.is_null() {
        return Value::Null;
    }
    match raw.type_info().name() {
        "INTEGER" => row.get::<i64, _>(name).into(),
        "BLOB" => format!("\\x{}", hex::encode(row.get::<Vec<u8>, _>(name))).into(),
        _ => row.get::<String, _>(name).into(),
    }
}

async fn nothing_is_lost(address: &str) {
    let address = DatabaseAddress::parse("USHER_STORE", address).unwrap();
    let store = SqlStore::open(Database::open(&address).unwrap(), 8).await.unwrap();
    let runs = store.runs(&RunFilter::default(), 100).await.unwrap();
    let of = |flow: &str, state: &str, instance: &str| -> Vec<&RunRecord> {
        runs.iter().filter(|run| run.flow == flow && run.state == state && run.instance == instance).collect()
    };
    assert_eq!(runs.len(), 7);
    assert_eq!(runs.iter().map(|run| run.effects.len()).sum::<usize>(), 4);
    assert_eq!((of(MAIL, "waiting", "default").len(), of(MAIL, "waiting", "staging").len()), (2, 1));
    assert_eq!((of(MAIL, "cancelled", "default").len(), of("bad", "dead", "default").len()), (1, 2));
    let dead = of("bad", "dead", "default")[0];
    let actions = store.actions("bad", &dead.reference).await.unwrap();
    assert_eq!((actions.len(), actions[0].who.as_str(), dead.deaths), (1, "ann", 2));
    let content = store.show_content("bad", &dead.reference, "ann", Timestamp::from_seconds(1)).await.unwrap();
    assert!(content.body.is_some());

    // Each user belongs to one instance only.
    let waiting = of(MAIL, "waiting", "default")[0];
    let staged = of(MAIL, "waiting", "staging")[0];
    let gone = of(MAIL, "cancelled", "default")[0];
    assert!(store.subject(&gone.subject).await.unwrap().unwrap().deleted);
    for run in [waiting, staged] {
        assert!(!store.subject(&run.subject).await.unwrap().unwrap().deleted, "{}", run.reference);
        let there = if run.instance == "default" { "staging" } else { "default" };
        let elsewhere = SubjectId::new(Source::Clerk, &there.parse().unwrap(), &Key::new(run.subject.key()));
        assert_eq!(store.subject(&elsewhere).await.unwrap(), None, "{}", run.reference);
    }
    // The suppressed address was suppressed at all instances.
    let digest = AddressDigest::of("gone@work.test");
    for instance in ["default", "staging"] {
        assert_eq!(store.listed(&[mail_to(instance, digest)]).await.unwrap()[0].len(), 1, "{instance}");
    }

    // Work continues: repeated events are recognized, a deletion cancels only at its own instance, and
    // changes are detected.
    let partition = |run: &RunRecord| Partition(i32::try_from(run.partition).unwrap());
    let admit = async |run: &RunRecord, arrival: Arrival| {
        let owned = store.acquire(MAIL, &[partition(run)], "me").await.unwrap().remove(0);
        let offset = owned.frontier.expect("it has been read");
        let arrivals = vec![Arrival { offset, ..arrival }];
        let partition = owned.partition;
        let epoch = owned.epoch;
        let frontier = offset.next();
        let flow_version = "v2".to_owned();
        let connector = None;
        let batch = Batch {
            partition,
            epoch,
            frontier,
            arrivals,
            refused: Vec::new(),
            flow_version,
            connector,
            begins: BTreeSet::new(),
        };
        store.admit(MAIL, &batch).await.unwrap()
    };
    let event = |run: &RunRecord, id: &str| Event { subject: run.subject.clone(), ..event(id, "") };
    let again = admit(waiting, Arrival::starting(Offset(0), event(waiting, waiting.reference.id()))).await;
    assert_eq!((again.repeated, again.heads.len()), (1, 0));
    let fields = [("email".to_owned(), json!("new@work.test"))].into_iter().collect();
    let at = Timestamp::from_seconds(4_000_000_000).millis();
    let snapshot = Some(Snapshot { updated_at: at, occurred_at: at, data: Some("{}".into()) });
    let change =
        Arrival { remember: Some(fields), snapshot, ..Arrival::starting(Offset(0), event(waiting, "changed")) };
    let changed = admit(waiting, change).await.heads.remove(0);
    assert_eq!(changed.before.unwrap().changed, ["email"]);
    let cancel = |run| Arrival { starts: false, cancels: true, ..Arrival::starting(Offset(0), event(run, "bye")) };
    assert_eq!(admit(staged, cancel(staged)).await.cancelled, [(staged.subject.clone(), staged.reference.clone())]);
    let still = store.runs(&RunFilter { states: vec![RunState::Waiting], ..RunFilter::default() }, 10).await.unwrap();
    assert!(still.iter().all(|run| run.instance == Instance::DEFAULT) && still.len() == 2);
}
