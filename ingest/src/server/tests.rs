//! Requests to a log in memory.

use std::io::Write;
use std::sync::Mutex;

use tracing_subscriber::fmt::format::FmtSpan;
use usher_proto::signature::SigningSecret;
use usher_service::options::Environment;

use super::*;
use crate::testing::{Notebook, SIGNING_SECRET, config};

#[tokio::test]
async fn a_body_is_read_up_to_its_limit_and_one_that_breaks_off_is_not_too_large() {
    assert_eq!(read(Body::from("12345"), 5).await, Ok(Bytes::from_static(b"12345")));
    assert_eq!(read(Body::empty(), 0).await, Ok(Bytes::new()));
    assert_eq!(read(Body::from("12345"), 4).await, Err(Refusal::TooLarge(4)));
    let broken = Limited::new(Body::from("12345"), 4).map_err(|_| std::io::Error::other("length limit exceeded"));
    assert_eq!(read(Body::new(broken), 9).await, Err(Refusal::BodyIncomplete));
}

/// Text that a subscriber writes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while it is held").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    /// Writes the errors of this thread, and a line for every span that ends, until the guard is dropped.
    fn subscribe(&self) -> tracing::subscriber::DefaultGuard {
        // With a single subscriber, a test in another thread that has none could switch a span off for the whole process. An
        // error means that there is already a second one.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_span_events(FmtSpan::CLOSE);
        let filter = tracing_subscriber::filter::LevelFilter::ERROR;
        tracing::subscriber::set_default(subscriber.with_max_level(filter).with_writer(move || writer.clone()).finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic while it is held").clone()).expect("text")
    }
}

/// An ingest with a log in memory.
struct Scene {
    ingest: Ingest,
    log: Arc<Notebook>,
}

fn scene() -> Scene {
    let config = config(&Environment::from_vars([("CLERK_WEBHOOK_SIGNING_SECRET", SIGNING_SECRET)]));
    let log = Arc::new(Notebook::default());
    let ingest = Ingest::new(&config, log.clone(), &Registry::new()).expect("metrics");
    Scene { ingest, log }
}

impl Scene {
    /// Sends a webhook, signed with this secret, with further headers.
    async fn send(&self, id: &str, secret: &str, more: &[(&str, &str)]) -> StatusCode {
        let body = r#"{"type":"user.created","data":{"id":"user_1"}}"#;
        let time = clock::now().seconds().to_string();
        let signature = SigningSecret::parse(secret).expect("a secret").sign(id, &time, body.as_bytes());
        let signed = [("svix-id", id), ("svix-timestamp", &time), ("svix-signature", &signature)];
        let request =
            signed.iter().chain(more).fold(Request::post("/"), |request, (name, value)| request.header(*name, *value));
        let request = request.body(Body::from(body)).expect("a request");
        self.ingest.answer("clerk", Instance::DEFAULT, request).await.status()
    }
}

#[tokio::test]
async fn a_valid_trace_parent_is_kept_with_the_event_and_nothing_else() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let scene = scene();
    let name = "traceparent";
    for (more, kept) in [
        (vec![], None),
        (vec![(name, valid)], Some(valid)),
        (vec![(name, valid), (name, valid)], None),
        (vec![(name, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01")], None),
        (vec![(name, "dana@work.test")], None),
        (vec![(name, "\u{e9}")], None),
    ] {
        assert_eq!(scene.send("msg_1", SIGNING_SECRET, &more).await, StatusCode::NO_CONTENT);
        let event = scene.log.events().pop().expect("it is kept");
        assert_eq!(event.trace_parent().map(|parent| parent.to_string()).as_deref(), kept, "{more:?}");
        assert_eq!(event.provenance.len(), 3 + usize::from(kept.is_some()), "{more:?}");
    }
}

#[tokio::test]
async fn a_webhook_has_a_span_once_it_is_verified() {
    let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let written = Written::default();
    let _guard = written.subscribe();
    let scene = scene();
    assert_eq!(scene.send("msg_forged", other, &[]).await, StatusCode::UNAUTHORIZED);
    assert_eq!(written.text(), "");
    assert_eq!(scene.send("msg_1", SIGNING_SECRET, &[]).await, StatusCode::NO_CONTENT);
    let text = written.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("record appended") && lines[1].contains(" close "), "{text}");
    assert!(lines.iter().all(|line| line.contains(" webhook{source=\"clerk\" id=msg_1}: ")), "{text}");
    assert!(!text.contains("user_1") && scene.log.events().len() == 1, "{text}");
}

#[tokio::test]
async fn a_challenge_is_answered_with_its_characters_where_a_sender_asks_for_one() {
    let environment = Environment::from_vars([
        ("CLERK_WEBHOOK_SIGNING_SECRET", SIGNING_SECRET),
        ("NYLAS_WEBHOOK_SECRET", "none-yet"),
    ]);
    let ingest = Ingest::new(&config(&environment), Arc::new(Notebook::default()), &Registry::new()).expect("metrics");
    let ask = async |source: &str, instance: &str, query: &str| {
        let uri = format!("http://usher.test/webhooks/{source}?{query}").parse().expect("an address");
        let response = ingest.challenged(source, instance, Query::try_from_uri(&uri));
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (head.status.as_u16(), head.headers, String::from_utf8(body.into()).expect("text"))
    };
    let (status, headers, body) = ask("nylas", "default", "challenge=c7f3%2Dab%3Cb%3E").await;
    assert_eq!((status, body.as_str()), (200, "c7f3-ab<b>"));
    assert_eq!(
        (&headers["content-type"], &headers["x-content-type-options"]),
        (&"text/plain".parse().expect("a value"), &"nosniff".parse().expect("a value"))
    );
    let long = format!("challenge={}", "x".repeat(MAX_CHALLENGE + 1));
    for (source, instance, query) in [
        ("clerk", "default", "challenge=abc"),
        ("stripe", "default", "challenge=abc"),
        ("nylas", "staging", "challenge=abc"),
        ("nylas", "default", ""),
        ("nylas", "default", "challenge="),
        ("nylas", "default", "challenge=a%0d%0ab"),
        ("nylas", "default", "challenge=%C3%A4"),
        ("nylas", "default", "challenge=a&challenge=b"),
        ("nylas", "default", &long),
    ] {
        let (status, _, body) = ask(source, instance, query).await;
        assert!(status == 405 && !body.contains("abc"), "{source} {instance} {query}: {status}");
    }
}
