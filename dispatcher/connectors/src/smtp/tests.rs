//! Tests against the lab's mail server, and against one by other authors.

mod aiosmtpd;
mod tls;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use usher_engine::Cause;
use usher_lab::{Fault, Filter, Lab, LabHandle};
use usher_proto::{Event, EventId, Instance, Key, Reason, Source, SubjectId};
use usher_service::clock;

use super::*;
use crate::assert_outcome;

const KEY: &str = "usher/email/welcome/msg_1/0";

struct Scene {
    lab: LabHandle,
    smtp: Smtp,
    _stop: DropGuard,
}

async fn scene() -> Scene {
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let lab = Lab::start(listener, stop.clone()).expect("a lab");
    let smtp = connector(&lab.smtp_url());
    Scene { lab, smtp, _stop: stop.drop_guard() }
}

fn connector(url: &str) -> Smtp {
    usher_service::telemetry::install_tls();
    let environment = Environment::from_vars([("SMTP_URL", url), ("USHER_FROM", "Acme <hello@acme.test>")]);
    Smtp::from_environment(&environment).expect("settings")
}

fn prepared(smtp: &Smtp, params: &Value) -> Result<Vec<u8>, PrepareError> {
    let event = Event {
        id: EventId::new("msg_1"),
        kind: "user.created".into(),
        source: Source::Clerk,
        subject: SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1")),
        occurred_at: clock::now(),
        received_at: clock::now(),
        provenance: Vec::new(),
        body: Bytes::from_static(b"{}"),
    };
    let params = params.as_object().expect("a table");
    smtp.prepare(&StepInput { operation: "send", params, event: &event, known: None, rerun: 0 })
}

fn welcome(to: Value) -> Value {
    json!({ "to": to, "subject": "Grüße, 世界", "text": "Hello — 世界\n.dot\n", "html": "<p>Hello — 世界</p>" })
}

impl Scene {
    async fn send(&self, params: Value) -> Outcome {
        self.smtp.attempt(&prepared(&self.smtp, &params).expect("a mail"), KEY, &CallGate::open()).await
    }

    fn fault(&self, fault: Fault) {
        self.lab.lab().set_fault("smtp", fault).expect("a fault");
    }

    fn mails(&self) -> Vec<Value> {
        let effects = self.lab.lab().effects(&Filter::default()).expect("effects");
        effects.iter().map(|effect| (*effect.body).clone()).collect()
    }
}

#[tokio::test]
async fn a_mail_is_sent_to_everybody_with_an_id_made_of_its_key() {
    let scene = scene().await;
    let mut params = welcome(json!(["Zoë <zoe@b.test>", "lee@b.test"]));
    params["reply_to"] = json!("help@acme.test");
    // As long as signed links are: the link must arrive in one piece.
    let link = format!("<https://acme.test/unsubscribe/{}>", "Ab0-_".repeat(100));
    params["headers"] = json!({"X-Clerk-User-Id": "user_1", "List-Unsubscribe": link});
    let Outcome::Done(effect) = scene.send(params).await else { panic!("it is sent") };
    assert_eq!(effect.id, "usher/email/welcome/msg_1/0@acme.test");
    let mail = &scene.mails()[0];
    assert_eq!((&mail["from"], &mail["to"]), (&json!("hello@acme.test"), &json!(["zoe@b.test", "lee@b.test"])));
    let headers = &mail["headers"];
    assert_eq!(headers["message-id"], "<usher/email/welcome/msg_1/0@acme.test>");
    assert_eq!((&headers["reply-to"], &headers["x-clerk-user-id"]), (&json!("help@acme.test"), &json!("user_1")));
    assert_eq!(headers["list-unsubscribe"], link);
    assert!(
        headers["content-type"].as_str().is_some_and(|kind| kind.starts_with("multipart/alternative")),
        "{headers}"
    );
    assert!(mail["message"].as_str().is_some_and(str::is_ascii), "what is sent needs no 8BITMIME");
}

#[tokio::test]
async fn hidden_recipients_get_the_mail_and_stand_in_no_header() {
    let scene = scene().await;
    let mut params = welcome(json!("zoe@b.test"));
    params["cc"] = json!(["Lee <lee@b.test>"]);
    params["bcc"] = json!("kim@b.test");
    assert!(matches!(scene.send(params).await, Outcome::Done(_)));
    let mail = &scene.mails()[0];
    assert_eq!(mail["to"], json!(["zoe@b.test", "lee@b.test", "kim@b.test"]));
    assert_eq!((&mail["headers"]["cc"], mail["headers"].get("bcc")), (&json!("Lee <lee@b.test>"), None));
    assert!(!mail["message"].as_str().expect("a message").contains("kim@b.test"));
}

#[tokio::test]
async fn the_same_request_is_sent_byte_for_byte() {
    let scene = scene().await;
    let request = prepared(&scene.smtp, &welcome(json!("a@b.test"))).expect("a mail");
    for _ in 0..2 {
        assert!(matches!(scene.smtp.attempt(&request, KEY, &CallGate::open()).await, Outcome::Done(_)));
    }
    let mails = scene.mails();
    assert_eq!(mails[0], mails[1]);
    assert_eq!(scene.smtp.idempotency(), Idempotency::None);
}

#[tokio::test]
async fn until_the_dot_nothing_has_happened_and_after_it_nobody_knows() {
    let scene = scene().await;
    let during = |text: &str| Fault { containing: Some(text.into()), drop_after_effect: true, ..Fault::default() };
    for command in ["EHLO", "MAIL FROM", "RCPT TO", "DATA"] {
        scene.fault(during(command));
        let outcome = scene.send(welcome(json!("a@b.test"))).await;
        assert_outcome(&outcome, Ok(Cause::Unreachable), command);
    }
    assert!(Cause::Unreachable.nothing_happened() && scene.mails().is_empty());
    scene.fault(Fault { drop_after_effect: true, ..Fault::default() });
    let outcome = scene.send(welcome(json!("a@b.test"))).await;
    assert_outcome(&outcome, Ok(Cause::Interrupted), "after the dot");
    assert!(!Cause::Interrupted.nothing_happened());
    assert_eq!(scene.mails().len(), 1, "it is on its way all the same");
}

#[tokio::test]
async fn a_server_that_hangs_before_the_dot_is_left_before_the_step_is_given_up() {
    let mut scene = scene().await;
    assert!(scene.smtp.server.dot_deadline < super::super::ATTEMPT_DEADLINE);
    scene.smtp.server.dot_deadline = std::time::Duration::from_millis(300);
    scene.fault(Fault { hang: true, containing: Some("RCPT TO".into()), ..Fault::default() });
    assert_outcome(&scene.send(welcome(json!("a@b.test"))).await, Ok(Cause::Unreachable), "it hangs");
    assert!(scene.mails().is_empty());
}

#[tokio::test]
async fn refusals_mean_what_they_are_about() {
    let scene = scene().await;
    for (status, text, at, expected) in [
        (550, "5.1.1 no such user", Some("RCPT TO"), Err(Reason::NotFound)),
        (450, "4.2.1 busy", Some("RCPT TO"), Ok(Cause::Deferred)),
        (553, "5.1.8 not yours", Some("MAIL FROM"), Err(Reason::Configuration)),
        (421, "4.3.2 closing", Some("EHLO"), Ok(Cause::Throttled)),
        (452, "4.3.1 full", None, Ok(Cause::Deferred)),
        (554, "5.7.1 spam", None, Err(Reason::InvalidRequest)),
    ] {
        let name = Some(text.to_owned());
        let containing = at.map(Into::into);
        scene.fault(Fault { status: Some(status), name, containing, ..Fault::default() });
        let outcome = scene.send(welcome(json!("a@b.test"))).await;
        assert_outcome(&outcome, expected, &format!("{status} at {at:?}"));
    }
    assert!(scene.mails().is_empty());
}

#[tokio::test]
async fn nobody_there_and_no_way_in_are_told_apart() {
    let nobody = connector("smtp://127.0.0.1:1");
    let mail = prepared(&nobody, &welcome(json!("a@b.test"))).expect("a mail");
    assert_outcome(&nobody.attempt(&mail, KEY, &CallGate::open()).await, Ok(Cause::Unreachable), "nobody there");
    let scene = scene().await;
    let address = scene.lab.smtp_url().replace("smtp://", "");
    // The lab's server offers neither TLS nor a login.
    for url in [format!("smtp://me:secret@{address}"), format!("smtp://{address}?tls=required")] {
        let outcome = connector(&url).attempt(&mail, KEY, &CallGate::open()).await;
        assert_outcome(&outcome, Err(Reason::Configuration), &url);
    }
    let opportunistic = connector(&format!("smtp://{address}?tls=opportunistic"));
    assert!(matches!(opportunistic.attempt(&mail, KEY, &CallGate::open()).await, Outcome::Done(_)));
}

#[test]
fn what_cannot_be_a_mail_is_no_mail() {
    let smtp = connector("smtp://mail.test");
    let with = |name: &str, value: Value| {
        let mut params = welcome(json!("a@b.test"));
        params[name] = value;
        prepared(&smtp, &params)
    };
    assert!(with("subject", json!("x")).is_ok());
    for (name, value) in [
        ("to", json!("nobody")),
        ("to", json!([])),
        ("to", json!("a@b.test\r\nBcc: c@d.test")),
        ("from", json!("Acme")),
        ("headers", json!({"Subject": "another"})),
        ("headers", json!({"bcc": "c@d.test"})),
        ("headers", json!({"X\r\nBcc": "c@d.test"})),
    ] {
        let error = with(name, value.clone()).expect_err(&value.to_string());
        assert!(!error.0.contains("c@d.test") || name == "headers", "{error}");
    }
    let params = json!({"to": "a@b.test", "subject": "x"});
    assert!(prepared(&smtp, &params).is_err(), "it has neither html nor text");
    let request = with("subject", json!("x\r\nBcc: c@d.test")).expect("a mail");
    let mail: Mail = serde_json::from_slice(&request).expect("a mail");
    assert!(!mail.message.to_ascii_lowercase().contains("\nbcc:"), "{}", mail.message);
}

#[test]
fn a_key_that_cannot_stand_in_an_id_is_digested() {
    let mail = Mail { from: "a@acme.test".into(), to: Vec::new(), message: String::new() };
    assert_eq!(mail.message_id("usher/f/s/msg_1/2.0"), "usher/f/s/msg_1/2.0@acme.test");
    for key in ["usher/f/two words/m/0", "usher/f/s/<m>/0", "a..b", ""] {
        let id = mail.message_id(key);
        assert!(id.starts_with("usher/") && id.len() == 6 + 64 + 10 && !id.contains(' '), "{key}: {id}");
    }
    let mail = Mail { from: "a@bücher.test".into(), ..mail };
    assert_eq!(mail.message_id("k"), "k@usher.invalid");
}
