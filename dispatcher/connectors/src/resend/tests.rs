//! Tests of the requests to Resend and of the classification of its answers.

use serde_json::{Value, json};
use usher_engine::Cause;

use super::*;
use crate::testing::{answer, prepare};

#[test]
fn a_mail_bears_the_headers_it_is_given() {
    let resend = resend();
    let headers = json!({ "List-Unsubscribe": "<https://acme.test/out>" });
    let mail = json!({ "to": "a@b.test", "subject": "Hi", "text": "x", "headers": headers });
    let made = prepare(&resend, "send", &mail, &Value::Null).expect("a request");
    assert_eq!(serde_json::from_slice::<Value>(&made).expect("JSON")["headers"], headers);
}

#[test]
fn a_success_that_cannot_be_read_is_not_done() {
    assert_eq!(classify(&answer(200, "<html>")), Outcome::retry(Cause::Interrupted));
    assert!(matches!(classify(&answer(200, r#"{"id":"m1"}"#)), Outcome::Done(effect) if effect.id == "m1"));
}

fn resend() -> Resend {
    usher_service::telemetry::install_tls();
    let settings = [("RESEND_API_KEY", "re_1"), ("USHER_FROM", "h@acme.test")];
    Resend::from_environment(&Environment::from_vars(settings)).expect("good settings")
}

#[test]
fn a_hosted_template_stands_in_place_of_the_mails_own_content() {
    let mail = |more: Value| {
        let mut mail = json!({ "to": "a@b.test", "subject": "Hi", "cc": ["c@b.test"], "bcc": "d@b.test" });
        mail.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
        prepare(&resend(), SEND, &mail, &Value::Null)
            .map(|made| serde_json::from_slice::<Value>(&made).expect("JSON"))
            .map_err(|error| error.0)
    };
    let made = mail(json!({ "hosted_template": "t1", "variables": r#"{"plan":"pro","seats":3}"# })).expect("a mail");
    assert_eq!(made["template"], json!({ "id": "t1", "variables": { "plan": "pro", "seats": 3 } }));
    assert_eq!((&made["cc"], &made["bcc"], made.get("html")), (&json!("c@b.test"), &json!("d@b.test"), None));
    assert_eq!(mail(json!({ "hosted_template": "t1" })).expect("a mail")["template"], json!({ "id": "t1" }));
    let later = mail(json!({ "text": "x", "scheduled_at": "2026-01-31T10:00:00+01:00" })).expect("a mail");
    assert_eq!(later["scheduled_at"], "2026-01-31T09:00:00.000Z");
    for (more, why) in [
        (json!({ "hosted_template": "t1", "text": "x" }), "the mail has html or text, and hosted_template"),
        (json!({ "text": "x", "variables": "{}" }), "variables are those of a hosted_template"),
        (
            json!({ "hosted_template": "t1", "variables": r#"{"a":[1]}"# }),
            "variables: a is neither a text nor a number",
        ),
        (json!({ "text": "x", "scheduled_at": "in 1 min" }), "scheduled_at is no time such as"),
        (json!({}), "the mail has neither html nor text"),
    ] {
        let error = mail(more.clone()).expect_err(why);
        assert!(error.starts_with(why), "{more}: {error}");
    }
}

/// A lab, and a connector whose files are in a folder of their own.
async fn with_files() -> (usher_lab::LabHandle, tokio_util::sync::DropGuard, tempfile::TempDir, Resend) {
    usher_service::telemetry::install_tls();
    let stop = tokio_util::sync::CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let lab = usher_lab::Lab::start(listener, stop.clone()).expect("a lab");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    std::fs::write(folder.path().join("secret.txt"), "no file of mails").expect("a file");
    std::fs::write(folder.path().join("files/terms.pdf"), [0, 159, 146, 150]).expect("a file");
    std::os::unix::fs::symlink("../secret.txt", folder.path().join("files/link.txt")).expect("a link");
    let environment = Environment::from_vars([("RESEND_API_KEY", "re_1"), ("USHER_FROM", "h@acme.test")])
        .with("RESEND_BASE_URL", lab.base_url("resend").expect("it has one"))
        .with("USHER_ATTACHMENTS", folder.path().join("files").display().to_string());
    let resend = Resend::from_environment(&environment).expect("good settings");
    (lab, stop.drop_guard(), folder, resend)
}

fn carrying(resend: &Resend, files: &Value) -> Result<Vec<u8>, String> {
    let mail = json!({ "to": "a@b.test", "subject": "Hi", "text": "x", "attachments": files });
    prepare(resend, SEND, &mail, &Value::Null).map_err(|error| error.0)
}

#[tokio::test]
async fn a_file_is_sent_whole_and_stored_by_its_digest() {
    let (lab, _stop, folder, resend) = with_files().await;
    let request = carrying(&resend, &json!(["terms.pdf"])).expect("a request");
    let stored = String::from_utf8(request.clone()).expect("JSON");
    assert!(stored.contains("sha256") && !stored.contains("content"), "{stored}");
    for _ in 0..2 {
        let outcome = resend.attempt(&request, "k1", &CallGate::open()).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }
    let effects = lab.lab().effects(&usher_lab::Filter::default()).expect("effects");
    assert_eq!(effects.iter().map(|effect| effect.replayed).collect::<Vec<_>>(), [false, true], "the same bytes");
    assert_eq!(effects[0].body["attachments"], json!([{ "filename": "terms.pdf", "content": "AJ+Slg==" }]));

    std::fs::write(folder.path().join("files/terms.pdf"), "another edition").expect("a file");
    let rejected = |outcome: Outcome, words: &str| match outcome {
        Outcome::Reject { reason: usher_proto::Reason::Configuration, error, .. } => {
            assert!(error.contains(words) && !error.contains("terms"), "{error}");
        }
        other => panic!("{other:?}"),
    };
    rejected(resend.attempt(&request, "k2", &CallGate::open()).await, "attachments: file 1 has changed");
    std::fs::remove_file(folder.path().join("files/terms.pdf")).expect("it is removed");
    rejected(resend.attempt(&request, "k2", &CallGate::open()).await, "attachments: file 1 is not in the folder");
    assert_eq!(lab.lab().effects(&usher_lab::Filter::default()).expect("effects").len(), 2, "nothing more was sent");
}

#[tokio::test]
async fn no_name_leads_out_of_the_folder_and_no_mail_grows_too_large() {
    let (_lab, _stop, folder, resend) = with_files().await;
    for name in
        ["../secret.txt", "/etc/passwd", "a/b", "..", ".", ".hidden", "link.txt", "a\\b", "c:x", "x\0", "gone.pdf"]
    {
        let error = carrying(&resend, &json!(["terms.pdf", name])).expect_err(name);
        assert!(error.starts_with("attachments: file 2 is ") && !error.contains("secret"), "{name}: {error}");
    }
    assert!(carrying(&resend, &json!("terms.pdf")).is_ok(), "one name may stand alone");
    let large = std::fs::File::create(folder.path().join("files/large.bin")).expect("a file");
    large.set_len(29 * 1024 * 1024).expect("it grows");
    let error = carrying(&resend, &json!(["terms.pdf", "large.bin"])).expect_err("too large");
    assert_eq!(error, "attachments: the files have more than 29 MB together");
}

#[tokio::test]
async fn the_start_checks_the_files_that_stand_in_the_flow() {
    let (_lab, _stop, _folder, resend) = with_files().await;
    let check = async |resend: &Resend, files: Value| {
        let params = json!({ "attachments": files });
        let params = params.as_object().expect("a table");
        let step = StepUse { flow: "welcome", step: "mail", operation: "send", params };
        resend.check(&[step]).await.map_err(|error| error.to_string())
    };
    assert_eq!(check(&resend, json!(["terms.pdf", "{{ user.id }}.pdf"])).await, Ok(()));
    let error = check(&resend, json!(["term.pdf"])).await.expect_err("it is not there");
    assert!(error.contains("flow welcome, step mail, attachments: \"term.pdf\" is not in the folder"), "{error}");
    let error = check(&self::resend(), json!("terms.pdf")).await.expect_err("no folder");
    assert!(error.contains("USHER_ATTACHMENTS is not set"), "{error}");
    for folder in ["/nowhere/at/all", "/dev/null"] {
        let environment = Environment::from_vars([("RESEND_API_KEY", "re_1"), ("USHER_ATTACHMENTS", folder)]);
        let error = Resend::from_environment(&environment).err().expect(folder).to_string();
        assert!(error.starts_with("USHER_ATTACHMENTS: "), "{error}");
    }
}
