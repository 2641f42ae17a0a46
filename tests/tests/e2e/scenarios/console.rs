//! The console: of `usher up`, and of `usher console` beside a cluster.

use reqwest::{Client, Response};
use serde_json::{Value, json};
use usher_engine::RunState;
use usher_lab::Fault;
use usher_store::RunFilter;
use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::eventually;
use usher_tests::program::Program;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(
    an_operator_finds_a_person_and_mends_dead_letters,
    an_open_page_is_told_of_news_and_does_not_delay_a_stop,
    a_redrive_survives_a_restart_and_tells_apart_what_came,
);

const MAIL: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
needs = "user.email"
subject = "Hello"
text = "hello"
"#;

/// A console, and the program that serves it if that is not `usher up`.
struct ConsoleOfTest {
    at: String,
    client: Client,
    program: Option<Program>,
}

impl ConsoleOfTest {
    async fn of(env: &TestEnv, backend: Backend) -> Self {
        usher_service::telemetry::install_tls();
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        if matches!(backend, Backend::Embedded) {
            return Self { at: format!("http://{}", env.admin()), client, program: None };
        }
        let mut program = env.start_console();
        let at = format!("http://{}", program.says("usher console is ready: http://").await);
        Self { at, client, program: Some(program) }
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.at)).send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    /// Posts JSON as a program that acts for Ann.
    async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.at)).body(body.to_string());
        let request = request.header("content-type", "application/json");
        let answer = request.header("x-usher-client", "test").header("x-usher-by", "ann").send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn end(self, env: TestEnv) {
        if let Some(mut program) = self.program {
            program.terminate();
            assert!(program.ended(SOON).await.success(), "{}", program.output());
        }
        env.end().await;
    }
}

async fn an_operator_finds_a_person_and_mends_dead_letters(backend: Backend) {
    let env = TestEnv::with(backend.clone(), Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let console = ConsoleOfTest::of(&env, backend).await;
    assert_eq!(console.json("/api/v1/overview").await["needs"], json!([]), "nothing needs anybody");

    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    let users: Vec<User> = (0..5).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    env.all_ended(users.len(), SOON).await;
    env.lab().end_fault("resend").unwrap();

    let overview = console.json("/api/v1/overview").await;
    let need = &overview["needs"][0];
    assert_eq!(
        (&need["kind"], &need["runs"]["count"], &need["people"]["count"]),
        (&json!("dead_letters"), &json!(5), &json!(5))
    );
    assert_eq!(overview["flows"][0]["dead"], json!({"count": 5, "more": false}), "{overview}");

    // A person by the address alone, which no page repeats.
    let address = users[0].email.clone().unwrap();
    let found = console.get(&format!("/search?q={}", address.replace('@', "%40"))).await;
    let location = found.headers()["location"].to_str().unwrap().to_owned();
    assert!(found.status() == 303 && location.contains(&users[0].id), "{location}");
    let person = console.get(&location).await.text().await.unwrap();
    assert!(person.contains("dead: invalid_request") && !person.contains(&address), "{person}");

    // What is planned is done, with the operator's name.
    let cause = need["id"].as_str().unwrap();
    let plan = console.json(&format!("/api/v1/dead-letters/redrive?cause={cause}")).await;
    assert_eq!(plan["runs"], 5);
    let order = json!({"cause": cause, "until": plan["until"], "runs": 5});
    let begun = console.post("/api/v1/dead-letters/redrive", &order).await;
    let at = format!("/api/v1/redrive?id={}", begun["id"].as_str().unwrap());
    let ended = eventually("the redrive has ended", SOON, || async {
        let redrive = console.json(&at).await;
        (redrive["standing"] == "ended").then_some(redrive)
    })
    .await;
    let counts = json!({"left": 0, "asked": 0, "done": 5, "failed": 0, "nothing": 0, "ended": 0});
    assert_eq!((&ended["counts"], &ended["new_since"]["count"]), (&counts, &json!(0)), "{ended}");
    let done = || async {
        let runs = env.runs(&RunFilter { states: vec![RunState::Done], ..RunFilter::default() }).await;
        (runs.len() == users.len()).then_some(runs)
    };
    let runs = eventually("all are done", SOON, done).await;
    assert_eq!(env.effects("resend").len(), users.len());
    let event = console.json(&format!("/api/v1/event?ref={}", runs[0].reference)).await;
    let action = &event["runs"][0]["actions"][0];
    assert_eq!(
        (&action["who"], &action["what"], &action["came"]),
        (&json!("ann"), &json!("redrive"), &json!("queued"))
    );
    assert_eq!(console.json("/api/v1/overview").await["needs"], json!([]));

    // A pause holds when the answer comes, and the command line knows of it.
    let paused = console.post("/api/v1/flow/pause", &json!({"flow": "mail", "why": "new text at three"})).await;
    assert!(paused["confirmed"].as_str().unwrap().contains("begin nothing"), "{paused}");
    env.send(&User::new().created()).await;
    let queued = || async {
        let overview = console.json("/api/v1/overview").await;
        (overview["flows"][0]["queued"]["count"] == 1).then_some(overview)
    };
    let overview = eventually("it is queued", SOON, queued).await;
    assert_eq!(
        (&overview["needs"][0]["who"], &overview["needs"][0]["why"]),
        (&json!("ann"), &json!("new text at three"))
    );
    let (code, out, _) = env.usher(&["resume", "mail"]);
    assert!(code == 0 && out.contains("goes on"), "{out}");
    env.all_ended(users.len() + 1, SOON).await;
    assert_eq!(env.effects("resend").len(), users.len() + 1);
    console.end(env).await;
}

/// Of many dead letters, some fail again. The process that has begun the redrive is replaced by another one meanwhile.
async fn a_redrive_survives_a_restart_and_tells_apart_what_came(backend: Backend) {
    let mut env = TestEnv::with(backend.clone(), Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let console = ConsoleOfTest::of(&env, backend.clone()).await;
    env.lab().set_fault("resend", Fault { status: Some(422), ..Fault::default() }).unwrap();
    let users: Vec<User> = (0..30).map(|_| User::new()).collect();
    env.send_all(&users.iter().map(User::created).collect::<Vec<_>>()).await;
    env.all_ended(users.len(), SOON).await;
    // Two of them are refused for good.
    let refused: Vec<Fault> = users[..2]
        .iter()
        .map(|user| Fault { status: Some(422), containing: user.email.clone(), ..Fault::default() })
        .collect();
    env.lab().set_faults("resend", refused).unwrap();
    let plan = console.json("/api/v1/dead-letters/redrive").await;
    let order = json!({"until": plan["until"], "runs": 30, "rate": 8});
    let begun = console.post("/api/v1/dead-letters/redrive", &order).await;
    let at = format!("/api/v1/redrive?id={}", begun["id"].as_str().unwrap());
    eventually("some are redriven", SOON, || async {
        let redrive = console.json(&at).await;
        (redrive["counts"]["done"].as_i64().unwrap() > 0).then_some(())
    })
    .await;
    // Whoever carries it out is gone, without a word.
    if let Some(program) = console.program {
        program.kill().await;
    } else {
        env.kill_ingest().await;
        env.start_ingest().await;
    }
    let console = ConsoleOfTest::of(&env, backend).await;
    // Somebody new dies meanwhile.
    let late = User::new();
    let mut faults = env.lab().faults("resend").unwrap().into_iter().map(|fault| fault.fault).collect::<Vec<_>>();
    faults.push(Fault { status: Some(422), containing: late.email.clone(), ..Fault::default() });
    env.lab().set_faults("resend", faults).unwrap();
    env.send(&late.created()).await;
    let ended = eventually("the redrive has ended", SOON, || async {
        let redrive = console.json(&at).await;
        (redrive["standing"] == "ended" && redrive["new_since"]["count"] == 1).then_some(redrive)
    })
    .await;
    let counts = json!({"left": 0, "asked": 0, "done": 28, "failed": 2, "nothing": 0, "ended": 0});
    assert_eq!(ended["counts"], counts, "{ended}");
    assert_eq!(env.effects("resend").len(), 28, "each of them once");
    console.end(env).await;
}

async fn an_open_page_is_told_of_news_and_does_not_delay_a_stop(backend: Backend) {
    let env = TestEnv::with(backend.clone(), Options { flows: vec![("mail", MAIL)], ..Options::default() }).await;
    let console = ConsoleOfTest::of(&env, backend).await;
    let mut stream = console.get("/live").await;
    let mut said = String::new();
    while !said.contains("event: live") {
        said.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().expect("a message")));
    }
    env.send(&User::new().created()).await;
    let told = async {
        while !said.contains("event: changed") {
            said.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().expect("a message")));
        }
    };
    tokio::time::timeout(SOON, told).await.expect("it is told");
    let page = console.get("/events").await.text().await.unwrap();
    assert!(page.contains("user.created") && page.contains("mail: "), "{page}");
    // The stream is still open.
    console.end(env).await;
}
