//! The console, `usher status` and the metrics tell the same numbers, and the same things that need somebody.

use serde_json::{Value, json};
use usher_lab::Fault;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

use super::prometheus::dispatcher_admin;

usher_tests::on_both_backends!(every_view_tells_the_same_numbers);

const MAIL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ event.data.id }}@mail.test"
subject = "Hi"
text = "hello"
"#;

const DRIP: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "pause"
wait = "30d"
[[step]]
name = "mail"
use = "resend.send"
to = "{{ event.data.id }}@mail.test"
subject = "Hi"
text = "hello"
"#;

const STATES: [&str; 5] = ["queued", "running", "parked", "waiting", "dead"];

/// The numbers of one flow: its runs in each of [`STATES`], and the events of its lag.
type Numbers = ([i64; 5], i64);

async fn page(address: &str, path: &str) -> String {
    reqwest::get(format!("{address}{path}")).await.unwrap().text().await.unwrap()
}

fn of_json(flows: &Value, flow: &str) -> Numbers {
    let flow = flows.as_array().unwrap().iter().find(|line| line["flow"] == flow).expect("the flow");
    (STATES.map(|state| flow[state]["count"].as_i64().unwrap()), flow["lag_events"].as_i64().unwrap())
}

fn of_metrics(metrics: &str, flow: &str) -> Numbers {
    let sum = |name: &str, labels: &[String]| -> i64 {
        let of = |line: &&str| {
            line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label.as_str()))
        };
        let values = metrics.lines().filter(of).filter_map(|line| line.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<i64>().unwrap()).sum()
    };
    let flow = format!("flow=\"{flow}\"");
    let runs = |state: &str| sum("usher_dispatcher_runs_stored", &[flow.clone(), format!("state=\"{state}\"")]);
    (STATES.map(runs), sum("usher_dispatcher_lag_events", std::slice::from_ref(&flow)))
}

/// Returns the seconds of lag as a view tells them.
fn seconds(flows: &Value, flow: &str) -> i64 {
    let flow = flows.as_array().unwrap().iter().find(|line| line["flow"] == flow).expect("the flow");
    flow["lag_seconds"].as_i64().unwrap()
}

async fn every_view_tells_the_same_numbers(backend: Backend) {
    usher_service::telemetry::install_tls();
    let lock = match backend {
        Backend::Embedded => "BEGIN IMMEDIATE",
        Backend::Real(_) => "BEGIN; LOCK TABLE usher_ownership IN EXCLUSIVE MODE",
    };
    let is_embedded = matches!(backend, Backend::Embedded);
    let flows = vec![("drip", DRIP), ("mail", MAIL)];
    let env = TestEnv::with(backend, Options { flows, ..Options::default() }).await;
    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    env.send_all(&[User::new().created(), User::new().created(), User::new().created()]).await;
    let status = || -> Value { serde_json::from_str(&env.usher(&["status", "--json"]).1).unwrap() };
    eventually("three are dead", SOON, || async {
        (of_json(&status()["flows"], "mail") == ([0, 0, 0, 0, 3], 0)).then_some(())
    })
    .await;
    let (code, _, err) = env.usher(&["pause", "mail", "--by", "ann"]);
    assert_eq!(code, 0, "{err}");
    env.send_all(&[User::new().created(), User::new().created()]).await;
    eventually("two are queued", SOON, || async {
        (of_json(&status()["flows"], "mail").0[0] == 2 && of_json(&status()["flows"], "drip").0[3] == 5).then_some(())
    })
    .await;
    // Nothing more is admitted while somebody else holds the lock.
    let pool = env.pool().await;
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql(lock).execute(&mut *connection).await.unwrap();
    env.send(&User::new().created()).await;

    let mut program = if is_embedded { None } else { Some(env.start_console()) };
    let console = match &mut program {
        None => format!("http://{}", env.admin()),
        Some(program) => {
            let at = program.says("usher console is ready: http://").await;
            format!("http://{at}")
        }
    };
    let metrics = format!("http://{}", dispatcher_admin(&env));
    let expected: [(&str, Numbers); 2] = [("drip", ([0, 0, 0, 5, 0], 1)), ("mail", ([2, 0, 0, 0, 3], 1))];
    for (flow, expected) in expected {
        assert_eq!(of_json(&status()["flows"], flow), expected, "usher status of {flow}");
        let overview: Value = serde_json::from_str(&page(&console, "/api/v1/overview").await).unwrap();
        assert_eq!(of_json(&overview["flows"], flow), expected, "the console on {flow}");
        // Counts of runs are written to the metrics every few seconds.
        eventually(&format!("the metrics of {flow}"), SOON, || async {
            (of_metrics(&page(&metrics, "/metrics").await, flow) == expected).then_some(())
        })
        .await;
        let before = seconds(&status()["flows"], flow);
        let overview: Value = serde_json::from_str(&page(&console, "/api/v1/overview").await).unwrap();
        let told = seconds(&overview["flows"], flow);
        let after = seconds(&status()["flows"], flow);
        assert!((before..=after).contains(&told), "{before} {told} {after}");
    }
    let kinds = |needs: &Value| -> Vec<String> {
        needs.as_array().unwrap().iter().map(|need| need["kind"].as_str().unwrap().to_owned()).collect()
    };
    let overview: Value = serde_json::from_str(&page(&console, "/api/v1/overview").await).unwrap();
    assert_eq!(kinds(&status()["needs"]), ["dead", "paused"]);
    assert_eq!(kinds(&overview["needs"]), ["dead_letters", "paused"]);
    assert_eq!(overview["needs"][1]["who"], json!("ann"));
    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.unwrap();
    env.end().await;
}
