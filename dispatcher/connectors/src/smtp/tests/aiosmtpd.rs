//! A real mail server: `aiosmtpd`, which receives the mail and stores it in a maildir, where Python's own parser reads
//! it. `USHER_TEST_SMTP` names a Python interpreter that has it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use usher_needs::needs;

use super::*;
use crate::CallGate;

/// Size of the largest message that the server accepts, in bytes.
const MOST_BYTES: &str = "65536";

/// Python program that prints the mails of a maildir as JSON, decoded.
const READ: &str = r#"
import json, pathlib, sys
from email import message_from_bytes, policy
mails = [message_from_bytes(path.read_bytes(), policy=policy.default) for path in pathlib.Path(sys.argv[1]).glob("new/*")]
parts = lambda mail: {part.get_content_type(): part.get_content() for part in mail.walk() if not part.is_multipart()}
print(json.dumps([{"headers": {name.lower(): str(value) for name, value in mail.items()}, "type": mail.get_content_type(),
                   "defects": [str(defect) for part in mail.walk() for defect in part.defects],
                   "parts": parts(mail)} for mail in mails]))
"#;

async fn start(python: &str, folder: &Path) -> (Child, String) {
    // Another program is unlikely to take the port before the server binds it.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    drop(listener);
    let child = Command::new(python)
        .args(["-m", "aiosmtpd", "-n", "-s", MOST_BYTES, "-l", &address, "-c", "aiosmtpd.handlers.Mailbox"])
        .arg(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("aiosmtpd starts");
    let up = async {
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), up).await.expect("aiosmtpd listens");
    (child, address)
}

pub(super) async fn read(python: &str, folder: &Path) -> Value {
    let output = Command::new(python).args(["-c", READ]).arg(folder).output().await.expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[needs(aiosmtpd)]
#[tokio::test]
async fn a_real_server_takes_the_mail_and_a_real_reader_reads_it() {
    let python = crate::tests::real("USHER_TEST_SMTP");
    let folder = tempfile::tempdir().expect("a folder");
    let maildir = folder.path().join("mail");
    let (_server, address) = start(&python, &maildir).await;
    let smtp = connector(&format!("smtp://{address}/usher.test"));
    let mut params = welcome(json!(["Zoë Ångström <zoe@b.test>", "lee@b.test"]));
    params["reply_to"] = json!("Help <help@acme.test>");
    params["headers"] =
        json!({"X-Note": "ünïcödé that is long enough to be folded over several lines of the header, twice"});
    let request = prepared(&smtp, &params).expect("a mail");
    let outcome = smtp.attempt(&request, KEY, &CallGate::open()).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");

    let mails = read(&python, &maildir).await;
    assert_eq!(mails.as_array().map(Vec::len), Some(1));
    let mail = &mails[0];
    let headers = &mails[0]["headers"];
    assert_eq!(mail["defects"], json!([]));
    assert_eq!(headers["subject"], "Grüße, 世界");
    assert_eq!(headers["from"], "Acme <hello@acme.test>");
    assert_eq!(headers["to"], "Zoë Ångström <zoe@b.test>, lee@b.test");
    assert_eq!(headers["reply-to"], "Help <help@acme.test>");
    assert_eq!(headers["x-note"], params["headers"]["X-Note"]);
    assert_eq!(headers["message-id"], "<usher/email/welcome/msg_1/0@acme.test>");
    assert!(headers["date"].as_str().is_some_and(|date| date.ends_with("+0000")), "{headers}");
    assert_eq!(mail["type"], "multipart/alternative");
    let part = |kind: &str| mail["parts"][kind].as_str().unwrap_or_default().trim_end().replace("\r\n", "\n");
    assert_eq!(part("text/plain"), "Hello — 世界\n.dot");
    assert_eq!(part("text/html"), "<p>Hello — 世界</p>");
}

#[needs(aiosmtpd)]
#[tokio::test]
async fn a_real_server_refuses_and_is_understood() {
    let python = crate::tests::real("USHER_TEST_SMTP");
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, address) = start(&python, &folder.path().join("mail")).await;
    let plain = connector(&format!("smtp://{address}"));
    let mail = prepared(&plain, &welcome(json!("a@b.test"))).expect("a mail");
    let outcome = connector(&format!("smtp://{address}?tls=required")).attempt(&mail, KEY, &CallGate::open()).await;
    assert_outcome(&outcome, Err(Reason::Configuration), "it offers no TLS");
    // The server refuses it after the end of the message.
    let large = json!({"to": "a@b.test", "subject": "large", "text": format!("{}\n", "x".repeat(70)).repeat(2_000)});
    let outcome = plain.attempt(&prepared(&plain, &large).expect("a mail"), KEY, &CallGate::open()).await;
    assert_outcome(&outcome, Err(Reason::InvalidRequest), "it is too large");
}
