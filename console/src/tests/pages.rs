//! Tests of the pages' content.

use axum::http::StatusCode;
use usher_engine::RunState;
use usher_store::{QuotaStore as _, TroubleTold};

use super::support::{ADDRESS, OPERATOR, READER, console_with, console_with_tokens, reference};

#[tokio::test]
async fn an_empty_store_has_pages_that_say_so() {
    let console = console_with(&[]).await;
    let overview = console.get("/").await;
    assert!(
        overview.text.contains("Nothing needs you") && overview.text.contains("No flow has run here yet"),
        "{}",
        overview.text
    );
    assert!(console.get("/events").await.text.contains("No event has begun a run yet"));
    assert!(console.get("/dead").await.text.contains("0 dead letters, 0 causes"));
}

#[tokio::test]
async fn the_overview_begins_with_what_needs_somebody() {
    let console = console_with(&[]).await;
    console.fill().await;
    let now = usher_service::clock::now();
    console.store.set_paused("trial", true, "ann", Some("new prices at three"), now).await.expect("paused");
    let page = console.get("/").await.text;
    let (needs, flows) = page.split_once("<h2>Flows</h2>").expect("two parts");
    let recent = flows.split("/events?flow=email&#38;since=").nth(1).expect("a link to the runs of the last hour");
    assert!(recent.starts_with("20") && recent.contains("Z\">3</a>"), "{recent}");
    assert!(flows.contains("/events?account=resend\">2</a>"), "runs that ask it: {flows}");
    assert!(needs.contains("2 things need you"), "{needs}");
    assert!(
        needs.contains("trial is paused") && needs.contains("by ann") && needs.contains("new prices at three"),
        "{needs}"
    );
    assert!(needs.contains("2 runs of email died of the same cause") && needs.contains("Redrive"), "{needs}");
    assert!(flows.contains("/dead?flow=email&#38;list=1\">2</a>"), "{flows}");
}

#[tokio::test]
async fn a_destination_that_does_not_serve_is_told_until_calls_are_let_through() {
    let console = console_with(&[]).await;
    let now = usher_service::clock::now();
    let next_probe = Some(now.plus(std::time::Duration::from_secs(18)));
    let trouble = |next_probe| Some(TroubleTold { since: now, next_probe });
    console.store.tell_trouble("resend", "me", trouble(next_probe), now).await.expect("told");
    let page = console.get("/").await.text;
    assert!(page.contains("One thing needs you") && page.contains("resend has not served since"), "{page}");
    console.store.tell_trouble("resend", "me", trouble(None), now).await.expect("told");
    assert!(console.get("/").await.text.contains("Nothing needs you"));
}

#[tokio::test]
async fn every_number_leads_to_exactly_the_rows_that_it_counts() {
    let console = console_with(&[]).await;
    console.fill().await;
    // A dead letter begins with the box by which an operator chooses it.
    let rows = |text: &str| text.matches("<tr><td><time").count() + text.matches("name=\"pick\"").count();
    for (path, count) in [
        ("/events", 4),
        ("/events?flow=email", 3),
        ("/events?flow=trial&state=queued", 2),
        ("/events?flow=email&state=queued", 0),
        ("/events?flow=email&state=dead", 2),
        ("/events?state=done", 1),
        ("/events?type=user.created&flow=trial", 2),
        ("/events?type=user.updated", 0),
        ("/events?instance=default", 4),
        ("/events?instance=staging", 0),
        ("/dead?flow=email&list=1", 2),
        ("/dead?flow=trial&list=1", 0),
        ("/dead?list=1&person=user_dana", 1),
        ("/dead?list=1&person=clerk/default/user_dana&flow=trial", 0),
        ("/dead?list=1&person=nobody@work.test", 0),
        ("/dead?list=1&within=1h", 2),
        ("/dead?list=1&within=1h&until=2026-01-01T00:00:00Z", 0),
        ("/events?account=resend", 2),
        ("/events?account=stripe", 0),
    ] {
        let answer = console.get(path).await;
        assert_eq!((answer.status, rows(&answer.text)), (StatusCode::OK, count), "{path}: {}", answer.text);
    }
    let bad = console.get("/dead?within=nonsense").await;
    assert!(bad.status == StatusCode::BAD_REQUEST && bad.text.contains("1h, 24h, 7d, 30d"), "{}", bad.text);
    let bad = console.get("/events?state=nonsense").await;
    assert!(bad.status == StatusCode::BAD_REQUEST && bad.text.contains("it may be one of"), "{}", bad.text);
}

#[tokio::test]
async fn pages_follow_one_another_without_gap_or_repetition() {
    let console = console_with(&[]).await;
    for number in 0..120 {
        // Ten events have the same time; each other one is of one flow alone.
        let flow = if number % 2 == 0 { "email" } else { "trial" };
        let state = if number % 3 == 0 { RunState::Done } else { RunState::Dead };
        console.ended(flow, &format!("msg_{number:03}"), "user_1", 1000 - number / 10 * 10, state).await;
    }
    for (filter, count) in [("", 120), ("flow=email", 60), ("state=dead", 80), ("flow=trial&state=done", 20)] {
        let mut path = format!("/api/v1/events?{filter}");
        let mut seen = Vec::new();
        loop {
            let page = console.get(&path).await.json();
            let events = page["events"].as_array().expect("events");
            seen.extend(events.iter().map(|event| event["reference"].as_str().expect("text").to_owned()));
            assert!(events.len() <= 50, "a page is bounded");
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/api/v1/events?{filter}&after={next}");
        }
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((all, seen.len()), (count, count), "{filter}");
    }
}

#[tokio::test]
async fn nothing_personal_is_shown_until_an_operator_asks_and_then_it_is_recorded() {
    let console = console_with(&[]).await;
    console.fill().await;
    let event = format!("/event?ref={}", reference("msg_dead1"));
    let person = "/person?id=clerk/default/user_dana";
    for path in ["/", "/events", &event, person, "/dead?list=1", "/flows", "/flow?name=email"] {
        let answer = console.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        for word in [ADDRESS, "work.test", "Dana"] {
            assert!(!answer.text.contains(word), "{word} in {path}: {}", answer.text);
        }
    }
    let shown = console.post_form("/event/show", &[("ref", &reference("msg_dead1"))]).await;
    assert!(shown.text.contains("the address dana@work.test is refused"), "the destination's words: {}", shown.text);
    assert_eq!(shown.text.matches("console has seen it").count(), 1, "{}", shown.text);
    let shown = console.post_form("/person/show", &[("id", "clerk/default/user_dana")]).await;
    assert!(shown.text.contains(ADDRESS), "{}", shown.text);
    let again = console.get(person).await.text;
    assert!(!again.contains(ADDRESS) && again.contains("console has seen it"), "{again}");
    let unknown = console.post_form("/person/show", &[("id", "clerk/default/nobody")]).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(
        console.store.shown("clerk/default/nobody", 10).await.expect("read").is_empty(),
        "nothing is recorded of nobody"
    );
}

#[tokio::test]
async fn the_search_leads_to_the_record() {
    let console = console_with(&[]).await;
    console.fill().await;
    for (text, there) in [
        ("msg_dead1", "/event?ref=clerk/default/msg_dead1"),
        ("clerk/default/msg_open", "/event?ref=clerk/default/msg_open"),
        (" user_dana ", "/person?id=clerk/default/user_dana"),
        ("trial", "/flow?name=trial"),
    ] {
        let answer = console.get(&format!("/search?q={}", text.replace(' ', "+"))).await;
        assert_eq!((answer.status, answer.location()), (StatusCode::SEE_OTHER, there), "{text}");
    }
    // Two users have the address.
    let answer = console.get("/search?q=Dana@work.test").await;
    assert!(answer.text.contains("2 go by that name") && answer.text.contains("user_zoe"), "{}", answer.text);
    let none = console.get("/search?q=nobody@work.test").await;
    assert!(none.status == StatusCode::NOT_FOUND && !none.text.contains("nobody@"), "{}", none.text);
}

#[tokio::test]
async fn an_event_shows_its_runs_with_their_steps_and_why_they_do_not_go_on() {
    let console = console_with(&[]).await;
    console.fill().await;
    let page = console.get(&format!("/event?ref={}", reference("msg_done"))).await.text;
    assert!(page.contains("resend.send") && page.contains("mail_1"), "the effect with its id: {page}");
    assert!(page.contains("has not begun"), "{page}");
    let dead = console.get(&format!("/event?ref={}", reference("msg_dead1"))).await.text;
    assert!(
        dead.contains("invalid_request")
            && dead.contains("aria-label=\"attempt 1 failed after 12 ms\"")
            && dead.contains("422 validation_error"),
        "{dead}"
    );
    assert!(dead.contains("took 12 ms"), "{dead}");
    let gone = console.get("/event?ref=clerk/default/msg_none").await;
    assert!(gone.status == StatusCode::NOT_FOUND && gone.text.contains("retention"), "{}", gone.text);
    let person = console.get("/person?id=clerk/default/user_dana").await.text;
    let (next, past) = person.split_once("class=\"rule\"").expect("now");
    assert!(
        next.contains("trial") && past.contains("welcome: resend mail_1") && past.contains("dead: invalid_request"),
        "{person}"
    );
}

#[tokio::test]
async fn a_reader_sees_no_button() {
    let console = console_with_tokens(&[]).await;
    console.fill().await;
    let event = format!("/event?ref={}", reference("msg_open"));
    for path in ["/", &event, "/person?id=clerk/default/user_dana", "/dead", "/dead/redrive", "/flow?name=email"] {
        let form = "method=\"post\"";
        for (token, forms) in [(READER, false), (OPERATOR, path != "/" && path != "/dead")] {
            let bearer = format!("Bearer {token}");
            let answer = console.send("GET", path, &[("authorization", &bearer)], "").await;
            assert_eq!((answer.status, answer.text.contains(form)), (StatusCode::OK, forms), "{path}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn lists_go_on_where_they_end_and_show_every_row_once() {
    let console = console_with(&[]).await;
    for number in 0..205 {
        console.ended("email", &format!("msg_{number}"), "user_1", 1, RunState::Dead).await;
    }
    let mut address = "/dead?list=1".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = console.get(&address).await.text;
        seen.extend(
            page.split("aria-label=\"choose email ").skip(1).map(|rest| rest.split('"').next().map(str::to_owned)),
        );
        let Some((before, _)) = page.split_once("\">Older</a>") else { break };
        address = before.rsplit_once("href=\"").expect("a link").1.replace("&#38;", "&");
    }
    assert_eq!(seen.len(), 205);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 205, "each once");
    let person = console.get("/person?id=clerk/default/user_1").await.text;
    let older = person.split_once("\">Older</a>").expect("older runs").0.rsplit_once("href=\"").expect("a link").1;
    let older = console.get(&older.replace("&#38;", "&")).await.text;
    let runs = |page: &str| page.matches("user.created was admitted").count();
    assert_eq!(runs(&person) + runs(&older), 205, "{} and {}", runs(&person), runs(&older));
}

#[tokio::test]
async fn a_flow_shows_the_mails_that_it_would_send() {
    let console = console_with(&[]).await;
    console.fill().await;
    let page = console.get("/flow?name=email").await.text;
    assert!(page.contains("<dt>subject</dt>") && page.contains("user.created of somebody without a name"), "{page}");
    let nameless = console.get("/flow?name=email&sample=user.created+of+somebody+without+an+address").await.text;
    assert!(nameless.contains("No mail for this sample"), "{nameless}");
    let unknown = console.get("/flow/mail?name=email&version=none").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_lab_is_broken_and_mended_by_a_button() {
    let console = console_with(&[]).await;
    assert!(console.get("/").await.text.contains(">Lab</a>"));
    let down = console.post_form("/lab/fault", &[("provider", "resend"), ("fault", "down")]).await;
    assert_eq!((down.status, down.location()), (StatusCode::SEE_OTHER, "/lab"));
    assert_eq!(console.console.lab().expect("a lab").faults("resend").expect("known").len(), 1);
    assert!(console.get("/lab").await.text.contains("answer 503, hit 0 requests"));
    console.post_form("/lab/fault", &[("provider", "resend"), ("fault", "")]).await;
    assert!(console.console.lab().expect("a lab").faults("resend").expect("known").is_empty());
    for (provider, fault) in [("resend", "unknown"), ("nobody", "down")] {
        let odd = console.post_form("/lab/fault", &[("provider", provider), ("fault", fault)]).await;
        assert_eq!(odd.status, StatusCode::BAD_REQUEST, "{}", odd.text);
    }
}

#[tokio::test]
async fn texts_from_outside_are_escaped() {
    let console = console_with(&[]).await;
    console.ended("email", "msg_<script>alert(1)</script>", "user_\"><img>", 1, RunState::Dead).await;
    for path in [
        "/events",
        "/dead?list=1",
        "/dead?person=%22%3E%3Cscript%3E&flow=%3Cscript%3E",
        "/events?type=%22%3E%3Cscript%3E",
        "/search?q=%3Cscript%3E",
    ] {
        let page = console.get(path).await.text;
        assert!(!page.contains("<script>") && !page.contains("<img>"), "{path}: {page}");
    }
}
