//! Sharing of quotas between processes through the store.

use std::time::Duration;

use tempfile::TempDir;
use usher_quota::{CapBudget, CapShortage, QuotaLease, QuotaRequest};
use usher_quota::{Demand, Pace};
use usher_service::clock;
use usher_sql::{Database, DatabaseAddress};
use usher_store::{QuotaStore as _, SqlStore};
use usher_tests::backend::setting;
use usher_tests::database::OwnDatabase;
use usher_tests::eventually;
use usher_tests::needs;
use usher_tests::test_env::SOON;

const LEASE: Duration = Duration::from_secs(60);

/// Opens a store on Postgres, for several processes.
async fn shared() -> (SqlStore, OwnDatabase) {
    let database = OwnDatabase::make(&setting("USHER_TEST_POSTGRES")).await;
    (open(&database.url()).await, database)
}

/// Opens a store in a file, for one process.
async fn private() -> (SqlStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (open(&format!("sqlite:{}", folder.path().join("store.db").display())).await, folder)
}

async fn open(address: &str) -> SqlStore {
    let address = DatabaseAddress::parse("USHER_STORE", address).unwrap();
    SqlStore::open(Database::open(&address).unwrap(), 8).await.unwrap()
}

fn wish(quota: &str) -> QuotaRequest {
    QuotaRequest {
        account: "resend".into(),
        quota: quota.parse().unwrap(),
        demand: Demand::Normal,
        serves_urgent: false,
        max_concurrent: 0,
        under_way: 0,
        announced: None,
        counts: false,
        assumed: false,
        short: CapShortage::default(),
    }
}

/// Returns the share of the rate limit, in calls.
fn part(grant: &QuotaLease) -> u32 {
    grant.pace.map_or(0, |(_, part)| part)
}

async fn grant(store: &SqlStore, member: &str, wish: &QuotaRequest) -> QuotaLease {
    store.grant(member, LEASE, std::slice::from_ref(wish)).await.unwrap().remove(0)
}

#[needs(postgres)]
#[tokio::test]
async fn processes_share_equally_and_never_have_more_than_the_limit_together() {
    let (store, _database) = shared().await;
    let wish = wish("50/s, 10 at once");
    // `max_concurrent`: the concurrency that the member uses until it receives the answer.
    let has = async |member, max_concurrent| {
        let grant = grant(&store, member, &QuotaRequest { max_concurrent, ..wish.clone() }).await;
        (part(&grant), grant.max_concurrent)
    };
    assert_eq!(has("a", 0).await, (50, 10));
    assert_eq!(has("b", 0).await, (0, 0), "nothing is left");
    assert_eq!(has("a", 10).await, (25, 5), "it gives back what the other should have");
    assert_eq!(has("b", 0).await, (25, 0), "not what may be under way before it has heard of it");
    assert_eq!(has("a", 5).await, (25, 5));
    assert_eq!(has("b", 0).await, (25, 5));
    let other = QuotaRequest { account: "resend@staging".into(), ..wish.clone() };
    assert_eq!(part(&grant(&store, "b", &other).await), 50, "another account has a quota of its own");
    store.leave("a").await.unwrap();
    assert_eq!(has("b", 5).await, (50, 10));
}

#[needs(postgres)]
#[tokio::test]
async fn the_share_of_one_that_has_died_is_there_for_others_when_its_lease_is_over() {
    let (store, _database) = shared().await;
    let wish = wish("50/s");
    let lease = Duration::from_millis(300);
    assert_eq!(part(&store.grant("dead", lease, std::slice::from_ref(&wish)).await.unwrap()[0]), 50);
    assert_eq!(part(&grant(&store, "b", &wish).await), 0);
    let free = || async { (part(&grant(&store, "b", &wish).await) == 50).then_some(()) };
    eventually("its share is free", SOON, free).await;
}

#[needs(postgres)]
#[tokio::test]
async fn who_has_not_heard_the_destinations_own_word_goes_by_what_others_have_heard() {
    let (store, _database) = shared().await;
    let assumed = QuotaRequest { assumed: true, ..wish("2/s") };
    let heard = QuotaRequest { announced: Some(Pace { calls: 10, per: Duration::from_secs(1) }), ..assumed.clone() };
    assert_eq!(part(&grant(&store, "a", &heard).await), 10);
    assert_eq!(part(&grant(&store, "b", &assumed).await), 0);
    assert_eq!(part(&grant(&store, "a", &heard).await), 5);
    assert_eq!(part(&grant(&store, "b", &assumed).await), 5, "half of ten, not of two");
}

#[needs(postgres)]
#[tokio::test]
async fn calls_under_way_are_not_given_back_before_they_have_ended() {
    let (store, _database) = shared().await;
    let wish = wish("10 at once");
    let busy = QuotaRequest { under_way: 8, ..wish.clone() };
    assert_eq!(grant(&store, "a", &wish).await.max_concurrent, 10);
    grant(&store, "b", &wish).await;
    assert_eq!(grant(&store, "a", &busy).await.max_concurrent, 5);
    assert_eq!(grant(&store, "b", &wish).await.max_concurrent, 2, "eight are under way");
    grant(&store, "a", &wish).await;
    assert_eq!(grant(&store, "b", &wish).await.max_concurrent, 5);
}

#[tokio::test]
async fn a_file_is_used_by_one_process_which_has_everything_at_once() {
    let (store, _folder) = private().await;
    let wish = wish("50/s, 10 at once");
    // Also after the process was killed and has restarted.
    for member in ["a", "b"] {
        assert_eq!(part(&grant(&store, member, &wish).await), 50);
    }
}

async fn a_cap_is_counted(store: &SqlStore) {
    let usual = QuotaRequest { short: CapShortage { usual: true, urgent: false }, serves_urgent: true, ..wish("20/d") };
    let urgent =
        QuotaRequest { serves_urgent: true, short: CapShortage { usual: false, urgent: true }, ..wish("20/d") };
    let mut calls = 0;
    let none = loop {
        let CapBudget { calls: more, none_before, .. } = grant(store, "a", &usual).await.usual;
        calls += more;
        if more == 0 {
            break none_before;
        }
    };
    assert_eq!(calls, 18, "the last tenth is for urgent flows");
    assert!(none.is_some_and(|until| until > clock::now()));
    assert_eq!(grant(store, "b", &usual).await.usual.calls, 0, "whoever asks");
    let urgent = [grant(store, "b", &urgent).await.urgent.calls, grant(store, "a", &urgent).await.urgent.calls];
    assert_eq!(urgent, [1, 1]);
}

#[tokio::test]
async fn a_cap_is_counted_by_a_file() {
    let (store, _folder) = private().await;
    a_cap_is_counted(&store).await;
}

#[needs(postgres)]
#[tokio::test]
async fn a_cap_is_counted_by_postgres() {
    let (store, _database) = shared().await;
    a_cap_is_counted(&store).await;
}
