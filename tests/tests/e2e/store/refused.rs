//! Records that the store can never accept become visible dead letters; all others are accepted.

use std::sync::Arc;

use async_trait::async_trait;
use usher_engine::isolate::{self, Isolated, RetryingStore, StoreAnswer};
use usher_sql::fault::DatabaseFault;
use usher_store::{RefusedRow, RunRecord};

use super::*;

/// Calls the store once and does not retry.
struct Once<'a>(&'a SqlStore);

fn asked<T>(answer: Result<T, StoreError>) -> Option<StoreAnswer<T, StoreError>> {
    match answer {
        Ok(answer) => Some(StoreAnswer::Done(answer)),
        Err(error) if matches!(error.fault(), DatabaseFault::Refused | DatabaseFault::Unclear) => {
            Some(StoreAnswer::Refused(error))
        }
        Err(error) => panic!("{error}"),
    }
}

#[async_trait]
impl RetryingStore for Once<'_> {
    type Error = StoreError;

    async fn admit(&self, batch: &Batch) -> Option<StoreAnswer<Option<Admission>, StoreError>> {
        asked(self.0.admit(FLOW, batch).await.map(Some))
    }

    async fn change(&self, changes: &[Change]) -> Option<StoreAnswer<Vec<Changed>, StoreError>> {
        asked(self.0.change(FLOW, changes).await)
    }

    async fn refuses_everything(&self, error: &StoreError) -> Option<()> {
        panic!("{error}");
    }
}

impl TestStore {
    async fn admit_isolated(&self, batch: Batch) -> Isolated {
        isolate::admit(&Once(&self.store), batch).await.unwrap()
    }

    async fn records(&self) -> Vec<RunRecord> {
        self.store.runs(&RunFilter::default(), 1_000).await.unwrap()
    }

    /// Returns the refused records, stored apart from the runs, in the order of the log.
    async fn kept(&self) -> Vec<RefusedRow> {
        let mut rows = self.store.refused(Timestamp::from_millis(0), 1_000).await.unwrap();
        rows.sort_by_key(|row| row.offset);
        rows
    }

    /// Makes the database refuse rows of runs, and updates of them, that meet this condition, as a database with limits of
    /// its own would.
    async fn refuse(&self, condition: &str) {
        sqlx::any::install_default_drivers();
        let mut connection = sqlx::AnyConnection::connect(&self.url).await.unwrap();
        let condition = condition.replace("<event>", "substr(<event_ref>, 15)");
        let columns = ["event_ref", "state", "body", "error", "request", "provenance"];
        let of_new = |text: String, column: &&str| text.replace(&format!("<{column}>"), &format!("NEW.{column}"));
        let mut statements = Vec::new();
        for table in ["usher_open_run", "usher_ended_run"] {
            if self.postgres {
                statements.push(format!("ALTER TABLE {table} ADD CONSTRAINT limits CHECK (NOT ({condition}))"));
                continue;
            }
            for on in ["INSERT", "UPDATE"] {
                let when = columns.iter().fold(condition.clone(), of_new);
                statements.push(format!(
                    "CREATE TRIGGER {table}_on_{on} BEFORE {on} ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, 'no'); END"
                ));
            }
        }
        for statement in statements {
            let statement = statement.replace(['<', '>'], "");
            connection.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        }
    }
}

/// Returns a random text, because compression would not shrink it.
fn long(length: usize) -> String {
    (0..length).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect()
}

fn good(offset: i64) -> Arrival {
    news_and_run(offset, &format!("good-{offset}"), &format!("key-{}", offset % 3))
}

fn news_and_run(offset: i64, id: &str, key: &str) -> Arrival {
    Arrival { starts: true, ..news(offset, id, key, offset, true) }
}

/// A name, and a function that turns a good arrival into one that may be refused.
type Poison = (&'static str, fn(Arrival) -> Arrival);

pub(super) async fn a_poison_in_a_batch_is_given_up_and_all_others_are_admitted(subject: TestStore) {
    let poisons: Vec<Poison> = vec![
        ("an id beyond an index", |it| of(it, |event| event.id = EventId::new(long(6_000)))),
        ("a still longer id", |it| of(it, |event| event.id = EventId::new(long(90_000)))),
        ("a NUL in the body", |it| of(it, |event| event.body = "{\"a\":\"\0\"}".into())),
        ("a NUL in the id", |it| of(it, |event| event.id = EventId::new("a\0b"))),
        ("a NUL in the type", |it| of(it, |event| event.kind = "user\0".into())),
        ("a NUL in the body", |it| of(it, |event| event.body = Bytes::from_static(b"{\"a\":\"\0\"}"))),
        ("a NUL in a header", |it| of(it, |event| event.provenance = vec![("svix-id".into(), "\0".into())])),
        ("a NUL in the snapshot", |mut it| {
            if let Some(snapshot) = &mut it.snapshot {
                snapshot.data = Some("\0".into());
            }
            it
        }),
        ("a NUL in the verdict", |it| Arrival { verdict: Some((Reason::Malformed, "\0".into())), ..it }),
        ("a long id that deletes", |it| Arrival {
            snapshot: Some(Snapshot { updated_at: 1, occurred_at: 1, data: None }),
            cancels: true,
            starts: false,
            ..of(it, |event| event.id = EventId::new(long(6_000)))
        }),
        ("times at the end of all numbers", |it| of(it, |event| event.occurred_at = Timestamp::from_millis(i64::MAX))),
        ("what the database's own limits refuse", |it| of(it, |event| event.body = Bytes::from_static(b"poison"))),
        ("what they refuse by its id", |it| of(it, |event| event.id = EventId::new("poison"))),
    ];
    let epoch = subject.own().await;
    subject.refuse("<body> LIKE '%poison%' OR <event> = 'poison'").await;
    let each = 8;
    let arrivals_in_each = 8;
    for (number, (what, poison)) in (0..).zip(&poisons) {
        let first = number * each;
        let mut arrivals: Vec<Arrival> = (first..first + each).map(good).collect();
        let at = usize::try_from(number % each).unwrap();
        arrivals[at] = poison(news_and_run(first + number % each, &format!("poison-{number}"), &format!("p-{number}")));
        let starting = arrivals.iter().filter(|it| it.starts).count();
        let before = subject.records().await.len();
        let before_refused = subject.kept().await.len();
        let isolated = subject.admit_isolated(batch(epoch, arrivals)).await;
        let admission = isolated.admission.expect(what);
        // A database may accept it; then it is a normal run.
        let records = subject.records().await;
        let expected = if isolated.refused > 0 { arrivals_in_each } else { starting };
        let kept = subject.kept().await.split_off(before_refused);
        assert_eq!(records.len() - before + kept.len(), expected, "{what}: each of them is to be seen");
        let found: Vec<&str> = records.iter().map(|run| run.event.as_str()).collect();
        for offset in (first..first + each).filter(|offset| *offset != first + number % each) {
            assert!(found.contains(&format!("good-{offset}").as_str()), "{what}: good-{offset}");
        }
        if isolated.refused > 0 {
            // Recorded as a run if its id can be stored, otherwise as a refused record.
            let verdicts = admission.heads.iter().filter_map(|run| run.verdict.clone());
            let runs = verdicts.filter(|(reason, _)| *reason == Reason::Unstorable).map(|(_, error)| error);
            let beside = kept.into_iter().inspect(|row| assert_eq!(row.reason, Reason::Unstorable.label(), "{what}"));
            let given_up: Vec<String> = runs.chain(beside.map(|row| row.error)).collect();
            assert_eq!((isolated.refused, given_up.len()), (1, 1), "{what}");
            assert!(given_up[0].starts_with("the store refuses the event: "), "{what}: {given_up:?}");
            assert!(given_up[0].len() < 500, "{what}: {}", given_up[0]);
        }
        let frontier = subject.store.acquire(FLOW, &[Partition(1)], "other").await.map(drop);
        frontier.expect("the store goes on");
        if what.contains("limits") || what.contains("by its id") || subject.postgres && what.contains("id beyond") {
            assert_eq!(isolated.refused, 1, "{what} is refused");
        }
    }
    let total = i64::try_from(poisons.len()).unwrap() * each;
    let owned = subject.store.acquire(FLOW, &[ZERO], "me").await.unwrap();
    assert_eq!(owned[0].frontier, Some(Offset(total)), "the frontier is beyond all of it");
    let late = isolate::admit(&Fencing(Once(&subject.store)), batch(epoch, vec![good(total), good(total + 1)])).await;
    assert!(late.unwrap().admission.is_none(), "a part of a predecessor is fenced");
}

/// Like [`Once`], but a lost partition is no error.
struct Fencing<'a>(Once<'a>);

#[async_trait]
impl RetryingStore for Fencing<'_> {
    type Error = StoreError;

    async fn admit(&self, batch: &Batch) -> Option<StoreAnswer<Option<Admission>, StoreError>> {
        match self.0.0.admit(FLOW, batch).await {
            Err(StoreError::Fenced(_)) => Some(StoreAnswer::Done(None)),
            answer => asked(answer.map(Some)),
        }
    }

    async fn change(&self, changes: &[Change]) -> Option<StoreAnswer<Vec<Changed>, StoreError>> {
        self.0.change(changes).await
    }

    async fn refuses_everything(&self, error: &StoreError) -> Option<()> {
        self.0.refuses_everything(error).await
    }
}

fn of(arrival: Arrival, change: impl FnOnce(&mut Event)) -> Arrival {
    let mut arrival = arrival;
    change(&mut arrival.event);
    arrival
}

pub(super) async fn a_change_that_is_refused_is_told_and_all_others_are_written(subject: TestStore) {
    let epoch = subject.own().await;
    subject.admit(epoch, (0..8).map(good).collect()).await;
    subject.refuse("<error> = 'poison' OR <event> = 'good-5' AND <state> = 'running'").await;
    let end = |effect: Option<StepEffect>, state, verdict| ChangeKind::End {
        state,
        effect,
        note: None,
        verdict,
        in_doubt: false,
    };
    let verdict = |error: &str| Some((Reason::InvalidRequest, error.to_owned()));
    let kinds = vec![
        claim(1, 0, b"request"),
        // Destinations choose their ids and error texts freely.
        end(effect("re_\0x"), RunState::Done, None),
        end(None, RunState::Dead, verdict("a\0b")),
        end(None, RunState::Dead, verdict("poison")),
        claim(1, 0, b"request"),
        claim(1, 0, b"request"),
        end(effect("re_6"), RunState::Done, None),
        claim(1, 0, b"request"),
    ];
    let changes: Vec<Change> = kinds
        .into_iter()
        .enumerate()
        .map(|(number, kind)| {
            let event = reference(&format!("good-{number}"));
            Change {
                event,
                key: id(&format!("key-{}", number % 3)),
                partition: ZERO,
                epoch,
                kind,
                story: Box::default(),
            }
        })
        .collect();
    let changed = isolate::change(&Once(&subject.store), &changes).await.unwrap();
    let refused: Vec<usize> = (0..8).filter(|number| changed[*number] == Changed::Refused).collect();
    assert_eq!(refused, [3, 5], "{changed:?}");
    let records = subject.records().await;
    let of = |event: &str| records.iter().find(|run| run.event == event).unwrap().clone();
    assert_eq!(of("good-1").effects[0].id, r"re_\u{0}x");
    assert_eq!((of("good-2").state.as_str(), of("good-2").error.as_deref()), ("dead", Some("a\u{fffd}b")));
    assert_eq!((of("good-7").state.as_str(), of("good-6").state.as_str()), ("running", "done"));
    assert_eq!((of("good-3").state.as_str(), of("good-5").state.as_str()), ("queued", "queued"));
}

#[usher_tests::needs(postgres)]
#[tokio::test]
async fn two_stores_in_two_schemas_of_one_database_do_not_see_each_other() {
    let subject = super::subject(super::Place::Postgres).await;
    let mut stores = Vec::new();
    for schema in ["usher", "the other \"one\""] {
        let address = subject.address.clone().in_schema("USHER_STORE_SCHEMA", schema).unwrap();
        let database = Database::open(&address).unwrap();
        stores.push(Arc::new(SqlStore::open(database.clone(), PARTITIONS).await.unwrap()));
        // A second time, as at a restart.
        SqlStore::open(database, PARTITIONS).await.unwrap();
    }
    for (number, store) in stores.iter().enumerate() {
        let epoch = store.acquire(FLOW, &[ZERO], "me").await.unwrap()[0].epoch;
        assert_eq!(epoch, Epoch(1), "nobody has owned it in this schema");
        store.admit(FLOW, &batch(epoch, vec![arrival(0, &format!("e{number}"), "a")])).await.unwrap();
    }
    for (number, store) in stores.iter().enumerate() {
        let runs = store.runs(&RunFilter::default(), 10).await.unwrap();
        let events: Vec<&str> = runs.iter().map(|run| run.event.as_str()).collect();
        assert_eq!(events, [format!("e{number}")]);
    }
    assert_eq!(subject.records().await.len(), 0, "nor does the one in the schema that is everybody's");
}
