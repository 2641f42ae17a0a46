//! Tests of the tables, on SQLite and, if `USHER_TEST_POSTGRES` names a server, on Postgres.

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;
use usher_engine::Cause;
use usher_proto::{Event, EventId, Instance, Json, Key, Source, SubjectId, Timestamp};
use usher_sql::fault::DatabaseFault;
use usher_sql::{DatabaseAddress, Row, query};

use super::classify::outcome;
use super::table::TableKind;
use super::*;

struct Scene {
    directory: Directory,
    kept_by: KeptBy,
}

/// Place of the tables, which is removed at the end.
enum KeptBy {
    Folder(#[expect(dead_code, reason = "it goes when this is dropped")] TempDir),
    Server { address: String, database: String },
}

fn open(address: &str) -> Database {
    Database::open(&DatabaseAddress::parse("DATABASE_URL", address).expect("an address")).expect("a database")
}

async fn on_sqlite() -> Scene {
    let folder = tempfile::tempdir().expect("a folder");
    let file = open(&format!("sqlite:{}", folder.path().join("users.db").display()));
    with_tables(Scene { directory: Directory::new(file), kept_by: KeptBy::Folder(folder) }).await
}

async fn on_postgres() -> Scene {
    let server = crate::tests::real("USHER_TEST_POSTGRES");
    let name = format!("usher_test_directory_{:016x}", rand::random::<u64>());
    let create = format!("CREATE DATABASE {name}");
    query(create).execute(&open(&server)).await.expect("a database is made");
    let base = server.rsplit_once('/').expect("a database in the address").0.to_owned();
    let directory = Directory::new(open(&format!("{base}/{name}")));
    with_tables(Scene { directory, kept_by: KeptBy::Server { address: server, database: name } }).await
}

async fn with_tables(scene: Scene) -> Scene {
    scene.directory.database.migrate(&USERS_TABLES).await.expect("the tables are made");
    scene
}

macro_rules! on_every_database {
    ($($claim:ident),+ $(,)?) => {
        $(mod $claim {
            #[tokio::test]
            async fn sqlite() {
                super::$claim(super::on_sqlite().await).await;
            }

            #[usher_needs::needs(postgres)]
            #[tokio::test]
            async fn postgres() {
                super::$claim(super::on_postgres().await).await;
            }
        })+
    };
}

mod together;

on_every_database!(
    what_is_kept_can_be_read_by_the_users_own_sql,
    what_is_kept_keeps_its_bytes_and_every_row_can_be_queried,
    a_value_of_another_type_stands_in_its_column_without_loss_or_in_the_rest,
    an_older_row_overwrites_no_newer_one_whatever_type_its_time_has,
    an_organization_is_kept_as_its_newest_state,
    a_membership_is_deleted_by_an_event_that_looks_like_any_other,
    an_invitations_status_only_goes_forward,
    with_an_organization_or_a_user_goes_what_belongs_to_them_and_stays_away,
    a_user_is_kept_as_before,
    an_event_about_something_else_makes_no_row,
);

impl Scene {
    /// Applies an event and returns `upserted`, `deleted` or `overtaken`.
    async fn sync(&self, operation: &str, kind: &str, at: i64, data: Value) -> String {
        self.sync_text(operation, kind, at, &data.to_string()).await
    }

    /// As `sync`, for JSON text that a tree cannot represent.
    async fn sync_text(&self, operation: &str, kind: &str, at: i64, data: &str) -> String {
        let request = prepared(&self.directory, operation, kind, at, data).expect("a request");
        match self.directory.attempt(&request, "", &CallGate::open()).await {
            Outcome::Done(effect) => effect.result["operation"].as_str().expect("an operation").to_owned(),
            Outcome::Overtaken => "overtaken".to_owned(),
            other => panic!("{kind}: {other:?}"),
        }
    }

    /// Returns some columns of all rows as texts, ordered by id.
    async fn rows(&self, table: &str, columns: &[&str]) -> Vec<Vec<Option<String>>> {
        let list: Vec<String> = columns.iter().map(|column| format!("CAST({column} AS TEXT)")).collect();
        let sql = format!("SELECT {} FROM {table} ORDER BY id", list.join(", "));
        let rows = query(sql).fetch_all(&self.directory.database).await.expect("rows");
        let read = |row: &Row| (0..columns.len()).map(|index| row.get(index).expect("a column")).collect();
        rows.iter().map(read).collect()
    }

    /// Returns some columns of one row as texts.
    async fn row(&self, table: &str, id: &str, columns: &[&str]) -> Vec<Option<String>> {
        self.rows(&format!("(SELECT * FROM {table} WHERE id = '{id}') AS one"), columns).await.remove(0)
    }

    async fn end(self) {
        if let KeptBy::Server { address, database } = self.kept_by {
            let drop = format!("DROP DATABASE {database} WITH (FORCE)");
            query(drop).execute(&open(&address)).await.expect("it is thrown away");
        }
    }

    async fn count(&self, table: &str) -> usize {
        self.rows(table, &["id"]).await.len()
    }
}

fn prepared(directory: &Directory, operation: &str, kind: &str, at: i64, data: &str) -> Result<Vec<u8>, PrepareError> {
    let event = Event {
        id: EventId::new("msg_1"),
        kind: kind.into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("org_1")),
        occurred_at: Timestamp::from_millis(at),
        received_at: Timestamp::from_millis(at),
        provenance: Vec::new(),
        body: Bytes::from(format!(r#"{{"type":"{kind}","data":{data}}}"#)),
    };
    let params = serde_json::Map::new();
    directory.prepare(&StepInput { operation, params: &params, event: &event, known: None, rerun: 0 })
}

fn organization(name: &str, updated_at: i64) -> Value {
    json!({ "object": "organization", "id": "org_1", "name": name, "slug": "work", "created_by": "user_1",
            "members_count": 1, "created_at": 1000, "updated_at": updated_at })
}

fn membership(role: &str, created_at: i64, updated_at: i64) -> Value {
    json!({ "object": "organization_membership", "id": "orgmem_1", "role": role, "permissions": ["org:read"],
            "organization": {"id": "org_1", "name": "Work"}, "created_at": created_at, "updated_at": updated_at,
            "public_user_data": {"user_id": "user_1", "identifier": "dana@work.test"} })
}

fn invitation(status: &str, updated_at: i64) -> Value {
    json!({ "object": "organization_invitation", "id": "orginv_1", "email_address": "guest@b.test", "role": "org:member",
            "organization_id": "org_1", "inviter_id": "user_1", "status": status, "expires_at": 9000,
            "created_at": 1000, "updated_at": updated_at })
}

async fn what_is_kept_can_be_read_by_the_users_own_sql(scene: Scene) {
    // A NUL in a value, in a name, nested deeply, and in a field with its own column; and a harmless text that
    // looks like one.
    let text = r#"{"object": "user", "id": "user_1", "first_name": "A\u0000B", "updated_at": 1,
        "public_metadata": {"x": "a\u0000b", "n\u0000": [{"y": "\u0000"}], "plain": "\\u0000", "face": "\ud83d\ude00"}}"#;
    let data = serde_json::from_str(text).expect("JSON");
    assert_eq!(scene.sync("sync_user", "user.created", 1, data).await, "upserted");
    let columns = ["first_name", "extra ->> 'public_metadata'", "extra -> 'public_metadata' ->> 'x'"];
    let found = scene.rows("usher_users", &columns).await.remove(0);
    assert_eq!((found[0].as_deref(), found[2].as_deref()), (Some("A\u{fffd}B"), Some("a\u{fffd}b")));
    let metadata: Value = serde_json::from_str(found[1].as_deref().expect("the metadata")).expect("JSON");
    let expected =
        json!({"x": "a\u{fffd}b", "n\u{fffd}": [{"y": "\u{fffd}"}], "plain": "\\u0000", "face": "\u{1f600}"});
    assert_eq!(metadata, expected);
    scene.end().await;
}

async fn what_is_kept_keeps_its_bytes_and_every_row_can_be_queried(scene: Scene) {
    let deep = "[".repeat(300) + &"]".repeat(300);
    let too_deep = "[".repeat(20_000) + &"]".repeat(20_000);
    let exact =
        r#"{"a": 117.63331139400017,"b":122.416294033786585,"c":9007199254740991.0,"d":1e400,"e":1E+2,"f":-0.0}"#;
    for (user, metadata) in [
        ("user_1", exact),
        ("user_2", r#"{"half":"a\ud83d","x":"b","\udc00":1}"#),
        ("user_3", r#"{"nul":"a\u0000b","x":"c","\u0000":1}"#),
        ("user_4", &format!(r#"{{"x":"d","n":{deep}}}"#)),
        ("user_5", &format!(r#"{{"x":"e","n":{too_deep}}}"#)),
        ("user_6", "null"),
        ("user_7", "1e400"),
    ] {
        let data = format!(
            r#"{{"object":"user","id":"{user}","unsafe_metadata":{metadata},"unsafe_metadata":{metadata},"updated_at":1}}"#
        );
        assert_eq!(scene.sync_text("sync_user", "user.created", 1, &data).await, "upserted", "{user}");
    }
    // Queries the whole table, because a single bad row would make the query fail.
    let columns = ["extra -> 'unsafe_metadata' ->> 'x'", "extra ->> 'nothing'", "extra -> 'unsafe_metadata' ->> 'a'"];
    let found = scene.rows("usher_users", &columns[..2]).await;
    let expected = [None, Some("b"), Some("c"), Some("d"), Some("e"), None, None];
    assert_eq!(found.iter().map(|row| row[0].as_deref()).collect::<Vec<_>>(), expected);
    let extra: Vec<String> = scene.rows("usher_users", &["extra"]).await.into_iter().flatten().flatten().collect();
    assert!(extra[0].contains(exact) && extra[3].contains(&deep), "byte for byte");
    assert_eq!(extra[1], r#"{"object":"user","unsafe_metadata":{"half":"a\ufffd","x":"b","\ufffd":1}}"#);
    assert_eq!(extra[2], r#"{"object":"user","unsafe_metadata":{"nul":"a\ufffdb","x":"c","\ufffd":1}}"#);
    assert!(extra[4].contains("\"[[["), "what no database reads is a text");
    assert!(extra[6].ends_with(r#""unsafe_metadata":1e400}"#), "{}", extra[6]);
    if matches!(scene.kept_by, KeptBy::Server { .. }) {
        let found = scene.rows("usher_users", &columns).await;
        assert_eq!(found[0][2].as_deref(), Some("117.63331139400017"));
        let numbers = scene.rows("usher_users", &["(extra -> 'unsafe_metadata' ->> 'd')::numeric > 5"]).await;
        assert_eq!(numbers[0][0].as_deref(), Some("true"));
    }
    scene.end().await;
}

/// One value of each JSON type, and some that need care when they are read.
const ANYTHING: [&str; 15] = [
    "null",
    "true",
    "12345",
    "12345.0",
    "12345.5",
    "1e400",
    "123456789012345678901234567890",
    r#""""#,
    r#""text""#,
    r#""12345""#,
    r#""1970-01-01T00:00:12.345Z""#,
    r#""\ud83d""#,
    "[7]",
    r#"{"a":7}"#,
    r#"{"id":{}}"#,
];

async fn a_value_of_another_type_stands_in_its_column_without_loss_or_in_the_rest(scene: Scene) {
    for (operation, kind, table) in [
        ("sync_user", TableKind::User, "usher_users"),
        ("sync_organization", TableKind::Organization, "usher_organizations"),
        ("sync_membership", TableKind::Membership, "usher_memberships"),
        ("sync_invitation", TableKind::Invitation, "usher_invitations"),
    ] {
        let texts = kind.table().texts.iter().filter(|(_, from)| matches!(from, table::ColumnSource::Field));
        let texts: Vec<&str> = texts.map(|(name, _)| *name).filter(|name| *name != "id").collect();
        let times: Vec<&str> = kind.table().times.iter().copied().chain(["created_at", "updated_at"]).collect();
        let is_text = |name: &str| texts.contains(&name);
        let mut at = 1;
        for field in texts.iter().chain(&times).copied() {
            for value in ANYTHING {
                at += 100_000;
                let id = format!("{field}_{at}");
                let data = format!(r#"{{"id":"{id}","{field}":{value}}}"#);
                assert_eq!(scene.sync_text(operation, "x.updated", at, &data).await, "upserted", "{data}");
                let columns = [field, "extra"];
                let row = scene.row(table, &id, &columns).await;
                let extra: Value = Json::read(row[1].as_deref().expect("the rest")).expect("JSON").to_value();
                let text = serde_json::from_str::<String>(value).ok();
                let column = match value {
                    "null" => None,
                    r#""""# if is_text(field) => Some("").filter(|_| !field.ends_with("_id")),
                    "12345" | r#""12345""# => Some("12345"),
                    "12345.0" => Some(if is_text(field) { "12345.0" } else { "12345" }),
                    r#""1970-01-01T00:00:12.345Z""# if !is_text(field) => Some("12345"),
                    r#""\ud83d""# if is_text(field) => Some("\u{fffd}"),
                    _ if is_text(field) => text.as_deref().or(Json::read(value).expect("JSON").number()),
                    _ => None,
                };
                let in_the_rest = extra.get(field) == Some(&Json::read(value).expect("JSON").to_value());
                let own_time = (field == "updated_at").then(|| at.to_string());
                match (column, value) {
                    (Some(column), _) => assert_eq!(row[0].as_deref(), Some(column), "{data}"),
                    // Not exact: the column has the nearest value, and `extra` has the value as it was sent.
                    (None, "12345.5") => assert!(row[0].as_deref() == Some("12345") && in_the_rest, "{data}"),
                    (None, "null" | r#""""#) => assert_eq!(row[0], own_time, "{data}"),
                    (None, _) => assert!(row[0] == own_time && in_the_rest, "{data}: {row:?}"),
                }
            }
        }
    }
    scene.end().await;
}

async fn an_older_row_overwrites_no_newer_one_whatever_type_its_time_has(scene: Scene) {
    for (user, newer, older) in [
        ("user_1", r#""5000""#, r#""4000""#),
        ("user_2", "5000.0", "4000.0"),
        ("user_3", r#""1970-01-01T00:00:05Z""#, "4000"),
        ("user_4", "5000", r#""4000.5""#),
        ("user_5", "1e400", r#""4000""#),
        ("user_6", "null", "[]"),
    ] {
        let user = |name: &str, time: &str| {
            format!(r#"{{"object":"user","id":"{user}","first_name":"{name}","updated_at":{time}}}"#)
        };
        let new = scene.sync_text("sync_user", "user.updated", 5_100, &user("New", newer)).await;
        let old = scene.sync_text("sync_user", "user.updated", 4_100, &user("Old", older)).await;
        assert_eq!((new.as_str(), old.as_str()), ("upserted", "overtaken"), "{newer} {older}");
    }
    scene.end().await;
}

async fn an_organization_is_kept_as_its_newest_state(scene: Scene) {
    let sync = async |kind, at, data| scene.sync("sync_organization", kind, at, data).await;
    assert_eq!(sync("organization.updated", 2100, organization("New", 2000)).await, "upserted");
    assert_eq!(sync("organization.created", 1100, organization("Old", 1000)).await, "overtaken");
    assert_eq!(sync("organization.updated", 2050, organization("Late", 2000)).await, "overtaken");
    assert_eq!(sync("organization.updated", 2100, organization("New", 2000)).await, "upserted", "again the same");
    let columns = ["id", "name", "slug", "created_by", "created_at", "updated_at", "event_at"];
    let expected = ["org_1", "New", "work", "user_1", "1000", "2000", "2100"].map(|text| Some(text.to_owned()));
    assert_eq!(scene.rows("usher_organizations", &columns).await, [expected]);
    let extra = scene.rows("usher_organizations", &["extra"]).await[0][0].clone().expect("the rest");
    let extra: Value = serde_json::from_str(&extra).expect("JSON");
    assert_eq!(extra, json!({"object": "organization", "members_count": 1}));
    scene.end().await;
}

async fn a_membership_is_deleted_by_an_event_that_looks_like_any_other(scene: Scene) {
    let sync = async |kind, at, data| scene.sync("sync_membership", kind, at, data).await;
    let created = "organizationMembership.created";
    assert_eq!(sync(created, 1100, membership("org:admin", 1000, 1000)).await, "upserted");
    let expected = ["org_1", "user_1", "org:admin"].map(|text| Some(text.to_owned()));
    assert_eq!(scene.rows("usher_memberships", &["organization_id", "user_id", "role"]).await, [expected]);
    assert_eq!(sync("organizationMembership.deleted", 3000, membership("org:admin", 1000, 1000)).await, "deleted");
    assert_eq!(sync("organizationMembership.updated", 2000, membership("org:x", 1000, 2000)).await, "overtaken");
    assert_eq!(scene.count("usher_memberships").await, 0);
    // The user joined again later: if Clerk assigns the same id, it is another membership.
    assert_eq!(sync(created, 4100, membership("org:member", 4000, 4000)).await, "upserted");
    assert_eq!(sync("organizationMembership.deleted", 3000, membership("org:admin", 1000, 1000)).await, "deleted");
    assert_eq!(scene.count("usher_memberships").await, 1, "the deletion of the first one came again");
    scene.end().await;
}

async fn an_invitations_status_only_goes_forward(scene: Scene) {
    let sync = async |kind, at, data| scene.sync("sync_invitation", kind, at, data).await;
    // Created under the organization's key and accepted under the user's: the events arrive in any order.
    let mut accepted = invitation("accepted", 2000);
    accepted["user_id"] = json!("user_2");
    assert_eq!(sync("organizationInvitation.accepted", 2100, accepted).await, "upserted");
    assert_eq!(sync("organizationInvitation.created", 1100, invitation("pending", 1000)).await, "overtaken");
    let columns = ["email", "status", "user_id", "inviter_id", "expires_at"];
    let expected = ["guest@b.test", "accepted", "user_2", "user_1", "9000"].map(|text| Some(text.to_owned()));
    assert_eq!(scene.rows("usher_invitations", &columns).await, [expected]);
    let mut bare = invitation("revoked", 3000);
    for optional in ["organization_id", "status", "inviter_id", "object"] {
        bare.as_object_mut().expect("an object").remove(optional);
    }
    assert_eq!(sync("organizationInvitation.revoked", 3100, bare).await, "upserted");
    assert_eq!(scene.rows("usher_invitations", &["organization_id", "status"]).await, [[None, None]]);
    scene.end().await;
}

async fn with_an_organization_or_a_user_goes_what_belongs_to_them_and_stays_away(scene: Scene) {
    let fill = async || {
        let member = membership("org:admin", 1000, 1000);
        let made = scene.sync("sync_membership", "organizationMembership.created", 1100, member).await;
        let mut accepted = invitation("accepted", 2000);
        accepted["user_id"] = json!("user_1");
        (made, scene.sync("sync_invitation", "organizationInvitation.accepted", 2100, accepted).await)
    };
    assert_eq!(fill().await, ("upserted".into(), "upserted".into()));
    let gone = json!({"object": "organization", "id": "org_2", "deleted": true});
    assert_eq!(scene.sync("sync_organization", "organization.deleted", 3000, gone).await, "deleted");
    assert_eq!((scene.count("usher_memberships").await, scene.count("usher_invitations").await), (1, 1));
    let (operation, data) = if matches!(scene.kept_by, KeptBy::Folder(_)) {
        ("sync_organization", json!({"object": "organization", "id": "org_1", "slug": "work", "deleted": true}))
    } else {
        ("sync_user", json!({"object": "user", "id": "user_1", "deleted": true}))
    };
    assert_eq!(scene.sync(operation, "x.deleted", 3000, data).await, "deleted");
    assert_eq!((scene.count("usher_memberships").await, scene.count("usher_invitations").await), (0, 0));
    assert_eq!(fill().await, ("overtaken".into(), "overtaken".into()));
    scene.end().await;
}

async fn a_user_is_kept_as_before(scene: Scene) {
    let user = |name: &str, updated_at: i64| {
        json!({ "object": "user", "id": "user_1", "first_name": name, "primary_email_address_id": "idn_2",
                "email_addresses": [{"id": "idn_2", "email_address": "dana@work.test"}], "updated_at": updated_at })
    };
    let sync = async |kind, at, data| scene.sync("sync_user", kind, at, data).await;
    assert_eq!(sync("user.updated", 2100, user("Dana", 2000)).await, "upserted");
    assert_eq!(sync("user.created", 1100, user("Old", 1000)).await, "overtaken");
    let expected = ["dana@work.test", "Dana"].map(|text| Some(text.to_owned()));
    assert_eq!(scene.rows("usher_users", &["email", "first_name"]).await, [expected]);
    // A request as an earlier version stored it.
    let kept = br#"{"Upsert":{"id":"user_1","email":null,"phone":null,"username":null,"first_name":"Kept",
        "last_name":null,"image_url":null,"external_id":null,"created_at":null,"updated_at":3000,"event_at":3100,
        "extra":"{}"}}"#;
    assert!(matches!(scene.directory.attempt(kept, "", &CallGate::open()).await, Outcome::Done(_)));
    assert_eq!(scene.rows("usher_users", &["first_name"]).await, [[Some("Kept".to_owned())]]);
    let kept = br#"{"Delete":{"id":"user_1","at":4000}}"#;
    assert!(matches!(scene.directory.attempt(kept, "", &CallGate::open()).await, Outcome::Done(_)));
    assert_eq!(sync("user.updated", 5100, user("Back", 5000)).await, "overtaken");
    assert_eq!(scene.count("usher_users").await, 0);
    scene.end().await;
}

async fn an_event_about_something_else_makes_no_row(scene: Scene) {
    for (operation, data) in [
        ("sync_user", organization("Work", 1000)),
        ("sync_organization", membership("org:admin", 1000, 1000)),
        ("sync_membership", json!({"object": "organization_membership", "id": ""})),
        ("sync_invitation", Value::Null),
    ] {
        assert!(prepared(&scene.directory, operation, "x.created", 1, &data.to_string()).is_err(), "{operation}");
    }
    scene.end().await;
}

#[test]
fn what_the_database_refuses_for_good_is_told_from_what_passes() {
    for (code, expected) in [
        ("22021", Err(Reason::InvalidRequest)),
        ("22P05", Err(Reason::InvalidRequest)),
        ("23502", Err(Reason::InvalidRequest)),
        ("42P01", Err(Reason::Configuration)),
        ("42501", Err(Reason::Configuration)),
        ("", Ok(Cause::Unavailable)),
        ("08006", Ok(Cause::Unavailable)),
        ("25006", Ok(Cause::Unavailable)),
        ("40001", Ok(Cause::Unavailable)),
        ("40P01", Ok(Cause::Unavailable)),
        ("53300", Ok(Cause::Unavailable)),
        ("57014", Ok(Cause::Unavailable)),
        ("57P01", Ok(Cause::Unavailable)),
        ("28P01", Ok(Cause::Unavailable)),
        ("54000", Err(Reason::InvalidRequest)),
        ("P0001", Ok(Cause::Unavailable)),
    ] {
        crate::assert_outcome(&outcome(DatabaseFault::of_sqlstate(code), code, String::new()), expected, code);
    }
    // SQLite's codes for busy, a full disk, a violated constraint, and a value that is too large.
    for (code, expected) in [
        (5, Ok(Cause::Unavailable)),
        (2250, Ok(Cause::Unavailable)),
        (2067, Err(Reason::InvalidRequest)),
        (18, Err(Reason::InvalidRequest)),
    ] {
        let outcome = outcome(DatabaseFault::of_sqlite(code), &code.to_string(), String::new());
        crate::assert_outcome(&outcome, expected, &code.to_string());
    }
}
