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
    let rows = |text: &str| text.matches("<tr><td><time").count();
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
    ] {
        let answer = console.get(path).await;
        assert_eq!((answer.status, rows(&answer.text)), (StatusCode::OK, count), "{path}: {}", answer.text);
    }
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
        dead.contains("invalid_request") && dead.contains("attempt 1") && dead.contains("422 validation_error"),
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
async fn texts_from_outside_are_escaped() {
    let console = console_with(&[]).await;
    console.ended("email", "msg_<script>alert(1)</script>", "user_\"><img>", 1, RunState::Dead).await;
    for path in ["/events", "/dead?list=1", "/events?type=%22%3E%3Cscript%3E", "/search?q=%3Cscript%3E"] {
        let page = console.get(path).await.text;
        assert!(!page.contains("<script>") && !page.contains("<img>"), "{path}: {page}");
    }
}
