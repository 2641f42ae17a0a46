//! A store of its own for each test, and the arrivals and changes that the tests give it.

use std::collections::BTreeSet;

use usher_proto::AddressDigest;
use usher_store::MailRecipients;

use super::*;

pub(super) const FLOW: &str = "test";
pub(super) const PARTITIONS: i32 = 4;
pub(super) const ZERO: Partition = Partition(0);

/// The store of one test, with the folder or the database that is its own.
pub(super) struct TestStore {
    pub(super) store: SqlStore,
    pub(super) address: DatabaseAddress,
    /// An address as text, for direct access to the database.
    pub(super) url: String,
    pub(super) postgres: bool,
    _folder: TempDir,
}

/// The place of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    File,
    Postgres,
    /// In Postgres, behind a connection pooler in transaction mode.
    Pooler,
}

pub(super) async fn subject(place: Place) -> TestStore {
    let folder = tempfile::tempdir().unwrap();
    let postgres = place != Place::File;
    let url = if postgres {
        let server = setting("USHER_TEST_POSTGRES");
        let name = unique("usher_test_");
        let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        format!("{}/{name}", server.rsplit_once('/').unwrap().0)
    } else {
        format!("sqlite:{}", folder.path().join("store.db").display())
    };
    let address = match place {
        Place::File | Place::Postgres => url.clone(),
        Place::Pooler => {
            let (_, name) = url.rsplit_once('/').unwrap();
            format!("{}/{name}", setting("USHER_TEST_PGBOUNCER").rsplit_once('/').unwrap().0)
        }
    };
    let address = DatabaseAddress::parse("USHER_STORE", &address).unwrap();
    let store = SqlStore::open(Database::open(&address).unwrap(), PARTITIONS).await.unwrap();
    TestStore { store, address, url, postgres, _folder: folder }
}

macro_rules! on_every_store {
    ($($claim:ident),+ $(,)?) => {
        $(mod $claim {
            #[tokio::test]
            async fn sqlite() {
                super::$claim(super::subject(super::Place::File).await).await;
            }

            #[usher_tests::needs(postgres)]
            #[tokio::test]
            async fn postgres() {
                super::$claim(super::subject(super::Place::Postgres).await).await;
            }

            #[usher_tests::needs(postgres, pgbouncer)]
            #[tokio::test]
            async fn pooler() {
                super::$claim(super::subject(super::Place::Pooler).await).await;
            }
        })+
    };
}

pub(super) fn id(key: &str) -> SubjectId {
    SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(key))
}

pub(super) fn reference(event: &str) -> EventRef {
    EventRef::new(Source::Clerk, &Instance::default(), &EventId::new(event))
}

pub(super) fn event(id: &str, key: &str) -> Event {
    Event {
        id: EventId::new(id),
        kind: "user.created".into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(key)),
        occurred_at: Timestamp::from_millis(1_767_261_600_250),
        received_at: Timestamp::from_millis(1_767_261_601_000),
        provenance: vec![("svix-id".into(), id.into())],
        body: Bytes::from_static("{\"data\": {\"name\": \"Zo\u{eb} \\u0000 'quoted'\"} }\n".as_bytes()),
    }
}

pub(super) fn arrival(offset: i64, id: &str, key: &str) -> Arrival {
    Arrival::starting(Offset(offset), event(id, key))
}

pub(super) fn news(offset: i64, id: &str, key: &str, updated_at: i64, alive: bool) -> Arrival {
    let data = alive.then(|| format!("{{\"v\":{updated_at}}}"));
    let snapshot = Some(Snapshot { updated_at, occurred_at: updated_at, data });
    Arrival { starts: false, snapshot, ..arrival(offset, id, key) }
}

pub(super) fn batch(epoch: Epoch, arrivals: Vec<Arrival>) -> Batch {
    let frontier = arrivals.iter().map(|arrival| arrival.offset.next()).max().unwrap_or_default();
    let connector = Some("resend".to_owned());
    Batch {
        partition: ZERO,
        epoch,
        frontier,
        arrivals,
        refused: Vec::new(),
        flow_version: "v1".into(),
        connector,
        begins: BTreeSet::new(),
    }
}

impl TestStore {
    pub(super) async fn own(&self) -> Epoch {
        self.store.acquire(FLOW, &[ZERO], "me").await.unwrap()[0].epoch
    }

    pub(super) async fn admit(&self, epoch: Epoch, arrivals: Vec<Arrival>) -> Admission {
        self.store.admit(FLOW, &batch(epoch, arrivals)).await.unwrap()
    }

    /// Returns the next runs of a lane, and true if there are more.
    pub(super) async fn lane(&self, key: &str, limit: usize) -> (Vec<Run>, bool) {
        let lanes = self.store.lanes(FLOW, &[LaneQuery { key: id(key), limit }]).await.unwrap();
        let LaneRuns { runs, more } = lanes.into_iter().next().unwrap();
        (runs, more)
    }

    pub(super) async fn change(&self, epoch: Epoch, event: &str, kind: ChangeKind) -> Changed {
        let change =
            Change { event: reference(event), key: id("a"), partition: ZERO, epoch, kind, story: Box::default() };
        self.store.change(FLOW, &[change]).await.unwrap()[0]
    }

    /// Returns the heads of lanes as runs.
    pub(super) async fn heads(&self, after: Option<(i64, EventRef)>, without: &[&str]) -> Vec<Run> {
        let without = without.iter().map(|name| (*name).to_owned()).collect();
        self.store.heads(FLOW, &HeadsQuery { partition: ZERO, after, without, limit: 100 }).await.unwrap()
    }

    /// Returns the event ids of the heads of lanes.
    pub(super) async fn head_names(&self) -> Vec<String> {
        names(&self.heads(None, &[]).await)
    }

    /// Returns the runs due at this time: event ids of heads, and keys of runs behind another.
    pub(super) async fn due(&self, epoch: Epoch, seconds: i64) -> (Vec<String>, Vec<String>) {
        let due = self.store.due(FLOW, &[(ZERO, epoch)], Timestamp::from_seconds(seconds)).await.unwrap();
        (names(&due.heads), due.behind.iter().map(|subject| subject.key().to_owned()).collect())
    }

    pub(super) async fn content(&self, event: &str) -> RunContent {
        self.store.show_content(FLOW, &reference(event), "ann", Timestamp::from_seconds(1)).await.unwrap()
    }

    pub(super) async fn state(&self, event: &str) -> String {
        let filter = RunFilter { event: Some(event.into()), ..RunFilter::default() };
        self.store.runs(&filter, 10).await.unwrap().remove(0).state
    }
}

pub(super) fn names(runs: &[Run]) -> Vec<String> {
    runs.iter().map(|run| run.event.id.to_string()).collect()
}

pub(super) fn claim(made: u32, generation: u32, request: &[u8]) -> ChangeKind {
    let tries = AttemptState { attempts: made, generation, unanswered: 1, ..AttemptState::default() };
    ChangeKind::Claim { tries, request: request.to_vec() }
}

pub(super) fn wait(seconds: i64, news_after: Option<i64>) -> ChangeKind {
    ChangeKind::Wait { until: Timestamp::from_seconds(seconds), news_after }
}

pub(super) fn park(seconds: i64, tries: AttemptState, request: Option<&[u8]>) -> ChangeKind {
    let request = request.map(<[u8]>::to_vec);
    ChangeKind::Park { until: Timestamp::from_seconds(seconds), tries, request }
}

pub(super) fn dead(in_doubt: bool) -> ChangeKind {
    let verdict = Some((Reason::InvalidRequest, "422 validation_error".to_owned()));
    ChangeKind::End { state: RunState::Dead, effect: None, note: None, verdict, in_doubt }
}

pub(super) fn order(offset: i64, id: &str, key: &str, of: &str, order: CommandKind) -> Arrival {
    let command = Command { run: reference(of), by: "ann".into(), at: Timestamp::from_seconds(5), order };
    Arrival { starts: false, command: Some(command), ..arrival(offset, id, key) }
}

/// The time that each attempt takes.
pub(super) const TOOK: Duration = Duration::from_millis(12);

/// Returns the effect of the third attempt at a step.
pub(super) fn effect(id: &str) -> Option<StepEffect> {
    let effect = Effect::new(id, json!({}));
    Some(StepEffect { step: 0, name: "first".into(), connector: "resend".into(), attempt: 3, took: Some(TOOK), effect })
}

pub(super) fn end(state: RunState) -> ChangeKind {
    ChangeKind::End { state, effect: None, note: None, verdict: None, in_doubt: false }
}

/// Returns a mail of an instance to one address.
pub(super) fn mail_to(instance: &str, address: AddressDigest) -> MailRecipients {
    MailRecipients { instance: instance.to_owned(), list: None, addresses: vec![address] }
}
