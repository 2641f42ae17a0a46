//! Failures below the level of a destination's API: connections, bodies, redirects, timeouts.

use std::time::Duration;

use tokio::net::TcpListener;
use usher_connectors::CallGate;
use usher_engine::{Cause, Outcome};

use super::log::assert_discreet;
use super::server::{Script, TestServer, answer};
use super::subject::{ConnectorSubject, KEY, SUBJECTS};

/// Upper limit that no test here reaches.
const PATIENCE: Duration = Duration::from_secs(20);

fn assert_retry(outcome: &Outcome, expected: Cause, subject: &ConnectorSubject, case: &str) {
    let case = format!("{}: {case}", subject.name);
    assert_eq!(*outcome, Outcome::retry(expected), "{case}");
    assert_discreet(outcome, &case);
}

async fn against(subject: &ConnectorSubject, script: Script) -> (Outcome, TestServer) {
    let server = TestServer::start(script).await;
    let outcome = tokio::time::timeout(PATIENCE, subject.attempt(&server.url())).await.unwrap();
    (outcome, server)
}

#[tokio::test]
async fn what_says_that_it_is_done_is_done_with_one_request() {
    for subject in SUBJECTS {
        let (status, body) = subject.done;
        let (outcome, server) = against(subject, answer(status, &[], body)).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{}: {outcome:?}", subject.name);
        assert_eq!(server.requests().len(), 1, "{}", subject.name);
        assert_discreet(&outcome, subject.name);
    }
}

#[tokio::test]
async fn a_refused_connection_sent_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for subject in SUBJECTS {
        let outcome = subject.attempt(&format!("http://{free}")).await;
        assert_retry(&outcome, Cause::Unreachable, subject, "refused");
        assert!(Cause::Unreachable.nothing_happened());
    }
}

#[tokio::test]
async fn a_server_that_cannot_show_who_it_is_gets_nothing() {
    for subject in SUBJECTS {
        let server = TestServer::start(answer(200, &[], subject.done.1)).await;
        let outcome = subject.attempt(&format!("https://127.0.0.1:{}", server.port)).await;
        assert_retry(&outcome, Cause::Unreachable, subject, "TLS");
        let leaked = server.requests().iter().any(|request| request.contains("POST") || request.contains("LEAKY"));
        assert!(!leaked, "{}: something was sent without TLS", subject.name);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_the_outcome_open() {
    for subject in SUBJECTS {
        for (case, bytes) in [
            ("closed", &b""[..]),
            ("half a head", b"HTTP/1.1 200 OK\r\ncontent-le"),
            ("no HTTP", b"220 mail.test ESMTP\r\n"),
        ] {
            let (outcome, _) = against(subject, Script::Write(bytes.to_vec())).await;
            assert_retry(&outcome, Cause::Interrupted, subject, case);
        }
    }
}

/// If the body carries the result of the request, an unreadable body leaves the outcome unknown.
#[tokio::test]
async fn a_success_that_cannot_be_read_leaves_the_outcome_open() {
    for subject in SUBJECTS {
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":\"m1\",".to_vec();
        let huge = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"id\":".to_vec();
        for (case, script) in [
            ("cut off", Script::Write(cut)),
            ("without end", Script::Flood(huge)),
            ("no JSON", answer(200, &[], "<html>dana.leaky@work.test")),
            ("other JSON", answer(200, &[], r#"["dana.leaky@work.test"]"#)),
            ("empty", answer(200, &[], "")),
        ] {
            let (outcome, server) = against(subject, script).await;
            assert!(*server.flooded.lock().unwrap() < 32 * 1024 * 1024, "{}: all of it was read", subject.name);
            if subject.reads {
                assert_retry(&outcome, Cause::Interrupted, subject, case);
            } else {
                assert!(matches!(outcome, Outcome::Done(_)), "{}: {case}: {outcome:?}", subject.name);
            }
        }
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for subject in SUBJECTS {
        for status in [301, 302, 303, 307, 308] {
            let elsewhere = TestServer::start(answer(200, &[], subject.done.1)).await;
            let (outcome, server) = against(subject, answer(status, &[("location", &elsewhere.url())], "")).await;
            assert!(matches!(outcome, Outcome::Reject { .. }), "{}: {status}: {outcome:?}", subject.name);
            assert_eq!((server.requests().len(), elsewhere.requests().len()), (1, 0), "{}", subject.name);
            assert_discreet(&outcome, subject.name);
        }
    }
}

/// The clock is paused once the answer hangs, so that only a deadline can still occur.
#[tokio::test]
async fn an_answer_that_does_not_come_in_time_leaves_the_outcome_open() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec();
    for subject in SUBJECTS {
        for (case, bytes) in [("no answer", Vec::new()), ("half a body", head.clone())] {
            let status_is_known = !bytes.is_empty();
            let server = TestServer::start(Script::Stall(bytes)).await;
            let url = server.url();
            let written = server.written.clone();
            let hanging = async {
                written.notified().await;
                tokio::time::pause();
            };
            let (outcome, ()) = tokio::join!(subject.attempt(&url), hanging);
            tokio::time::resume();
            if status_is_known && !subject.reads {
                assert!(matches!(outcome, Outcome::Done(_)), "{}: {case}: {outcome:?}", subject.name);
            } else {
                assert_retry(&outcome, Cause::Timeout, subject, case);
            }
        }
    }
}

#[tokio::test]
async fn a_request_is_repeated_byte_for_byte() {
    for subject in SUBJECTS {
        let server = TestServer::start(answer(503, &[], "")).await;
        let connector = subject.open(&server.url());
        let request = subject.prepare(&*connector);
        assert_eq!(request, subject.prepare(&*connector), "{}: it is prepared alike", subject.name);
        for _ in 0..2 {
            let outcome = connector.attempt(&request, KEY, &CallGate::open()).await;
            assert_retry(&outcome, Cause::Unavailable, subject, "503");
        }
        // The time of an attempt and its signature differ intentionally.
        let own = |line: &&str| !line.starts_with("webhook-timestamp") && !line.starts_with("webhook-signature");
        let sent: Vec<String> = server
            .requests()
            .iter()
            .map(|request| request.lines().filter(own).collect::<Vec<_>>().join("\n"))
            .collect();
        assert_eq!(sent.len(), 2, "{}", subject.name);
        assert_eq!(sent[0], sent[1], "{}", subject.name);
    }
}

#[tokio::test]
async fn a_kept_request_that_cannot_be_read_is_given_up_without_being_sent() {
    for subject in SUBJECTS.iter().filter(|subject| subject.name != "resend") {
        let server = TestServer::start(answer(200, &[], subject.done.1)).await;
        let outcome = subject.open(&server.url()).attempt(b"\xff{", KEY, &CallGate::open()).await;
        assert!(matches!(outcome, Outcome::Reject { .. }), "{}: {outcome:?}", subject.name);
        assert_eq!(server.requests().len(), 0, "{}", subject.name);
    }
}
