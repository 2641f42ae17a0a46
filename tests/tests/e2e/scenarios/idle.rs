//! A dispatcher that has nothing to do asks its store for hardly anything. Counted, because times depend on the machine.

use std::time::Duration;

use usher_tests::backend::Backend;
use usher_tests::needs;
use usher_tests::test_env::TestEnv;

/// Time after the start until a process calls nothing and knows it.
const SETTLING: Duration = Duration::from_secs(10);
/// Time for which transactions are counted.
const COUNTED: Duration = Duration::from_secs(20);
/// Largest number of transactions in that time, with three flows and two accounts with quotas: ten looks for pauses, ten
/// renewals of quotas, each with a look at their limits, four looks at the clock, two at dead letters to erase, and one of each
/// flow at its waits. A server counts some of them ten seconds late.
const MOST: i64 = 60;

#[needs(kafka, postgres)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_dispatcher_of_three_flows_asks_the_store_for_hardly_anything() {
    let env = TestEnv::start(Backend::real()).await;
    tokio::time::sleep(SETTLING).await;
    let before = env.transactions().await;
    tokio::time::sleep(COUNTED).await;
    let counted = env.transactions().await - before;
    env.end().await;
    assert!((1..=MOST).contains(&counted), "{counted} transactions in {COUNTED:?}");
}
