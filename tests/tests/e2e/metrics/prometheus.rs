//! A real Prometheus scrapes the real programs while they work and their destinations fail: every query of the dashboards and
//! every alert finds its data, and the number of series does not grow with the load.

mod server;

use serde_json::Value;
use server::PrometheusServer;
use usher_lab::Fault;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::test_env::{Options, SOON, TestEnv};
use usher_tests::{eventually, needs};

use super::files::{alert_queries, dashboard_queries};

/// The flows of the environment: built-in ones, one that is given up, and one that loses its file.
const FLOWS: [&str; 4] = ["email", "trial", "db-sync", "search"];
const MAIL: &str = "on = [\"clerk/user.created\"]\nretry = { attempts = 2, first = \"10ms\", max = \"50ms\" }\n[[step]]\n\
                    name = \"mail\"\nuse = \"resend.send\"\nto = \"{{ user.email }}\"\nsubject = \"Dear {{ user.first_name }}\"\n\
                    text = \"Hi\"\n";
/// Fires every second.
const TICK: &str = "on = [\"schedule/* * * * * *\"]\n[[step]]\nuse = \"resend.send\"\nto = \"ops@acme.test\"\nsubject = \"Hi\"\n\
                    text = \"Hi\"\n";
const ORPHAN: &str = "on = [\"clerk/user.created\"]\n[[step]]\nname = \"pause\"\nwait = \"3d\"\n[[step]]\nname = \"mail\"\n\
                      use = \"resend.send\"\nto = \"{{ user.email }}\"\nsubject = \"Hi\"\ntext = \"Hi\"\n";

/// Largest number of series of Usher with these six flows and their four destinations. Each flow adds about 150.
const MAX_SERIES: usize = 1_350;

/// A secret other than the configured one.
const OTHER_SECRET: &str = "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl";

mod a_real_prometheus_finds_the_data_of_every_query_and_alert {
    use super::{Backend, needs, scenario};

    #[needs(prometheus)]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        scenario(Backend::Embedded).await;
    }

    #[needs(prometheus, kafka, postgres)]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn kafka_and_postgres() {
        scenario(Backend::real()).await;
    }
}

async fn scenario(backend: Backend) {
    let options = Options {
        built_in: &FLOWS,
        flows: vec![("mail", MAIL), ("tick", TICK), ("orphan", ORPHAN)],
        ..Options::default()
    };
    let mut env = TestEnv::with(backend, options).await;
    env.send(&User::new().created()).await;
    eventually("the run of the flow that is about to lose its file waits", SOON, || async {
        let runs = env.runs(&usher_store::RunFilter::default()).await;
        runs.iter().any(|run| run.flow == "orphan" && run.state == "waiting").then_some(())
    })
    .await;
    env.stop_delivering().await;
    std::fs::remove_file(format!("{}/orphan.toml", env.variable("USHER_FLOWS").unwrap())).unwrap();
    env.go_on_delivering().await;

    let dispatcher = dispatcher_admin(&env);
    let mut targets = vec![("dispatcher", dispatcher.as_str())];
    // `usher up` is both.
    if dispatcher != env.admin() {
        targets.push(("ingest", env.admin()));
    }
    let server = PrometheusServer::start(&targets).await;
    let before = server.series().await;
    work_with_faults(&env).await;
    let queries: Vec<(String, String)> = dashboard_queries()
        .into_iter()
        .map(|query| (query.place, substituted(&query.expression)))
        .chain(alert_queries().into_iter().map(|query| (query.place, without_thresholds(&query.expression))))
        .collect();
    // Counters must have grown between two scrapes of the window, so there is work until everything is found.
    // Only `usher up` has files of its own.
    let has_files = dispatcher == env.admin();
    let is_there = |query: &&(String, String)| has_files || !query.1.contains("usher_disk_");
    let mut empty: Vec<&(String, String)> = queries.iter().filter(is_there).collect();
    let deadline = std::time::Instant::now() + SOON;
    while !empty.is_empty() {
        assert!(std::time::Instant::now() < deadline, "without data: {empty:#?}\n{}", env.deliverer_output());
        work_with_faults(&env).await;
        let mut still = Vec::new();
        for query in empty {
            if !has_data(&server.query(&query.1).await) {
                still.push(query);
            }
        }
        empty = still;
    }
    let after = server.series().await;
    let new: Vec<&String> = after.symmetric_difference(&before).collect();
    assert!(new.is_empty(), "all series exist from the start, and the load adds none: {new:#?}");
    let pending = server.alerts().await;
    for alert in ["UsherDeadLettersGrowing", "UsherWebhooksRefused", "UsherRunsWithoutFlow"] {
        assert!(pending.contains(&alert.to_owned()), "{alert} is pending or fires: {pending:?}");
    }
    assert!(after.len() <= MAX_SERIES, "{} series", after.len());
    assert!(after.len() >= MAX_SERIES * 3 / 4, "the bound is a near one: {} series", after.len());
    drop(server);
    env.end().await;
}

/// Sends webhooks that become effects, retries, unknown outcomes, a dead letter and refusals.
async fn work_with_faults(env: &TestEnv) {
    let poison = User { first_name: "Poison".into(), ..User::new() };
    let refused = Fault { status: Some(422), containing: Some("Poison".into()), ..Fault::default() };
    let failing = Fault { status: Some(503), share: 0.2, for_seconds: Some(1.0), ..Fault::default() };
    let dropped = Fault { drop_after_effect: true, share: 0.2, for_seconds: Some(1.0), ..Fault::default() };
    env.lab().set_fault("resend", refused).unwrap();
    env.lab().set_fault("stripe", dropped).unwrap();
    env.lab().set_fault("algolia", failing).unwrap();
    let mut webhooks: Vec<Webhook> = (0..5).map(|_| User::new().created()).collect();
    webhooks.push(poison.created());
    env.send_all(&webhooks).await;
    let forged = User::new().created();
    let headers: Vec<(&str, String)> = forged.headers(OTHER_SECRET).into_iter().collect();
    let (status, _) = env.post("/webhooks/clerk", &headers, forged.body.clone().into()).await;
    assert_eq!(status, 401);
    // Paths of nobody become no labels.
    let (status, _) = env.post(&format!("/webhooks/{}", usher_tests::unique("s")), &[], Vec::new()).await;
    assert_eq!(status, 404);
    // A user of Clerk's tests is skipped.
    env.send(
        &User { email: Some(format!("{}+clerk_test@mail.test", usher_tests::unique("u"))), ..User::new() }.created(),
    )
    .await;
}

/// Returns the address of the pages of the process that delivers.
pub(super) fn dispatcher_admin(env: &TestEnv) -> String {
    let output = env.deliverer_output();
    let (_, rest) = output
        .split_once("health, metrics http://")
        .or_else(|| output.split_once("\"admin\":\""))
        .expect("the address is printed");
    rest[..rest.find(['"', '/', '\n']).expect("it ends")].to_owned()
}

/// Returns a query of a dashboard with the values of Grafana's variables.
fn substituted(expression: &str) -> String {
    expression.replace("$__rate_interval", "20s").replace("$flow", ".*").replace("$account", ".*")
}

/// Returns the expression of an alert that gives a value whether or not the alert fires. A day ago there was nothing.
fn without_thresholds(expression: &str) -> String {
    let there = expression.replace(" offset 1d", "").replace("absent(", "(").replace(" unless ", " and ");
    [" > ", " < ", " == "]
        .iter()
        .fold(there, |text, comparison| text.replace(comparison, &format!("{comparison}bool ")))
}

/// Returns true if a result has a value that is a number.
fn has_data(result: &Value) -> bool {
    result.as_array().unwrap().iter().any(|sample| sample["value"][1] != "NaN")
}
